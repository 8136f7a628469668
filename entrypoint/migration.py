"""The native configuration by Kubernetes' parts, and as YAML with comments for people. It holds no secret."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Migration:
    """What the native configuration consists of."""

    settings: dict[str, str] = field(default_factory=dict)
    """The environment, for a ConfigMap."""
    origins: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name of the Secret, by key: in words, what goes in."""
    mounts: dict[str, str] = field(default_factory=dict)
    """The directory of each Secret or ConfigMap that is mounted."""
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    """Further ConfigMaps, as the Secrets."""
    differences: list[str] = field(default_factory=list)
    container: str = "pgpool"
    """The name of the container in the workload."""


def as_text(migration: Migration) -> str:
    """The configuration as YAML documents, with comments for people."""
    return "---\n".join("\n".join([*lines, ""]) for lines in _documents(migration))


def _documents(migration: Migration) -> Iterator[list[str]]:
    settings = [
        f"  {name}: {_quoted(value)} # {_one_line(migration.origins[name])}"
        for name, value in sorted(migration.settings.items())
    ]
    head = ["apiVersion: v1", "kind: ConfigMap", "metadata:", "  name: pgpool-settings"]
    yield ["# Settings; what is not here is a default of this image (docs/settings.md).", *head, "data:", *settings]
    yield list(_layout(migration))
    yield list(_patch(migration))
    yield [
        "# How pgpool will behave otherwise, and what to do; variables and paths are those of the environment given:",
        *(f"# - {_one_line(d)}" for d in migration.differences),
    ]


def _quoted(value: str) -> str:
    """A string of YAML, which holds no DEL as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")


def _layout(migration: Migration) -> Iterator[str]:
    yield "# Secrets to make: name, key, and what goes in (no newline at its end)."
    for kind, groups in (("Secret", migration.secrets), ("ConfigMap", migration.config_maps)):
        for name, keys in groups.items():
            yield f"# {kind} {name}, mounted at {migration.mounts[name]}:"
            yield from (f"#   {key}: {_one_line(words)}" for key, words in keys.items())


def _patch(migration: Migration) -> Iterator[str]:
    yield "# A patch for the Deployment (deploy/ has a whole one, with the sidecar that rotates passwords)."
    yield from ("spec:", "  template:", "    spec:", "      containers:")
    yield f"        - name: {json.dumps(migration.container)}"
    yield "          image: pgpool-entrypoint"
    yield from (f"          {field}: null" for field in ("command", "args", "env", "lifecycle", "startupProbe"))
    yield from ("          envFrom:", "            - configMapRef:", "                name: pgpool-settings")
    for probe, seconds in (("live", 5), ("ready", 10)):
        yield f"          {'liveness' if probe == 'live' else 'readiness'}Probe:"
        yield from ("            httpGet: null", "            tcpSocket: null", "            exec:")
        yield f"              command: [pgpool-entrypoint, probe, {probe}]"
        yield f"            timeoutSeconds: {seconds}"
    mounts: Mapping[str, str] = {"run": migration.settings.get("PGPOOL_RUN_DIR", "/run/pgpool"), **migration.mounts}
    yield "          volumeMounts:"
    for name, directory in mounts.items():
        yield f"            - name: {name}"
        yield f"              mountPath: {directory}"
        if name != "run":
            yield "              readOnly: true"
    yield from ("      volumes:", "        - name: run", "          emptyDir:", "            medium: Memory")
    for name in migration.mounts:
        yield f"        - name: {name}"
        if name in migration.config_maps:
            yield from ("          configMap:", f"            name: {name}")
        else:
            yield from ("          secret:", f"            secretName: {name}")


def _one_line(text: str) -> str:
    return " ".join(text.split())

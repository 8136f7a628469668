"""The pod: what it may do, what it is given, and how it comes and goes."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.conftest import DEPLOY, VARIANTS, container, containers, one, pod_of, variant
from entrypoint import settings
from entrypoint.catalogue import load_catalogue
from entrypoint.model import MadeUp
from entrypoint.pipeline import Resolved, resolve
from entrypoint.probe import LIVE_SECONDS
from entrypoint.secret import Secret
from sidecar.options import load_options
from sidecar.web import Sources, pages
from support.certificates import Authority
from support.kustomize import Document

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
"""Those of the standard's list that are used here; https://kubernetes.io/docs/concepts/security/pod-security-standards/."""
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def unrestricted(pod: Document) -> Iterator[str]:
    """What the Pod Security Standard `restricted` forbids."""
    context = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    if context.get("runAsUser") == 0 or not context.get("runAsNonRoot"):
        yield "root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "seccomp"
    yield from (each["name"] for each in context.get("sysctls", ()) if each["name"] not in SAFE_SYSCTLS)
    yield from (each["name"] for each in pod["volumes"] if not VOLUMES.intersection(each))
    for each in containers(pod):
        own = each.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{each['name']}: privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            yield f"{each['name']}: capabilities"
        if own.get("runAsUser") == 0 or own.get("runAsNonRoot") is False or own.get("seccompProfile"):
            yield f"{each['name']}: undoes what the pod says"
        yield from (f"{each['name']}: host port" for port in each.get("ports", ()) if "hostPort" in port)


@pytest.mark.parametrize("name", VARIANTS)
def test_pod_security_is_restricted_and_the_root_file_system_is_read_only(name: str) -> None:
    pod = pod_of(name)
    assert list(unrestricted(pod)) == []
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in containers(pod))
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["automountServiceAccountToken"] is False
    assert one(name, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == one(name, "ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostIPC",), True),
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "seccompProfile"), {}),
        (("securityContext", "sysctls"), [{"name": "net.core.somaxconn", "value": "1024"}]),
        (("volumes", 0), {"name": "run", "hostPath": {"path": "/run"}}),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        (("initContainers", 0, "securityContext", "runAsUser"), 0),
        (("initContainers", 0, "ports"), [{"containerPort": 9719, "hostPort": 9719}]),
    ],
)
def test_what_restricted_forbids_is_found(path: tuple[str | int, ...], value: object) -> None:
    pod = copy.deepcopy(pod_of("base"))
    place: Any = pod
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(list(unrestricted(pod))) == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_both_containers_have_one_image_the_same_mounts_and_settings(name: str) -> None:
    pgpool, sidecar = (container(pod_of(name), each) for each in ("pgpool", "sidecar"))
    assert pgpool["image"] == sidecar["image"] == "pgpool-entrypoint"
    assert pgpool["volumeMounts"] == sidecar["volumeMounts"]
    assert pgpool["envFrom"] == sidecar["envFrom"]
    assert "command" not in pgpool
    assert sidecar["command"] == ["pgpool-sidecar"]
    assert not [mount for mount in pgpool["volumeMounts"] if "subPath" in mount], "it would never follow its Secret"


@pytest.mark.parametrize("name", VARIANTS)
def test_one_place_can_be_written_to_and_it_is_in_memory(name: str) -> None:
    pod = pod_of(name)
    (run,) = (mount for mount in container(pod, "pgpool")["volumeMounts"] if not mount.get("readOnly"))
    assert run["mountPath"] == settings.RUN_DIR.default
    (volume,) = (each for each in pod["volumes"] if each["name"] == run["name"])
    assert volume["emptyDir"]["medium"] == "Memory"


def environment(name: str, container_name: str) -> dict[str, str]:
    """What a container's environment says."""
    found = container(pod_of(name), container_name)
    (source,) = found["envFrom"]
    data: dict[str, str] = one(name, "ConfigMap", source["configMapRef"]["name"])["data"]
    return data | {each["name"]: each["value"] for each in found.get("env", ())}


SECRETS = {
    "pgpool-secrets": {"sr_check_password": b"check pass 100%\n", "n8n_password": b"n8n pass 50 %"},
    "pgpool-key": {"aes.key": b"an AES key\n"},
    "pgpool-tls": Authority().issue("pgpool.db.svc").files(),
}


def boot(name: str, root: Path) -> Resolved:
    """Resolve the configuration of a pgpool container, its volumes laid out below `root`."""
    pod = pod_of(name)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container(pod, "pgpool")["volumeMounts"]}
    for path, volume in mounts.items():
        directory = root / path.lstrip("/")
        directory.mkdir(parents=True)
        sources = [(each["secret"]["name"], each["secret"]) for each in volume.get("projected", {}).get("sources", ())]
        if "secret" in volume:
            sources.append((volume["secret"]["secretName"], volume["secret"]))
        for secret, source in sources:
            for item in source["items"]:
                (directory / item["path"]).write_bytes(SECRETS[secret][item["key"]])
    env = environment(name, "pgpool")
    env.setdefault("PGPOOL_RUN_DIR", str(settings.RUN_DIR.default))
    paths = {variable: f"{root}{value}" for variable, value in env.items() if value.startswith(tuple(mounts))}
    made_up = MadeUp(Secret("made up"), Secret("made up, too"))
    return resolve({**env, **paths}, load_catalogue("4.6"), made_up=made_up, now=datetime.now(UTC))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_entrypoint_takes_the_settings_and_the_mounts_as_they_are(name: str, tmp_path: Path) -> None:
    resolved = boot(name, tmp_path)
    assert [str(warning) for warning in resolved.model.warnings] == []
    assert {credential.role for credential in resolved.model.credentials} == {"sr_check", "n8n"}
    assert [backend.host for backend in resolved.settings.backends] == ["10.100.2.5", "10.100.2.6", "10.100.2.7"]
    assert resolved.settings.patroni.enabled
    assert resolved.model.key is not None
    assert bool(resolved.model.tls) == ("Certificate" in {each["kind"] for each in variant(name)})


@pytest.mark.parametrize("name", VARIANTS)
def test_the_sidecar_takes_its_settings_and_listens_where_probes_and_prometheus_ask(name: str) -> None:
    options = load_options(environment(name, "sidecar"))
    assert options.http == ("", 9719)
    assert options.run_dir == Path(str(settings.RUN_DIR.default))


@pytest.mark.parametrize("name", VARIANTS)
def test_probes_ask_the_sidecar_for_pages_that_it_has_but_whether_pgpool_lives(name: str) -> None:
    asked = {
        each["name"]: {kind: each[kind]["httpGet"] for kind in PROBES if "httpGet" in each.get(kind, {})}
        for each in containers(pod_of(name))
    }
    pgpool = container(pod_of(name), "pgpool")
    for kind in ("startupProbe", "livenessProbe"):
        assert pgpool[kind]["exec"] == {"command": ["pgpool-entrypoint", "probe", "live"]}, "it outlives a sidecar"
        assert pgpool[kind]["timeoutSeconds"] > LIVE_SECONDS
    assert {kind: get["path"] for kind, get in asked["pgpool"].items()} == {"readinessProbe": "/pgpool/readyz"}
    assert {kind: get["path"] for kind, get in asked["sidecar"].items()} == {
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }, "a startup probe on the sidecar would be waited for before pgpool starts"
    assert {get["port"] for get in asked["pgpool"].values()} == {9719}, "a name would be looked for in this container"
    known = pages(Sources(**dict.fromkeys(Sources.__annotations__)))  # type: ignore[arg-type]  # nothing is asked
    assert {get["path"] for probes in asked.values() for get in probes.values()} <= known.keys()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_pod_that_goes_is_forgotten_by_the_service_before_it_ends_and_is_not_killed(name: str) -> None:
    pod = pod_of(name)
    program, pause = container(pod, "pgpool")["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert 10 <= int(pause) <= pod["terminationGracePeriodSeconds"] - 10


def test_former_pods_go_when_all_new_ones_serve() -> None:
    spec = one("base", "Deployment")["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": "100%", "maxUnavailable": 0}
    pause = int(container(pod_of("base"), "pgpool")["lifecycle"]["preStop"]["exec"]["command"][1])
    readiness = [each["readinessProbe"]["periodSeconds"] for each in containers(pod_of("base"))]
    assert max(readiness) < pause, "the last former pod is to be out of the Service before the first one ends"


def test_twice_the_pods_stay_below_the_connections_that_patroni_is_told_to_allow(tmp_path: Path) -> None:
    patroni = yaml.safe_load((DEPLOY / "patroni/dynamic.yaml").read_text())
    replicas = one("base", "Deployment")["spec"]["replicas"]
    needed = 2 * replicas * (boot("base", tmp_path).model.connections_per_backend + 1)
    assert needed < patroni["postgresql"]["parameters"]["max_connections"] * 0.9


def test_memory_is_limited_and_the_processor_is_not() -> None:
    for each in containers(pod_of("base")):
        assert each["resources"]["limits"].keys() == {"memory"}, "a throttled pgpool is a slow failover"
        assert each["resources"]["requests"].keys() == {"cpu", "memory"}

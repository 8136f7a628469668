"""The commands of docs/migration.md, typed; and whoever does what they print has a configuration that boots."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import docker, foreign, kubectl
from support.documents import PROJECT, block
from support.foreign import Foreign
from support.kubectl_objects import Document
from support.pgpool_process import entrypoint_command, run_entrypoint
from support.shell import type_in

DOCUMENT, SECTION = "docs/migration.md", "From another image"
PIPELINES = block(DOCUMENT, SECTION, "sh").splitlines()
CASES = [name for name in foreign.ALL if "configmap" not in name]
"""Of those, pgpool.conf itself is a file in the container; the last test has such a file."""
PAIR = foreign.pair_in_words()


def deployment(environment: dict[str, str]) -> Iterator[Document]:
    """Somebody else's, with its passwords in a Secret; that of a chart has them as files."""
    variables = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "theirs", "key": name}}}
        if name.endswith("_PASSWORD")
        else {"name": name, "value": value}
        for name, value in environment.items()
    ]
    containers = [{"name": "pgpool", "image": "another/image", "env": variables}]
    labels = {"app": "pgpool"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "pgpool"}, "spec": spec}


def typed(command: str, case: Foreign, directory: Path) -> str:
    """What it prints, with stand-ins for docker and kubectl, and `pgpool-entrypoint` on PATH."""
    environment = case.placed(directory)
    kubectl.put_program(directory, "pgpool-entrypoint", entrypoint_command())
    inside = {"PATH": "/usr/bin:/bin", "HOSTNAME": "pgpool-0", **environment}
    variables = docker.install(directory, "pgpool", environment, entrypoint_command())
    variables |= kubectl.install(directory, objects=deployment(environment), environments={"pgpool": inside})
    return type_in(command, cwd=directory, environment={**variables, "PYTHONPATH": str(PROJECT)})


def done(text: str, case: Foreign, directory: Path) -> dict[str, str]:
    """The environment of somebody who has made the ConfigMap and the Secrets that it tells of, and mounted them."""
    config_map, _, patch, _ = yaml.safe_load_all(text)
    env: dict[str, str] = config_map["data"]
    pod: dict[str, Any] = patch["spec"]["template"]["spec"]
    mounted = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    for number, (kind, name, place, keys) in enumerate(
        re.findall(r"^# (Secret|ConfigMap) (\S+), mounted at (\S+):\n((?:#   .*\n)*)", text, re.MULTILINE)
    ):
        assert kind == "Secret", name
        here = directory / "mounted" / str(number)
        if place.startswith("/etc/pgpool/users"):
            here = directory / "mounted" / Path(place).relative_to("/etc/pgpool")
        here.mkdir(parents=True, exist_ok=True)
        assert place in mounted
        for key, words in re.findall(r"^#   (\S+): (.*)$", keys, re.MULTILINE):
            (here / key).write_text(meant(words, case, directory))
        env = {variable: value.replace(place, str(here)) for variable, value in env.items()}
    return {**env, "PGPOOL_USERS_DIR": str(directory / "mounted/users"), "PGPOOL_RUN_DIR": str(directory / "run")}


def meant(words: str, case: Foreign, directory: Path) -> str:
    """What stands in the Secret of which only words are printed."""
    if words in PAIR:
        return PAIR[words]
    if path := re.fullmatch(r"the content of (\S+)", words):
        return Path(path[1]).read_text()
    if name := re.match(r'the name "(.*)"$', words):
        return name[1]
    found = re.match(r"(?:part (\d+) of )?the value of (\w+)(?:: key (\w+) of the Secret theirs)?$", words)
    assert found, words
    part, variable, key = found.groups()
    assert key in (None, variable)
    value = case.environment[variable]
    return re.split("[,;]", value)[int(part) - 1] if part else value


@pytest.mark.parametrize("command", PIPELINES, ids=["docker inspect", "kubectl get", "kubectl exec"])
@pytest.mark.parametrize("name", CASES)
def test_what_migrate_prints_is_a_configuration_that_check_accepts(
    pgpool_bin: Path, tmp_path: Path, name: str, command: str
) -> None:
    case = foreign.ALL[name]
    text = typed(command, case, tmp_path)
    for password in case.roles.values():
        assert password not in text
    (tmp_path / "run").mkdir()
    said = run_entrypoint(["check"], done(text, case, tmp_path), pgpool_bin=pgpool_bin)
    assert said.returncode == 0, said.stderr
    assert "accepts it" in said.stdout
    for role in case.roles:
        assert f"role {role} " in said.stdout


def test_a_template_is_translated_by_the_command_as_it_stands(tmp_path: Path) -> None:
    """But for the directory, which is the test's."""
    (tmp_path / "pgpool.conf").write_text(
        "backend_hostname0 = '10.0.0.1'\nsr_check_user = 'checker'\nsr_check_password = '@@PASSWORD@@'\nmax_pool = 2\n"
    )
    command = block(DOCUMENT, "From a template that sed fills in", "sh")
    assert "/etc/pgpool2" in command
    text = typed(command.replace("/etc/pgpool2", shlex.quote(str(tmp_path))), foreign.MINIMAL, tmp_path)
    settings = next(yaml.safe_load_all(text))["data"]
    assert settings["PGPOOL_BACKENDS"] == "unnamed-0=10.0.0.1:5432"
    assert settings["PGPOOL_CHECK_USER"] == "checker"
    assert settings["PGPOOL_PARAMS_MAX_POOL"] == "2"

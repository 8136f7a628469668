"""Every command in the documents: run here where that is cheap, else checked, and listed with who runs it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy import kubectl
from entrypoint.catalogue import load_catalogue
from entrypoint.environment import load
from entrypoint.errors import ExitCode, Problems
from entrypoint.sources import Reader
from support.documents import PROJECT, Command, blocks, commands, documents, spans
from support.pgpool_process import run_entrypoint
from support.pod import sidecar_command

MAKEFILE = (PROJECT / "Makefile").read_text()
VERBS = set(re.findall(r"^#: (\S+)  ", MAKEFILE, re.MULTILINE))


def make(command: Command) -> None:
    """The verb has a rule, variables are those that `make` alone tells of, and ARGS are taken by what gets them."""
    verb, *variables = command.words[1:] or ["help"]
    assert verb in VERBS | {"help"}
    assert re.search(rf"^{verb}:", MAKEFILE, re.MULTILINE)
    for name, _, value in (each.partition("=") for each in variables):
        assert re.search(rf"^#: .*\b{name}=", MAKEFILE, re.MULTILINE), name
        if name == "ARGS" and verb in SCRIPTS:
            shown = run([sys.executable, "-W", "ignore", SCRIPTS[verb], "--help"])
            assert all(option in shown for option in re.findall(r"--[a-z-]+", value)), value


SCRIPTS = {"bench": "tests/bench/run.py", "bench-failover": "tests/bench/failover.py", "cluster": "tests/cluster.py"}


def settings(command: Command) -> None:
    """Variables of one block are a configuration that the entrypoint takes (they are checked together, each time)."""
    together = [each.words[0] for each in commands() if each.place == command.place and each.program == "="]
    problems = Problems()
    load(dict(each.split("=", 1) for each in together), load_catalogue("4.6"), Reader(), problems)
    problems.raise_if_any()


def ours(command: Command) -> None:
    """The command line is taken: run where nothing has booted and no settings are, it says so, and not 64."""
    program, *arguments = command.words
    if program == "pgpool-entrypoint":
        status = run_entrypoint(arguments, {}).returncode
    else:
        environment = {"PATH": "/usr/bin:/bin", "PGPOOL_RUN_DIR": "/nowhere", "PGPOOL_SIDECAR_HTTP": "wrong"}
        words = [*sidecar_command(), *arguments]
        status = subprocess.run(words, env=environment, cwd=PROJECT, capture_output=True, check=False).returncode
    assert status != ExitCode.USAGE


def in_kubernetes(command: Command) -> None:
    if command.document == "docs/migration.md":  # of somebody else's Deployment: tests/integration/test_migration.py
        assert command.words[1] in ("get", "exec")
        return
    verb = kubectl.check(command.words[1:], lambda inner: CHECKS[inner[0]](Command(command.place, tuple(inner))))
    assert f"kubectl {verb}" in COVERED


def psql(command: Command) -> None:
    """psql knows the options; what stands in a block is run by a test besides."""
    shown = run(["psql", "--help"])
    assert all(re.search(rf"{word}\b", shown) for word in command.words if word.startswith("-"))


def docker(command: Command) -> None:
    """The paths are the image's, the variables settings; flags are known to podman's manual, and to the test named."""
    assert f"docker {command.words[1]}" in COVERED
    if command.words[1] in ("build", "inspect", "stop"):
        return
    if command.words[1] == "compose":
        option, file, _ = command.words[2:]
        assert option == "-f"
        assert (PROJECT / file).is_file()
        return
    assert command.words[1] == "run"
    dockerfile = (PROJECT / "Dockerfile").read_text()
    for option, value in zip(command.words, command.words[1:], strict=False):
        if option == "--env":
            settings_of(value)
        elif option in ("--tmpfs", "--volume"):
            assert any(f"`{part}`" in SETTINGS for part in value.split(":")), value
        elif option == "--publish":
            assert f"EXPOSE {value.partition(':')[2]} " in dockerfile
    if "cat" in command.words:
        assert command.words[-1] in dockerfile
    else:
        assert any(f"IMAGE ?= {word}\n" in MAKEFILE for word in command.words)


SETTINGS = (PROJECT / "docs/settings.md").read_text()


def settings_of(assignment: str) -> None:
    assert f"`{assignment.partition('=')[0]}`" in SETTINGS


def script(command: Command) -> None:
    """A program of this tree: it can be executed, and its help tells of every option."""
    shown = run([PROJECT / command.words[0], "--help"])
    assert all(word in shown for word in command.words if word.startswith("--"))


def executable(command: Command) -> None:
    assert os.access(PROJECT / command.words[0], os.X_OK)


def really(command: Command) -> None:
    assert run(command.words)


def stand_in(command: Command) -> None:
    """Of which there is only this one, and the test named runs it."""
    assert command.document == "docs/operations.md"


def workflow(command: Command) -> None:
    """What only a registry can answer: the workflow that publishes runs it, on what it has just published."""
    text = (PROJECT / ".github/workflows/image.yml").read_text()
    (script,) = re.findall(r"- name: verify, as image/README.md.*?run: \|\n(.*?)\n      - ", text, re.DOTALL)
    there = {"OWNER/REPOSITORY": "$GITHUB_REPOSITORY", "IMAGE@sha256:…": "$IMAGE@$DIGEST"}
    words = [re.sub("|".join(there), lambda found: there[found[0]], word) for word in command.words]
    assert words in [shlex.split(line) for line in script.replace("\\\n", "").splitlines()]
    assert all((PROJECT / path).is_file() for word in words for path in re.findall(r"\.github/\S+?\.yml", word))


CHECKS: dict[str, Callable[[Command], None]] = {
    "=": settings,
    "make": make,
    "pgpool-entrypoint": ours,
    "pgpool-sidecar": ours,
    "kubectl": in_kubernetes,
    "psql": psql,
    "vault": stand_in,
    "docker": docker,
    "image/build-pgpool": script,
    "deploy/compose/make-secrets": executable,
    "openssl": really,
    "date": really,
    "printf": really,
    "cosign": workflow,
    "gh": workflow,
}

RUN_HERE = {"=", "pgpool-entrypoint", "pgpool-sidecar", "image/build-pgpool", "openssl", "date", "printf"}
"""Programs that the checks above do run, or that run nothing."""

INTEGRATION, IMAGE = "tests/integration/test_documents.py", "tests/image/test_container.py"
STAND_IN = "needs a cluster of Kubernetes: compared with the manifests here, run with a stand-in for kubectl there"
RECIPES = "tests/deploy/test_recipes.py"
MIGRATION = "tests/integration/test_migration.py::test_what_migrate_prints_is_a_configuration_that_check_accepts"
COVERED = {
    "make": ("takes minutes: make test runs most of them", "Makefile::test"),
    "psql": ("needs PostgreSQL", f"{INTEGRATION}::test_every_psql_command_does_what_is_said"),
    "docker run": ("needs the image", f"{IMAGE}::test_a_directory_in_memory_of_its_own_is_enough_without_a_sidecar"),
    "docker build": ("needs the network, and minutes: make image does it", "Makefile::image"),
    "docker stop": ("needs the image", f"{IMAGE}::test_both_containers_end_in_time_and_cleanly_while_a_client_stays"),
    "docker compose": ("needs the image: what the file describes is started", "tests/image/test_compose_example.py"),
    "docker inspect": ("run with a stand-in for docker", MIGRATION),
    "deploy/compose/make-secrets": ("writes into the tree: run in a copy", "tests/deploy/test_compose.py::example"),
    "vault": ("run with a stand-in for Vault's client", f"{RECIPES}::test_secrets_are_looked_at_at_once_and_again"),
    "cosign": ("needs a published image: run on each, before anybody gets it", ".github/workflows/image.yml"),
    "gh": ("the same", ".github/workflows/image.yml"),
    "kubectl exec": (STAND_IN, f"{INTEGRATION}::test_the_recipe_for_one_role"),
    "kubectl get": (STAND_IN, f"{INTEGRATION}::test_the_recipe_for_one_role"),
    "kubectl create": (STAND_IN, f"{INTEGRATION}::test_the_recipe_for_one_role"),
    "kubectl apply": (STAND_IN, f"{INTEGRATION}::test_the_recipe_for_one_role"),
    "kubectl logs": (STAND_IN, f"{INTEGRATION}::test_three_commands_answer_most_questions"),
    "kubectl label": (
        STAND_IN,
        f"{RECIPES}::test_the_installation_lets_the_application_in_and_gives_the_pods_their_files",
    ),
    "kubectl annotate": (STAND_IN, f"{RECIPES}::test_secrets_are_looked_at_at_once_and_again"),
    "kubectl describe": (STAND_IN, f"{RECIPES}::test_when_the_certificate_is_due_is_described"),
    "kubectl rollout": (STAND_IN, f"{RECIPES}::test_new_pods_come_and_read_the_certificate_anew"),
    "kubectl scale": (STAND_IN, f"{RECIPES}::test_the_way_back_leads_to_the_former_pooler_and_forward_again"),
    "kubectl patch": (STAND_IN, f"{RECIPES}::test_the_way_back_leads_to_the_former_pooler_and_forward_again"),
    "kubectl port-forward": (
        STAND_IN,
        f"{INTEGRATION}::test_the_page_that_is_forwarded_says_what_the_exporter_could_not_ask",
    ),
}
"""What is not run here: why, and what else looks at it."""

TYPED = {"make", "kubectl", "psql", "pgpool-entrypoint", "pgpool-sidecar", "docker", "deploy/compose/make-secrets"}
"""Programs whose commands within a line are checked as well."""


def run(words: Sequence[str | Path]) -> str:
    result = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def everything() -> list[Command]:
    return [*commands(), *(command for program in sorted(TYPED) for command in spans(program))]


@pytest.mark.parametrize("command", {each.words: each for each in everything()}.values(), ids=lambda each: each.place)
def test_every_command_is_one_that_works(command: Command) -> None:
    assert command.program in CHECKS, f"{command.place}: nobody knows how to check {command.program}"
    CHECKS[command.program](command)


def test_what_is_not_run_here_is_listed_with_who_does_and_nothing_else_is() -> None:
    met = {each.words[0] if each.program != "=" else "=" for each in everything()}
    assert {each.partition(" ")[0] for each in COVERED} | RUN_HERE == met == CHECKS.keys()
    assert not RUN_HERE & {each.partition(" ")[0] for each in COVERED}
    for _, test in COVERED.values():
        file, _, name = test.partition("::")
        text = (PROJECT / file).read_text()
        assert not name or re.search(rf"^(def )?{name}\b", text, re.MULTILINE), test


def test_every_fenced_block_says_what_it_is() -> None:
    """So that no command hides in one that is only to be read, and none goes unlooked at."""
    assert {each.language for each in blocks()} == {"sh", "sql", "text"}
    read_only = [line.split() for each in blocks() if each.language == "text" for line in each.text.splitlines()]
    assert [line for line in read_only if line and line[0] in CHECKS and line[1:2] != ["error:"]] == []


def test_commands_are_found_in_pipes_loops_and_substitutions() -> None:
    """The collector itself: what it must not overlook."""
    found = {each.words for each in commands() if each.document == "docs/operations.md"}
    assert ("date", "+%s") in found
    assert ("openssl", "rand", "-base64", "32") in found
    assert ("kubectl", "apply", "--filename", "-") in found
    assert any(words[-2:] == ("pgpool-sidecar", "--once") for words in found)
    assert len(commands()) > 50


def test_every_link_leads_somewhere() -> None:
    broken = []
    for document in documents():
        path = PROJECT / document
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            file, _, fragment = target.partition("#")
            there = (path.parent / file) if file else path
            if "://" not in target and not (there.exists() and (not fragment or fragment in anchors(there))):
                broken.append(f"{document}: {target}")
    assert broken == []


def anchors(path: Path) -> set[str]:
    """As GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("package", ["entrypoint", "sidecar"])
def test_every_module_has_its_row_in_the_architecture_and_every_row_its_module(package: str) -> None:
    heading = {"entrypoint": "| module |", "sidecar": "| module of `sidecar/` |"}[package]
    table = (PROJECT / "docs/architecture.md").read_text().partition(heading)[2].partition("\n\n")[0]
    told = {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    modules = {path.stem for path in (PROJECT / package).glob("*.py")} - {"__init__"}
    assert told == modules | {path.parent.name for path in (PROJECT / package).glob("*/__init__.py")}

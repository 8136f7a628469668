"""What the documents have people type with kubectl, typed: on the objects of deploy/, with a stand-in for kubectl."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.conftest import DEPLOY, containers, one
from deploy.kubectl import mounted_keys
from support import kubectl, vault
from support.documents import Command, block, commands, spans
from support.kubectl_objects import Document, Objects
from support.kustomize import build
from support.shell import type_in

RUNBOOK, INSTALL = "docs/operations.md", "deploy/README.md"
FORMER_IMAGE = "registry.example.org/pgpool-entrypoint:the-former"
POOLER: Document = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pgbouncer-0", "namespace": "db", "labels": {"app.kubernetes.io/name": "pgbouncer"}},
    "spec": {"containers": [{"name": "pgbouncer", "ports": [{"containerPort": 6432}]}]},
}
"""As "Back to the former pooler" has it."""


class Desk:
    """Where somebody sits who follows the documents: the tree, the Secrets' files, a shell and kubectl."""

    def __init__(self, directory: Path, objects: list[Document], logs: Mapping[str, Path] | None = None) -> None:
        self._directory = directory
        self._environment = kubectl.install(directory, objects=[*namespaces(), *objects], logs=logs)
        self._environment |= vault.install(directory, {"secret/db/pgpool": {"sr_check_password": "as % ever"}})
        (directory / "deploy").symlink_to(DEPLOY)
        for name in ("sr_check_password", "n8n_password"):
            (directory / name).write_text("a % password")

    def type(self, script: str, answers: str = "") -> str:
        return type_in(script, cwd=self._directory, environment=self._environment, answers=answers)

    def stand_in(self, program: str) -> None:
        """Have a program do nothing."""
        kubectl.put_program(self._directory, program, ["true"])

    def apply(self, document: Document) -> None:
        self.type("kubectl apply --filename -", answers=yaml.safe_dump(document))

    def find(self, kind: str, name: str) -> Document:
        found = self._objects.find(kind, name)
        if kind in ("deployment", "service"):
            kubernetes_validate.validate(found, "1.29", strict=True)
        return found

    def pods(self, app: str = "pgpool") -> list[Document]:
        return self._objects.pods({"app.kubernetes.io/name": app})

    def names(self) -> set[str]:
        return {each["metadata"]["name"] for each in self.pods()}

    def images(self) -> set[str]:
        return {each["image"] for pod in self.pods() for each in containers(pod["spec"])}

    def served_by(self) -> set[tuple[str, int]]:
        """Where a client gets who connects to port 9999 of the Service: the application, and its port."""
        spec = self.find("service", "pgpool")["spec"]
        (target,) = (each["targetPort"] for each in spec["ports"] if each["port"] == 9999)
        found = set()
        for pod in self._objects.pods(spec["selector"]):
            ports = [port for each in containers(pod["spec"]) for port in each.get("ports", ())]
            (port,) = (each["containerPort"] for each in ports if target in (each.get("name"), each["containerPort"]))
            found.add((pod["metadata"]["labels"]["app.kubernetes.io/name"], port))
        return found

    @property
    def _objects(self) -> Objects:
        return Objects(self._directory / "objects.json", "db")


def namespaces() -> Iterator[Document]:
    for name in ("db", "n8n"):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def former() -> list[Document]:
    """The example with the image of before."""
    documents = build(DEPLOY / "example")
    for each in documents:
        if each["kind"] == "Deployment":
            for container in containers(each["spec"]["template"]["spec"]):
                container["image"] = FORMER_IMAGE
    return documents


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """With the example installed, after an update, and the former pooler beside it."""
    certificate = {"notAfter": "2027-02-25T06:00:00Z", "renewalTime": "2027-01-26T06:00:00Z"}
    (log := tmp_path / "log").write_text("what it printed\n")
    desk = Desk(tmp_path, [*former(), POOLER], dict.fromkeys(("pgpool", "sidecar"), log))
    desk.type(span("apply"))
    objects = Objects(tmp_path / "objects.json", "db")
    objects.patch("certificate", "pgpool", {"status": certificate})
    return desk


def span(*beginning: str, document: str = RUNBOOK) -> str:
    """The one command within a line of a document that begins so, apart from the namespace."""
    (found,) = {each.words for each in spans("kubectl") if each.document == document and begins(each, *beginning)}
    return shlex.join(found)


def begins(command: Command, *words: str) -> bool:
    after = command.words[3:] if command.words[1] == "-n" else command.words[1:]
    return after[: len(words)] == words


OF_THIS = [
    each
    for each in (*commands(), *spans("kubectl"))
    if each.program == "kubectl"
    and not begins(each, "exec")
    and not begins(each, "port-forward")
    and each.document != "docs/migration.md"
]


@pytest.mark.parametrize("command", {each.words: each for each in OF_THIS}.values(), ids=lambda each: each.place)
def test_every_command_of_kubectl_is_taken_by_the_cluster_of_the_manifests(desk: Desk, command: Command) -> None:
    """Alone, as it stands; what several of them come to, the tests below say. Not those that need pods that run."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pgpool-secrets", "namespace": "db"}}
    desk.type(shlex.join(command.words), answers=yaml.safe_dump({**secret, "data": {}}))


def test_the_way_back_leads_to_the_former_pooler_and_forward_again(desk: Desk) -> None:
    service, deployment = desk.find("service", "pgpool"), desk.find("deployment", "pgpool")
    assert desk.served_by() == {("pgpool", 9999)}
    change, end = (block(RUNBOOK, "Back to the former pooler", "sh", number) for number in range(2))
    desk.type(change)
    assert desk.served_by() == {("pgbouncer", 6432)}
    assert len(desk.pods()) == 2, "sessions stay until it ends"
    assert {each["spec"]["terminationGracePeriodSeconds"] for each in desk.pods()} == {30}, "by then, it has ended"
    desk.type(end)
    assert desk.pods() == []
    assert desk.served_by() == {("pgbouncer", 6432)}
    desk.type(span("scale"))
    assert len(desk.pods()) == 2
    desk.type(span("apply"))
    assert desk.served_by() == {("pgpool", 9999)}
    assert (desk.find("service", "pgpool"), desk.find("deployment", "pgpool")) == (service, deployment)


def test_new_pods_come_and_read_the_certificate_anew(desk: Desk) -> None:
    """The same command is the cure of "Stuck all the same?"."""
    restart = block(RUNBOOK, "Replace certificate and key", "sh")
    assert span("rollout", "restart") in restart
    before, pods = desk.find("deployment", "pgpool"), desk.names()
    assert "successfully rolled out" in desk.type(restart)
    assert len(desk.names()) == 2
    assert not desk.names() & pods
    after = desk.find("deployment", "pgpool")
    del after["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"]
    assert after == before


def test_the_former_release_comes_back_whatever_was_restarted_since(desk: Desk, tmp_path: Path) -> None:
    released = desk.images()
    assert FORMER_IMAGE not in released
    desk.type(block(RUNBOOK, "Replace certificate and key", "sh"))
    (tmp_path / "deploy").unlink()
    file = shutil.copytree(DEPLOY, tmp_path / "deploy") / "example/kustomization.yaml"
    now = file.read_text()
    assert "`newTag` into `deploy/example/kustomization.yaml`" in (DEPLOY.parent / RUNBOOK).read_text()
    file.write_text(re.sub(r"newTag: \S+", f"newTag: {FORMER_IMAGE.rpartition(':')[2]}", now))
    desk.type(span("apply"))
    assert desk.images() == {FORMER_IMAGE}
    file.write_text(now)
    desk.type(span("apply", document=INSTALL))
    assert desk.images() == released


def test_when_the_certificate_is_due_is_described(desk: Desk) -> None:
    told = desk.type(block(RUNBOOK, "Replace certificate and key", "sh", 1))
    assert "Not After:  2027-02-25" in told
    assert "Renewal Time:  2027-01-26" in told


def test_secrets_are_looked_at_at_once_and_again(desk: Desk, tmp_path: Path) -> None:
    hasten, look = (block(RUNBOOK, "Vault and External Secrets", "sh", number) for number in range(2))
    for _ in range(2):
        desk.type(hasten)
        desk.type(look)
    assert int(desk.find("externalsecret", "pgpool-secrets")["metadata"]["annotations"]["force-sync"]) > 0
    assert len(desk.pods()) == 2
    for pod in desk.pods():
        assert int(pod["metadata"]["annotations"]["refreshed"]) > 0
    store = vault.stored(tmp_path)["secret/db/pgpool"]
    assert store == {"sr_check_password": "as % ever", "n8n_password": "a % password"}
    refs = [each["remoteRef"] for each in one("external-secrets", "ExternalSecret", "pgpool-secrets")["spec"]["data"]]
    assert {"key": "db/pgpool", "property": "n8n_password"} in refs, "what External Secrets reads"


def test_the_installation_lets_the_application_in_and_gives_the_pods_their_files(tmp_path: Path) -> None:
    """But for roles.sql, which is run before a real server elsewhere, and the image's name, which is compared."""
    desk = Desk(tmp_path, [])
    for program in ("psql", "kustomize"):
        desk.stand_in(program)
    assert "successfully rolled out" in desk.type(block(INSTALL, "Install", "sh"))
    labels = desk.find("namespace", "n8n")["metadata"]["labels"]
    peers = [peer for rule in desk.find("networkpolicy", "pgpool")["spec"]["ingress"] for peer in rule["from"]]
    assert any(peer["namespaceSelector"]["matchLabels"].items() <= labels.items() for peer in peers)
    for secret, keys in mounted_keys().items():
        assert desk.find("secret", secret)["data"].keys() == keys
    assert desk.served_by() == {("pgpool", 9999)}


ANNOTATE = "kubectl -n db annotate pods --selector app.kubernetes.io/name=pgpool"


@pytest.mark.parametrize(
    "command",
    [
        "kubectl -n db delete deployment pgpool",
        "kubectl patch service pgpool --type merge --patch {}",
        "kubectl -n db patch service pgpool --type strategic --patch {}",
        "kubectl -n db scale deployment pgbouncer --replicas 0",
        f"{ANNOTATE} kubectl.kubernetes.io/default-container=sidecar",
        "kubectl -n db annotate pods --selector app.kubernetes.io/name=nobody refreshed=1",
        "kubectl -n n8n rollout undo deployment pgpool",
        "kubectl -n db logs deploy/pgbouncer",
        "kubectl label namespace nobody pgpool-client=true",
        "vault kv patch -mount=secret db/nowhere n8n_password=- <n8n_password",
        "vault kv patch -mount=secret db/pgpool n8n_password=on-the-command-line <n8n_password",
        "vault kv patch db/pgpool n8n_password=- <n8n_password",
        "vault kv put -mount=secret db/pgpool n8n_password=- <n8n_password",
    ],
)
def test_a_stand_in_refuses_what_the_real_one_would_and_what_it_does_not_know(desk: Desk, command: str) -> None:
    with pytest.raises(AssertionError):
        desk.type(command)


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="compares the stand-in with a real kubectl, which not every machine has"
)
def test_the_stand_in_does_what_kubectl_does(desk: Desk, tmp_path: Path) -> None:
    """As far as kubectl goes without a cluster."""
    (patch,) = (each.words[-1] for each in OF_THIS if begins(each, "patch"))
    bare: Document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "db"}, "spec": {}}
    without = json.dumps({"metadata": {"labels": None}, "spec": {"selector": {"app.kubernetes.io/name": None}}})
    for document, changes in (
        (one("base", "Service"), [["patch", "--type", "merge", "--patch", each] for each in (patch, without)]),
        (bare, [["label", "pgpool-client=true"], ["annotate", "refreshed=1", "--overwrite"]]),
    ):
        kind, name = document["kind"].lower(), document["metadata"]["name"]
        desk.apply(document)
        for verb, *words in changes:
            (tmp_path / "object").write_text(json.dumps(desk.find(kind, name)))
            theirs = real([verb, "--local", "--filename", "object", *words, "--output", "yaml"], tmp_path)
            desk.type(shlex.join(["kubectl", "-n", "db", verb, kind, name, *words]))
            ours = desk.find(kind, name)
            changed = yaml.safe_load(theirs)
            assert (changed["spec"], changed["metadata"]) == (ours["spec"], ours["metadata"])
    words = ["-n", "db", "create", "secret", "generic", "one", "--from-file=n8n_password", "--from-file=key=object"]
    words += ["--dry-run=client", "--output", "yaml"]
    made: dict[str, Any] = yaml.safe_load(real(words, tmp_path))
    del made["metadata"]["creationTimestamp"]
    assert yaml.safe_load(desk.type(shlex.join(["kubectl", *words]))) == made


def real(words: list[str], directory: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    return subprocess.run(
        ["kubectl", *words], cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout

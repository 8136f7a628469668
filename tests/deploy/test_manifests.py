"""Every object is one that Kubernetes takes, and all of them fit each other."""

import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deploy.conftest import BEFORE_1_29, DEPLOY, VARIANTS, container, containers, one, pod_of, variant
from entrypoint.backends import parse_backends
from support.kustomize import Document, build


class Fields(NamedTuple):
    """Fields below `spec` that an operator's API has, as far as they are used here; lists are stepped into."""

    needed: str
    others: str = ""


OPERATORS_FIELDS = {
    ("external-secrets.io/v1", "ExternalSecret"): Fields(
        "secretStoreRef.kind secretStoreRef.name refreshInterval target.name data.secretKey data.remoteRef.key",
        "target.creationPolicy target.deletionPolicy data.remoteRef.property",
    ),
    ("cert-manager.io/v1", "Certificate"): Fields(
        "secretName issuerRef.name issuerRef.kind dnsNames",
        "issuerRef.group duration renewBefore usages privateKey.algorithm privateKey.size privateKey.rotationPolicy",
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): Fields(
        "selector.matchLabels podMetricsEndpoints.port",
        "jobLabel podMetricsEndpoints.path podMetricsEndpoints.interval podMetricsEndpoints.scrapeTimeout",
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): Fields(
        "groups.name groups.rules.alert groups.rules.expr groups.rules.labels groups.rules.annotations",
        "groups.rules.for",
    ),
    ("argoproj.io/v1alpha1", "Application"): Fields(
        "project source.repoURL source.path source.targetRevision destination.server destination.namespace"
        " syncPolicy.automated.prune syncPolicy.automated.selfHeal",
        "syncPolicy.syncOptions syncPolicy.retry.limit syncPolicy.retry.backoff.duration"
        " syncPolicy.retry.backoff.factor syncPolicy.retry.backoff.maxDuration",
    ),
}
"""No package has these schemas, and Kubernetes drops a field that it does not know: look up what is added."""

FREE = {("matchLabels",), ("labels",), ("annotations",)}
"""Their keys are ours."""

RELEASES = {"base": "1.29", "everything": kubernetes_validate.latest_version(), "everything before 1.29": "1.27"}


@pytest.mark.parametrize(("name", "release"), RELEASES.items())
def test_kubernetes_knows_every_field_of_every_object(name: str, release: str) -> None:
    for document in variant(name):
        if (document["apiVersion"], document["kind"]) not in OPERATORS_FIELDS:
            kubernetes_validate.validate(document, release, strict=True)


def test_the_former_kubernetes_does_not_know_native_sidecars() -> None:
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicy"):
        kubernetes_validate.validate(one("base", "Deployment"), "1.27", strict=True)


def theirs() -> list[Document]:
    """The objects that are for operators."""
    documents = [*variant("everything"), yaml.safe_load((DEPLOY / "argocd/application.yaml").read_text())]
    return [each for each in documents if (each["apiVersion"], each["kind"]) in OPERATORS_FIELDS]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # whatever YAML has
    """Each field, as its path, with its value."""
    if isinstance(value, dict) and value and path[-1:] not in FREE:
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for each in value:
            yield from leaves(each, path)
    else:
        yield ".".join(path), value


def test_there_is_something_for_every_operator() -> None:
    assert {(each["apiVersion"], each["kind"]) for each in theirs()} == OPERATORS_FIELDS.keys()


@pytest.mark.parametrize("document", theirs(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_operators_find_what_they_need_and_know_every_field(document: Document) -> None:
    needed, others = (set(fields.split()) for fields in OPERATORS_FIELDS[document["apiVersion"], document["kind"]])
    found = list(leaves(document["spec"]))
    assert {path for path, _ in found} <= needed | others
    assert needed <= {path for path, value in found if value not in (None, "", [], {})}
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert document["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_object_is_in_the_namespace_of_the_proof_of_concept_and_is_there_once(name: str) -> None:
    names = [(each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) for each in variant(name)]
    assert len(set(names)) == len(names)
    assert {namespace for _, namespace, _ in names} == {"db"}


def test_the_example_is_the_base_with_every_operator_and_a_released_image() -> None:
    example = build(DEPLOY / "example")
    names = {(each["kind"], each["metadata"]["name"]) for each in example}
    assert names == {(each["kind"], each["metadata"]["name"]) for each in variant("everything")}
    (deployment,) = (each for each in example if each["kind"] == "Deployment")
    images = {each["image"] for each in containers(deployment["spec"]["template"]["spec"])}
    assert len(images) == 1
    assert all("/pgpool-entrypoint:" in image for image in images)


def test_argo_cd_takes_the_example() -> None:
    application = yaml.safe_load((DEPLOY / "argocd/application.yaml").read_text())
    assert application["spec"]["source"]["path"] == str((DEPLOY / "example").relative_to(DEPLOY.parent))
    assert application["spec"]["destination"]["namespace"] == "db"
    assert application["spec"]["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}


def test_argo_cd_makes_secrets_before_pods_and_never_prunes_passwords() -> None:
    def annotations(document: Document) -> dict[str, str]:
        found: dict[str, str] = document["metadata"].get("annotations", {})
        return found

    documents = variant("everything")
    early = {each["kind"] for each in documents if annotations(each).get("argocd.argoproj.io/sync-wave") == "-1"}
    assert early == {"ExternalSecret", "Certificate"}
    kept = {each["kind"] for each in documents if "Prune=false" in annotations(each).values()}
    assert kept == {"ExternalSecret"}
    assert "Secret" not in {each["kind"] for each in documents}


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_selects_the_pods(name: str) -> None:
    deployment = one(name, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        one(name, "Service")["spec"]["selector"],
        deployment["spec"]["selector"]["matchLabels"],
        one(name, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(name, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod_of(name)["topologySpreadConstraints"]),
    ]
    assert all(selector.items() <= labels for selector in selectors)


def test_prometheus_selects_the_pods_by_port_and_calls_them_pgpool() -> None:
    monitor = one("monitoring", "PodMonitor")["spec"]
    labels = one("monitoring", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "pgpool"
    (endpoint,) = monitor["podMetricsEndpoints"]
    ports = container(pod_of("monitoring"), "sidecar")["ports"]
    assert [port["containerPort"] for port in ports if port["name"] == endpoint["port"]] == [9719]


def test_the_service_is_pgpool_9999_and_nothing_else() -> None:
    service = one("base", "Service")
    assert service["metadata"]["name"] == "pgpool"
    (port,) = service["spec"]["ports"]
    assert port["port"] == 9999
    (target,) = container(pod_of("base"), "pgpool")["ports"]
    assert (target["name"], target["containerPort"]) == (port["targetPort"], 9999)


def test_the_network_lets_pgpool_reach_its_backends_and_no_other_address() -> None:
    settings = one("base", "ConfigMap", "pgpool-settings")["data"]
    backends = parse_backends(settings["PGPOOL_BACKENDS"])
    to_backends, to_dns = one("base", "NetworkPolicy")["spec"]["egress"]
    networks = [peer["ipBlock"]["cidr"] for peer in to_backends["to"]]
    assert networks == [str(ipaddress.ip_network(backend.host)) for backend in backends]
    assert {port["port"] for port in to_backends["ports"]} == {8008, *(backend.port for backend in backends)}
    assert {(port["protocol"], port["port"]) for port in to_dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    (resolver,) = to_dns["to"]
    assert resolver["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert resolver["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}


def test_the_network_lets_in_applications_and_prometheus_each_to_one_port() -> None:
    policy = one("base", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = [(port["port"], len(rule["from"])) for rule in policy["ingress"] for port in rule["ports"]]
    assert ports == [(9999, 1), (9719, 1)]
    assert all(peer["namespaceSelector"]["matchLabels"] for rule in policy["ingress"] for peer in rule["from"])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_mounted_key_is_in_a_secret_that_the_operators_make(name: str) -> None:
    made: dict[str, set[str]] = {"pgpool-tls": {"tls.crt", "tls.key", "ca.crt"}}
    for document in variant("external-secrets"):
        if document["kind"] == "ExternalSecret":
            made[document["spec"]["target"]["name"]] = {each["secretKey"] for each in document["spec"]["data"]}
    for volume in pod_of(name)["volumes"]:
        sources = [each["secret"] for each in volume.get("projected", {}).get("sources", ())]
        if "secret" in volume:
            sources.append({**volume["secret"], "name": volume["secret"]["secretName"]})
        for source in sources:
            assert {item["key"] for item in source["items"]} <= made[source["name"]]


def test_the_certificate_goes_where_it_is_mounted_from() -> None:
    assert one("tls", "Certificate")["spec"]["secretName"] == "pgpool-tls"
    assert "pgpool.db.svc" in one("tls", "Certificate")["spec"]["dnsNames"]
    (volume,) = (each for each in pod_of("tls")["volumes"] if each["name"] == "tls")
    keys = {item["key"] for item in volume["secret"]["items"]}
    assert keys == {"tls.crt", "tls.key"}, "with a ca.crt, pgpool would judge PostgreSQL's certificates by it"


def test_before_1_29_the_sidecar_is_a_second_container_that_ends_last() -> None:
    usual, former = pod_of("everything"), pod_of("everything before 1.29")
    assert "initContainers" not in former
    assert [each["name"] for each in former["containers"]] == ["pgpool", "sidecar"]
    sidecar = dict(container(former, "sidecar"))
    pauses = [int(each["lifecycle"]["preStop"]["exec"]["command"][1]) for each in former["containers"]]
    assert pauses[0] < pauses[1] < former["terminationGracePeriodSeconds"]
    del sidecar["lifecycle"]
    assert sidecar | {"restartPolicy": "Always"} == container(usual, "sidecar")
    assert container(former, "pgpool") == container(usual, "pgpool")
    assert {each["name"] for each in former["securityContext"]["sysctls"]} == {"kernel.shm_rmid_forced"}


def test_the_variant_for_older_clusters_is_told_in_the_example() -> None:
    assert f"../components/{BEFORE_1_29}" in (DEPLOY / "example/kustomization.yaml").read_text()

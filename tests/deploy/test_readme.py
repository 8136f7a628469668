"""deploy/README.md tells of what is there, with the numbers that are there."""

import re
from typing import Any

import pytest

from deploy.conftest import DEPLOY, container, one, pod_of

README = (DEPLOY / "README.md").read_text()
POD = pod_of("base")
DEPLOYMENT: dict[str, Any] = one("base", "Deployment")["spec"]


def seconds(probe: dict[str, Any]) -> str:
    return f"{probe['failureThreshold']} × {probe['periodSeconds']} s"


def test_every_file_that_it_names_is_there() -> None:
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)}
    paths = set(re.findall(r"`((?:argocd|base|components|compose|example|patroni)/[^` ]*)`", README))
    assert len(links) >= 3
    assert len(paths) >= 15
    assert [path for path in sorted(links | paths) if not (DEPLOY / path).exists()] == []


@pytest.mark.parametrize(
    "told",
    [
        "`maxSurge: {maxSurge}`, `maxUnavailable: {maxUnavailable}`".format(**DEPLOYMENT["strategy"]["rollingUpdate"]),
        "`preStop: {} {}`".format(*container(POD, "pgpool")["lifecycle"]["preStop"]["exec"]["command"]),
        f"`terminationGracePeriodSeconds: {POD['terminationGracePeriodSeconds']}`",
        f"`minReadySeconds: {DEPLOYMENT['minReadySeconds']}`",
        f"readiness {seconds(container(POD, 'pgpool')['readinessProbe'])}",
        f"liveness {seconds(container(POD, 'pgpool')['livenessProbe'])}",
        f"startup {seconds(container(POD, 'pgpool')['startupProbe'])}",
        *(
            "`{}` of memory: {} + {} Mi".format(
                kind, *(container(POD, each)["resources"][kind]["memory"][:-2] for each in ("pgpool", "sidecar"))
            )
            for kind in ("requests", "limits")
        ),
        "keepalive {0} s + {2} × {1} s".format(
            *(each["value"] for each in POD["securityContext"]["sysctls"] if "keepalive" in each["name"])
        ),
        f"PodDisruptionBudget `maxUnavailable: {one('base', 'PodDisruptionBudget')['spec']['maxUnavailable']}`",
    ],
)
def test_it_gives_the_reason_for(told: str) -> None:
    assert f"| {told} |" in README

"""PGPOOL_SIDECAR_NODES: whether the sidecar puts pgpool's node table right, only says so, or does not even look."""

import time

from integration.conftest import FORMER, Scene, StartScene
from sidecar.pcp import PcpError
from sidecar.table import TableReader
from support.deadline import wait_until

LONG = 3.0
"""Seconds in which a sidecar that keeps the table puts it right many times."""


def detach_the_only_node(scene: Scene) -> None:
    scene.pod.pcp().detach(0)


def is_down(scene: Scene) -> bool:
    reader = TableReader(scene.pod.pcp_address)
    try:
        [row] = reader.read()
    except PcpError:  # it is away for a moment after each failover
        return False
    finally:
        reader.close()
    return row.status == "down"


def test_keep_takes_a_node_back(start_scene: StartScene) -> None:
    scene = start_scene()

    detach_the_only_node(scene)

    scene.sidecar.wait_until_logged("nodes.attach")
    assert scene.pgpool.can_log_in(scene.role, FORMER)
    assert not is_down(scene)


def test_watch_says_what_keep_would_do_and_leaves_the_node_alone(start_scene: StartScene) -> None:
    scene = start_scene(sidecar={"PGPOOL_SIDECAR_NODES": "watch"})

    detach_the_only_node(scene)

    assert scene.sidecar.wait_until_logged("nodes.would_attach")["node"] == "0"
    time.sleep(LONG)
    wait_until(lambda: is_down(scene), timeout=10, failure=lambda: scene.sidecar.log)
    assert "nodes.attach" not in scene.sidecar.names()
    assert scene.sidecar.names().count("nodes.would_attach") == 1, "it is said once"
    assert scene.sidecar.metric("pgpool_nodes_observation_age_seconds") is not None


def test_off_does_not_look(start_scene: StartScene) -> None:
    scene = start_scene(sidecar={"PGPOOL_SIDECAR_NODES": "off"})

    detach_the_only_node(scene)

    time.sleep(LONG)
    wait_until(lambda: is_down(scene), timeout=10, failure=lambda: scene.sidecar.log)
    assert [name for name in scene.sidecar.names() if name.startswith("nodes.")] == []
    assert "pgpool_nodes_" not in scene.sidecar.get("/metrics")[1], "an age that grows would be an alarm"

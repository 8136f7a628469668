"""What pgpool says of itself by PCP, without pgpool."""

from dataclasses import replace

from sidecar.pcp import HealthChecks, Node, Process

PARAMETERS = {
    "num_init_children": "4",
    "memory_cache_enabled": "0",
    "backend_hostname0": "pg-1",
    "backend_port0": "5432",
    "backend_hostname1": "pg-2",
    "backend_port1": "5433",
}


def node(node_id: int, **changes: object) -> Node:
    usual = Node(
        node_id=node_id,
        host=f"pg-{node_id + 1}",
        port=5432 + node_id,
        status=2,
        status_name="up",
        pg_status="up",
        weight=0.5,
        role="standby" if node_id else "primary",
        pg_role="standby" if node_id else "primary",
        replication_delay=0.0,
        delay_unit="bytes",
        replication_state="streaming" if node_id else "none",
        last_change="2026-11-23 12:00:00",
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def checks(node_id: int, **changes: object) -> HealthChecks:
    usual = HealthChecks(
        node_id=node_id,
        status="up",
        role="standby" if node_id else "primary",
        total_count=10,
        success_count=7,
        fail_count=1,
        skip_count=2,
        retry_count=3,
        average_retry_count=0.375,
        max_retry_count=2,
        max_duration=9,
        min_duration=4,
        average_duration=5.5,
        last_failure=None,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def process(pid: int, status: str = "Wait for connection", **changes: object) -> Process:
    usual = Process(
        pid=pid,
        status=status,
        client_connections=0,
        database="",
        username="",
        backend_id=0,
        connected=False,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def busy(pid: int, username: str = "app", database: str = "shop", status: str = "Idle") -> list[Process]:
    """A child's two places, the first used by the client, the second kept from a former one."""
    return [
        process(pid, status, username=username, database=database, connected=True),
        process(pid, status, username="former", database="older"),
    ]

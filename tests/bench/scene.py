"""PostgreSQL, pgpool and its sidecar at work on one mounted Secret."""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise

from bench.stage import Stage
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import CHECK_ROLE, Pod
from support.postgres import PostgresServer
from support.secret_volume import SecretVolume
from support.sidecar_process import Sidecar

STAGES = ["detected", "tried", "published", "reloaded", "proved", "retired", "verified"]
PATIENCE = 60.0
PAUSE = 0.3


class Scene:
    """What `at_work` has started."""

    def __init__(self, server: PostgresServer, volume: SecretVolume, pgpool: Pgpool, sidecar: Sidecar) -> None:
        self.server, self.pgpool, self.sidecar = server, pgpool, sidecar
        self._volume = volume
        self._told = 0
        """How much of the sidecar's log has been read."""

    def rotate(self, role: str, password: str, secret: Mapping[str, str]) -> dict[str, float]:
        """Alter the role in PostgreSQL, and at once the Secret; wait until no child knows the former password.

        Returns for each of STAGES the seconds from the Secret's swap to its end.
        """
        self.server.alter_password(role, password)
        swapped = 0.0
        for step in self._volume.steps({key: value.encode() for key, value in secret.items()}):
            if step == "..data renamed":
                swapped = time.time()
        return {stage: when - swapped for stage, when in self.wait_verified().items()}

    def wait_verified(self) -> dict[str, float]:
        """The times (Unix) at which the stages up to the next `rotation.verified` ended, the last of each."""
        times: dict[str, float] = {}

        def verified() -> bool:
            self.sidecar.assert_running()
            for event, when in self._news():
                times[event.removeprefix("rotation.")] = when
            return "verified" in times

        wait_until(verified, timeout=PATIENCE, failure=lambda: f"the sidecar's log:\n{self.sidecar.log}")
        return {stage: times[stage] for stage in STAGES if stage in times}

    def _news(self) -> list[tuple[str, float]]:
        """What the sidecar has logged since the last call."""
        with self.sidecar.log_path.open("rb") as log:
            log.seek(self._told)
            lines = log.read().rpartition(b"\n")[0]
        self._told += len(lines) + bool(lines)
        events = [json.loads(line) for line in lines.splitlines() if line.startswith(b"{")]
        return [(event["event"], datetime.fromisoformat(event["ts"]).timestamp()) for event in events]


@contextmanager
def at_work(stage: Stage, name: str, roles: Mapping[str, str], secret: Mapping[str, str]) -> Iterator[Scene]:
    """Start all, wait until they are in sync, and stop all in the end.

    `roles` are created, the check role among them. `secret` is what is mounted: with a `username`, it is one of
    several Secrets, the check role's is the other; else it has a key for each role.
    """
    directory = stage.memory / name
    directory.mkdir()
    settings = {"max_connections": "300", "unix_socket_directories": ""}
    with PostgresServer(stage.home / name, stage.postgres_bin, settings=settings) as server:
        server.create_roles(roles)
        server.sql("GRANT pg_monitor TO sr_check")
        pod = Pod(directory, pgpool_bin=stage.pgpool_bin, postgres_port=server.port)
        pod.encrypt()
        pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = "12"
        if "username" in secret:
            pod.write_user(CHECK_ROLE, roles[CHECK_ROLE])
        volume = SecretVolume(pod.users / "app" if "username" in secret else pod.users)
        volume.write({key: value.encode() for key, value in secret.items()})
        with pod.pgpool() as pgpool, Sidecar(pod, PGPOOL_SIDECAR_LOG="json") as sidecar:
            scene = Scene(server, volume, pgpool, sidecar)
            scene.wait_verified()
            yield scene


def pause() -> None:
    """So that rotations do not fall in step with anything periodical."""
    time.sleep(random.uniform(0, PAUSE))


def each_alone(stages: Mapping[str, float]) -> dict[str, float]:
    """The seconds that each stage took by itself."""
    ends = {"": 0.0, **stages}
    return {after: ends[after] - ends[before] for before, after in pairwise(ends)}

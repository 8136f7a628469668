"""Patroni's memory: a cluster of three etcd members, each of which may be taken away."""

import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from support.deadline import wait_until

MEMBERS = {number: f"127.0.0.{20 + number}" for number in (1, 2, 3)}
CLIENTS, PEERS = 2379, 2380
START_TIMEOUT = 30.0
TIMEOUT = 1.0

HOSTS = [f"{address}:{CLIENTS}" for address in MEMBERS.values()]


class Etcd:
    """One member; what it has stored survives `stop`."""

    def __init__(self, number: int, directory: Path) -> None:
        """Prepare member `number`, 1 to 3, below `directory`."""
        self.number = number
        self.name = f"etcd-{number}"
        self.address = MEMBERS[number]
        self.log_path = directory / f"{self.name}.log"
        self._data = directory / self.name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Start it, waiting for nothing: alone it is no use."""
        assert not self.running, f"{self.name} runs already"
        peers = ",".join(f"etcd-{number}=http://{address}:{PEERS}" for number, address in MEMBERS.items())
        client, peer = f"http://{self.address}:{CLIENTS}", f"http://{self.address}:{PEERS}"
        command: list[str | Path] = ["etcd", "--name", self.name, "--data-dir", self._data]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", peers, "--initial-cluster-state", "new"]
        command += ["--logger", "zap", "--log-level", "warn"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Take it away at once, as a power failure does; no harm if it does not run."""
        process, self._process = self._process, None
        if process:
            process.send_signal(signal.SIGKILL)
            process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_healthy(self) -> bool:
        """Whether this member belongs to a quorum that takes writes."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{CLIENTS}/health", timeout=TIMEOUT) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            assert self.running, f"{self.name} has ended. Its log:\n{self.log}"
            return self.is_healthy()

        wait_until(healthy, timeout=START_TIMEOUT, failure=lambda: f"{self.name} is not healthy. Its log:\n{self.log}")

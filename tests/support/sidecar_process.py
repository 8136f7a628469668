"""The real sidecar as a subprocess, as it runs beside pgpool in a pod."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from support.deadline import wait_until
from support.pgpool_process import REPOSITORY, complete_environment
from support.pod import sidecar_command
from support.ports import free_port

STOP_TIMEOUT = 5.0


class Place(Protocol):
    """What of a pod a sidecar needs."""

    @property
    def directory(self) -> Path:
        """For its log."""

    @property
    def run_dir(self) -> Path: ...

    @property
    def pgpool_bin(self) -> Path: ...


class Sidecar:
    """One sidecar of a pod; it may be stopped, killed and started again, with one log."""

    def __init__(self, pod: Place, **changes: str) -> None:
        """Prepare to start; `changes` to its environment are PGPOOL_SIDECAR_… and secrets, as a rule."""
        self.pod = pod
        self.port = free_port()
        settings = {
            "PGPOOL_RUN_DIR": str(pod.run_dir),
            "PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{self.port}",
            "PYTHONFAULTHANDLER": "1",
        }
        self.environment = complete_environment({**settings, **changes}, pod.pgpool_bin)
        self.log_path = pod.directory / f"sidecar-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        assert self._process, "the sidecar has not been started"
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def events(self) -> list[dict[str, str]]:
        """The log's lines (logfmt), each as its fields."""
        return [_fields(line) for line in self.log.splitlines() if line.startswith("ts=")]

    def names(self) -> list[str]:
        """The names of all events so far."""
        return [event["event"] for event in self.events]

    def start(self) -> None:
        """Start it, waiting for nothing."""
        assert self._process is None, "the sidecar runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                sidecar_command(),
                env=self.environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> dict[str, Any]:
        """The status file; empty before the first."""
        with suppress(FileNotFoundError):
            document: dict[str, Any] = json.loads((self.pod.run_dir / "status.json").read_text())
            return document
        return {}

    def get(self, path: str) -> tuple[int, str]:
        """Status code and body of an HTTP request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, sample: str) -> float | None:
        """The value of one sample of /metrics, named with its labels as the text has them; None when it is absent."""
        _, text = self.get("/metrics")
        match = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(match[1]) if match else None

    def wait_until(self, state: str, *, timeout: float = 30.0, generation: str | None = None) -> dict[str, Any]:
        """Wait for a state, of a certain desired generation if one is given, and return the status then."""

        def there() -> dict[str, Any] | None:
            self.assert_running()
            status = self.status()
            right = status.get("state") == state and (generation is None or status["desired"] == generation[:12])
            return status if right else None

        return wait_until(there, timeout=timeout, failure=lambda: f"{state} awaited, is {self.status()}\n{self.log}")

    def wait_until_logged(self, event: str, *, count: int = 1, timeout: float = 30.0) -> dict[str, str]:
        """Wait until an event has been logged so often, and return the last of them."""

        def there() -> dict[str, str] | None:
            self.assert_running()
            found = [each for each in self.events if each["event"] == event]
            return found[count - 1] if len(found) >= count else None

        return wait_until(there, timeout=timeout, failure=lambda: f"{event} awaited\n{self.log}")

    def assert_running(self) -> None:
        assert self._process, "the sidecar has not been started"
        code = self._process.poll()
        assert code is None, f"ended with {code}. The log:\n{self.log}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, wait for its end, and return its exit code (negative: the signal that ended it)."""
        process, self._process = self._process, None
        assert process, "the sidecar has not been started"
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it writes what each thread does, see PYTHONFAULTHANDLER
            process.wait()
            raise AssertionError(f"{number.name} did not stop the sidecar. The log:\n{self.log}") from None

    def wait_until_exit(self) -> int:
        """Wait for an end that comes by itself, and return its code."""
        process, self._process = self._process, None
        assert process, "the sidecar has not been started"
        return process.wait(10)


def _fields(line: str) -> dict[str, str]:
    found = re.findall(r'(\S+?)=("(?:[^"\\]|\\.)*"|\S*)', line)
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}

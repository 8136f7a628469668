"""The real entrypoint as a subprocess, which becomes the real pgpool."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg.abc import ConnParam
from psycopg.conninfo import make_conninfo

from support import proc
from support.deadline import wait_until

REPOSITORY = Path(__file__).parents[2]

LOGIN_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
# pgpool's main process waits for its children, but not for the ones it has only just forked.
LEFTOVER_TIMEOUT = 5.0

DEFAULT_PORT = 9999


def entrypoint_command() -> list[str]:
    """The installed console script, or the module where the project is not installed."""
    script = Path(sys.executable).with_name("pgpool-entrypoint")
    return [str(script)] if script.exists() else [sys.executable, "-m", "entrypoint"]


def complete_environment(environment: Mapping[str, str], pgpool_bin: Path | None) -> dict[str, str]:
    """What a container would have: the settings and PATH, nothing inherited from whoever runs the tests."""
    directories = ["/usr/local/bin", "/usr/bin", "/bin"]
    if pgpool_bin:
        directories.insert(0, str(pgpool_bin))
    return {"PATH": ":".join(directories), **environment}


def run_entrypoint(
    args: Sequence[str],
    environment: Mapping[str, str],
    *,
    pgpool_bin: Path | None = None,
    timeout: float = 30.0,
) -> subprocess.CompletedProcess[str]:
    """Run a verb that ends by itself."""
    return subprocess.run(
        [*entrypoint_command(), *args],
        env=complete_environment(environment, pgpool_bin),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )


class HangsError(AssertionError):
    """pgpool does not stop."""


class Pgpool:
    """One pgpool, started by the entrypoint in a session of its own; its main process has `pid`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        pgpool_bin: Path,
        log_path: Path,
        args: Sequence[str] = (),
    ) -> None:
        """Prepare to start; clients connect to the environment's PGPOOL_PARAMS_PORT."""
        self.environment = complete_environment(environment, pgpool_bin)
        self.log_path = log_path
        self.host = "127.0.0.1"
        self.port = int(self.environment.get("PGPOOL_PARAMS_PORT", DEFAULT_PORT))
        self._command = [*entrypoint_command(), *args]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        try:
            self.stop()
        except HangsError as error:
            # Before 4.6.8 the handler of main's signals may block itself. What was to be tested has been.
            print(f"pgpool was killed: {error}", file=sys.stderr)
        except AssertionError:
            if value is None:  # else the test's own failure is the one to read
                raise

    @property
    def pid(self) -> int:
        assert self._process, "pgpool has not been started"
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The main process and all its descendants."""
        return proc.members(self.pid)

    @property
    def log(self) -> str:
        """Everything the entrypoint and pgpool have printed on either stream, over all starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the entrypoint, waiting for nothing."""
        assert self._process is None, "pgpool has been started already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def connect(
        self, user: str, password: str, dbname: str = "postgres", **parameters: ConnParam
    ) -> psycopg.Connection:
        """A client's session through pgpool, in autocommit mode; `parameters` are libpq's."""
        return psycopg.connect(self.conninfo(user, password, dbname, **parameters), autocommit=True)

    def conninfo(self, user: str, password: str, dbname: str = "postgres", **parameters: ConnParam) -> str:
        """How a client gets in, for libpq."""
        defaults: dict[str, ConnParam] = {"host": self.host, "port": self.port, "connect_timeout": 5}
        credentials: dict[str, ConnParam] = {"user": user, "password": password, "dbname": dbname}
        return make_conninfo("", **(defaults | credentials | parameters))

    def can_log_in(self, user: str, password: str, dbname: str = "postgres", **parameters: ConnParam) -> bool:
        """One attempt: log in and run a query; why it failed is for pytest to show."""
        try:
            with self.connect(user, password, dbname, **parameters) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError as error:
            sys.stderr.write(f"{datetime.now()} {user}: {error}\n")  # noqa: DTZ005  # as in pgpool's log
            return False

    def wait_until_login(
        self,
        user: str,
        password: str,
        dbname: str = "postgres",
        *,
        timeout: float = LOGIN_TIMEOUT,
        **parameters: ConnParam,
    ) -> None:
        """Try until a login with a query succeeds; pgpool's end or the deadline fails with the log."""
        last = "no attempt yet"

        def logged_in() -> bool:
            nonlocal last
            self.assert_running()
            try:
                with self.connect(user, password, dbname, **parameters) as connection:
                    return connection.execute("SELECT 1").fetchone() == (1,)
            except psycopg.OperationalError as error:
                last = str(error)
                return False

        wait_until(
            logged_in,
            timeout=timeout,
            failure=lambda: f"{user!r} cannot log in to {dbname!r}: {last}\npgpool's log:\n{self.log}",
        )

    def wait_until_logged(self, text: str, *, timeout: float = LOGIN_TIMEOUT) -> None:
        """Wait for a piece of text in the log."""

        def logged() -> bool:
            if text in self.log:
                return True
            self.assert_running()
            return False

        wait_until(logged, timeout=timeout, failure=lambda: f"{text!r} is not in the log:\n{self.log}")

    def wait_until_exit(self) -> int:
        """Wait for an end that comes by itself, and return its code."""
        assert self._process, "pgpool has not been started"
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {STOP_TIMEOUT:g} s. Its log:\n{self.log}") from None

    def assert_running(self) -> None:
        assert self._process, "pgpool has not been started"
        code = self._process.poll()
        assert code is None, f"ended with {code}. The log:\n{self.log}"

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the main process alone."""
        assert self._process, "pgpool has not been started"
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGINT, *, timeout: float = STOP_TIMEOUT) -> int:
        """Stop the main process, insist that nothing of it is left, and return its exit code."""
        process = self._process
        assert process, "pgpool has not been started"
        process.send_signal(number)  # does nothing to a process that has been waited for
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill_group()
            raise HangsError(f"{number.name} did not stop pgpool. The log:\n{self.log}") from None
        try:
            wait_until(
                lambda: not proc.members(process.pid),
                timeout=LEFTOVER_TIMEOUT,
                failure=lambda: f"left behind:\n{proc.describe(proc.members(process.pid))}\nThe log:\n{self.log}",
            )
        except AssertionError:
            self.kill_group()
            raise
        self._process = None
        return code

    def kill_group(self, *, keep_shared_memory: bool = False) -> None:
        """End every process at once, as an OOM kill does, and take away the memory they shared.

        Memory kept is what the next boot has to find and remove.
        """
        process, self._process = self._process, None
        assert process, "pgpool has not been started"
        creators = {process.pid, *proc.members(process.pid)}
        # More than once: one of them may have been forking.
        while pids := proc.members(process.pid):
            creators.update(pids)
            for pid in pids:
                _kill(pid)
        process.wait()
        if not keep_shared_memory:
            proc.remove_shared_memory(proc.shared_memory(creators))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

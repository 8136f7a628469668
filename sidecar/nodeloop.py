"""Runs the keeper of the node table in a thread of its own, and observes the cluster that the last boot was told of."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext

from entrypoint.backends import Backend
from entrypoint.catalogue import load_catalogue
from entrypoint.compat.translate import load_translated
from entrypoint.errors import Problems
from entrypoint.inputs import read_inputs
from entrypoint.probe import Verdict
from entrypoint.publish import BOOTED, marked_at
from entrypoint.settings import PATRONI, Settings
from entrypoint.sources import Reader
from sidecar.cluster import Observer
from sidecar.events import Events, without_values
from sidecar.generation import backends, read_generation
from sidecar.keeper import Keeper
from sidecar.member import Member
from sidecar.patroni import trust, urls
from sidecar.pulse import BEAT_SECONDS, Pulse
from sidecar.standing import Credentials

PERIOD_SECONDS = 0.25
SHORTEST_SECONDS = 0.02
"""Between two looks, even when the cluster changes all the time."""


class BootedCluster:
    """The members of the cluster that pgpool was booted for; nobody before a boot."""

    def __init__(self, run_dir: Path, login: Callable[[], Credentials | None], events: Events) -> None:
        """Observe nobody yet; `login`: role, password and database of the check role, while they are known."""
        self.wake = threading.Event()
        """Set whenever something has changed."""
        self._run_dir = run_dir
        self._login = login
        self._events = events
        self._told: list[Mapping[str, str]] = []
        self._booted = 0
        self._unread = ""
        """What is wrong with PGPOOL_PATRONI."""
        self._nodes: tuple[Backend, ...] = ()
        self._observer: Observer | None = None
        self._scope: object = None
        """Whom it asks, and whom it believes."""

    def members(self) -> tuple[Member, ...]:
        """What was last seen of each backend."""
        return self._observer.members() if self._observer else ()

    def follow(self) -> bool:
        """Observe the backends of the last boot, and tell whether they are others than before.

        Those that pgpool was started with, whose ids it has, whatever a file of PGPOOL_BACKENDS_FILE says by now.
        Raises OSError, KeyError or ValueError.
        """
        booted = marked_at(self._run_dir, BOOTED)
        if booted == self._booted and not self._unread:
            return False
        settings, unread = _settings(self._run_dir)
        if booted == self._booted and unread:
            return False
        generation = read_generation(self._run_dir, BOOTED)
        if generation is None:
            raise FileNotFoundError(f"{BOOTED} leads nowhere")
        nodes = backends(generation.tree)
        patroni = urls(settings.patroni, nodes)
        tls = any(url.startswith("https:") for url in patroni)
        scope = (nodes, patroni, _content(_authority(settings)) if tls else None)
        if self._observer is None or scope != self._scope:  # else what was seen, of who held the lock, is still of use
            self.stop()
            self._observer = Observer(
                nodes,
                self._login,
                patroni,
                wake=self.wake.set,
                failed=self._tell,
                tls=self._trust(settings) if tls else None,
                period=PERIOD_SECONDS,
            )
            self._observer.start()
            self._scope = scope
        if unread:  # nobody is fenced meanwhile, but a node table that is looked after is better than none
            self._events.warning("nodes.without_patroni", reason=unread)
        former, self._nodes, self._booted, self._unread = self._nodes, nodes, booted, unread
        return former != nodes

    def stop(self) -> None:
        """Observe nobody."""
        observer, self._observer = self._observer, None
        if observer:
            observer.stop()

    def _trust(self, settings: Settings) -> SSLContext | None:
        """An authority that cannot be used is no reason to leave pgpool alone: then the system's are believed."""
        try:
            return trust(_authority(settings))
        except (OSError, ValueError) as error:
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        """Each once: every node is asked several times a second."""
        if (failure := without_values(error)) not in self._told:
            self._told.append(failure)
            self._events.error("nodes.failed", **failure)


class NodeLoop:
    """The thread. It is no obstacle to the end of the process."""

    def __init__(
        self, keeper: Keeper, cluster: BootedCluster, pulse: Pulse, stop: threading.Event, events: Events
    ) -> None:
        """Start nothing yet; `pulse` is beaten after each look."""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._keeper = keeper
        self._cluster = cluster
        self._pulse = pulse
        self._stop = stop
        self._events = events

    def live(self) -> Verdict:
        """Whether the loop beats: a look takes seconds, whatever hangs."""
        return self._pulse.verdict(BEAT_SECONDS)

    def _run(self) -> None:
        """Look every PERIOD_SECONDS, and whenever something of the cluster has changed."""
        former: Mapping[str, str] = {}
        while not self._stop.is_set():
            self._cluster.wake.clear()
            failure: Mapping[str, str] = {}
            try:
                if self._cluster.follow():
                    self._keeper.begin_anew()
                self._keeper.step()
            except Exception as error:  # noqa: BLE001  # whatever it is, pgpool is served better by another look
                failure = without_values(error)
            if failure and failure != former:  # told once
                self._events.error("nodes.failed", **failure)
            former = failure
            self._pulse.beat()
            looked = time.monotonic()
            if failure or not self._keeper.eager:
                self._cluster.wake.wait(PERIOD_SECONDS)
            # At rest, nothing is left to wait for: the thread wakes once for each look.
            if (left := looked + SHORTEST_SECONDS - time.monotonic()) > 0:
                self._stop.wait(left)
        self._cluster.stop()


def _settings(run_dir: Path) -> tuple[Settings, str]:
    """What boot was given; and what is wrong with PGPOOL_PATRONI, of which nothing is taken then."""
    boot, problems = read_inputs(run_dir), Problems()
    settings = load_translated(boot.environment, load_catalogue(boot.pgpool), Reader(), problems).settings
    return settings, next((each.line for each in problems if each.setting.startswith(PATRONI.name)), "")


def _content(file: Path | None) -> bytes | None:
    if file is not None:
        with suppress(OSError):  # told by whoever is to believe it
            return file.read_bytes()
    return None


def _authority(settings: Settings) -> Path | None:
    file = settings.tls_dir / "ca.crt" if settings.tls_dir else None
    return file if file and file.is_file() else None

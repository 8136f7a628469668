"""The cluster as it is now: each node is asked all the time, by PostgreSQL's protocol and by Patroni's."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from ssl import SSLContext
from typing import Generic, Protocol, TypeVar

from entrypoint.backends import Backend
from sidecar.member import NOT_ASKED, Member, Reach, Rest, Sql
from sidecar.patroni import Patroni
from sidecar.standing import Credentials, Standing

T = TypeVar("T", bound=Sql | Rest)
T_co = TypeVar("T_co", bound=Sql | Rest, covariant=True)

_PAUSE_SECONDS = 0.05
"""Between two questions, at least."""
_HASTE, _HASTY_SECONDS = 0.2, 60.0
"""The part of the period after which somebody who has fallen silent is asked again, and how long."""
_STOP_SECONDS = 0.2


class Asker(Protocol[T_co]):
    """Asks one node one kind of question, by one thread at a time."""

    def ask(self) -> T_co:
        """Must come to an end by itself."""

    def close(self) -> None:
        """Leave."""


class _Watch(Generic[T]):
    """One thread that asks one node; nobody waits for it."""

    def __init__(
        self, asker: Asker[T], period: float, wake: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        self.latest: T | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.ended = threading.Event()
        self._asker = asker
        self._period = period
        self._wake = wake
        self._failed = failed

    def _run(self) -> None:
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                answer = self._asker.ask()
            except Exception as error:  # noqa: BLE001  # then nothing is known, and the next question may do
                self.latest = None
                self._failed(error)
            else:
                self._note(answer)
            self.ended.wait(max(_PAUSE_SECONDS, began + self._pace() - time.monotonic()))
        self._asker.close()

    def _pace(self) -> float:
        """Who does not answer since a moment ago may be back in the next one, and clients wait for that."""
        latest = self.latest
        if latest is None or latest.reach is Reach.ANSWERED or latest.asked - latest.since > _HASTY_SECONDS:
            return self._period
        return self._period * _HASTE

    def _note(self, answer: T) -> None:
        former = self.latest
        if former is not None and former.reach is answer.reach:
            answer = replace(answer, since=former.since)
        answer = _continued(answer, former)
        self.latest = answer
        if answer != former:
            self._wake()


class Observer:
    """Asks all nodes at the same time, each again and again; `members` tells what they said last.

    A thread for each node and kind of question: one that gets no answer delays no other. On each PostgreSQL, one
    session stands.
    """

    def __init__(  # noqa: PLR0913  # who, where, how often
        self,
        backends: Sequence[Backend],
        login: Callable[[], Credentials | None],
        patroni: Sequence[str] | None,
        *,
        wake: Callable[[], None] = lambda: None,
        failed: Callable[[Exception], None] = lambda _: None,
        tls: SSLContext | None = None,
        period: float = 0.25,
        seconds: float = 1.0,
    ) -> None:
        """Ask nobody yet.

        Args:
            backends: pgpool's, in the order of their node ids.
            login: role, password and database; None while they are not known. Called when a login is due.
            patroni: URLs in the order of the backends (sidecar.patroni.urls); none: Patroni is not asked.
            wake: called, by any thread, whenever an answer differs from the one before it in more than its time.
            failed: told about an error that nobody has foreseen; nothing is then known of that node.
            tls: for https (sidecar.patroni.trust); the system's authorities when not given.
            period: seconds from one question to the next.
            seconds: how long a question may take.
        """
        self._backends = tuple(backends)
        self._unasked = _unasked(time.monotonic())
        servers = [Standing(each, login, seconds=seconds, again=period) for each in backends]
        patronis = [
            Patroni(url, nobody_leads=self._nobody_leads, seconds=seconds, again=period, tls=tls)
            for url in (patroni or ())[: len(backends)]
        ]
        self._sql = [_Watch(each, period, wake, failed) for each in servers]
        self._rest = [_Watch(each, period, wake, failed) for each in patronis]

    def start(self) -> None:
        """Begin to ask, once."""
        self._unasked = _unasked(time.monotonic())
        for watch in self._watches():
            watch.thread.start()

    def stop(self) -> None:
        """Ask no more, and leave; a question that is under way ends by itself soon afterwards."""
        for watch in self._watches():
            watch.ended.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for watch in self._watches():
            if watch.thread.ident is not None:
                watch.thread.join(max(0.0, deadline - time.monotonic()))

    def members(self) -> tuple[Member, ...]:
        """The latest answers; those of a node that is not heard of are as old as their `asked` says."""
        nodes = zip_longest(self._backends, self._sql, self._rest)
        return tuple(
            Member(
                node_id=node,
                name=backend.name,
                sql=sql.latest,
                rest=(rest.latest or self._unasked) if rest else None,
                is_always_primary="ALWAYS_PRIMARY" in backend.flags,
            )
            for node, (backend, sql, rest) in enumerate(nodes)
        )

    def _nobody_leads(self) -> bool:
        return not any(watch.latest and watch.latest.lock for watch in self._rest)

    def _watches(self) -> Sequence[_Watch[Sql] | _Watch[Rest]]:
        return (*self._sql, *self._rest)


def _continued(answer: T, former: T | None) -> T:
    """With what only the answers before it tell, of Patroni."""
    if not isinstance(answer, Rest):
        return answer
    before = former if isinstance(former, Rest) else None
    led = answer.asked if answer.lock else before.led if before else None
    seen, since = answer.dcs_last_seen, answer.asked
    if before is not None and before.dcs_since is not None and seen in (None, before.dcs_last_seen):
        seen, since = before.dcs_last_seen, before.dcs_since
    return replace(answer, led=led, dcs_last_seen=seen, dcs_since=None if seen is None else since)


def _unasked(now: float) -> Rest:
    """Of a Patroni that is going to be asked."""
    return Rest(asked=now, reach=Reach.UNTOLD, since=now, reason=NOT_ASKED)

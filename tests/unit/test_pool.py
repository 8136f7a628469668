"""Which children may still know former passwords once others were replaced: over listings as PCP gives them."""

import itertools
from collections.abc import Sequence

import pytest

from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from sidecar.login import Attempt
from sidecar.pcp import CONNECTING, WAITING, Pcp, Process
from sidecar.pool import Pool
from support.pgpool_answers import process

BUSY = "Idle"
Child = tuple[int, str, int]
"""Its pid, its status, and how many clients it has served."""
REPLACED: Child = (1, WAITING, 0)
"""One that always ends, and another comes."""


class Pgpool(Pcp):
    """Lists its children as it was told to, before and after each time that they are to be replaced."""

    def __init__(self, *before_and_after: Sequence[Child]) -> None:
        super().__init__(nowhere, {})
        self.rounds = 0
        self._listings = itertools.chain(before_and_after, itertools.repeat(before_and_after[-1]))

    def processes(self) -> tuple[Process, ...]:
        return tuple(process(pid, status, client_connections=served) for pid, status, served in next(self._listings))

    def attach(self, node_id: int) -> None:
        assert node_id > 100
        self.rounds += 1

    def reload(self) -> None:
        """There is nothing to read."""


def nowhere() -> PcpAddress:
    raise NotImplementedError


def nobody(role: str, password: Secret) -> Attempt:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("before", "after", "rounds"),
    [
        ((WAITING, 5), (WAITING, 5), 1),
        ((BUSY, 5), (BUSY, 5), 1),
        ((WAITING, 5), (BUSY, 5), 2),
        ((WAITING, 5), (CONNECTING, 5), 2),
        ((CONNECTING, 5), (BUSY, 5), 2),
        ((WAITING, 5), (WAITING, 6), 2),
        ((CONNECTING, 5), (WAITING, 6), 2),
        ((BUSY, 5), (WAITING, 6), 2),
        ((BUSY, 5), (BUSY, 6), 2),
    ],
    ids=[
        "idle: it is about to go",
        "in the session that it was in: it goes after that",
        "in a new session",
        "letting a client in",
        "it was letting a client in, who has a session now",
        "idle, but it has served somebody",
        "idle, but it has served the one that it was letting in",
        "idle after a session: it was not marked, or has lost the mark",
        "in another session",
    ],
)
def test_a_child_that_let_a_client_in_may_have_lost_its_mark(
    before: tuple[str, int], after: tuple[str, int], rounds: int
) -> None:
    others = (2, WAITING, 0), (3, WAITING, 0)
    pgpool = Pgpool([REPLACED, (9, *before)], [others[0], (9, *after)], [REPLACED, others[0]], [others[0], others[1]])
    Pool(pgpool, nobody, sleep=lambda _: None).retire()
    assert pgpool.rounds == rounds


def test_it_is_not_tried_without_end() -> None:
    listings = [[(pid, WAITING, 0), (9, WAITING, served)] for pid, served in enumerate(range(100), 1)]
    pgpool = Pgpool(*listings)
    Pool(pgpool, nobody, sleep=lambda _: None).retire()
    assert pgpool.rounds == 3


def test_a_child_that_is_not_there_is_not_waited_for() -> None:
    pgpool = Pgpool([(0, WAITING, 0), (9, BUSY, 5)])
    Pool(pgpool, nobody, patience=0, sleep=lambda _: None).retire()
    assert pgpool.rounds == 1

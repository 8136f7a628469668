from pathlib import Path

import pytest

from support.probe_log import Ack, Failure, Intent, Journal, JournalReader, Record, Skip
from support.probe_report import Audit, Report, audit, longest_silence, next_ack, report, rows

NODE_1, NODE_2 = "127.0.0.11:5432", "127.0.0.12:5432"


def ack(at: float, worker: str = "steady-0", *, seq: int = 0, due: float | None = None, second: bool = False) -> Ack:
    where = ("00000002", NODE_2) if second else ("00000001", NODE_1)
    return Ack(at, worker, seq, at if due is None else due, *where)


def failure(at: float, reason: str, worker: str = "steady-0", *, session: int = 1, busy: bool = True) -> Failure:
    return Failure(at, worker, at, session, busy, reason, f"words of {reason}")


# Binary fractions, for exact differences.
SWITCHOVER: list[Record] = [
    ack(9.875, "steady-0"),
    ack(9.9375, "steady-1"),
    ack(9.75, "login-0"),
    ack(10.125, "steady-0"),
    failure(10.1875, "57P01", "steady-0"),
    failure(10.25, "connect", "steady-0", session=2, busy=False),
    failure(10.25, "25006", "steady-1", session=7),
    failure(10.75, "25006", "steady-1", session=7),
    failure(10.8, "57P01", "login-0", session=40, busy=False),
    ack(12.625, "steady-0", due=10.25, second=True),
    Skip(12.625, "steady-0", 28),
    ack(12.6875, "steady-1", second=True),
    ack(12.75, "login-0", due=11.0, second=True),
    ack(13.0, "steady-0", second=True),
    ack(13.125, "steady-1", second=True),
    failure(99.0, "57P01"),
]


def test_a_switchover_as_clients_lived_through_it() -> None:
    seen = report(SWITCHOVER, since=10.0, until=13.25)
    assert seen == Report(
        since=10.0,
        until=13.25,
        operations=6,
        gap=2.5,
        gap_began=10.125,
        worst_gap=2.75,
        login_gap=3.0,
        slowest=2.375,
        slowest_login=1.75,
        skipped=28,
        errors={"57P01": 2, "connect": 1, "25006": 2},
        words={"words of 57P01": 2, "words of connect": 1, "words of 25006": 2},
        busy_errors=3,
        new_errors=2,
        refusals=2,
        worst_session=2,
        worst_worker=2,
        read_only_seconds=0.5,
        timelines=("00000001", "00000002"),
        nodes=(NODE_1, NODE_2),
    )
    assert seen.read_only_errors == 2


@pytest.mark.parametrize(("seconds", "refusals"), [(0.0, 1), (28.5, 1), (30.0, 0)])
def test_who_was_held_for_long_was_not_refused(seconds: float, refusals: int) -> None:
    seen = report([Failure(60.0, "login-0", 60.0 - seconds, 2, False, "57P03", "no primary")], since=0.0, until=90.0)
    assert (seen.new_errors, seen.refusals) == (1, refusals)


@pytest.mark.parametrize(
    ("due", "let_in", "refusals"), [(9.9, None, 1), (9.9, 9.95, 0), (9.9, 10.5, 0), (9.9, 10.75, 1), (10.125, 10.25, 1)]
)
def test_who_was_on_the_way_in_when_the_first_session_broke_was_not_refused(
    due: float, let_in: float | None, refusals: int
) -> None:
    new = Failure(10.8, "login-0", due, 2, False, "eof", "its first statement", let_in)
    seen = report([failure(10.0, "57P01"), new], since=9.0, until=20.0)
    assert (seen.new_errors, seen.refusals) == (1, refusals)


def test_a_gap_lasts_until_the_end_when_nothing_comes_any_more() -> None:
    seen = report([ack(1.0), ack(1.5), ack(1.0, "login-0")], since=0.5, until=60.0)
    assert (seen.gap, seen.gap_began, seen.login_gap) == (58.5, 1.5, 59.0)


def test_one_worker_that_is_forgotten_has_a_gap_of_its_own() -> None:
    seen = report([ack(0.125, "steady-1"), *(ack(step / 8) for step in range(80))], since=0.0, until=10.0)
    assert (seen.gap, seen.worst_gap) == (0.125, 9.875)


def test_a_worker_that_was_never_acknowledged_has_the_whole_span_for_a_gap() -> None:
    seen = report([Intent(0.1, "steady-1", 0), *(ack(step / 10) for step in range(101))], since=0.0, until=10.0)
    assert seen.worst_gap == 10.0


def test_nothing_is_reported_of_what_has_no_workers() -> None:
    seen = report([ack(5.0, "login-0", due=4.0)], since=4.0, until=6.0)
    assert (seen.gap, seen.worst_gap, seen.slowest) == (0.0, 0.0, 0.0)
    assert (seen.login_gap, seen.slowest_login) == (1.0, 1.0)
    assert report([], since=4.0, until=6.0).login_gap == 0.0


def test_slow_transactions_are_no_held_statements() -> None:
    seen = report([ack(5.0, "transaction-0", due=4.0), ack(5.0, due=4.875)], since=4.0, until=6.0)
    assert (seen.operations, seen.slowest) == (2, 0.125)


def test_a_span_sees_nothing_of_what_was_before_and_after() -> None:
    seen = report(SWITCHOVER, since=12.65, until=13.25)
    assert (seen.errors, seen.skipped, seen.timelines) == ({}, 0, ("00000002",))
    assert seen.gap == 0.3125


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], (10.0, 10.0)),
        ([9.0], (11.0, 9.0)),
        ([8.0, 9.0, 21.0], (11.0, 9.0)),
        ([15.0], (5.0, 15.0)),
        ([9.5, 16.0, 19.0], (6.5, 9.5)),
        ([10.0, 20.0], (10.0, 10.0)),
    ],
)
def test_the_longest_silence_between_10_and_20(times: list[float], expected: tuple[float, float]) -> None:
    assert longest_silence(times, 10.0, 20.0) == expected


def test_the_next_acknowledgment() -> None:
    assert next_ack(SWITCHOVER, 10.25) == 2.375
    assert next_ack(SWITCHOVER, 10.25, "login") == 2.5
    assert next_ack(SWITCHOVER, 13.2) is None


def test_an_audit_finds_what_is_lost_and_what_nobody_sent_and_what_is_there_twice() -> None:
    sent = {("steady-0", seq) for seq in range(6)}
    acknowledged = {("steady-0", 0), ("steady-0", 1), ("steady-0", 2)}
    table = [("steady-0", 0), ("steady-0", 2), ("steady-0", 2), ("steady-0", 5), ("steady-1", 0)]
    assert audit(acknowledged, table, sent) == Audit(
        lost=(("steady-0", 1),), phantom=(("steady-1", 0),), duplicate=(("steady-0", 2),)
    )
    assert audit(acknowledged, [*acknowledged, ("steady-0", 4)], sent) == Audit((), (), ())


def test_rows_are_those_of_one_kind_of_record() -> None:
    records: list[Record] = [Intent(1.0, "steady-0", 1), Intent(1.0, "steady-0", 2), ack(1.1, seq=1)]
    assert (rows(records, Intent), rows(records, Ack)) == ({("steady-0", 1), ("steady-0", 2)}, {("steady-0", 1)})


def test_what_was_written_down_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a %20 journal"
    reader = JournalReader(path)
    assert reader.records() == []
    records: list[Record] = [
        Intent(1.000000001, "steady-0", 1),
        Failure(2.0, "login-0", 1.5, 3, False, "connect", 'a "word",\n\ta % and ünïcode'),
        Ack(3.0, "copy-0", 1, 2.0, None, None),
        Skip(4.0, "steady-0", 3),
    ]
    Journal(path).write(*records[:2])
    assert reader.records() == records[:2]
    Journal(path).write(*records[2:])
    assert reader.records() == records


def test_half_a_line_is_left_until_the_rest_is_there(tmp_path: Path) -> None:
    path, record = tmp_path / "journal", Intent(1.0, "steady-0", 1)
    Journal(path).write(record)
    line = path.read_bytes()
    path.write_bytes(line + line[:9])
    reader = JournalReader(path)
    assert reader.records() == [record]
    with path.open("ab") as file:
        file.write(line[9:])
    assert reader.records() == [record, record]

"""Patroni's answers, and everything that can go wrong on the way."""

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint import values
from entrypoint.backends import Backend
from sidecar.member import Reach, Rest
from sidecar.patroni import Patroni, leader, read_node, timing, trust, urls
from support.certificates import Authority, Certificate
from support.patroni_answers import CLUSTER, CONFIG, DEMOTED, OLD, PRIMARY, REPLICA, node
from support.ports import free_port


def read(status: int, document: object) -> Rest:
    return read_node(5.0, status, document)


def test_who_has_the_lock_is_told_by_the_status_alone() -> None:
    assert read(200, PRIMARY) == Rest(
        asked=5.0,
        reach=Reach.ANSWERED,
        since=5.0,
        lock=True,
        dcs_last_seen=1795477215,
    )
    assert read(200, PRIMARY).dcs_last_seen == 1795477215
    assert read(503, PRIMARY).lock is False
    assert read(200, REPLICA).lock is True, "it is about to be promoted"
    assert read(200, OLD).lock is True, "Patroni 2"


def test_a_former_leader_says_so() -> None:
    demoted = read(503, DEMOTED)
    assert (demoted.lock, demoted.unlocked) == (False, True)
    assert read(503, DEMOTED | {"pause": True}).paused
    assert read(200, PRIMARY | {"failsafe_mode_is_active": True}).failsafe


@pytest.mark.parametrize(
    ("status", "document"), [(404, PRIMARY), (500, PRIMARY), (200, []), (503, "running"), (200, {"members": []})]
)
def test_what_is_not_patronis_is_refused(status: int, document: object) -> None:
    with pytest.raises(ValueError, match="not Patroni"):
        read(status, document)


def test_fields_of_another_type_are_not_believed() -> None:
    odd = read(503, {"state": 5, "dcs_last_seen": "now", "pause": "no", "cluster_unlocked": 1})
    assert (odd.dcs_last_seen, odd.paused, odd.unlocked) == (None, False, False)
    assert read(503, {"state": 5, "dcs_last_seen": True}).dcs_last_seen is None


@pytest.mark.parametrize(
    ("document", "times"),
    [
        (CONFIG, (20.0, 2.0)),
        ({}, (30.0, 10.0)),
        ({"ttl": 30, "loop_wait": 30, "retry_timeout": 10}, (30.0, 10.0)),
        ({"ttl": 5, "loop_wait": 10, "retry_timeout": 3}, (20.0, 10.0)),
        ({"ttl": "60", "loop_wait": "10", "retry_timeout": "10"}, (60.0, 10.0)),
        ({"ttl": 20, "loop_wait": 10, "retry_timeout": 10}, (20.0, 1.0)),
        ({"loop_wait": -1}, (30.0, 1.0)),
        ({"ttl": "thirty"}, (None, None)),
        ({"ttl": [30]}, (None, None)),
        ({"ttl": 10**400}, (None, None)),
        ([], (None, None)),
    ],
)
def test_the_configuration_tells_how_long_the_lock_lasts(document: object, times: tuple[float, float]) -> None:
    """As Patroni adjusts what somebody wrote."""
    assert timing(document) == times


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (CLUSTER, "postgres-1"),
        ({"members": CLUSTER["members"][1:]}, None),
        ({"members": [{"name": "postgres-1", "role": "standby_leader"}]}, None),
        ({"members": [None, {"role": "leader"}]}, None),
        ({"members": None}, None),
        ([], None),
    ],
)
def test_the_cluster_tells_who_holds_the_lock(document: object, name: str | None) -> None:
    assert leader(document) == name


def test_on_means_port_8008_of_each_backend() -> None:
    backends = [Backend(name="a", host="10.0.0.1"), Backend(name="b", host="fd00::1"), Backend(name="c", host="db-3")]
    on, given = values.Patroni(enabled=True), values.Patroni(enabled=True, urls=("https://a:1", "https://b:1"))
    assert urls(on, backends) == ("http://10.0.0.1:8008", "http://[fd00::1]:8008", "http://db-3:8008")
    assert urls(given, backends) == ("https://a:1", "https://b:1")
    assert urls(values.Patroni(enabled=False), backends) == ()


def patroni(
    port: int, *, leads: bool = False, seconds: float = 1.0, clock: Callable[[], float] = time.monotonic
) -> Patroni:
    url = f"http://127.0.0.1:{port}"
    return Patroni(url, nobody_leads=lambda: not leads, seconds=seconds, again=0.25, clock=clock)


def hang(client: socket.socket) -> None:
    """Until the client goes."""
    client.recv(1)


def test_a_node_is_asked_for_the_leader_only_while_nobody_leads() -> None:
    with node() as server:
        server.answer("/primary", 200, PRIMARY)
        server.answer("/cluster", 200, CLUSTER)
        assert patroni(server.port).ask().leader is None
        server.answer("/primary", 503, REPLICA)
        assert patroni(server.port, leads=True).ask().leader is None
        server.answer("/primary", 503, DEMOTED)
        assert patroni(server.port).ask().leader is None, "it said already that it knows of none"
        assert "/cluster" not in server.asked, "nobody needed it"
        server.answer("/primary", 503, REPLICA)
        rest = patroni(server.port).ask()
        assert (rest.lock, rest.leader) == (False, "postgres-1")


def test_a_node_is_asked_for_the_leader_once_a_second_and_its_answer_is_kept_meanwhile() -> None:
    times = [0.25 * number for number in range(40)]
    with node() as server:
        server.answer("/primary", 503, REPLICA)
        server.answer("/cluster", 200, CLUSTER)
        now = times[0]
        asker = patroni(server.port, clock=lambda: now)
        for now in times:  # noqa: B007  # the clock
            assert asker.ask().leader == "postgres-1"
        assert (server.asked.count("/primary"), server.asked.count("/cluster")) == (40, 10)


def test_how_long_the_lock_lasts_is_asked_once_a_minute_and_remembered() -> None:
    with node() as server:
        server.answer("/primary", 200, PRIMARY)
        now = 0.0
        asker = patroni(server.port, clock=lambda: now)
        for now in range(100):  # noqa: B007  # the clock
            rest = asker.ask()
            assert (rest.ttl, rest.loop_wait) == (20.0, 2.0)
        assert server.asked.count("/config") == 2
        server.says["/primary"] = lambda _: None
        rest = asker.ask()
        assert (rest.reach, rest.ttl, rest.loop_wait) == (Reach.UNTOLD, 20.0, 2.0)


def test_while_nobody_tells_how_long_the_lock_lasts_it_is_asked_more_often() -> None:
    with node() as server:
        server.answer("/primary", 200, PRIMARY)
        server.answer("/config", 503, {"ttl": 5})
        now = 0.0
        asker = patroni(server.port, clock=lambda: now)
        for now in range(10):  # the clock
            assert asker.ask().ttl is None
            if now == 4:
                server.answer("/config", 200, CONFIG)
                break
        now = 5.0
        assert asker.ask().ttl == 20.0
        server.says["/config"] = lambda _: None
        for now in (66.0, 72.0):  # noqa: B007  # the clock
            assert asker.ask().ttl == 20.0, "what was told before"
        assert server.asked.count("/config") == 4


def test_a_node_whose_etcd_is_away_still_tells_about_itself() -> None:
    with node() as server:
        server.answer("/primary", 503, REPLICA)
        server.says["/cluster"] = hang
        rest = patroni(server.port).ask()
        assert (rest.reach, rest.lock, rest.leader) == (Reach.ANSWERED, False, None)
        server.says["/cluster"] = lambda _: None
        assert patroni(server.port).ask().reach is Reach.ANSWERED


def trickle(client: socket.socket) -> None:
    for letter in b"HTTP/1.0 200 OK\r\n" * 100:
        client.sendall(bytes([letter]))
        time.sleep(0.1)  # what is tested: the slowness of somebody else


def flood(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 300_000)


@pytest.mark.parametrize(
    ("says", "reach", "reason"),
    [
        (hang, Reach.SILENT, "no answer in time"),
        (trickle, Reach.SILENT, "no answer in time"),
        (lambda _: None, Reach.UNTOLD, "the answer is not Patroni's"),
        (flood, Reach.UNTOLD, "the answer is not Patroni's"),
        (lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), Reach.UNTOLD, "the answer is not Patroni's"),
        (lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 9999), Reach.UNTOLD, None),
        (lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n\r\n\xff"), Reach.UNTOLD, None),
        (lambda client: client.sendall(b"HTTP/1.0 401 Unauthorized\r\n\r\n{}"), Reach.UNTOLD, None),
    ],
    ids=["hangs", "trickles", "hangs up", "floods", "no HTTP", "too deep", "no UTF-8", "401"],
)
def test_whatever_a_server_does_the_question_ends_in_time(
    says: Callable[[socket.socket], None], reach: Reach, reason: str | None
) -> None:
    with node() as server:
        server.says["/primary"] = says
        began = time.monotonic()
        rest = patroni(server.port, seconds=0.5).ask()
        assert time.monotonic() - began < 1.0
    assert (rest.reach, rest.lock) == (reach, None)
    assert rest.reason == (reason or rest.reason) != ""


def test_a_port_without_a_listener_refuses() -> None:
    assert patroni(free_port()).ask().reach is Reach.REFUSED


def serving(certificate: Certificate, directory: Path) -> ssl.SSLContext:
    files = certificate.write(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "tls.crt", files / "tls.key")
    return context


def test_https_is_believed_when_our_authority_signed_it_for_this_host(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    ours = trust(tmp_path / "ca.crt")
    right = serving(authority.issue(), tmp_path / "right")
    of_another_host = serving(authority.issue(names=["db.example"]), tmp_path / "other")
    for context, trusted, reach in [
        (right, ours, Reach.ANSWERED),
        (right, trust(None), Reach.UNTOLD),
        (of_another_host, ours, Reach.UNTOLD),
    ]:
        with node(context) as server:
            server.answer("/primary", 200, PRIMARY)
            url = f"https://127.0.0.1:{server.port}"
            rest = Patroni(url, nobody_leads=lambda: False, seconds=5.0, again=0.25, tls=trusted).ask()
        assert rest.reach is reach, rest
    with node() as plain:
        plain.answer("/primary", 200, PRIMARY)
        url = f"https://127.0.0.1:{plain.port}"
        assert Patroni(url, nobody_leads=lambda: False, seconds=5.0, again=0.25).ask().reach is not Reach.ANSWERED


def test_a_tls_handshake_that_hangs_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        asker = Patroni(url, nobody_leads=lambda: False, seconds=0.5, again=0.25)
        began = time.monotonic()
        rest = asker.ask()
        assert time.monotonic() - began < 1.0
    assert rest.reach is Reach.SILENT


def test_a_name_that_nobody_resolves_says_nothing_about_the_node() -> None:
    rest = Patroni("http://nowhere.invalid:8008", nobody_leads=lambda: False, seconds=1.0, again=0.25).ask()
    assert rest.reach is Reach.UNTOLD

"""HTTP over real sockets: everybody gets an answer, whatever the others do."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from entrypoint.probe import Verdict
from entrypoint.secret import Secret
from sidecar.web import Sources, Web, pages
from support.deadline import wait_until

PATHS = ["/livez", "/readyz", "/pgpool/livez", "/pgpool/readyz", "/status", "/metrics"]
SENTINEL = "sentinel 100% password"


@dataclass
class Pod:
    """What the pages tell, to be changed by a test."""

    live: Verdict = field(default_factory=lambda: Verdict(True, "all loops beat"))
    ready: Verdict = field(default_factory=lambda: Verdict(False, "no good state yet\nsince the start"))
    pgpool: Verdict = field(default_factory=lambda: Verdict(True, "PCP answers"))
    answers: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.answers.set()
        Counter("of_tests", "A counter.", registry=self.registry).inc()

    def judge(self) -> Verdict:
        self.asked += 1
        assert self.answers.wait(10)
        return self.pgpool

    def status(self) -> Mapping[str, object]:
        return {"state": "in_sync", "password": Secret(SENTINEL)}

    def sources(self) -> Sources:
        return Sources(
            live=lambda: self.live,
            ready=lambda: self.ready,
            pgpool_live=self.judge,
            pgpool_ready=self.judge,
            status=self.status,
            registry=self.registry,
        )


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: str


def ask(port: int, path: str, *, method: str = "GET", host: str = "127.0.0.1", accept: str = "*/*") -> Reply:
    with closing(http.client.HTTPConnection(host, port, timeout=10)) as client:
        client.request(method, path, headers={"Accept": accept})
        response = client.getresponse()
        return Reply(response.status, response.headers, response.read().decode())


@pytest.fixture
def pod() -> Iterator[Pod]:
    pod = Pod()
    yield pod
    pod.answers.set()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where an unchanging pod is served: to stop a server takes half a second."""
    with Web(("127.0.0.1", 0), pages(Pod().sources())) as web:
        yield web.port


@pytest.fixture
def pod_port(pod: Pod) -> Iterator[int]:
    with Web(("127.0.0.1", 0), pages(pod.sources())) as web:
        yield web.port


def test_a_verdict_is_a_status_and_one_line(port: int) -> None:
    reply = ask(port, "/livez")
    assert (reply.status, reply.body) == (200, "all loops beat\n")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    reply = ask(port, "/readyz?verbose")
    assert (reply.status, reply.body) == (503, "no good state yet since the start\n")
    for path in ("/pgpool/livez", "/pgpool/readyz"):
        reply = ask(port, path)
        assert (reply.status, reply.body) == (200, "PCP answers\n")


def test_the_status_is_json_without_secrets(port: int) -> None:
    reply = ask(port, "/status")
    assert json.loads(reply.body) == {"state": "in_sync", "password": "(secret)"}
    assert reply.headers["Content-Type"] == "application/json"


def test_a_file_name_that_is_not_utf_8_is_escaped(pod: Pod) -> None:
    pod.ready = Verdict(True, "/users/п\udcff: has no file")
    with Web(("127.0.0.1", 0), pages(replace(pod.sources(), status=lambda: {"reason": pod.ready.reason}))) as web:
        assert ask(web.port, "/readyz").body == "/users/п\\udcff: has no file\n"
        assert json.loads(ask(web.port, "/status").body) == {"reason": pod.ready.reason}


def test_metrics_come_in_the_form_that_is_asked_for(port: int) -> None:
    reply = ask(port, "/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(reply.body)}
    assert families["of_tests"].samples[0].value == 1
    reply = ask(port, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    openmetrics = parse_openmetrics(reply.body)  # type: ignore[no-untyped-call]
    assert [family.name for family in openmetrics] == ["of_tests"]


@pytest.mark.parametrize("version", ["x", "", "1.x", "1.0.0;escaping=x", "99.0", "1.0.0.0", "-1", "٣"])
def test_metrics_come_as_text_to_who_asks_for_a_version_that_is_none(port: int, version: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        accept = f"application/openmetrics-text;version={version}"
        client.sendall(f"GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode())
        answer = client.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.0 200 ")
    assert "of_tests_total 1.0" in answer


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(port: int, path: str) -> None:
    get, head = ask(port, path), ask(port, path, method="HEAD")
    assert head.status == get.status
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.body.encode()))
    assert head.body == ""


@pytest.mark.parametrize("path", ["/", "/nope", "/livez/", "/LIVEZ", "/%00", "/../status", "/status/x"])
def test_an_unknown_path_is_told_which_there_are(port: int, path: str) -> None:
    reply = ask(port, path)
    assert reply.status == 404
    assert reply.body.splitlines() == PATHS


@pytest.mark.parametrize("path", ["http://[::1", "http://[x]/livez"])
def test_what_is_no_path_is_a_bad_request(port: int, capsys: pytest.CaptureFixture[str], path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = client.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.0 400 ")
    assert answer.endswith("\r\n\r\nnot a path\n")
    assert capsys.readouterr() == ("", "")


def test_other_methods_are_refused(port: int) -> None:
    reply = ask(port, "/livez", method="POST")
    assert reply.status == 501
    assert reply.body == "Unsupported method ('POST')\n"


def test_nobody_is_told_what_serves(port: int) -> None:
    assert ask(port, "/livez").headers["Server"] == "pgpool-sidecar"


def test_a_bug_in_a_page_is_told_without_its_words(pod: Pod, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Mapping[str, object]:
        raise LookupError

    told = ""

    def is_told() -> bool:  # a little after the answer
        nonlocal told
        told += capsys.readouterr().err
        return "LookupError" in told

    with Web(("127.0.0.1", 0), pages(replace(pod.sources(), status=broken))) as web:
        reply = ask(web.port, "/status")
        assert (reply.status, reply.body) == (500, "a bug: LookupError\n")
        wait_until(is_told, timeout=10, failure=lambda: told)
        assert ask(web.port, "/livez").status == 200


def test_silent_and_slow_clients_block_nobody(port: int) -> None:
    with ExitStack() as stack:
        for number in range(100):  # far more than are served at a time
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHos")
        started = time.monotonic()
        assert ask(port, "/livez").status == 200
        assert time.monotonic() - started < 1


def test_slow_pages_of_the_oldest_clients_keep_nobody_out(pod: Pod) -> None:
    finish = threading.Event()

    def slow() -> Mapping[str, object]:
        assert finish.wait(10)
        return {}

    with ExitStack() as stack:
        web = stack.enter_context(Web(("127.0.0.1", 0), pages(replace(pod.sources(), status=slow))))
        stack.callback(finish.set)

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))

        for _ in range(2):
            connect().sendall(b"GET /status HTTP/1.0\r\n\r\n")
        time.sleep(0.1)
        for _ in range(30):
            connect()
        for _ in range(3):
            started = time.monotonic()
            assert ask(web.port, "/livez").status == 200
            assert time.monotonic() - started < 1


def test_the_number_of_threads_is_bounded(port: int) -> None:
    others = set(threading.enumerate())
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert ask(port, "/livez").status == 200
        assert 1 < len(set(threading.enumerate()) - others) <= 33, "32, and one that is just ending"


def test_a_client_that_goes_away_is_not_worth_a_word(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert ask(port, "/livez").status == 200
    assert capsys.readouterr() == ("", "")


def test_a_probe_answers_while_pgpool_hangs(pod: Pod, pod_port: int) -> None:
    pod.answers.clear()
    started = time.monotonic()
    reply = ask(pod_port, "/pgpool/livez")
    assert time.monotonic() - started < 1
    assert (reply.status, reply.body) == (503, "no verdict on pgpool came in time\n")
    assert ask(pod_port, "/livez").status == 200


def test_probes_at_the_same_time_share_one_evaluation(pod: Pod, pod_port: int) -> None:
    pod.answers.clear()
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(ask(pod_port, "/pgpool/readyz"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    threading.Timer(0.1, pod.answers.set).start()
    for thread in threads:
        thread.join(10)
    assert [reply.status for reply in replies] == [200] * 8
    assert pod.asked == 1


def test_the_verdict_of_a_judge_that_fails_ever_since_does_not_stay(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    now, failing = 100.0, False

    def judge() -> Verdict:
        if failing:
            raise RuntimeError("a bug")
        return Verdict(True, "PCP answers")

    with Web(("127.0.0.1", 0), pages(replace(pod.sources(), pgpool_live=judge), clock=lambda: now)) as web:
        assert ask(web.port, "/pgpool/livez").status == 200
        failing = True
        now += 30
        assert ask(web.port, "/pgpool/livez").status == 200, "one failure is not the end"
        now += 1
        reply = ask(web.port, "/pgpool/livez")
        assert (reply.status, reply.body) == (503, "no verdict on pgpool came in time\n")


def test_a_busy_port_is_an_error(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        Web(("127.0.0.1", port), {})
    with pytest.raises(OSError, match="in use"):
        Web(("", port), {})


def test_no_host_is_every_interface(pod: Pod) -> None:
    with Web(("", 0), pages(pod.sources())) as web:
        assert ask(web.port, "/livez", host="127.0.0.1").status == 200
        if has_ipv6():
            assert ask(web.port, "/livez", host="::1").status == 200


def test_one_interface_is_one_interface(pod: Pod) -> None:
    with Web(("127.0.0.2", 0), pages(pod.sources())) as web:
        assert ask(web.port, "/livez", host="127.0.0.2").status == 200
        with pytest.raises(ConnectionRefusedError):
            ask(web.port, "/livez", host="127.0.0.1")


def test_where_ipv6_is_off_ipv4_serves(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = socket.socket.bind

    def without_ipv6(self: socket.socket, address: tuple[str, int]) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(99, "Cannot assign requested address")
        bind(self, address)

    monkeypatch.setattr(socket.socket, "bind", without_ipv6)
    with Web(("", 0), pages(pod.sources())) as web:
        assert ask(web.port, "/livez").status == 200


def test_a_closed_port_can_be_taken_again(pod: Pod) -> None:
    with Web(("127.0.0.1", 0), pages(pod.sources())) as web:
        port = web.port
        assert ask(port, "/livez").status == 200
    with Web(("127.0.0.1", port), pages(pod.sources())):
        assert ask(port, "/livez").status == 200


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True

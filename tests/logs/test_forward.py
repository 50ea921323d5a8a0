"""Records reach syslog servers and URLs: in order, every one at least once, and none of a receiver's troubles is another's."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_receivers import DatagramServer, HttpServer, Post, StreamServer, certificate, parsed
from outlets_ground import WEB, Shelf, at_work, running, state_of, wait_for

from ndactors.core.forwarding import name_of
from ndactors.core.logrecords import LogRecord
from ndactors.core.model import Forward
from ndactors.core.syslog import message
from ndactors.logs import failing, forward, receivers
from ndactors.logs.forward import Forwarder
from ndactors.logs.outlet_process import OutletProcess
from ndactors.logs.progress import Progress
from ndactors.logs.receivers import receiver_of
from ndactors.logs.walk import Counts, Cursor
from ndactors.messages.logs import KeepLogs, LogsReport

HOST = "host.test"
OLDEST = Cursor()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failing, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(failing, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr(forward, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(receivers.HttpReceiver, "batch_seconds", 0.05)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "state")
    yield shelf
    shelf.close()


@pytest.fixture
def servers() -> Iterator[Callable[[Any], Any]]:
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(contextlib.closing(server))


class Outlet:
    """One forwarder in threads of this process."""

    def __init__(self, shelf: Shelf, forward: Forward, cursor: Cursor | None = OLDEST) -> None:
        self.name = name_of(forward)
        self.progress = Progress(shelf.state_dir / "logs", [self.name], "")
        self.counts = Counts(shelf.folder)
        self._stop = threading.Event()
        if cursor is not None and self.progress.cursor(self.name) is None:
            self.progress.moved(self.name, cursor)
        receiver = receiver_of(forward, HOST)
        self._forwarder = Forwarder(self.name, shelf.folder, receiver, self.progress, self.counts, self._stop)
        self._shelf = shelf

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        with at_work(self._forwarder.run, stop=self._stop):
            yield
        self.progress.save()

    @property
    def error(self) -> str:
        self.progress.save()
        return state_of(self._shelf.state_dir).errors.get(self.name, "")

    @property
    def skipped(self) -> int:
        self.progress.save()
        return state_of(self._shelf.state_dir).skipped.get(self.name, 0)


@contextlib.contextmanager
def forwarding(shelf: Shelf, forward: Forward, cursor: Cursor | None = OLDEST) -> Iterator[Outlet]:
    outlet = Outlet(shelf, forward, cursor)
    with outlet.at_work():
        yield outlet


def keep(*forward: Forward) -> KeepLogs:
    return KeepLogs(days=7, bytes=1 << 30, forward=forward)


def numbered(count: int, start: int = 0, size: int = 0) -> list[str]:
    return [f"{i} {'x' * size}" for i in range(start, start + count)]


# -- what a message says ---------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=60)


@given(texts, texts, texts, texts, texts, texts)
def test_whatever_is_in_a_record_its_message_can_be_read(text, host, app, process, container, request_id):
    record = LogRecord(
        ts="2026-01-31T12:00:00.123456789Z",
        app=app,
        process=process,
        container=container,
        replica=3,
        stream="stdout",
        level="warning",
        message=text,
        request_id=request_id,
    )
    found = parsed(message(record, host))
    assert (found.facility, found.severity, found.text) == (1, 4, text)
    assert (found.time.microsecond, found.message_id) == (123456, "-")
    assert found.data == {
        "nextdeploy@32473": {
            "container": container,
            "process": process,
            "replica": "3",
            "stream": "stdout",
            "request_id": request_id,
        }
    }


def test_an_outlet_is_known_by_a_name_without_secrets():
    names = [
        name_of(Forward(syslog="tcp://Log.test")),
        name_of(Forward(syslog="udp://log.test:515/")),
        name_of(Forward(syslog="tls://[::1]")),
        name_of(Forward(http="https://user:hunter2@in.test/k3y?token=hunter3", headers={"Authorization": "hunter4"})),
        name_of(Forward(http="https://in.test:8443/")),
    ]
    assert names[:3] == ["syslog tcp://log.test:514", "syslog udp://log.test:515", "syslog tls://[::1]:6514"]
    assert names[3].startswith("http https://in.test #")
    assert names[4] == "http https://in.test:8443"
    assert not any(secret in name for name in names for secret in ("hunter", "k3y"))
    same = Forward(http="https://user:other@in.test/k3y?token=hunter3", headers={"Authorization": "other"})
    assert name_of(same) == names[3], "new keys are no new outlet"
    assert name_of(Forward(http="https://in.test/other")) != names[3]


# -- receivers -------------------------------------------------------------------------------------


def test_syslog_by_tcp(shelf, servers):
    server = servers(StreamServer())
    shelf.add("plain", 'several\n  lines "and" [more]\n', "ü€𝄞", level=3, stream=1)
    shelf.turn()
    with forwarding(shelf, Forward(syslog=f"tcp://127.0.0.1:{server.port}")):
        wait_for(lambda: len(server.messages) == 4, "what there was is there")
        shelf.add("later")
        wait_for(lambda: len(server.messages) == 5, "what comes later, too")
    assert [found.text for found in server.messages] == [
        "plain",
        'several\n  lines "and" [more]\n',
        "ü€𝄞",
        "turned from 1",
        "later",
    ]
    first = server.messages[0]
    assert (first.host, first.app, first.process, first.severity) == (HOST, "shop", "web.2", 3)
    assert first.data["nextdeploy@32473"]["container"] == WEB.container
    assert first.data["nextdeploy@32473"]["stream"] == "stderr"
    assert server.connections == 1


def test_syslog_by_tls_with_a_certificate_that_is_checked(shelf, servers, tmp_path, monkeypatch):
    context, authority = certificate(tmp_path)
    server = servers(StreamServer(context))
    shelf.add("secret")
    to = Forward(syslog=f"tls://localhost:{server.port}")
    with forwarding(shelf, to) as outlet:
        assert "certificate is not good" in wait_for(lambda: outlet.error, "the certificate is refused")
        assert server.messages == []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with forwarding(shelf, to) as outlet:
        wait_for(lambda: [found.text for found in server.messages] == ["secret"], "it is there")
        wait_for(lambda: not outlet.error, "all is well")
        shelf.add("more")
        wait_for(lambda: len(server.messages) == 2, "the connection is used again")
    assert server.connections == 2


def test_syslog_by_udp(shelf, servers):
    server = servers(DatagramServer())
    shelf.add("short", "€" * 5000)
    with forwarding(shelf, Forward(syslog=f"udp://127.0.0.1:{server.port}")):
        wait_for(lambda: len(server.messages) == 2, "both are there")
    assert parsed(server.messages[0]).text == "short"
    assert 8192 - 3 < len(server.messages[1]) <= 8192
    assert set(parsed(server.messages[1]).text) == {"€"}


def test_http_gets_records_as_lines_of_json(shelf, servers):
    server = servers(HttpServer())
    shelf.add("one\nand more", "two", level=2)
    to = Forward(http=f"{server.address}/in?x=1", headers={"Authorization": "Bearer t", "X-Scope": "s"})
    with forwarding(shelf, to):
        wait_for(lambda: server.taken == ["one\nand more", "two"], "both are there")
    post = server.posts[0]
    assert post.path == "/in?x=1"
    assert post.headers["Content-Type"] == "application/x-ndjson"
    assert (post.headers["Authorization"], post.headers["X-Scope"]) == ("Bearer t", "s")
    assert "Content-Encoding" not in post.headers
    assert post.records[0] == {
        "ts": "2026-09-21T14:13:20.000000000Z",
        "app": "shop",
        "process": "web",
        "container": "c" * 64,
        "replica": 2,
        "stream": "stdout",
        "level": "warning",
        "message": "one\nand more",
    }


def test_https_with_a_certificate_that_is_checked(shelf, servers, tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    context, authority = certificate(tmp_path)
    server = servers(HttpServer(context=context))
    shelf.add("secret")
    with forwarding(shelf, Forward(http=f"https://localhost:{server.port}/k3y")) as outlet:
        error = wait_for(lambda: outlet.error, "the certificate is refused")
        assert error.startswith("its certificate is not good")
        assert (server.posts, "k3y" in error) == ([], False)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        wait_for(lambda: server.taken == ["secret"], "it is there")


def test_a_batch_is_at_most_a_mebibyte(shelf, servers):
    server = servers(HttpServer())
    messages = numbered(3000, size=1000)
    for i in range(0, 3000, 500):
        shelf.add(*messages[i : i + 500])
    with forwarding(shelf, Forward(http=server.address)):
        wait_for(lambda: len(server.taken) == 3000, "all are there")
    assert server.taken == messages
    sizes = [len(post.body) for post in server.posts]
    assert max(sizes) <= 1024 * 1024
    assert len(sizes) == -(-sum(sizes) // (1024 * 1024)), "and as much as fits"


def test_a_batch_waits_for_more(shelf, servers, monkeypatch):
    monkeypatch.setattr(receivers.HttpReceiver, "batch_seconds", 0.6)
    server = servers(HttpServer())
    shelf.add("one")
    with forwarding(shelf, Forward(http=server.address)) as outlet:
        shelf.add("two")
        wait_for(lambda: server.taken == ["one", "two"], "both are there")
        wait_for(lambda: outlet.progress.cursor(outlet.name).offset == shelf.segments.length, "and done with")
    assert len(server.posts) == 1


# -- troubles of receivers -------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [500, 429, 408, None], ids=str)
def test_what_passes_is_tried_again(shelf, servers, trouble):
    answers = [trouble, trouble, 200]
    server = servers(HttpServer(lambda _: answers.pop(0) if answers else 200))
    shelf.add("one", "two")
    with forwarding(shelf, Forward(http=server.address)) as outlet:
        wait_for(lambda: server.taken == ["one", "two"], "they are taken in the end")
        wait_for(lambda: not outlet.error, "all is well")
    assert [post.messages for post in server.posts] == [["one", "two"]] * 3


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "it refuses the records (400)"),
        (403, "it refuses us (403): see its `headers` in the configuration"),
        (302, "it sends us elsewhere (302), where we do not go: give the right URL"),
    ],
)
def test_what_only_somebody_can_mend_is_told_and_nothing_is_dropped(shelf, servers, monkeypatch, status, words):
    monkeypatch.setattr(failing, "SLOW_SECONDS", 0.1)
    bad = [status]
    server = servers(HttpServer(lambda _: bad[0]))
    shelf.add("one")
    with forwarding(shelf, Forward(http=f"{server.address}/k3y", headers={"X": "hunter2"})) as outlet:
        assert wait_for(lambda: outlet.error, "it is told") == words
        wait_for(lambda: len(server.posts) == 2, "it is tried again")
        bad[0] = 200
        wait_for(lambda: server.taken == ["one"], "it is taken once somebody mended it")
        wait_for(lambda: not outlet.error, "all is well")
    assert {post.path for post in server.posts} == {"/k3y"}, "a redirect is never followed"
    written = (shelf.state_dir / "logs" / "outlets.json").read_text()
    assert "hunter2" not in written
    assert "k3y" not in written


def test_a_batch_that_is_too_large_is_halved(shelf, servers):
    server = servers(HttpServer(lambda post: 413 if len(post.body) > 40_000 else 200))
    messages = [*numbered(300, size=500), "too large " + "y" * 50_000, *numbered(20, start=300, size=500)]
    shelf.add(*messages)
    with forwarding(shelf, Forward(http=server.address)) as outlet:
        wait_for(lambda: len(server.taken) == 320, "all that can be taken is")
        assert outlet.skipped == 1
        process = OutletProcess(shelf.state_dir, lambda _: None)
        process.configure(keep(Forward(http=server.address)))
        process.state = state_of(shelf.state_dir)
    assert server.taken == [*messages[:300], *messages[301:]]
    (told,) = process.added_to(LogsReport(pid=1), "").notes
    assert told.startswith(f"http {server.address}: at least 1 records were gone before")


def test_a_connection_that_breaks_in_the_middle_loses_nothing(shelf, servers):
    server = servers(StreamServer())
    messages = numbered(2000, size=500)
    server.breaks_after = 300_000
    for i in range(0, 2000, 100):
        shelf.add(*messages[i : i + 100])
    with forwarding(shelf, Forward(syslog=f"tcp://127.0.0.1:{server.port}")):
        wait_for(lambda: server.messages and server.messages[-1].text == messages[-1], "the last is there")
    assert server.connections == 2
    assert_only_a_batch_twice([found.text for found in server.messages], messages, 256 * 1024)


def assert_only_a_batch_twice(found: list[str], wanted: list[str], batch_bytes: int, breaks: int = 1) -> None:
    """All of them in order; where it went back, by a batch at most."""
    number = {text: i for i, text in enumerate(wanted)}
    places = [number[text] for text in found]
    assert set(places) == set(range(len(wanted)))
    back = [(a, b) for a, b in itertools.pairwise(places) if b != a + 1]
    assert len(back) <= breaks
    for last, first in back:
        assert first <= last, "nothing was left out"
        assert sum(len(wanted[i]) for i in range(first, last + 1)) <= batch_bytes


def test_a_server_that_is_away_gets_all_when_it_is_back(shelf, servers):
    gone = StreamServer()
    gone.close()
    shelf.add("while it was away")
    with forwarding(shelf, Forward(syslog=f"tcp://127.0.0.1:{gone.port}")) as outlet:
        wait_for(lambda: outlet.error == "it cannot be reached: Connection refused", "it is told")
        back = servers(StreamServer(port=gone.port))
        wait_for(lambda: [found.text for found in back.messages] == ["while it was away"], "it is there")
        wait_for(lambda: not outlet.error, "all is well")


def test_a_datagram_that_nobody_takes_is_sent_again(shelf, servers):
    gone = StreamServer()
    gone.close()
    shelf.add("one", "two", "three")
    with forwarding(shelf, Forward(syslog=f"udp://127.0.0.1:{gone.port}")) as outlet:
        wait_for(lambda: "Connection refused" in outlet.error, "it is told")


def test_a_receiver_that_hangs_holds_nobody_up(shelf, servers):
    hung = servers(StreamServer(hung=True))
    waits = threading.Event()
    waiting = servers(HttpServer(lambda _: 200 if waits.wait(20) else None))
    good = servers(StreamServer())
    outlets = [
        Forward(syslog=f"tcp://127.0.0.1:{hung.port}"),
        Forward(http=waiting.address),
        Forward(syslog=f"tcp://localhost:{good.port}"),
    ]
    with running(shelf.state_dir, keep(*outlets)) as process:
        wait_for(lambda: len(state_of(shelf.state_dir).cursors) == 3, "it knows where to begin")
        messages = numbered(8000, size=400)
        for i in range(0, len(messages), 1000):
            shelf.add(*messages[i : i + 1000])
        wait_for(lambda: len(good.messages) == len(messages), "the good one has all")
        process.kill()
    assert [found.text for found in good.messages] == messages
    waits.set()


# -- where it goes on ------------------------------------------------------------------------------


def test_a_new_outlet_begins_with_what_is_newest(shelf, servers):
    server = servers(HttpServer())
    shelf.add("long ago")
    shelf.turn()
    with forwarding(shelf, Forward(http=server.address), cursor=None) as outlet:
        wait_for(lambda: outlet.progress.cursor(outlet.name), "it knows where to begin")
        shelf.add("now")
        wait_for(lambda: server.taken, "what is new comes")
    assert server.taken == ["now"]


def test_a_kill_costs_one_batch_at_most(shelf, servers):
    in_flight, go_on = threading.Event(), threading.Event()
    server = servers(HttpServer())

    def answer(post: Post) -> int:
        if len(server.posts) == 3:
            in_flight.set()
            go_on.wait(15)
        return 200

    server.answer = answer
    to = Forward(http=server.address)
    name = name_of(to)
    with running(shelf.state_dir, keep(to)) as process:
        wait_for(lambda: name in state_of(shelf.state_dir).cursors, "it knows where to begin")
        messages = numbered(12_000, size=500)
        for i in range(0, len(messages), 900):
            shelf.add(*messages[i : i + 900])
        assert in_flight.wait(15)
        process.kill()
    go_on.set()
    wait_for(lambda: len(server.posts) == 4, "the batch that was on its way has come")
    server.answer = lambda _: 200
    with running(shelf.state_dir, keep(to)) as process:
        wait_for(lambda: len(server.posts) >= 8, "it goes on")
        process.stop()
    assert_only_a_batch_twice(server.taken, messages[: len(set(server.taken))], 1024 * 1024)
    assert [post.messages[0] for post in server.posts].count(server.posts[3].messages[0]) == 2, "it came twice"


def test_what_went_away_first_is_counted(shelf, servers):
    server = servers(StreamServer())
    shelf.add("in the first")
    with contextlib.ExitStack() as stack:
        to = Forward(syslog=f"tcp://127.0.0.1:{server.port}")
        server.close()
        outlet = stack.enter_context(forwarding(shelf, to))
        wait_for(lambda: outlet.error, "it has read the first, and cannot send it")
        for _ in range(3):
            shelf.turn()
            shelf.add("a", "b", "c")
        outlet.counts.learn(outlet.progress.rearmost())
        for number in (1, 2, 3):
            shelf.path(number).unlink()
            shelf.path(number, "idx").unlink()
        back = servers(StreamServer(port=server.port))
        wait_for(lambda: back.messages and back.messages[-1].text == "c", "it goes on")
        texts = [found.text for found in back.messages]
        assert outlet.skipped == 8
    assert texts == ["in the first", "turned from 3", "a", "b", "c"]


def test_a_process_goes_on_where_the_one_before_ended(shelf, servers):
    server = servers(StreamServer())
    to = Forward(syslog=f"tcp://127.0.0.1:{server.port}")
    messages = numbered(1000)
    with running(shelf.state_dir, keep(to)) as first:
        wait_for(lambda: state_of(shelf.state_dir).cursors, "it runs")
        with running(shelf.state_dir, keep(to)) as second:
            shelf.add(*messages[:500])
            wait_for(lambda: len(server.messages) == 500, "they are there")
            assert second.process.poll() is None, "it waits for the first to end"
            first.stop()
            shelf.add(*messages[500:])
            wait_for(lambda: len(server.messages) == 1000, "the second goes on")
            second.stop()
    assert [found.text for found in server.messages] == messages
    assert state_of(shelf.state_dir).cursors[name_of(to)] == (shelf.segments.number, shelf.segments.length)

"""``/api/v1/ws``: real WebSockets to a server of ours, in this process; the log process is a fake."""

from __future__ import annotations

import base64
import contextlib
import json
import os

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue

import web
import web.api.live
import web.relay
import web.tokens
import web.upgrades
from ndactors.adapters.admin_server import AdminServer
from ndactors.adapters.http_server import Handler
from ndactors.core.logquery import LogFilter
from ndactors.core.websocket import BINARY, TEXT, Close, Message, Reader, client_frame
from ndactors.errors import ActorStopped, Invalid, LogsAway
from ndactors.messages.access import VerifyToken
from ndactors.messages.control import WebSettings
from ndactors.messages.logs import LogChunk
from web.live import MAX_TAIL, MOST_NONSENSE, NAMES

from .conftest import USERS

SECONDS = 10.0
SETTINGS = WebSettings(users=USERS, key=b"k" * 32, metrics_open=True, project="test", environment="dev")
VIC = {"Authorization": "Basic " + base64.b64encode(b"vic:secret").decode()}


class Stream:
    """One subscription at the log process: what a test puts in is received."""

    def __init__(self, wanted, batch, tail):
        self.wanted, self.batch, self.tail = wanted, batch, tail
        self.chunks = Queue()
        self.taken = 0
        self.closed = Event()

    def put(self, *texts: bytes, missed: int = 0) -> None:
        self.chunks.put(LogChunk(id=1, count=len(texts), body=b"\n".join(texts), missed=missed))

    def end(self) -> None:
        self.chunks.put(None)

    def receive(self):
        chunk = self.chunks.get()
        if isinstance(chunk, Exception):
            raise chunk
        self.taken += 1
        return chunk

    def close(self):
        self.closed.set()


class Streams:
    """``errors``: what the next attempts to open one meet."""

    def __init__(self):
        self.opened = Queue()
        self.errors = []

    def open(self, wanted, *, batch, tail):
        if self.errors:
            raise self.errors.pop(0)
        stream = Stream(wanted, batch, tail)
        self.opened.put(stream)
        return stream

    def next(self) -> Stream:
        return self.opened.get(timeout=SECONDS)


class Client:
    def __init__(self, sock, path="/api/v1/ws", **headers):
        self.sock = sock
        sock.settimeout(SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": "local", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key, **{name.replace("_", "-"): text for name, text in headers.items()},
        }  # fmt: skip
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += (data := sock.recv(65536))
            assert data, head
        self.head, _, rest = head.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1])
        self.reader = Reader(1 << 24, masked=False)
        self.reader.feed(rest)

    def send(self, message, opcode=TEXT):
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.sock.sendall(client_frame(opcode, payload, b"abcd"))

    def event(self):
        while (event := self.reader.take()) is None:
            data = self.sock.recv(65536)
            assert data, "the connection has ended"
            self.reader.feed(data)
        return event

    def text(self) -> str:
        event = self.event()
        assert isinstance(event, Message) and isinstance(event.data, str), event
        return event.data

    def receive(self):
        return json.loads(self.text())

    def subscribe(self, topic="logs", **more):
        self.send({"subscribe": topic, **more})

    def flush(self):
        """Everything that was sent is understood now."""
        self.send({"subscribe": "metrics"})
        assert self.receive()["topic"] == "metrics"


@pytest.fixture
def streams():
    return Streams()


@pytest.fixture
def app(ref, streams):
    return web.create_app(web.Refs(*[ref] * len(web.Refs._fields)), SETTINGS, logs=streams)


@pytest.fixture
def connect(app):
    """``connect(**headers)``: as the viewer vic unless it says otherwise."""
    server = AdminServer("127.0.0.1:0", app)
    server.start()
    made = []

    def call(**headers):
        host, _, port = server.address.partition(":")
        made.append(socket.create_connection((host, int(port))))
        return Client(made[-1], **(headers or VIC))

    yield call
    for sock in made:
        sock.close()
    server.stop()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(web.api.live, "FIRST_PAUSE", 0.01)


# -- records ---------------------------------------------------------------------------------------


def test_a_subscription_gets_the_texts_of_the_log_process_as_they_are(connect, streams):
    client = connect()
    client.subscribe()
    stream = streams.next()
    assert (stream.wanted, stream.batch, stream.tail) == (LogFilter(), False, 0)
    stream.put(b'{"topic":"logs","data":{"message":"a\\nb \xc3\xbc"}}', b"not even JSON")
    stream.put(b"third")
    assert [client.text() for _ in range(3)] == [
        '{"topic":"logs","data":{"message":"a\\nb ü"}}',
        "not even JSON",
        "third",
    ]


def test_the_filter_means_what_it_means_in_the_url(connect, streams):
    client = connect()
    client.subscribe(
        filter={
            "app": "shop", "process": "web", "level": "error", "container": "nd-shop-web-1-2", "stream": "stderr",
            "q": "x", "request_id": "r", "replica": 2, "since": 1769860800, "until": None,
        },
        batch=True,
        tail=MAX_TAIL,
    )  # fmt: skip
    stream = streams.next()
    assert stream.wanted == LogFilter(
        app="shop", process="web", levels=0b11000, container="c2", stream="stderr", q="x", request_id="r", replica=2,
        since="2026-01-31T12:00:00.000000000Z",
    )  # fmt: skip
    assert (stream.batch, stream.tail) == (True, MAX_TAIL)


def test_what_was_missed_is_told_where_it_was_missed(connect, streams):
    client = connect()
    client.subscribe()
    stream = streams.next()
    stream.put(b"1")
    stream.put(b"2", missed=17)
    stream.put(missed=3)
    assert [client.text(), client.receive(), client.text(), client.receive()] == [
        "1",
        {"topic": "logs", "gap": 17},
        "2",
        {"topic": "logs", "gap": 3},
    ]


def test_a_further_subscription_takes_the_place_of_the_first(connect, streams):
    client = connect()
    client.subscribe(filter={"app": "one"})
    first = streams.next()
    client.subscribe(filter={"app": "two"})
    second = streams.next()
    assert first.closed.wait(SECONDS) and second.wanted.app == "two"
    first.put(b"of the first")
    second.put(b"of the second")
    assert client.text() == "of the second"


def test_one_that_is_refused_ends_the_first_too(connect, streams):
    client = connect()
    client.subscribe()
    first = streams.next()
    client.subscribe(filter={"level": "bad"})
    assert client.receive()["status"] == 422
    assert first.closed.is_set()


def test_unsubscribing_ends_it(connect, streams):
    client = connect()
    client.subscribe()
    stream = streams.next()
    client.send({"unsubscribe": "logs"})
    assert stream.closed.wait(SECONDS)
    stream.put(b"late")
    client.send({"unsubscribe": "logs"})
    client.send({"unsubscribe": "metrics"})
    client.flush()


@pytest.mark.parametrize("goodbye", [True, False])
def test_it_ends_with_the_client(connect, streams, goodbye):
    client = connect()
    client.subscribe()
    stream = streams.next()
    if goodbye:
        client.send(b"\x03\xe8", 0x8)
        assert client.event() == Close(1000, "")
    client.sock.close()
    assert stream.closed.wait(SECONDS)


def test_a_client_that_reads_nothing_is_waited_for(connect, streams):
    """What the log process may send is bounded by what is taken; nothing piles up here."""
    client = connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.subscribe()
    stream = streams.next()
    for _ in range(400):
        stream.put(b"x" * 65536)
    with gevent.Timeout(SECONDS):
        before = -1
        while before != stream.taken:
            before = stream.taken
            gevent.sleep(0.3)
    assert 3 < stream.taken < 200
    for _ in range(400):
        assert client.text() == "x" * 65536
    assert not stream.closed.is_set()


# -- a log process that is away --------------------------------------------------------------------


def test_it_is_opened_again_and_told_once(connect, streams):
    client = connect()
    client.subscribe(filter={"app": "shop"}, tail=5, batch=True)
    first = streams.next()
    first.put(b"1")
    assert client.text() == "1"
    streams.errors = [LogsAway("away")] * 3
    first.end()
    assert client.receive() == {"topic": "logs", "error": "reconnecting"}
    second = streams.next()
    assert (second.wanted, second.batch, second.tail) == (first.wanted, True, 0)
    assert first.closed.is_set()
    second.put(b"2")
    assert client.text() == "2"
    second.end()
    assert client.receive() == {"topic": "logs", "error": "reconnecting"}


def test_one_that_is_away_from_the_start_is_waited_for_and_the_tail_is_not_lost(connect, streams):
    streams.errors = [LogsAway("away")] * 3
    client = connect()
    client.subscribe(tail=5)
    assert client.receive() == {"topic": "logs", "error": "reconnecting"}
    assert streams.next().tail == 5


def test_it_can_be_ended_while_it_waits(connect, streams, monkeypatch):
    monkeypatch.setattr(web.api.live, "FIRST_PAUSE", 3600.0)
    streams.errors = [LogsAway("away")]
    client = connect()
    client.subscribe()
    client.receive()
    client.subscribe()
    streams.next().put(b"1")
    assert client.text() == "1"


@pytest.mark.parametrize("late", [False, True])
def test_a_filter_that_the_log_process_refuses(connect, streams, late):
    refusal = Invalid("q is no regular expression")
    streams.errors = [] if late else [refusal]
    client = connect()
    client.subscribe(filter={"q": "/(/"})
    if late:
        stream = streams.next()
        stream.chunks.put(refusal)
        assert stream.closed.wait(SECONDS)
    assert client.receive() == {"topic": "logs", "error": "q is no regular expression", "status": 422}
    client.subscribe()
    assert streams.next().wanted.q is None


def test_a_fault_is_told_and_the_connection_stays(connect, streams, caplog):
    streams.errors = [ValueError("boom")]
    client = connect()
    client.subscribe()
    told = client.receive()
    assert (told["topic"], told["status"]) == ("logs", 500) and "boom" not in told["error"]
    assert "boom" in caplog.text
    client.flush()


def test_without_a_log_process_it_is_refused(ref, connect, app):
    app.extensions["nextdeploy.logs"] = None
    client = connect()
    client.subscribe()
    assert client.receive()["status"] == 503


# -- what is no subscription -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b"", b"{", b"[]", b"null", b'"logs"', b"\xc3\xbc", {}, {"subscribe": 5}, {"subscribe": None},
        {"subscribe": "logs", "unsubscribe": "logs"}, {"subscribe": "logs", "tail": -1},
        {"subscribe": "logs", "tail": MAX_TAIL + 1}, {"subscribe": "logs", "tail": "1"},
        {"subscribe": "logs", "filtre": {}}, {"subscribe": "logs", "filter": []},
        {"subscribe": "logs", "filter": {"app": ["shop"]}}, {"subscribe": "logs", "filter": {"app": True}},
        {"subscribe": "logs", "batch": 1}, b"[" * 60_000,
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_and_the_connection_stays(connect, streams, message):
    client = connect()
    client.send(message)
    assert list(client.receive()) == ["error"]
    client.subscribe()
    streams.next()


def test_binary_messages_are_not_understood(connect):
    client = connect()
    client.send({"subscribe": "logs"}, BINARY)
    assert "this is no text" in client.receive()["error"]


@pytest.mark.parametrize(
    ("filter", "words"),
    [
        ({"apps": "shop"}, "There is no filter apps"),
        ({"level": "bad"}, "level must be"),
        ({"stream": "both"}, "stream must be"),
        ({"since": "yesterday"}, "since must be"),
        ({"replica": 0}, "replica must be"),
        ({"q": "x" * 1001}, "q must have"),
    ],
)
def test_filters_that_cannot_be(connect, streams, filter, words):
    client = connect()
    client.subscribe(filter=filter)
    told = client.receive()
    assert (told["topic"], told["status"]) == ("logs", 422) and words in told["error"]
    assert streams.opened.empty()


@pytest.mark.parametrize("name", [*sorted(set(NAMES) - {"logs"}), "nothing", "x" * 5000, ""])
def test_topics_that_are_not_there(connect, name):
    client = connect()
    client.subscribe(name)
    told = client.receive()
    assert (told["topic"], told["status"]) == (name[:100], 404) and "there is logs" in told["error"]


def test_too_much_nonsense_ends_it(connect, streams):
    client = connect()
    client.subscribe()
    stream = streams.next()
    for number in range(MOST_NONSENSE + 1):
        client.send(b"{" if number % 2 else {"subscribe": "nothing"})
    for _ in range(MOST_NONSENSE + 1):
        assert "error" in client.receive()
    assert client.event() == Close(1008, "too many messages that are not understood")
    assert stream.closed.wait(SECONDS)


def test_messages_are_bounded(connect):
    client = connect()
    with contextlib.suppress(OSError):
        client.send(b'"' + b"x" * 70_000 + b'"')
    assert client.event().code == 1009


# -- who may ---------------------------------------------------------------------------------------


def test_nobody_without_a_password(connect):
    assert connect(Authorization="Bearer nonsense").status == 401
    assert connect(X_Nothing="x").status == 401


def test_a_browser_sends_its_token_as_a_subprotocol(connect, ref, streams):
    token = ref.token(role="viewer", apps=None)["Authorization"].removeprefix("Bearer ")
    client = connect(Sec_WebSocket_Protocol=f"bearer.{token}", Origin="http://local")
    assert client.status == 101
    assert f"Sec-WebSocket-Protocol: bearer.{token}".encode() in client.head
    client.subscribe()
    assert streams.next().wanted == LogFilter()


def test_pages_of_other_sites_may_not(connect):
    assert connect(**VIC, Origin="https://evil.test").status == 403


def test_a_limited_token_gets_its_own_apps_only(connect, ref, streams):
    client = connect(**ref.token(role="viewer", apps=("shop", "other")))
    client.subscribe()
    assert streams.next().wanted == LogFilter(apps=("shop", "other"))
    client.subscribe(filter={"app": "other"})
    assert streams.next().wanted == LogFilter(app="other", apps=("shop", "other"))
    client.subscribe(filter={"app": "blog"})
    assert client.receive() == {"topic": "logs", "error": "There is no app called blog.", "status": 404}
    assert streams.opened.empty()


@pytest.fixture
def looked_after_often(monkeypatch):
    monkeypatch.setattr(web.upgrades, "STANDING_SECONDS", 0.02)
    monkeypatch.setattr(web.tokens, "REMEMBER_SECONDS", 0.0)


@pytest.mark.parametrize("how", ["header", "subprotocol"])
def test_it_ends_with_its_token(connect, ref, streams, looked_after_often, how):
    headers = ref.token(role="viewer", apps=None)
    if how == "subprotocol":
        headers = {"Sec_WebSocket_Protocol": f"bearer.{headers['Authorization'].removeprefix('Bearer ')}"}
    client = connect(**headers)
    client.subscribe()
    stream = streams.next()
    asked = len(ref.asked_for(VerifyToken))
    with gevent.Timeout(SECONDS):
        while len(ref.asked_for(VerifyToken)) < asked + 3:  # good, and good again
            gevent.sleep(0.01)
    stream.put(b"one")
    assert client.text() == "one"
    ref.tokens.clear()
    assert client.event() == Close(1008, "whoever opened this may not have it any more")
    assert stream.closed.wait(SECONDS)


def test_it_does_not_end_while_nobody_can_say(connect, ref, streams, looked_after_often):
    client = connect(**ref.token(role="viewer", apps=None))
    client.subscribe()
    stream = streams.next()
    told = []

    def away(message):
        told.append(message)
        raise ActorStopped("the daemon does not answer")

    ref.answers[VerifyToken] = away
    with gevent.Timeout(SECONDS):
        while len(told) < 3:
            gevent.sleep(0.01)
    stream.put(b"one")
    assert client.text() == "one"


def test_there_are_only_so_many(connect, streams, monkeypatch):
    monkeypatch.setattr(web.api.live, "MOST", 2)
    clients = [connect(), connect()]
    for client in clients:
        client.flush()
    refused = connect()
    assert refused.status == 429 and b"Retry-After: 10" in refused.head
    clients[0].sock.close()
    with gevent.Timeout(SECONDS):
        while connect().status != 101:
            gevent.sleep(0.01)


def test_it_is_no_page(client, ana):
    response = client.get("/api/v1/ws", auth=ana)
    assert (response.status_code, response.headers["Upgrade"]) == (426, "websocket")
    assert client.get("/api/v1/ws").status_code == 401


# -- from another process --------------------------------------------------------------------------


def test_it_is_passed_on_over_the_control_socket_with_who_asks(
    app, ref, streams, tmp_path, monkeypatch, looked_after_often
):
    """As gunicorn does it: the process that judges who asks is not the one that has the records."""

    def connect_unix(path):
        sock = socket.socket(socket.AF_UNIX)  # of gevent, which gunicorn patches in
        sock.connect(str(path))
        return sock

    monkeypatch.setattr(web.relay, "connect_unix", connect_unix)
    path = tmp_path / "control.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    daemon = WSGIServer(listener, app, handler_class=Handler, log=None)
    daemon.start()
    outside = web.create_app(web.Refs(*[ref] * len(web.Refs._fields)), SETTINGS, relay=web.relay.Relay(path))
    server = AdminServer("127.0.0.1:0", outside)
    server.start()
    host, _, port = server.address.partition(":")
    try:
        with socket.create_connection((host, int(port))) as sock:
            client = Client(sock, **ref.token(role="viewer", apps=("shop",)))
            client.subscribe(filter={"level": "error"})
            stream = streams.next()
            assert stream.wanted == LogFilter(apps=("shop",), levels=0b11000)
            stream.put(b"one", b"two")
            assert [client.text(), client.text()] == ["one", "two"]
            ref.tokens.clear()
            assert client.sock.recv(1) == b""
        assert stream.closed.wait(SECONDS)
    finally:
        server.stop()
        daemon.stop()

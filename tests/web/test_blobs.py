"""Uploads over HTTP: with the test client, and on a real server with senders that misbehave."""

from __future__ import annotations

import hashlib
import os
import time

import gevent
import pytest
from gevent import socket
from gevent.hub import get_hub

import web
from ndactors.adapters import http_server
from ndactors.adapters.admin_server import AdminServer
from ndactors.adapters.blob_store import BlobFiles
from ndactors.messages.control import WebSettings
from web.api import blobs as api

from .conftest import USERS

OLI = ("oli", "secret")
KIND = {"Content-Type": api.KIND}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def url(digest: str) -> str:
    return f"/api/v1/blobs/{digest}"


def framed(*contents: bytes) -> bytes:
    return b"".join(bytes.fromhex(sha(c)) + len(c).to_bytes(8, "big") + c for c in contents)


@pytest.fixture
def store(tmp_path):
    return BlobFiles(tmp_path / "blobs", get_hub().threadpool.apply)


@pytest.fixture
def app(ref, store):
    settings = WebSettings(users=USERS, key=b"k" * 32, metrics_open=True, project="test", environment="dev")
    return web.create_app(web.Refs(*[ref] * len(web.Refs._fields)), settings, blobs=store)


@pytest.fixture
def client(app):
    return app.test_client()


# -- as it should be -------------------------------------------------------------------------------


def test_put_head_and_put_again(client, store):
    content = os.urandom(3_000_000)
    digest = sha(content)
    response = client.head(url(digest), auth=OLI)
    assert (response.status_code, response.headers["Upload-Offset"]) == (404, "0")
    assert client.put(url(digest), data=content, auth=OLI).status_code == 201
    assert client.head(url(digest), auth=OLI).status_code == 200
    assert client.put(url(digest), data=b"whatever", auth=OLI).status_code == 200
    assert store.path(digest).read_bytes() == content


def test_parts(client, store):
    content = os.urandom(1_000_000)
    digest = sha(content)

    def part(start, end, **more):
        headers = {"Upload-Offset": str(start), "Upload-Length": "1000000", **more}
        return client.put(url(digest), data=content[start:end], headers=headers, auth=OLI)

    response = part(0, 300_000)
    assert (response.status_code, response.headers["Upload-Offset"]) == (202, "300000")
    assert client.head(url(digest), auth=OLI).headers["Upload-Offset"] == "300000"
    for wrong in (299_999, 300_001, 999_999):
        response = part(wrong, 1_000_000)
        assert (response.status_code, response.headers["Upload-Offset"]) == (409, "300000")
        assert response.content_type == "application/problem+json"
    assert part(300_000, 1_000_000).status_code == 201
    assert part(300_000, 1_000_000).status_code == 200
    assert store.path(digest).read_bytes() == content


def test_missing_and_batch(client, store):
    contents = [b"", *(b"%d" % n * 1000 for n in range(600))]
    wanted = {"sha256": [sha(c) for c in contents] + [sha(b"other")]}
    assert len(client.post("/api/v1/blobs/missing", json=wanted, auth=OLI).get_json()["missing"]) == 602
    response = client.post("/api/v1/blobs", data=framed(*contents), headers=KIND, auth=OLI)
    assert (response.status_code, response.get_json()) == (200, {"stored": 601})
    assert client.post("/api/v1/blobs/missing", json=wanted, auth=OLI).get_json() == {"missing": [sha(b"other")]}
    assert store.path(sha(b"7" * 1000)).read_bytes() == b"7" * 1000
    assert client.post("/api/v1/blobs", data=b"", headers=KIND, auth=OLI).get_json() == {"stored": 0}


# -- lies ------------------------------------------------------------------------------------------


def test_wrong_digests(client, store):
    assert client.put(url(sha(b"a")), data=b"b", auth=OLI).status_code == 422
    body = framed(b"one", b"two") + bytes.fromhex(sha(b"three")) + (4).to_bytes(8, "big") + b"four" + framed(b"five")
    response = client.post("/api/v1/blobs", data=body, headers=KIND, auth=OLI)
    assert (response.status_code, response.get_json()["stored"]) == (422, 2)
    digests = [sha(c) for c in (b"one", b"two", b"three", b"five")]
    assert store.missing(digests) == digests[2:]
    assert list((store._folder / "partial").iterdir()) == []


@pytest.mark.parametrize(
    ("cut", "kept"),
    [(0, 2), (1, 1), (3, 1), (5, 1), (42, 1), (43, 1), (44, 0)],
)
def test_a_batch_that_breaks_off_keeps_what_was_whole(client, store, cut, kept):
    whole = framed(b"one", b"two")
    response = client.post("/api/v1/blobs", data=whole[: len(whole) - cut], headers=KIND, auth=OLI)
    assert response.status_code == (200 if cut in (0, 43) else 400)
    assert response.get_json()["stored"] == kept
    assert len(store.missing([sha(b"one"), sha(b"two")])) == 2 - kept


def test_a_batch_with_absurd_sizes(client, store):
    for size in (api.MAX_SMALL + 1, 2**63, 2**64 - 1):
        body = framed(b"one") + bytes(32) + size.to_bytes(8, "big") + b"x" * 100
        response = client.post("/api/v1/blobs", data=body, headers=KIND, auth=OLI)
        assert (response.status_code, response.get_json()["stored"]) == (413, 1)
    assert client.post("/api/v1/blobs", data=b"x", auth=OLI).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "99999999999999"}, 413),
        ({"Upload-Length": str(4 * 1024**3 + 1)}, 413),
        ({"Upload-Length": "9" * 4000}, 422),
        ({"Upload-Length": "-1"}, 422),
        ({"Upload-Length": "1e3"}, 422),
        ({"Upload-Length": "٣"}, 422),
        ({"Upload-Length": "9"}, 422),
        ({"Upload-Offset": "0"}, 422),
        ({"Upload-Offset": "x", "Upload-Length": "100"}, 422),
        ({"Upload-Offset": "95", "Upload-Length": "100"}, 422),
        ({"Upload-Offset": "999999999999999", "Upload-Length": "100"}, 422),
        ({"Upload-Offset": "50", "Upload-Length": "100"}, 409),
    ],
)
def test_headers_that_lie(client, store, headers, status):
    headers = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    response = client.put(url(sha(b"0123456789")), data=b"0123456789", headers=headers, auth=OLI)
    assert response.status_code == status
    assert store.offset(sha(b"0123456789")) == 0
    assert store.path(sha(b"0123456789")) is None


@pytest.mark.parametrize("digest", ["x", "A" * 64, "..%2f..%2fetc", "a" * 65, "a" * 63 + "%00", "%2e%2e"])
def test_what_is_no_digest(client, store, digest):
    for response in (client.put(url(digest), data=b"x", auth=OLI), client.head(url(digest), auth=OLI)):
        assert response.status_code in (404, 422)
    assert not store._folder.exists()


def test_questions_that_are_none(client):
    for body in ({"sha256": ["x"]}, {"sha256": [1]}, {"sha256": None}, {}, [], {"sha256": ["a" * 64] * 10_001}):
        assert client.post("/api/v1/blobs/missing", json=body, auth=OLI).status_code == 422
    assert client.post("/api/v1/blobs/missing", data=b"[" * 2_000_000, auth=OLI).status_code == 413


def test_who_may(client, app):
    for auth, status in ((None, 401), (("vic", "secret"), 403), (("oli", "wrong"), 401)):
        assert client.put(url(sha(b"x")), data=b"x", auth=auth).status_code == status
        assert client.head(url(sha(b"x")), auth=auth).status_code == status
        assert client.post("/api/v1/blobs", data=framed(b"x"), headers=KIND, auth=auth).status_code == status
        assert client.post("/api/v1/blobs/missing", json={"sha256": []}, auth=auth).status_code == status
    headers = {"Origin": "https://evil.test"}
    assert client.put(url(sha(b"x")), data=b"x", headers=headers, auth=OLI).status_code == 403


def test_a_process_without_a_store_says_so(make_client):
    response = make_client().put(url(sha(b"x")), data=b"x", auth=OLI)
    assert response.status_code == 503


def test_a_full_store_says_so(ref, tmp_path):
    settings = WebSettings(users=USERS, key=b"k" * 32, metrics_open=True, project="test", environment="dev")
    small = BlobFiles(tmp_path / "blobs", get_hub().threadpool.apply, max_all=1000)
    client = web.create_app(web.Refs(*[ref] * len(web.Refs._fields)), settings, blobs=small).test_client()
    assert client.put(url(sha(b"x" * 1001)), data=b"x" * 1001, auth=OLI).status_code == 413
    response = client.post("/api/v1/blobs", data=framed(b"x" * 900, b"y" * 900), headers=KIND, auth=OLI)
    assert response.status_code == 413


# -- on a real server ------------------------------------------------------------------------------


@pytest.fixture
def server(app):
    made = AdminServer("127.0.0.1:0", app)
    made.start()
    yield made
    made.stop()


class Peer:
    """A client that sends what it likes."""

    def __init__(self, server):
        host, _, port = server.address.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=20)

    def begin(self, method: str, path: str, *headers: str) -> Peer:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Authorization: Basic b2xpOnNlY3JldA==", *headers]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return self

    def send(self, data: bytes) -> Peer:
        self.sock.sendall(data)
        return self

    def answer(self) -> tuple[int, bytes]:
        """Status and everything that came, until the head is there."""
        data = b""
        while b"\r\n\r\n" not in data and (more := self.sock.recv(65536)):
            data += more
        return int(data.split(b" ")[1]) if data else 0, data

    def close(self) -> None:
        self.sock.close()


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


def test_chunked_bodies(server, store):
    content = os.urandom(700_000)
    pieces = [content[n : n + 65_000] for n in range(0, len(content), 65_000)]
    put = Peer(server).begin("PUT", url(sha(content)), "Transfer-Encoding: chunked").send(chunked(*pieces))
    assert put.answer()[0] == 201
    assert store.path(sha(content)).read_bytes() == content
    batch = framed(*(b"small%d" % n for n in range(50)))
    halves = [batch[n : n + 7] for n in range(0, len(batch), 7)]
    post = Peer(server).begin("POST", "/api/v1/blobs", f"Content-Type: {api.KIND}", "Transfer-Encoding: chunked")
    status, data = post.send(chunked(*halves)).answer()
    assert status == 200
    assert store.missing([sha(b"small%d" % n) for n in range(50)]) == []


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_truncated_put_can_be_continued(server, store, how):
    content = os.urandom(2_000_000)
    digest = sha(content)
    peer = Peer(server)
    if how == "length":
        peer.begin("PUT", url(digest), "Content-Length: 2000000").send(content[:1_500_000])
    else:
        peer.begin("PUT", url(digest), "Transfer-Encoding: chunked", "Upload-Length: 2000000")
        peer.send(chunked(content[:1_500_000], end=b"7a120\r\nabc"))
    peer.close()
    until(lambda: store.offset(digest) > 1_000_000)
    until(lambda: not _locked(store, digest))
    there = store.offset(digest)
    assert there <= 1_500_000
    headers = (f"Upload-Offset: {there}", "Upload-Length: 2000000", f"Content-Length: {2_000_000 - there}")
    assert Peer(server).begin("PUT", url(digest), *headers).send(content[there:]).answer()[0] == 201
    assert store.path(digest).read_bytes() == content


def _locked(store, digest) -> bool:
    with open("/proc/locks") as locks:
        inode = (store._folder / "partial" / digest).stat().st_ino
        return any(f":{inode} " in line for line in locks)


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\nx\r\n", b"f" * 40, b"5\r\nabcdefgh\r\n", b"5;" + b"x" * 20_000])
def test_chunks_that_are_none(server, store, body):
    peer = Peer(server).begin("PUT", url(sha(b"abcde")), "Transfer-Encoding: chunked").send(body)
    status, _ = peer.answer()
    assert status in (0, 400)
    assert store.path(sha(b"abcde")) is None


def test_who_stalls_is_ended_and_keeps_what_came(server, store, monkeypatch):
    monkeypatch.setattr(api, "PIECE_SECONDS", 0.3)
    content = os.urandom(1_000_000)
    peer = Peer(server).begin("PUT", url(sha(content)), "Content-Length: 1000000").send(content[:600_000])
    began = time.monotonic()
    status, data = peer.answer()
    assert status == 408
    assert time.monotonic() - began < 5
    assert b"Upload-Offset: 524288" in data
    assert store.offset(sha(content)) == 524_288


def test_who_trickles_is_ended(server, store, monkeypatch):
    monkeypatch.setattr(api, "PIECE_SECONDS", 0.5)
    peer = Peer(server).begin("POST", "/api/v1/blobs", f"Content-Type: {api.KIND}", "Content-Length: 1000000")
    peer.send(framed(b"whole"))
    trickle = gevent.spawn(lambda: [(gevent.sleep(0.05), peer.send(b"\0")) for _ in range(200)])
    status, _ = peer.answer()
    trickle.kill()
    assert status == 408
    assert store.missing([sha(b"whole")]) == []


@pytest.mark.parametrize("headers", [("Content-Length: 4000000000",), ("Transfer-Encoding: chunked",)])
def test_who_is_refused_does_not_hold_the_connection(server, headers, monkeypatch):
    monkeypatch.setattr(http_server, "REST_SECONDS", 0.3)
    peer = Peer(server).begin("PUT", url("0" * 64), *headers, "Origin: https://evil.test")

    def pour():
        while True:
            peer.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            gevent.sleep(0)

    pouring = gevent.spawn(pour)
    assert peer.answer()[0] == 403
    began = time.monotonic()
    with pytest.raises(OSError):
        pouring.get(timeout=10)
    assert time.monotonic() - began < 5


def test_a_connection_is_kept_after_an_answer_to_a_whole_body(server, store):
    peer = Peer(server)
    for n in range(3):
        content = b"%d" % n
        assert peer.begin("PUT", url(sha(content)), "Content-Length: 1").send(content).answer()[0] == 201
        # it is there: the body is not wanted, and short
        assert peer.begin("PUT", url(sha(content)), "Content-Length: 1").send(content).answer()[0] == 200


def test_two_senders_of_one_blob(server, store):
    content = os.urandom(4_000_000)
    digest = sha(content)
    peers = [Peer(server).begin("PUT", url(digest), "Content-Length: 4000000") for _ in range(3)]

    def feed(peer):
        for start in range(0, len(content), 100_000):
            peer.send(content[start : start + 100_000])
            gevent.sleep(0)
        return peer.answer()[0]

    statuses = [feeding.get() for feeding in [gevent.spawn(feed, peer) for peer in peers]]
    assert set(statuses) <= {200, 201}
    assert store.path(digest).read_bytes() == content
    assert list((store._folder / "partial").iterdir()) == []


def test_others_are_answered_while_a_large_one_comes(server, store):
    """Writing and hashing happen beside the event loop."""
    content = os.urandom(1 << 20) * 100
    peer = Peer(server).begin("PUT", url(sha(content)), f"Content-Length: {len(content)}")
    sending = gevent.spawn(lambda: peer.send(content).answer()[0])
    slowest = 0.0
    while not sending.ready():
        began = time.monotonic()
        gevent.sleep(0.001)
        slowest = max(slowest, time.monotonic() - began)
    assert sending.get() == 201
    assert slowest < 0.25

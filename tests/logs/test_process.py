"""A real log process: killed, adopted, asked, listened to, and told nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process import LogProcess, lines, source, stored, until

from ndactors.core.logquery import LogFilter
from ndactors.core.logrecords import format_ns
from ndactors.logs.process import LogProcess as LogProcessLoop
from ndactors.messages.edge import Hello, Refused
from ndactors.messages.logs import (
    PROTOCOL,
    AskedLines,
    FollowLogs,
    KeepLogs,
    LogChunk,
    LogsFound,
    QueryLogs,
    SubscriptionRefused,
)
from ndactors.messages.logs import GetLogs as Get
from ndactors.runtime.link import FrameReader, connect_unix, encode
from ndactors.runtime.peers import Peer

C = "c" * 64


class Writer:
    """Numbered lines in a json-file log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab", buffering=0)
        self.written = 0

    def write(self, count: int, text: str = "") -> None:
        rows = []
        for _ in range(count):
            self.written += 1
            row = {"log": f"{self.written}{text}\n", "stream": "stdout", "time": format_ns(time.time_ns())}
            rows.append(json.dumps(row).encode() + b"\n")
        self.file.write(b"".join(rows))

    def rotate(self) -> None:
        self.file.close()
        self.path.rename(f"{self.path}.1")
        self.file = self.path.open("ab", buffering=0)


@pytest.fixture
def writer(tmp_path) -> Writer:
    return Writer(tmp_path / "c-json.log")


def messages(logs: LogProcess, **wanted) -> list[str]:
    return [record.message for record in logs.query(limit=10_000, **wanted).items]


def received(logs: LogProcess, count: int) -> Iterator[dict]:
    """So many records of chunks that came one by one; each chunk is acknowledged."""
    while count > 0:
        if not logs.chunks:
            logs.receive(LogChunk)
            continue
        chunk = logs.chunks.pop(0)
        logs.took(chunk.id)
        for line in chunk.body.splitlines():
            count -= 1
            yield json.loads(line)["data"]


def test_what_was_read_by_a_killed_process_is_not_read_again(logs, writer):
    logs.follow(source(writer.path))
    for _ in range(5):
        writer.write(1000)
        logs.flush()
        writer.write(500)
        logs.kill()
        logs.start()  # knows by itself what it had to follow
    logs.flush()
    assert lines(logs.state, C) == [str(n) for n in range(1, 7501)]


def test_it_needs_no_daemon(logs, writer):
    logs.follow(source(writer.path))
    writer.write(10)
    logs.flush()
    logs.sock.close()
    writer.write(10)
    logs.kill()
    writer.write(10)
    logs.start()
    until(lambda: len(messages(logs)) == 30, what="all lines")


def test_a_good_stop_stores_what_was_read(logs, writer):
    logs.follow(source(writer.path))
    logs.subscribe()
    writer.write(100)
    assert [row["message"] for row in received(logs, 100)][-1] == "100"
    assert logs.stop() == 0
    assert lines(logs.state, C) == [str(n) for n in range(1, 101)]


def test_the_past_and_what_comes_join(logs, writer):
    logs.follow(source(writer.path))
    writer.write(5000)
    logs.flush()
    logs.subscribe(tail=300)
    for _ in range(20):
        writer.write(100)
    got = [int(row["message"]) for row in received(logs, 2300)]
    assert got == list(range(4701, 7001))


def test_subscribers_get_what_they_want(logs, writer):
    logs.follow(source(writer.path))
    logs.subscribe(q="7", levels=0)
    writer.write(100)
    wanted = [str(n) for n in range(1, 101) if "7" in str(n)]
    assert [row["message"] for row in received(logs, len(wanted))] == wanted


def test_a_slow_subscriber_waits_and_misses_nothing_that_fits(logs, writer):
    logs.follow(source(writer.path))
    id = logs.subscribe(window=1)
    writer.write(20_000)
    logs.receive(LogChunk)
    first = logs.chunks[0].count
    logs.flush()
    assert len(logs.chunks) == 1  # no more without an acknowledgement
    assert [int(row["message"]) for row in received(logs, 20_000)] == list(range(1, 20_001))
    assert first < 20_000
    assert id


def test_subscribers_that_are_refused(logs):
    id = logs.subscribe(q="/(/")
    refused = logs.receive(SubscriptionRefused)
    assert refused.id == id
    assert "regular expression" in refused.reason


def test_queries_that_are_refused(logs):
    logs.send(QueryLogs(id=7, query=Get(filter=LogFilter(q="/(/"))))
    assert "regular expression" in logs.receive(LogsFound).refused
    logs.send(QueryLogs(id=8, query=Get(cursor="nonsense")))
    assert "cursor" in logs.receive(LogsFound).refused


def test_a_query_goes_on_after_its_reader_was_killed(logs, writer):
    logs.follow(source(writer.path))
    writer.write(10)
    assert until(lambda: messages(logs))
    (reader,) = [pid for pid in _children(logs.pid) if b"--role=log-reader" in _words(pid)]
    os.kill(reader, 9)
    until(lambda: reader not in _children(logs.pid), what="the end of the reader")
    assert len(messages(logs)) == 10


def test_rotations(logs, writer):
    logs.follow(source(writer.path))
    for _ in range(30):
        writer.write(300)
        writer.rotate()
        inode = writer.path.stat().st_ino
        until(lambda inode=inode: inode in _inodes(logs.pid), what="the open file")
    writer.write(1)
    until(lambda: (messages(logs, q="9001") or [""])[-1] == "9001", what="the last line")
    assert lines(logs.state, C) == [str(n) for n in range(1, 9002)]


def test_a_removed_container_is_read_to_its_end_and_let_go(logs, writer):
    logs.follow(source(writer.path))
    writer.write(10)
    logs.flush()
    writer.write(1000)
    writer.path.unlink()
    until(lambda: logs.report().sources == 0, what="the end of the source")
    assert lines(logs.state, C) == [str(n) for n in range(1, 1011)]
    assert not [link for link in _links(logs.pid) if "json.log" in link]


def test_a_container_that_never_starts_is_let_go(logs, tmp_path):
    logs.follow(source(tmp_path / "never-json.log"))
    until(lambda: logs.report().sources == 1)
    logs.follow(complete=True)
    until(lambda: logs.report().sources == 0)


def test_an_older_daemon_is_refused_and_a_newer_one_takes_over(logs):
    old = connect_unix(logs.state / "logs" / "logs.sock")
    old.sendall(encode(Hello(protocol=PROTOCOL, epoch=0, version="test", pid=1, role="daemon")))
    reader: FrameReader = FrameReader(Hello | Refused)
    (refused,) = reader.feed(old.recv(65536))
    assert isinstance(refused, Refused)
    old.close()
    logs.report()
    logs.epoch = 2
    logs.connect()
    assert logs.report().pid == logs.pid


@pytest.mark.parametrize(
    "nonsense", [b"\0\0\0\1x", struct.pack(">I", 1 << 31), b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)]
)
def test_nonsense_closes_that_peer_and_nothing_else(logs, nonsense):
    peer = connect_unix(logs.state / "logs" / "logs.sock")
    peer.sendall(nonsense)
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(100) == b""
    peer.close()
    assert logs.report().pid == logs.pid


def test_a_second_process_on_the_same_folder_ends(logs):
    other = LogProcess(logs.state)
    with pytest.raises(AssertionError, match="another log process"):
        other.start()
        until(lambda: other.process.poll() is not None)
        other.connect()
    assert other.process.returncode == 3


def test_lines_that_the_engine_was_asked_for_are_stored_once(logs):
    logs.follow(source(""))
    until(lambda: logs.report() and logs.wanted, what="a question")
    rows = [(format_ns(1_000_000_000_000 + n // 3), "stdout", f"{n}\n") for n in range(1000)]
    logs.send(AskedLines(container=C, rows=tuple(rows[:500])))
    logs.send(AskedLines(container=C, rows=tuple(rows[300:700])))
    assert messages(logs) == [str(n) for n in range(700)]
    logs.kill()
    logs.start()
    logs.send(AskedLines(container=C, rows=tuple(rows[699 - 699 % 3 :])))
    assert messages(logs) == [str(n) for n in range(1000)]


def test_old_segments_go_by_the_budget(logs, writer):
    logs.keep(bytes=8 * 1024 * 1024)
    logs.follow(source(writer.path))
    for n in range(4000):
        writer.write(1, f" {os.urandom(1500).hex()}")
        if n % 500 == 499:
            logs.flush()
    until(lambda: logs.report().stored_bytes > 5 * 1024 * 1024, what="all of it in the store")
    logs.keep(bytes=2 * 1024 * 1024)
    until(lambda: 0 < logs.report().stored_bytes < 4 * 1024 * 1024, what="the removal")
    records = stored(logs.state)
    assert records[-1].message.startswith("4000 ")
    assert 1 < int(records[0].message.split()[0]) < 3500


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _inodes(pid: int) -> set[int]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(link.stat().st_ino)
    return found


def _links(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        found.append(os.readlink(link))
    return found


def test_a_message_that_makes_it_fail_is_told_and_left_out(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    process = LogProcessLoop(tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process._daemon = peer = Peer(ours, object, process._heard, process._lost)
        monkeypatch.setattr(process, "_told", lambda message: 1 / 0)
        peer.heard(peer, FollowLogs(sources=()))
        peer.heard(peer, KeepLogs(days=1.0, bytes=1000))
    assert process._keep == KeepLogs(days=1.0, bytes=1000)
    assert "a FollowLogs was not understood" in process._figures.notes[0]

"""An edge worker: accepts clients from the shared sockets and drives them by callbacks on gevent's loop. It hears from
its master alone, by the link; when the master is gone it finishes what it has and ends."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import pwd
import re
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gevent.event import Event
from gevent.hub import get_hub

from ..errors import LinkError
from ..messages.edge import RoutingSnapshot, Stop, WorkerReport, WorkerState
from ..runtime.link import FrameReader, SendBuffer, encode
from .answers import answer
from .client import Client
from .services import Knowledge
from .stream import READ, WRITE, Stream

ACCEPT_AT_ONCE = 32
CHECK_SECONDS = 0.2
REPORT_SECONDS = 1.0
OUT_OF_DESCRIPTORS_SECONDS = 0.2
_GOOD_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Worker:
    """``listeners`` are shared with the other workers; ``link`` leads to the master; ``share`` is how many workers
    divide the connection limit."""

    def __init__(
        self, listeners: list[socket.socket], link: socket.socket | None, index: int = 0, share: int = 1
    ) -> None:
        self.loop: Any = get_hub().loop
        self.knowledge = Knowledge(RoutingSnapshot(epoch=0, version=-1), None)
        self.streams: set[Stream] = set()
        self.stopping = False
        self.finished: Callable[[], None] = lambda: None
        self.now = time.monotonic
        self._index = index
        self._share = share
        self._clients = 0
        self._errors: dict[str, int] = {}
        self._faults = 0
        self._last_fault = ""
        self._started = time.time()
        self._id_prefix = os.urandom(10).hex().encode()
        self._id_count = 0
        self._stop_at = 0.0
        self._listeners = listeners
        self._acceptors = [self._acceptor(listener) for listener in listeners]
        self._accepting = False
        self._accept_again_at = 0.0
        self._link = link
        self._link_out = SendBuffer()
        self._link_in: FrameReader[RoutingSnapshot | Stop] = FrameReader(RoutingSnapshot | Stop)
        self._watchers: list[Any] = []
        self._link_writer: Any = None
        self._reported = 0.0
        self._start()

    def _start(self) -> None:
        timer = self.loop.timer(CHECK_SECONDS, CHECK_SECONDS)
        timer.start(self._guarded, self._check)
        self._watchers.append(timer)
        if self._link is None:
            self._accept(True)
            return
        self._link.setblocking(False)
        reader = self.loop.io(self._link.fileno(), READ)
        reader.start(self._guarded, self._hear)
        self._watchers.append(reader)
        self._link_writer = self.loop.io(self._link.fileno(), WRITE)

    # -- the guard ---------------------------------------------------------------------------------

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the guard: the loop would stop this watcher for ever
            self.fault(error, None)

    def soon(self, call: Callable[[], None]) -> None:
        """In the next turn of the loop."""
        owner = getattr(call, "__self__", None)

        def run() -> None:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the guard
                self.fault(error, owner if isinstance(owner, Stream) else None)

        self.loop.run_callback(run)

    def fault(self, error: Exception, stream: Stream | None) -> None:
        """A bug struck: say where, count it, and close what it concerned."""
        self._faults += 1
        self._last_fault = f"{type(error).__name__}: {error}"[:500]
        self.note("".join(traceback.format_exception(error, limit=-12)).rstrip())
        if stream is not None:
            try:
                stream.on_fault()
            except Exception as second:  # noqa: BLE001 - the guard's own last resort
                self.note(f"closing failed too: {second!r}")
                stream.close()

    def note(self, words: str) -> None:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} edge worker {os.getpid()}: {words}\n")

    # -- clients -----------------------------------------------------------------------------------

    def _acceptor(self, listener: socket.socket) -> Any:
        listener.setblocking(False)
        return self.loop.io(listener.fileno(), READ)

    def _accept(self, on: bool) -> None:
        if on == self._accepting:
            return
        self._accepting = on
        for watcher, listener in zip(self._acceptors, self._listeners, strict=True):
            if on:
                watcher.start(self._guarded, lambda listener=listener: self._accept_from(listener))
            else:
                watcher.stop()

    def _accept_from(self, listener: socket.socket) -> None:
        limit = max(1, self.knowledge.snapshot.limits.connections // self._share)
        for _ in range(ACCEPT_AT_ONCE):
            if len(self.streams) // 2 >= limit and self._count_clients() >= limit:
                self._pause_accepting(CHECK_SECONDS)
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.note(f"accept: {error.strerror}; waiting {OUT_OF_DESCRIPTORS_SECONDS} s")
                self._pause_accepting(OUT_OF_DESCRIPTORS_SECONDS)
                return
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # a client that is gone again already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Client(self, sock, _plain(address[0]))

    def _count_clients(self) -> int:
        return sum(isinstance(stream, Client) for stream in self.streams)

    def _pause_accepting(self, seconds: float) -> None:
        self._accept(False)
        self._accept_again_at = self.now() + seconds

    def new_id(self) -> bytes:
        self._id_count += 1
        return b"%b%012x" % (self._id_prefix, self._id_count)

    def good_id(self, id: bytes) -> bool:
        return _GOOD_ID.fullmatch(id) is not None

    def count_error(self, code: str) -> None:
        self._errors[code] = self._errors.get(code, 0) + 1

    # -- time --------------------------------------------------------------------------------------

    def _check(self) -> None:
        now = self.now()
        for stream in list(self.streams):
            if isinstance(stream, Client):
                try:
                    stream.check(now)
                except Exception as error:  # noqa: BLE001 - the guard: one bad connection must not hide the others
                    self.fault(error, stream)
        if self._accept_again_at and now >= self._accept_again_at and not self.stopping:
            self._accept_again_at = 0.0
            self._accept(True)
        if now - self._reported >= REPORT_SECONDS or self.knowledge.leaving:
            self._report()
        if self.stopping and (now >= self._stop_at or not self._count_clients()):
            self._end()

    # -- the master --------------------------------------------------------------------------------

    def _hear(self) -> None:
        assert self._link is not None
        try:
            data = self._link.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        try:
            messages = self._link_in.feed(data) if data else []
        except LinkError as error:
            self.note(f"the master's link: {error}")
            data = b""
        if not data:
            # nobody would hear of us any more, and a new master brings its own workers
            self._watchers.pop().stop()
            self._link = None
            self.stop(self.knowledge.snapshot.drain_seconds)
            return
        for message in messages:
            if isinstance(message, Stop):
                self.stop(message.deadline_seconds)
            else:
                self.apply(message)

    def apply(self, snapshot: RoutingSnapshot) -> None:
        """From now on this is what counts."""
        self.knowledge = Knowledge(snapshot, self.knowledge)
        for service in self.knowledge.services.values():
            if service.backends and service.held:
                held = list(service.held)
                service.held.clear()
                for client in held:
                    self.soon(client.release)
        if not self.stopping:
            self._accept(True)
        self._report()

    def _report(self) -> None:
        self._reported = self.now()
        if self._link is None:
            return
        report = WorkerReport(
            state=WorkerState(
                pid=os.getpid(),
                index=self._index,
                connections=self._count_clients(),
                started_at=self._started,
                snapshot_version=self.knowledge.snapshot.version,
                rss_bytes=_resident_bytes(),
            ),
            services=self.knowledge.totals(),
            errors=dict(self._errors),
            faults=self._faults,
            last_fault=self._last_fault,
        )
        self._link_out.push(encode(report))
        self._flush_link()

    def _flush_link(self) -> None:
        if self._link is None:
            return
        try:
            done = self._link_out.flush(self._link)
        except OSError:
            return  # the reader hears of it
        if done:
            self._link_writer.stop()
        elif not self._link_writer.active:
            self._link_writer.start(self._guarded, self._flush_link)

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, seconds: float) -> None:
        """Accept no more, let what is in flight finish, end after ``seconds`` at the latest."""
        if self.stopping:
            self._stop_at = min(self._stop_at, self.now() + seconds)
            return
        self.stopping = True
        self._stop_at = self.now() + seconds
        self._accept(False)
        for listener in self._listeners:
            listener.close()
        for stream in list(self.streams):
            if isinstance(stream, Client):
                stream.stop()

    def _end(self) -> None:
        for stream in list(self.streams):
            if isinstance(stream, Client):
                stream.abort()
        self._report()
        self.finished()

    def close(self) -> None:
        """Let go of everything at once (for a worker that runs inside a test)."""
        self._accept(False)
        for stream in list(self.streams):
            stream.on_fault()
        for watcher in [*self._watchers, *self._acceptors]:
            watcher.stop()
            watcher.close()


def _plain(address: str) -> str:
    """An IPv4 client of a dual-stack socket by its IPv4 address."""
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") else address


_PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def drop_privileges() -> None:
    """From root to a user that owns nothing. Everything must be loaded by then: our files may be out of its reach."""
    if os.geteuid() != 0:
        return
    for name in ("nextdeploy", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        return


def load_everything() -> None:
    """What is imported on first use otherwise, at a time when our files may be out of reach."""
    import encodings.idna
    import pprint

    traceback.format_exception(ValueError(f"{pprint}{encodings.idna}"))
    answer("no_route")


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="nextdeployd --role=edge-worker")
    parser.add_argument("--role", required=True)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--listen-fd", type=int, action="append", default=[])
    parser.add_argument("--link-fd", type=int, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--share", type=int, default=1)
    arguments = parser.parse_args(argv)
    listeners = [socket.socket(fileno=fd) for fd in arguments.listen_fd]
    link = socket.socket(fileno=arguments.link_fd)
    raise_descriptor_limit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the master decides
    worker = Worker(listeners, link, arguments.index, arguments.share)
    over = Event()
    worker.finished = over.set
    terminate = worker.loop.signal(signal.SIGTERM)
    terminate.start(lambda: worker.stop(worker.knowledge.snapshot.drain_seconds))
    load_everything()
    drop_privileges()
    gc.collect()
    gc.freeze()
    over.wait()
    return 0

"""An edge worker: accepts clients from the shared sockets and drives them by callbacks on gevent's loop. It hears from
its master alone, by the link; when the master is gone it finishes what it has and ends."""

from __future__ import annotations

import contextlib
import errno
import gc
import heapq
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
from importlib import import_module
from pathlib import Path
from typing import Any

from gevent.event import Event
from gevent.hub import get_hub

from ..errors import LinkError
from ..messages.edge import RecordsStored, RoutingSnapshot, SendRecords, Stop, WorkerReport, WorkerState
from ..runtime.link import FrameReader, SendBuffer, encode
from ..runtime.roles import Arguments
from . import http1
from .capture import Recorder
from .client import Client
from .exchange import Exchange
from .gate import Passwords
from .geo import Countries
from .plan import Plan
from .services import FORGET_SECONDS, Knowledge
from .shared import Shared, create
from .stream import BULK_BYTES, READ, WRITE, Stream
from .suspicion import Suspicion
from .upstream import BackendState

FromMaster = RoutingSnapshot | Stop | RecordsStored | SendRecords

ACCEPT_AT_ONCE = 32
TICK_SECONDS = 0.05
REST_TICK_SECONDS = 0.2
WAITING_SECONDS = 0.1
HELD_SECONDS = 0.2
CHECK_SECONDS = 1.0
CHECK_AT_ONCE = 20
REPORT_SECONDS = 1.0
SLEEP_SECONDS = 5.0
"""Between two looks, and two reports, while nobody is there."""
OUT_OF_DESCRIPTORS_SECONDS = 0.2
OWN_DESCRIPTORS = 32
"""What a worker needs beside its clients."""
FULL_SECONDS = 0.2
REST_SECONDS = 1.0
"""A kept connection that rested so long may be closed when there is no room for another."""
LAST_RECORDS_SECONDS = 2.0
"""How long an empty worker waits for word that its last records are stored."""
GC_THRESHOLD = 20_000
LINK_BYTES = 4 * 1024 * 1024
"""More on the way to the master than this, and records wait."""
RARELY_USED = ("argon2", "encodings.idna", "maxminddb", "pprint")
"""Imported where they are needed."""

_GOOD_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Worker:
    """``listeners`` are shared with the other workers; ``link`` leads to the master; ``shared`` is the memory that the
    workers have in common."""

    def __init__(
        self,
        listeners: list[socket.socket],
        link: socket.socket | None,
        index: int = 0,
        shared: Shared | None = None,
    ) -> None:
        self.loop: Any = get_hub().loop
        self.now = time.monotonic
        self.knowledge = Knowledge(RoutingSnapshot(epoch=0, version=-1), None)
        self.streams: set[Stream] = set()
        self.clients: set[Client] = set()
        self.done: list[Exchange] = []
        self.buffer = memoryview(bytearray(BULK_BYTES))
        self.unread = Plan(http1.NOTHING, 0, None)
        """What stands for a request that could not be read."""
        self.stopping = False
        self.finished: Callable[[], None] = lambda: None
        self.shared = shared or Shared(create(), index)
        self.passwords = Passwords(self.soon)
        self.suspicion = Suspicion(self)
        self._countries = Countries(self.note)
        self.country = self._countries.country
        self._index = index
        self._errors: dict[str, int] = {}
        self._faults = 0
        self._last_fault = ""
        self._started = time.time()
        self._id_prefix = os.urandom(10).hex().encode()
        self._id_count = 0
        self._stop_at = 0.0
        self._empty_since = 0.0
        self._listeners = listeners
        self._acceptors = [self._acceptor(listener) for listener in listeners]
        self._accepting = False
        self._accept_again_at = 0.0
        self._link = link
        self._link_out = SendBuffer()
        self._link_in: FrameReader[FromMaster] = FrameReader(FromMaster)
        self._watchers: list[Any] = []
        self._link_reader: Any = None
        self._link_writer: Any = None
        self._recorder = Recorder(f"{os.getpid()}-{os.urandom(4).hex()}", self._send_records)
        self._reported = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._due_count = 0
        self._to_check: list[Client] = []
        self._checked = self._looked_at_held = self._looked_at_waiting = self._refilled = self._halved = self.now()
        self._timer: Any = None
        self._busy_at = self.now()
        """When there was something to do the last time."""
        self._asleep = False
        """Nobody is there: the next tick may be seconds away."""
        self._start()

    def _start(self) -> None:
        self._timer = self.loop.timer(TICK_SECONDS)
        self._watchers.append(self._timer)
        self._timer.start(self._tick)
        if self._link is None:
            self._accept(True)
            return
        self._link.setblocking(False)
        self._link_reader = self.loop.io(self._link.fileno(), READ)
        self._link_reader.start(self._guarded, self._hear)
        self._link_writer = self.loop.io(self._link.fileno(), WRITE)
        self._watchers += [self._link_reader, self._link_writer]

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

    def later(self, when: float, call: Callable[[], None]) -> None:
        """At the first tick past ``when``."""
        self._wake()
        self._due_count += 1
        heapq.heappush(self._due, (when, self._due_count, call))

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
        own = len(self.clients)
        room = self.knowledge.limits.connections - own - self.shared.count(own)
        # every client may need a second descriptor, for its container
        room = min(room, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_DESCRIPTORS) // 2 - own)
        if room <= 0:
            self._make_room()
            self._pause_accepting(FULL_SECONDS)
            return
        for _ in range(min(ACCEPT_AT_ONCE, room)):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.short_of_descriptors(error)
                break
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # a client that is gone again already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self.clients.add(Client(self, sock, _plain(address[0])))
        self.shared.count(len(self.clients))
        self._wake()

    def _make_room(self) -> None:
        """As many as there may be are here: those that only rest give way."""
        now, gone = self.now(), 0
        for client in list(self.clients):
            if client.rests(now) > REST_SECONDS:
                client.stop(handover=False)
                gone += 1
                if gone >= ACCEPT_AT_ONCE:
                    return

    def short_of_descriptors(self, error: OSError) -> None:
        """Let nobody in for a moment; those that only rest give theirs back."""
        if error.errno not in _FULL:
            raise error
        self.note(f"{error.strerror}; waiting {OUT_OF_DESCRIPTORS_SECONDS} s")
        for backend in self.knowledge.every_backend():
            backend.drop_idle()
        self._make_room()
        self._pause_accepting(OUT_OF_DESCRIPTORS_SECONDS)

    def _pause_accepting(self, seconds: float) -> None:
        self._accept(False)
        self._accept_again_at = self.now() + seconds
        self._wake()

    def new_id(self) -> bytes:
        self._id_count += 1
        return b"%b%012x" % (self._id_prefix, self._id_count)

    def good_id(self, id: bytes) -> bool:
        return _GOOD_ID.fullmatch(id) is not None

    def count_error(self, code: str) -> None:
        self._errors[code] = self._errors.get(code, 0) + 1

    def count_suspect(self, backend: BackendState) -> None:
        if backend.service is not None:
            backend.service.suspected += 1
        self.note(f"{backend.id} ({backend.address}:{backend.port}) does not answer; others get its requests")

    # -- time --------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Everything that happens by the clock: often while requests wait, seldom at rest."""
        try:
            now = self.now()
            self._by_the_clock(now)
        except Exception as error:  # noqa: BLE001 - the guard
            self.fault(error, None)
        finally:
            self._tick_in(self._rest_seconds())

    def _rest_seconds(self) -> float:
        """Until the next tick."""
        if self.done or self._due or any(b.waiting for b in self.knowledge.every_backend()):
            return TICK_SECONDS
        someone = self.clients or self._recorder.waiting or self.knowledge.leaving or self.suspicion.asks
        if someone or self.stopping or self._accept_again_at:
            self._busy_at = self.now()
        # what the last one left behind is told before
        return SLEEP_SECONDS if self._reported > self._busy_at else REST_TICK_SECONDS

    def _tick_in(self, seconds: float) -> None:
        self._asleep = seconds > REST_TICK_SECONDS
        self._watchers.remove(self._timer)
        self._timer.close()
        self._timer = self.loop.timer(seconds)
        self._watchers.append(self._timer)
        self._timer.start(self._tick)

    def _wake(self) -> None:
        """There is something to do again: the next tick comes soon."""
        self._busy_at = self.now()
        if self._asleep:
            self._tick_in(TICK_SECONDS)

    def _by_the_clock(self, now: float) -> None:
        self.suspicion.look(now)
        while self._due and self._due[0][0] <= now:
            self._guarded(heapq.heappop(self._due)[2])
        if now - self._looked_at_waiting >= WAITING_SECONDS:
            self._looked_at_waiting = now
            for backend in self.knowledge.every_backend():
                for client, since in list(backend.waiting.items()):
                    if now - since < WAITING_SECONDS:
                        break
                    self._for_one(client, client.wait_no_longer, now)
        if now - self._looked_at_held >= HELD_SECONDS:
            self._looked_at_held = now
            for service in self.knowledge.services.values():
                for client in list(service.held):
                    self._for_one(client, client.hold_no_longer, now)
        self._check_some(now)
        if now - self._refilled >= 1.0:
            for service in self.knowledge.services.values():
                service.refill(now - self._refilled)
            self._refilled = now
            self._countries.look(now)
        if now - self._halved >= FORGET_SECONDS:
            self._halved = now
            for service in self.knowledge.services.values():
                service.forget_half()
        if self._accept_again_at and now >= self._accept_again_at and not self.stopping:
            self._accept_again_at = 0.0
            self._accept(True)
        self._send_what_is_settled(now)
        if now - self._reported >= REPORT_SECONDS or self.knowledge.leaving:
            self._report()
        if self.stopping and (now >= self._stop_at or not self.clients):
            self._end(now)

    def _for_one(self, client: Stream, call: Callable[..., None], *arguments: float) -> None:
        try:
            call(*arguments)
        except Exception as error:  # noqa: BLE001 - the guard: one bad connection must not hide the others
            self.fault(error, client)

    def _check_some(self, now: float) -> None:
        """Every client about once a second, never all at once."""
        if not self._to_check:
            if now - self._checked < CHECK_SECONDS and len(self.clients) > CHECK_AT_ONCE:
                return
            self._to_check = list(self.clients)
        share = len(self.clients) * min(1.0, (now - self._checked) / CHECK_SECONDS)
        self._checked = now
        for _ in range(max(CHECK_AT_ONCE, int(share))):
            if not self._to_check:
                return
            client = self._to_check.pop()
            self._for_one(client, client.check, now)

    def settle(self) -> None:
        """What is finished is counted, and becomes part of the next batch of records."""
        done, self.done = self.done, []
        if done:
            self._recorder.settle(done, self.knowledge.snapshot.capture, self.now())

    def _send_what_is_settled(self, now: float) -> None:
        self.settle()
        self._recorder.seal()
        self._recorder.push(now)

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
            self._link_reader.stop()
            self._link_writer.stop()
            self._link = None
            self.stop(self.knowledge.snapshot.drain_seconds, handover=True)
            return
        for message in messages:
            match message:
                case Stop():
                    self.stop(message.deadline_seconds, handover=message.handover)
                case RoutingSnapshot():
                    self.apply(message)
                case RecordsStored():
                    self._recorder.stored(message, self.now())
                case SendRecords():
                    self._recorder.again(self.now())

    def apply(self, snapshot: RoutingSnapshot) -> None:
        """From now on this is what counts."""
        before = self.knowledge.leaving
        self.knowledge = Knowledge(snapshot, self.knowledge)
        self._countries.follow(snapshot.geoip, self.now())
        for backend in [*self.knowledge.left, *(backend for _, backend in before)]:
            for client in list(backend.waiting):
                self._for_one(client, client.backend_left)
        for service in [*self.knowledge.services.values(), *self.knowledge.ended]:
            if service.held and (service.backends or not service.settings.hold_seconds):
                held = list(service.held)
                service.held.clear()
                for client in held:
                    self.soon(client.release)
        if not self.stopping:
            self._accept(True)
        self._report()

    def _report(self) -> None:
        self._send_what_is_settled(self.now())
        self.suspicion.leave_those_gone()
        self._reported = self.now()
        self.shared.count(len(self.clients))
        if self._link is None:
            return
        report = WorkerReport(
            state=WorkerState(
                pid=os.getpid(),
                index=self._index,
                connections=len(self.clients),
                started_at=self._started,
                snapshot_version=self.knowledge.snapshot.version,
                rss_bytes=_resident_bytes(),
                draining=self.stopping,
            ),
            services=self.knowledge.totals(),
            errors=dict(self._errors),
            faults=self._faults,
            last_fault=self._last_fault,
            dropped=self._recorder.dropped,
            notes=(f"geoip: {self._countries.problem}",) if self._countries.problem else (),
        )
        self._link_out.push(encode(report))
        self._flush_link()

    def _send_records(self, frame: bytes) -> bool:
        if self._link is None or self._link_out.size + len(frame) > LINK_BYTES:
            return False
        self._link_out.push(frame)
        self._flush_link()
        return True

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

    def stop(self, seconds: float, *, handover: bool = False) -> None:
        """Accept no more, let what is in flight finish, end after ``seconds`` at the latest. With ``handover`` kept
        connections may bring one more request each."""
        if self.stopping:
            self._stop_at = min(self._stop_at, self.now() + seconds)
            return
        self.stopping = True
        self._wake()
        self._stop_at = self.now() + seconds
        self._accept(False)
        for listener in self._listeners:
            listener.close()
        for client in list(self.clients):
            client.stop(handover=handover)

    def _end(self, now: float) -> None:
        """Nobody is left, or the time is over: once the last records are stored, or nobody takes them, it is done."""
        for client in list(self.clients):
            client.cut_off("shutting_down")
        if not self._empty_since:
            self._empty_since = now
            self._report()
        if self._link is not None and self._recorder.waiting and now - self._empty_since < LAST_RECORDS_SECONDS:
            return
        self._report()
        self.shared.count(0)
        self.finished()

    def close(self) -> None:
        """Let go of everything at once (for a worker that runs inside a test)."""
        self._accept(False)
        for stream in list(self.streams):
            stream.on_fault()
        for watcher in [*self._watchers, *self._acceptors]:
            watcher.stop()
            watcher.close()
        self.shared.close()


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
    """From root to a user that owns nothing. What is imported with its first use is imported before, if it is out of that
    user's reach."""
    if os.geteuid() != 0:
        return
    for name in ("nextdeploy", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.setgroups([])
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
        in_reach = _in_reach()
        os.seteuid(0)
        os.setegid(0)
        if not in_reach:
            for name in RARELY_USED:
                import_module(name)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        return


def _in_reach() -> bool:
    """Whether all that may be imported can be: a module needs others, and those of the standard library."""
    folders = [folder or "." for folder in sys.path if not folder.endswith(".zip")]
    return all(os.access(folder, os.R_OK | os.X_OK, effective_ids=True) for folder in folders)


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: list[str]) -> int:
    arguments = Arguments(argv, "listen-fd", "link-fd", "index", "shared-fd")
    listeners = [socket.socket(fileno=fd) for fd in arguments.numbers("listen-fd")]
    link, index = socket.socket(fileno=int(arguments.needed("link-fd"))), arguments.number("index") or 0
    raise_descriptor_limit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the master decides
    worker = Worker(listeners, link, index, Shared(int(arguments.needed("shared-fd")), index))
    over = Event()
    worker.finished = over.set
    terminate = worker.loop.signal(signal.SIGTERM)
    terminate.start(lambda: worker.stop(worker.knowledge.snapshot.drain_seconds))
    drop_privileges()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)  # finished requests wait for their tick in thousands; they form no cycles
    over.wait()
    return 0

"""The edge's master: owns the listening sockets, keeps workers running, and passes words between them and the daemon.
It needs no daemon: the last snapshot is kept and given to every new worker."""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from .. import __version__
from ..errors import LinkError
from ..messages.edge import (
    PROTOCOL,
    EdgeReport,
    Hello,
    Refused,
    RequestRecords,
    RoutingSnapshot,
    ServiceTotals,
    Stop,
    WorkerReport,
    WorkerState,
)
from ..runtime.link import FrameReader, SendBuffer, encode, listen_unix
from .listen import Listener, open_listeners
from .shared import create
from .totals import added

REPORT_SECONDS = 1.0
RESPAWN_SECONDS = 0.05
RESPAWN_LONGEST = 5.0
YOUNG_SECONDS = 10.0
"""A worker that dies before this age makes the next one wait longer."""


class Peer:
    """A socket with frames in both directions."""

    def __init__(self, sock: socket.socket, types: object) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader: FrameReader[object] = FrameReader(types)
        self.out = SendBuffer()


class WorkerSlot:
    """One worker's place: the process that runs there now, and when to start the next one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: subprocess.Popen[bytes] | None = None
        self.peer: Peer | None = None
        self.began = 0.0
        self.wait = RESPAWN_SECONDS
        self.start_at: float | None = 0.0
        self.report: WorkerReport | None = None


class Master:
    def __init__(self, folder: Path, listeners: list[Listener], workers: int, listen: str = "") -> None:
        self._folder = folder
        self._listeners = listeners
        self._listen = listen
        self._selector = selectors.DefaultSelector()
        self._slots = [WorkerSlot(index) for index in range(workers)]
        self._daemon: Peer | None = None
        self._welcome = False
        self._guests: dict[int, Peer] = {}
        self._epoch = 0
        self._snapshot = b""
        self._snapshot_version = -1
        self._buried: dict[str, ServiceTotals] = {}
        self._buried_errors: dict[str, int] = {}
        self._buried_faults = 0
        self._last_fault = ""
        self._restarts = 0
        self._stop_at: float | None = None
        self._changed = True
        self._reported = 0.0
        self._shared = create()
        self._control = listen_unix(folder / "edge.sock")
        self._control.setblocking(False)
        self._wake, wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        wake_writer.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        self._wake_writer = wake_writer
        self._selector.register(self._control, selectors.EVENT_READ, self._meet)
        self._selector.register(self._wake, selectors.EVENT_READ, self._awake)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides
        while True:
            now = time.monotonic()
            self._spawn_due(now)
            if self._stop_at is not None and (now >= self._stop_at or not any(s.process for s in self._slots)):
                return self._finish()
            if self._changed or now - self._reported >= REPORT_SECONDS:
                self._report(now)
            for key, events in self._selector.select(self._patience(now)):
                try:
                    key.data(key.fileobj, events)
                except OSError as error:
                    note(f"{error}")

    def _patience(self, now: float) -> float:
        moments = [self._reported + REPORT_SECONDS]
        moments += [slot.start_at for slot in self._slots if slot.start_at is not None]
        if self._stop_at is not None:
            moments.append(self._stop_at)
        return max(0.0, min(moments) - now)

    def _awake(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            received = self._wake.recv(4096)
            if bytes([signal.SIGTERM]) in received:
                self.stop(10.0)
        self._bury()

    # -- workers -----------------------------------------------------------------------------------

    def _spawn_due(self, now: float) -> None:
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at and self._stop_at is None:
                self._spawn(slot, now)

    def _spawn(self, slot: WorkerSlot, now: float) -> None:
        ours, theirs = socket.socketpair()
        descriptors = [listener.sock.fileno() for listener in self._listeners]
        command = [
            *(sys.executable, "-m", "ndactors", "--role=edge-worker", f"--state-dir={self._folder.parent}"),
            *(f"--listen-fd={descriptor}" for descriptor in descriptors),
            *(f"--link-fd={theirs.fileno()}", f"--index={slot.index}", f"--shared-fd={self._shared}"),
        ]
        slot.start_at = None
        slot.began = now
        try:
            slot.process = subprocess.Popen(
                command,
                pass_fds=(*descriptors, theirs.fileno(), self._shared),
                stdin=subprocess.DEVNULL,
                env=child_environment(),
            )
        except OSError as error:
            note(f"no worker could be started: {error}")
            ours.close()
            self._start_later(slot, now)
            return
        finally:
            theirs.close()
        slot.peer = Peer(ours, WorkerReport | RequestRecords)
        self._selector.register(ours, selectors.EVENT_READ, lambda *_: self._hear_worker(slot))
        if self._snapshot:
            self._send(slot.peer, self._snapshot)
        self._changed = True

    def _bury(self) -> None:
        """See which workers ended; what they counted stays counted."""
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            code, now = slot.process.returncode, time.monotonic()
            self._hear_worker(slot)  # its last words, if they arrived
            slot.process = None
            self._forget(slot.peer)
            slot.peer = None
            if slot.report is not None:
                self._buried = added(self._buried, slot.report.services, gauges=False)
                for name, count in slot.report.errors.items():
                    self._buried_errors[name] = self._buried_errors.get(name, 0) + count
                self._buried_faults += slot.report.faults
                slot.report = None
            self._changed = True
            if self._stop_at is None:
                self._restarts += 1
                note(f"worker {slot.index} ended ({code}); starting another")
                grown = now - slot.began > YOUNG_SECONDS
                slot.wait = RESPAWN_SECONDS if grown else min(slot.wait * 2, RESPAWN_LONGEST)
                self._start_later(slot, now)

    def _start_later(self, slot: WorkerSlot, now: float) -> None:
        slot.start_at = now + (0.0 if slot.wait == RESPAWN_SECONDS else slot.wait)

    def _hear_worker(self, slot: WorkerSlot) -> None:
        if slot.peer is None:
            return
        for message in self._receive(slot.peer):
            if isinstance(message, RequestRecords):
                if self._daemon is not None:
                    self._send(self._daemon, encode(message))
                continue
            assert isinstance(message, WorkerReport)
            before = slot.report
            slot.report = message
            if message.last_fault:
                self._last_fault = message.last_fault
            if (
                before is None
                or before.state.snapshot_version != message.state.snapshot_version
                or _busy(before) != _busy(message)
            ):
                self._changed = True

    # -- the daemon --------------------------------------------------------------------------------

    def _meet(self, *_: object) -> None:
        sock, _address = self._control.accept()
        peer = Peer(sock, Hello | RoutingSnapshot | Stop)
        self._guests[sock.fileno()] = peer
        self._selector.register(sock, selectors.EVENT_READ, lambda *_: self._hear_daemon(peer))

    def _hear_daemon(self, peer: Peer) -> None:
        for message in self._receive(peer):
            if isinstance(message, Hello):
                self._welcome_daemon(peer, message)
            elif peer is not self._daemon:
                self._forget(peer)
                return
            elif isinstance(message, RoutingSnapshot):
                self._take_snapshot(message)
            elif isinstance(message, Stop):
                self.stop(message.deadline_seconds)

    def _welcome_daemon(self, peer: Peer, hello: Hello) -> None:
        reason = ""
        if hello.protocol != PROTOCOL:
            reason = f"this edge speaks protocol {PROTOCOL}, not {hello.protocol}"
        elif hello.epoch < self._epoch:
            reason = f"a newer daemon (epoch {self._epoch}) steers this edge; {hello.epoch} is too old"
        if reason:
            self._send(peer, encode(Refused(reason=reason)))
            self._forget(peer)
            return
        if hello.epoch > self._epoch:
            # versions count within an epoch: what the next daemon sends first is news
            self._snapshot_version = -1
        self._epoch = hello.epoch
        if self._daemon is not None and self._daemon is not peer:
            self._forget(self._daemon)
        self._daemon = peer
        own = Hello(
            protocol=PROTOCOL,
            epoch=self._epoch,
            version=__version__,
            pid=os.getpid(),
            role="edge",
            listen=self._listen,
        )
        self._send(peer, encode(own))
        self._changed = True

    def _take_snapshot(self, snapshot: RoutingSnapshot) -> None:
        if snapshot.epoch < self._epoch or snapshot.version <= self._snapshot_version:
            return
        self._snapshot_version = snapshot.version
        self._snapshot = encode(snapshot)
        for slot in self._slots:
            if slot.peer is not None:
                self._send(slot.peer, self._snapshot)

    def _report(self, now: float) -> None:
        self._changed = False
        self._reported = now
        if self._daemon is None:
            return
        totals, errors, faults = dict(self._buried), dict(self._buried_errors), self._buried_faults
        states: list[WorkerState] = []
        for slot in self._slots:
            if slot.report is None or slot.process is None:
                continue
            totals = added(totals, slot.report.services, gauges=True)
            for name, count in slot.report.errors.items():
                errors[name] = errors.get(name, 0) + count
            faults += slot.report.faults
            states.append(slot.report.state)
        report = EdgeReport(
            epoch=self._epoch,
            master_pid=os.getpid(),
            http=tuple(listener.name for listener in self._listeners),
            workers=tuple(states),
            services=totals,
            errors=errors,
            faults=faults,
            last_fault=self._last_fault,
            restarts=self._restarts,
        )
        self._send(self._daemon, encode(report))

    # -- sockets -----------------------------------------------------------------------------------

    def _receive(self, peer: Peer) -> list[object]:
        """What came; a peer that ended or sent what is no frame is forgotten."""
        messages: list[object] = []
        while True:
            try:
                data = peer.sock.recv(1 << 18)
            except (BlockingIOError, InterruptedError):
                return messages
            except OSError:
                data = b""
            if not data:
                self._forget(peer)
                return messages
            try:
                messages += peer.reader.feed(data)
            except LinkError as error:
                note(f"a peer is closed: {error}")
                self._forget(peer)
                return messages

    def _send(self, peer: Peer, frame: bytes) -> None:
        if not peer.out.push(frame):
            note("a peer is so slow that a message to it was dropped")
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            done = peer.out.flush(peer.sock)
        except OSError:
            return  # its reader hears of it
        with contextlib.suppress(KeyError, ValueError):  # forgotten meanwhile
            key = self._selector.get_key(peer.sock)
            events = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
            if key.events != events:
                reader = key.data

                def both(sock: object, happened: int) -> None:
                    if happened & selectors.EVENT_WRITE:
                        self._flush(peer)
                    if happened & selectors.EVENT_READ:
                        reader(sock, happened)

                self._selector.modify(peer.sock, events, reader if done else both)

    def _forget(self, peer: Peer | None) -> None:
        if peer is None or peer.sock.fileno() < 0:
            return
        self._guests.pop(peer.sock.fileno(), None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(peer.sock)
        peer.sock.close()
        if peer is self._daemon:
            self._daemon = None

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, seconds: float) -> None:
        """Accept no more; workers finish what they have, within ``seconds``."""
        if self._stop_at is not None:
            return
        # a little more than the workers have, so that their last words arrive
        self._stop_at = time.monotonic() + seconds + 1.0
        for listener in self._listeners:
            listener.sock.close()
        for slot in self._slots:
            slot.start_at = None
            if slot.peer is not None:
                self._send(slot.peer, encode(Stop(deadline_seconds=seconds)))

    def _finish(self) -> int:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
        self._report(time.monotonic())
        with contextlib.suppress(FileNotFoundError):
            (self._folder / "edge.sock").unlink()
        return 0


def _busy(report: WorkerReport) -> set[tuple[str, str]]:
    """Who has requests in flight: a change is told at once, because somebody may wait for a container to be idle."""
    return {(name, backend) for name, totals in report.services.items() for backend in totals.in_flight}


def child_environment() -> dict[str, str]:
    """What a worker needs to start, and nothing that belongs to apps or to the daemon."""
    wanted = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TZ", "GEVENT_LOOP")
    return {name: os.environ[name] for name in wanted if name in os.environ}


def note(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} edge master {os.getpid()}: {words}\n")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="nextdeployd --role=edge")
    parser.add_argument("--role", required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--http", default="")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args(argv)
    folder = arguments.state_dir / "edge"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        listeners = open_listeners(arguments.http)
    except OSError as error:
        note(f"cannot listen on {arguments.http}: {error.strerror or error}")
        return 1
    return Master(folder, listeners, max(1, arguments.workers), arguments.http).run()

"""The edge's master: owns the listening sockets, keeps workers running, and passes words between them and the daemon.
It needs no daemon: the last snapshot is kept and given to every new worker. SIGUSR2 starts a successor."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from .. import __version__
from ..messages.edge import (
    PROTOCOL,
    EdgeReport,
    Handover,
    Hello,
    Ready,
    RecordsStored,
    Refused,
    RequestRecords,
    RoutingSnapshot,
    SendRecords,
    Stop,
    Upgrade,
)
from ..runtime.activation import from_systemd
from ..runtime.child import Child
from ..runtime.link import encode, listen_unix
from ..runtime.peers import Peer, Peers
from ..runtime.roles import Arguments
from . import shared
from .crew import Crew, child_environment
from .listen import Listener, inherited, open_listeners
from .totals import Sum

REPORT_SECONDS = 1.0
QUIET_REPORT_SECONDS = 5.0
"""Where no worker has anything to tell."""
UPGRADE_SECONDS = 30.0
"""A successor that is not ready by then is given up."""
STOP_SECONDS = 10.0
LAST_WORDS_SECONDS = 3.0
FromDaemon = Hello | RoutingSnapshot | Stop | RecordsStored | Upgrade


class Master:
    """``listen`` is the address as it was told; ``predecessor`` leads to the master whose sockets these were."""

    def __init__(
        self,
        folder: Path,
        listeners: list[Listener],
        workers: int,
        listen: str = "",
        memory: int | None = None,
        first_place: int = 0,
        predecessor: socket.socket | None = None,
    ) -> None:
        self._folder = folder
        self._listeners = listeners
        self._listen = listen
        self._workers = workers
        self._memory = shared.create() if memory is None else memory
        self._next_place = first_place + workers
        self._peers = Peers(note)
        places = range(first_place, first_place + workers)
        self._crew = Crew(
            folder, listeners, self._memory, places, self._peers, self._pass_on_records, self._has_changed, note
        )
        self._daemon: Peer | None = None
        self._epoch = 0
        self._snapshot_version = -1
        self._drain_seconds = STOP_SECONDS
        self._stop_at: float | None = None
        self._changed = True
        self._reported = 0.0
        self._control: socket.socket | None = None
        self._successor: Peer | None = None
        self._successor_process: Child | None = None
        self._give_up_at: float | None = None
        self._upgrade = False
        self._handed_over = False
        self._old: Peer | None = None
        self._old_report: EdgeReport | None = None
        self._line = os.urandom(8).hex()
        self._waiting_to_be_ready = predecessor is not None
        self._heir_of_nothing = predecessor is None
        if predecessor is not None:
            types = Handover | EdgeReport | RequestRecords | Stop
            self._old = self._peers.add(Peer(predecessor, types, self._heard_old, self._lost_old))
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        self._peers.watch(self._bell, self._signalled)
        if predecessor is None:
            self._open_control()

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the daemon decides
        while True:
            now = time.monotonic()
            if self._heir_of_nothing:
                self._crew.start_due(now)
            if self._waiting_to_be_ready and self._heir_of_nothing and self._crew.have_all(self._snapshot_version):
                self._be_ready()
            if self._stop_at is not None and (now >= self._stop_at or not (self._crew.alive() or self._old)):
                return self._finish()
            if self._give_up_at is not None and now >= self._give_up_at:
                self._give_up("it was not ready in time")
            if self._changed or now >= self._report_at():
                self._report(now)
            self._peers.turn(self._patience(now))

    def _patience(self, now: float) -> float:
        moments = [self._report_at(), *self._crew.next_start()]
        moments += [moment for moment in (self._stop_at, self._give_up_at) if moment is not None]
        return max(0.0, min(moments) - now)

    def _report_at(self) -> float:
        return self._reported + (REPORT_SECONDS if self._crew.news else QUIET_REPORT_SECONDS)

    def _signalled(self) -> None:
        with contextlib.suppress(BlockingIOError):
            received = self._bell.recv(4096)
            if signal.SIGTERM in received:
                self.stop(STOP_SECONDS)
            if signal.SIGUSR2 in received:
                self._begin_upgrade(Upgrade())
        self._crew.bury(time.monotonic())
        if self._successor_process is not None and self._successor_process.poll() is not None:
            if not self._handed_over:
                self._give_up(f"it ended ({self._successor_process.returncode})")
            self._successor_process = None

    def _has_changed(self) -> None:
        self._changed = True

    # -- the daemon --------------------------------------------------------------------------------

    def _open_control(self) -> None:
        self._control = listen_unix(self._folder / "edge.sock")
        self._control.setblocking(False)
        self._peers.watch(self._control, self._meet)

    def _meet(self) -> None:
        assert self._control is not None
        sock, _address = self._control.accept()
        self._peers.add(Peer(sock, FromDaemon, self._heard_daemon, self._lost_daemon))

    def _lost_daemon(self, peer: Peer) -> None:
        if peer is self._daemon:
            self._daemon = None

    def _heard_daemon(self, peer: Peer, message: object) -> None:
        if isinstance(message, Hello):
            self._welcome(peer, message)
        elif peer is not self._daemon:
            self._peers.forget(peer)
        elif isinstance(message, RoutingSnapshot):
            self._take_snapshot(message)
        elif isinstance(message, Stop):
            self.stop(message.deadline_seconds)
        elif isinstance(message, RecordsStored | SendRecords):
            self._tell_all(message)
        elif isinstance(message, Upgrade):
            self._begin_upgrade(message)

    def _welcome(self, peer: Peer, hello: Hello) -> None:
        reason = ""
        if hello.protocol != PROTOCOL:
            reason = f"this edge speaks protocol {PROTOCOL}, not {hello.protocol}"
        elif hello.epoch < self._epoch:
            reason = f"a newer daemon (epoch {self._epoch}) steers this edge; {hello.epoch} is too old"
        if reason:
            self._peers.send(peer, Refused(reason=reason))
            self._peers.forget(peer)
            return
        if hello.epoch > self._epoch:
            # versions count within an epoch: what the next daemon sends first is news
            self._snapshot_version = -1
        self._epoch = hello.epoch
        before, self._daemon = self._daemon, peer
        if before is not None and before is not peer:
            self._peers.forget(before)
        own = Hello(
            protocol=PROTOCOL,
            epoch=self._epoch,
            version=__version__,
            pid=os.getpid(),
            role="edge",
            listen=self._listen,
            workers=self._workers,
        )
        self._peers.send(peer, own)
        self._tell_all(SendRecords())
        self._changed = True

    def _take_snapshot(self, snapshot: RoutingSnapshot) -> None:
        if snapshot.epoch < self._epoch or (
            snapshot.epoch == self._epoch and snapshot.version <= self._snapshot_version
        ):
            return
        self._epoch = snapshot.epoch
        self._snapshot_version = snapshot.version
        self._drain_seconds = snapshot.drain_seconds
        self._crew.snapshot = encode(snapshot)
        self._tell_all(self._crew.snapshot)

    def _tell_all(self, message: RecordsStored | SendRecords | bytes) -> None:
        """Our workers, and those that still drain under the master before us."""
        self._crew.tell(message)
        if self._old is not None:
            self._peers.send(self._old, message)

    def _pass_on_records(self, records: RequestRecords) -> None:
        if self._daemon is not None:
            self._peers.send(self._daemon, records)

    def _report(self, now: float) -> None:
        self._changed = self._crew.news = False
        self._reported = now
        if self._daemon is None:
            return
        if self._old is not None and self._old_report is None:
            return  # it tells at once what was counted before us; without that the counters would fall
        total = Sum()
        self._crew.add_to(total)
        if self._old_report is not None:
            total.add_edge(self._old_report)
        report = EdgeReport(
            epoch=self._epoch,
            master_pid=os.getpid(),
            http=tuple(listener.name for listener in self._listeners),
            workers=tuple(total.workers),
            services=total.services,
            errors=total.errors,
            faults=total.faults,
            last_fault=total.last_fault,
            restarts=total.restarts,
            dropped=total.dropped,
            version=__version__,
            notes=tuple(sorted(total.notes)),
            line=self._line,
        )
        self._peers.send(self._daemon, report)

    # -- handing over: the master before -----------------------------------------------------------

    def _begin_upgrade(self, wanted: Upgrade) -> None:
        if self._successor is not None or self._stop_at is not None or self._waiting_to_be_ready:
            note("an upgrade is under way already")
            return
        ours, theirs = socket.socketpair()
        descriptors = [listener.sock.fileno() for listener in self._listeners]
        program = wanted.program or (sys.executable, "-m", "ndactors")
        workers = self._workers if wanted.workers is None else wanted.workers
        command = [
            *(*program, "--role=edge", f"--state-dir={self._folder.parent}"),
            *(f"--http={self._listen if wanted.listen is None else wanted.listen}", f"--workers={workers}"),
            *(f"--listen-fd={descriptor}" for descriptor in descriptors),
            *(f"--inherited-for={self._listen}", f"--shared-fd={self._memory}"),
            *(f"--first-place={self._next_place}", f"--predecessor-fd={theirs.fileno()}"),
        ]
        try:
            self._successor_process = Child(
                command,
                {**child_environment(), **wanted.environment},
                keep=(*descriptors, self._memory, theirs.fileno()),
                session=True,
            )
        except OSError as error:
            note(f"no successor could be started: {error}")
            ours.close()
            return
        finally:
            theirs.close()
        types = Ready | RoutingSnapshot | RecordsStored | SendRecords | Stop
        self._successor = self._peers.add(Peer(ours, types, self._heard_successor, self._lost_successor))
        self._give_up_at = time.monotonic() + UPGRADE_SECONDS
        handover = Handover(
            epoch=self._epoch,
            version=self._snapshot_version,
            drain_seconds=self._drain_seconds,
            snapshot=self._crew.snapshot,
            line=self._line,
        )
        self._peers.send(self._successor, handover)
        note(f"upgrade: process {self._successor_process.pid} is to take over")

    def _heard_successor(self, peer: Peer, message: object) -> None:
        if isinstance(message, Ready):
            self._hand_over(peer)
        else:
            self._heard_daemon(peer, message)

    def _hand_over(self, peer: Peer) -> None:
        """It accepts: from now on it is to us what the daemon was."""
        note("upgrade: the successor accepts; draining")
        self._handed_over = True
        self._give_up_at = None
        if self._control is not None:
            self._peers.unwatch(self._control)
            self._control.close()
            self._control = None  # its path belongs to the successor
        before, self._daemon = self._daemon, peer
        self._peers.forget(before)
        self._changed = True
        self.stop(self._drain_seconds, handover=True)

    def _lost_successor(self, peer: Peer) -> None:
        self._successor = None
        if self._handed_over:
            self._lost_daemon(peer)
        elif self._give_up_at is not None:
            self._give_up("it closed the link")

    def _give_up(self, why: str) -> None:
        note(f"upgrade: given up, {why}; this edge goes on")
        self._give_up_at = None
        process, peer = self._successor_process, self._successor
        self._successor = None
        self._peers.forget(peer)
        if process is not None and process.poll() is None:
            process.kill()

    # -- handing over: the successor ---------------------------------------------------------------

    def _heard_old(self, peer: Peer, message: object) -> None:
        if isinstance(message, Handover):
            self._epoch, self._snapshot_version = message.epoch, message.version
            self._drain_seconds = message.drain_seconds
            self._crew.snapshot = message.snapshot
            self._line = message.line
            self._heir_of_nothing = True
        elif isinstance(message, EdgeReport):
            self._old_report = message
            self._changed = True
        elif isinstance(message, RequestRecords):
            self._pass_on_records(message)
        elif isinstance(message, Stop):
            self.stop(message.deadline_seconds)

    def _lost_old(self, peer: Peer) -> None:
        """It is done; or it died before it was, and then there is nobody but us."""
        self._old = None
        self._heir_of_nothing = True
        if self._old_report is not None:
            self._crew.buried.add_edge(self._old_report, gauges=False)
            self._old_report = None
        self._changed = True

    def _be_ready(self) -> None:
        self._waiting_to_be_ready = False
        self._open_control()
        if self._old is not None:
            self._peers.send(self._old, Ready())

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, seconds: float, *, handover: bool = False) -> None:
        """Accept no more; workers finish what they have, within ``seconds``."""
        if self._old is not None:
            self._peers.send(self._old, Stop(deadline_seconds=seconds))
        if self._stop_at is not None:
            # told again, by a successor that is told to stop itself
            self._stop_at = min(self._stop_at, time.monotonic() + seconds + LAST_WORDS_SECONDS)
            self._crew.tell(Stop(deadline_seconds=seconds))
            return
        # a little more than the workers have, so that their last words arrive
        self._stop_at = time.monotonic() + seconds + LAST_WORDS_SECONDS
        if self._successor is not None and not self._handed_over:
            self._peers.send(self._successor, Stop(deadline_seconds=seconds))
        for listener in self._listeners:
            listener.sock.close()
        self._crew.end(Stop(deadline_seconds=seconds, handover=handover))

    def _finish(self) -> int:
        self._crew.kill()
        self._crew.bury(time.monotonic())
        self._report(time.monotonic())
        if self._control is not None:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / "edge.sock").unlink()
        return 0


def note(words: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} edge master {os.getpid()}: {words}\n")


def main(argv: list[str]) -> int:
    known = "http", "workers", "listen-fd", "inherited-for", "shared-fd", "first-place", "predecessor-fd"
    arguments = Arguments(argv, *known)
    http, shared_fd = arguments.text("http") or "", arguments.number("shared-fd")
    folder = Path(arguments.needed("state-dir")) / "edge"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = inherited(arguments.numbers("listen-fd") or from_systemd(os.environ, os.getpid()))
    try:
        if given and arguments.text("inherited-for") in (None, http):
            listeners = given
        else:
            for listener in given:
                listener.sock.close()
            listeners = open_listeners(http)
    except OSError as error:
        note(f"cannot listen on {http}: {error.strerror or error}")
        return 1
    predecessor = None
    if (predecessor_fd := arguments.number("predecessor-fd")) is not None:
        predecessor = socket.socket(fileno=predecessor_fd)
        predecessor.set_inheritable(False)
    if shared_fd is not None:
        os.set_inheritable(shared_fd, False)
    master = Master(
        folder,
        listeners,
        max(1, arguments.number("workers") or 1),
        http,
        shared_fd,
        arguments.number("first-place") or 0,
        predecessor,
    )
    return master.run()

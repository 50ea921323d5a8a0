"""The master's workers: started, heard, replaced when they die, and what the dead ones counted."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from ..messages.base import Message
from ..messages.edge import RequestRecords, WorkerReport, WorkerState
from ..runtime.child import Child
from ..runtime.peers import Peer, Peers
from . import shared
from .listen import Listener
from .totals import Sum

RESPAWN_SECONDS = 0.05
RESPAWN_LONGEST = 5.0
YOUNG_SECONDS = 10.0
"""A worker that dies before this age makes the next one wait longer."""


class Slot:
    """One worker's place: the process that runs there now, and when to start the next one."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.process: Child | None = None
        self.peer: Peer | None = None
        self.began = 0.0
        self.wait = RESPAWN_SECONDS
        self.start_at: float | None = 0.0
        self.report: WorkerReport | None = None


class Crew:
    """``first`` is the place of the first worker in the shared memory; ``records`` gets request records, ``changed`` is
    called when something is worth a report."""

    def __init__(
        self,
        folder: Path,
        listeners: list[Listener],
        memory: int,
        places: range,
        peers: Peers,
        records: Callable[[RequestRecords], None],
        changed: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._listeners = listeners
        self._memory = memory
        self._peers = peers
        self._records = records
        self._changed = changed
        self._note = note
        self._slots = [Slot(index) for index in places]
        self._ended = False
        self.buried = Sum()
        self.restarts = 0
        self.news = False
        """A worker told something; whoever passes that on takes it back."""
        self.snapshot = b""
        """The newest, encoded; every new worker gets it first."""

    # -- starting ----------------------------------------------------------------------------------

    def start_due(self, now: float) -> None:
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at and not self._ended:
                self._start(slot, now)

    def next_start(self) -> list[float]:
        return [slot.start_at for slot in self._slots if slot.start_at is not None]

    def _start(self, slot: Slot, now: float) -> None:
        ours, theirs = socket.socketpair()
        descriptors = [listener.sock.fileno() for listener in self._listeners]
        command = [
            *(sys.executable, "-m", "ndactors", "--role=edge-worker", f"--state-dir={self._folder.parent}"),
            *(f"--listen-fd={descriptor}" for descriptor in descriptors),
            *(f"--link-fd={theirs.fileno()}", f"--index={slot.index}", f"--shared-fd={self._memory}"),
        ]
        slot.start_at = None
        slot.began = now
        try:
            slot.process = Child(command, child_environment(), keep=(*descriptors, theirs.fileno(), self._memory))
        except OSError as error:
            self._note(f"no worker could be started: {error}")
            ours.close()
            self._start_later(slot, now)
            return
        finally:
            theirs.close()
        slot.peer = self._peers.add(
            Peer(ours, WorkerReport | RequestRecords, lambda _, message: self._heard(slot, message), lambda _: None)
        )
        if self.snapshot:
            self._peers.send(slot.peer, self.snapshot)
        self._changed()

    def _start_later(self, slot: Slot, now: float) -> None:
        slot.start_at = now + (0.0 if slot.wait == RESPAWN_SECONDS else slot.wait)

    # -- talking -----------------------------------------------------------------------------------

    def tell(self, message: Message | bytes) -> None:
        """Every worker."""
        for slot in self._slots:
            if slot.peer is not None:
                self._peers.send(slot.peer, message)

    def _heard(self, slot: Slot, message: object) -> None:
        if isinstance(message, RequestRecords):
            self._records(message)
            return
        assert isinstance(message, WorkerReport)
        before, slot.report = slot.report, message
        self.news = True
        if (
            before is None
            or before.state.snapshot_version != message.state.snapshot_version
            or _busy(before) != _busy(message)
        ):
            self._changed()

    def have_all(self, version: int) -> bool:
        """Every worker runs, and has the snapshot of this version."""
        return all(
            slot.process is not None
            and (version < 0 or (slot.report is not None and slot.report.state.snapshot_version >= version))
            for slot in self._slots
        )

    def add_to(self, total: Sum) -> None:
        """What all of them counted, the dead ones included."""
        total.add(self.buried)
        for slot in self._slots:
            if slot.process is None:
                continue
            if slot.report is not None:
                total.add_worker(slot.report)
            else:
                # it may serve by a snapshot already that is not the newest
                total.workers.append(WorkerState(pid=slot.process.pid, index=slot.index))
        total.restarts += self.restarts

    # -- ending ------------------------------------------------------------------------------------

    def bury(self, now: float) -> None:
        """See which workers ended; what they counted stays counted."""
        for slot in self._slots:
            if slot.process is None or slot.process.poll() is None:
                continue
            code = slot.process.returncode
            if slot.peer is not None:
                self._peers.read(slot.peer)  # its last words, if they arrived
                self._peers.forget(slot.peer)
            slot.process = slot.peer = None
            shared.forget(self._memory, slot.index)
            if slot.report is not None:
                self.buried.add_worker(slot.report, gauges=False)
                slot.report = None
            self._changed()
            if not self._ended:
                self.restarts += 1
                self._note(f"worker {slot.index} ended ({code}); starting another")
                grown = now - slot.began > YOUNG_SECONDS
                slot.wait = RESPAWN_SECONDS if grown else min(slot.wait * 2, RESPAWN_LONGEST)
                self._start_later(slot, now)

    def end(self, message: Message) -> None:
        """No worker is replaced from now on; those that run get this as their last word."""
        self._ended = True
        for slot in self._slots:
            slot.start_at = None
        self.tell(message)

    def alive(self) -> bool:
        return any(slot.process is not None for slot in self._slots)

    def kill(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
                slot.process.wait()
                shared.forget(self._memory, slot.index)


def _busy(report: WorkerReport) -> set[tuple[str, str]]:
    """Who has requests in flight: a change is told at once, because somebody may wait for a container to be idle."""
    return {(name, backend) for name, totals in report.services.items() for backend in totals.in_flight}


def child_environment() -> dict[str, str]:
    """What a worker needs to start, and nothing that belongs to apps or to the daemon."""
    wanted = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TZ", "GEVENT_LOOP")
    return {name: os.environ[name] for name in wanted if name in os.environ}

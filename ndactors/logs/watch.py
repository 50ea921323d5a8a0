"""The opener as the log process knows it: told which files matter, and heard. Without it files are found by looking, and
then a container that writes very fast may be faster."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..runtime.child import Child
from ..runtime.peers import Peers
from ..runtime.restarts import Backoff
from . import opening
from .intake import ABSENT_SECONDS, IDLE_SECONDS, Intake

MOST_FILES = 8


class Watch:
    """``note`` hears what goes wrong."""

    def __init__(self, state_dir: Path, peers: Peers, note: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._peers = peers
        self._note = note
        self._intakes: dict[Path, Intake] = {}
        self._watched: set[Path] = set()
        self._process: Child | None = None
        self._sock: socket.socket | None = None
        self._backoff = Backoff(first=0.05, longest=10.0, reset_after=30.0)
        self._start_at = 0.0
        self._settled = False

    @property
    def runs(self) -> bool:
        return self._sock is not None

    def start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -S: it uses the standard library alone
        command = [sys.executable, "-S", "-m", "ndactors", "--role=log-opener", f"--state-dir={self._state_dir}"]
        try:
            self._process = Child(command, dict(os.environ), stdin=theirs.fileno(), session=True)
        except OSError as error:
            self._note(f"the process that opens log files could not be started: {error}")
            ours.close()
            self._start_at = time.monotonic() + self._backoff.next(time.monotonic())
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._sock = ours
        self._peers.watch(ours, self._hear)
        for intake in list(self._intakes.values()):
            self.add(intake)

    def look_after(self, now: float) -> None:
        """Start it again, if it ended."""
        if self._sock is None and now >= self._start_at:
            self.start()

    def stop(self) -> None:
        self._lose()

    # -- telling -----------------------------------------------------------------------------------

    def add(self, intake: Intake) -> None:
        """Its files are opened for it from now on, if its folder is there."""
        if intake.tail is not None:
            self._intakes[intake.tail.path] = intake
            if self._tell(opening.FOLLOW, intake.tail.path):
                intake.tail.expect()

    def remove(self, intake: Intake) -> None:
        if intake.tail is not None:
            self._intakes.pop(intake.tail.path, None)
            self._watched.discard(intake.tail.path)
            self._tell(opening.FORGET, intake.tail.path)

    def missing(self, intake: Intake) -> bool:
        """Whether nobody tells of its new files (yet)."""
        return self._sock is not None and intake.tail is not None and intake.tail.path not in self._watched

    def arm(self, intake: Intake) -> bool:
        """Wake it once its newest file is longer than it knows. False: that cannot be had."""
        if intake.tail is None or intake.tail.path not in self._watched:
            return False
        return self._tell(opening.ARM + b"%d:" % intake.tail.seen, intake.tail.path)

    def _tell(self, kind: bytes, path: Path) -> bool:
        if self._sock is None:
            return False
        try:
            self._sock.send(kind + os.fsencode(path))
        except BlockingIOError:
            return False  # so many at once; it is told again
        except OSError:
            self._lose()
            return False
        return True

    def settle(self, seconds: float) -> None:
        """Have everything that is on its way to us, and every file that there is at this moment."""
        deadline = time.monotonic() + seconds
        self._settled = False
        if not self._tell(opening.SETTLE, Path()):
            return
        while self._sock is not None and not self._settled and (left := deadline - time.monotonic()) > 0:
            select.select([self._sock], [], [], left)
            self._hear()

    # -- hearing -----------------------------------------------------------------------------------

    def _hear(self) -> None:
        while self._sock is not None:
            try:
                data, files, _, _ = socket.recv_fds(self._sock, opening.PACKET_BYTES, MOST_FILES)
            except BlockingIOError:
                return
            except OSError:
                data, files = b"", []
            if not data:
                self._lose()
                return
            self._heard(data[:1], data[1:], files)

    def _heard(self, kind: bytes, rest: bytes, files: list[int]) -> None:
        if kind == opening.SETTLED:
            self._settled = True
            return
        lost = b""
        if kind in (opening.FILE, opening.LOST, opening.REMOVED):
            lost, _, rest = rest.partition(b":")
        path = Path(os.fsdecode(rest))
        intake = self._intakes.get(path)
        if kind == opening.FILE:
            self._tell(opening.TAKEN, path)
        if intake is None or intake.tail is None:
            for file in files:
                os.close(file)
        elif kind == opening.WATCHED:
            self._watched.add(path)
            intake.tail.all_handed_over()
            intake.woken = True
        elif kind == opening.UNWATCHED:
            self._watched.discard(path)
            intake.tail.handed_over, intake.rotated = False, True
            intake.armed, intake.due = False, min(intake.due, time.monotonic() + ABSENT_SECONDS)
        elif kind == opening.GROWN:
            intake.woken = True
        elif kind == opening.UNARMED:
            intake.armed, intake.due = False, time.monotonic() + IDLE_SECONDS
        else:
            for file in files:
                intake.tail.hand_over(file, int(lost))
            if kind == opening.LOST:
                intake.tail.lost(int(lost))
            elif kind == opening.REMOVED:
                intake.tail.lost(int(lost))
                intake.tail.removed()
            intake.armed, intake.woken = False, True

    def _lose(self) -> None:
        """It ended: whatever came meanwhile is found by looking."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._peers.unwatch(sock)
        sock.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._watched.clear()
        for intake in self._intakes.values():
            if intake.tail is not None:
                intake.tail.all_handed_over()
                intake.tail.handed_over = False
            intake.rotated, intake.armed, intake.woken = True, False, True
        self._start_at = time.monotonic() + self._backoff.next(time.monotonic())

"""The edge as the daemon knows it: find the one that runs, or start one; tell it what to do; hear how it is. The edge
outlives the daemon, so nothing of it hangs on this object."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent

from ..errors import Conflict, LinkError, NextDeployError
from ..messages.containers import RecordsArrived
from ..messages.edge import (
    PROTOCOL,
    EdgeReport,
    Hello,
    RecordsStored,
    Refused,
    RequestRecords,
    RoutingSnapshot,
    Stop,
    Upgrade,
)
from ..runtime.link import FrameReader, SendBuffer, connect_unix, encode
from ..runtime.restarts import Backoff
from .children import child_environment, open_log, start_outliving

log = logging.getLogger("ndactors.edge")

FromEdge = Hello | Refused | EdgeReport | RequestRecords

UPGRADE_SECONDS = 15.0
ANSWER_SECONDS = 10.0
"""How long a new edge may take until it answers."""


class EdgePool:
    """``http`` is the address as configured; ``workers`` None means one for each core, at most 4. ``on_report`` gets
    every report, ``on_records`` request records, ``on_change`` a line of words whenever the edge came, went or was
    adopted. None may wait. ``sockets``: listening ones that were opened for us."""

    def __init__(
        self,
        state_dir: Path,
        *,
        http: str,
        workers: int | None,
        epoch: int,
        version: str,
        on_report: Callable[[EdgeReport], None],
        on_records: Callable[[RecordsArrived], None],
        on_change: Callable[[str], None],
        sockets: Sequence[int] = (),
    ) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "edge"
        self._http = http
        self._workers = workers or default_workers()
        self._sockets = sockets
        self._hello = Hello(protocol=PROTOCOL, epoch=epoch, version=version, pid=os.getpid(), role="daemon")
        self._on_report = on_report
        self._on_records = on_records
        self._on_change = on_change
        self._snapshot: RoutingSnapshot | None = None
        self._sock: socket.socket | None = None
        self._reader: FrameReader[FromEdge] = FrameReader(FromEdge)
        self._out = SendBuffer()
        self._flushing: gevent.Greenlet | None = None
        self._listening: gevent.Greenlet | None = None
        self._closed = False
        self.master_pid: int | None = None

    def start(self) -> None:
        """Adopt the edge that runs, or start one. ``NextDeployError`` with the edge's own words if neither works."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._connect_or_spawn()
        self._listening = gevent.spawn(self._listen)

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Hand it over; it is sent again to whichever edge comes next."""
        self._snapshot = snapshot
        self._send(snapshot)

    def stored(self, message: RecordsStored) -> None:
        """Tell the edge that it may forget these records."""
        self._send(message)

    def close(self) -> None:
        """Leave the edge running and let go of it."""
        self._closed = True
        self._end_greenlets()
        self._disconnect()

    def stop(self, deadline: float) -> None:
        """Ask it to finish what it has within ``deadline`` seconds and to end; see that it did."""
        pid, sock = self.master_pid, self._sock
        self._closed = True
        self._end_greenlets()
        if sock is not None:
            self._send(Stop(deadline_seconds=deadline))
            # its last reports and records; the end of the link is the end of the edge
            self._link_ends(deadline + 5.0)
        self._disconnect()
        if pid is not None:
            _wait_until_gone(pid, self._state_dir, 2.0)

    def _end_greenlets(self) -> None:
        for greenlet in (self._listening, self._flushing):
            if greenlet is not None and greenlet is not gevent.getcurrent():
                greenlet.kill(timeout=1.0)

    # -- finding and starting ----------------------------------------------------------------------

    def _connect_or_spawn(self) -> None:
        hello = self._connect()
        if hello is not None and not self._as_wanted(hello):
            hello = self._replace(hello)
        if hello is not None:
            self._on_change(f"adopted the edge that runs (pid {hello.pid})")
        else:
            hello = self._spawn()
            self._on_change(f"started an edge (pid {hello.pid})")
        self.master_pid = hello.pid
        if self._snapshot is not None:
            self._send(self._snapshot)

    def _as_wanted(self, hello: Hello) -> bool:
        return (hello.listen, hello.workers, hello.version) == (self._http, self._workers, self._hello.version)

    def _replace(self, hello: Hello) -> Hello | None:
        """Another edge takes the sockets over. One that listens elsewhere and cannot do so is ended instead."""
        log.info("the edge is %s on %s; another one takes over", hello.version, hello.listen)
        self._send(self._upgrade())
        after = self._connect() if self._link_ends(UPGRADE_SECONDS) else hello
        if after is not None and after.listen != self._http:
            self.master_pid = after.pid
            closed, self._closed = self._closed, False
            self.stop(5.0)
            self._closed = closed
            return None
        return after

    def _upgrade(self) -> Upgrade:
        environment = {name: value for name, value in child_environment().items() if name == "PYTHONPATH"}
        program = (sys.executable, "-m", "ndactors")
        return Upgrade(program=program, environment=environment, listen=self._http, workers=self._workers)

    def _link_ends(self, seconds: float) -> bool:
        """Read until it does, or the time is over."""
        sock = self._sock
        if sock is None:
            return True
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                sock.settimeout(max(0.01, deadline - time.monotonic()))
                data = sock.recv(1 << 18)
                if not data:
                    self._disconnect()
                    return True
                self._take(self._reader.feed(data))
        except TimeoutError:
            sock.settimeout(None)
            return False
        except (OSError, LinkError):
            self._disconnect()
            return True
        sock.settimeout(None)
        return False

    def change(self, http: str, workers: int | None) -> None:
        """From now on an edge with these is wanted: the one that runs hands over to it."""
        self._http = http
        self._workers = workers or default_workers()
        self._send(self._upgrade())

    def _connect(self) -> Hello | None:
        """None if nobody answers. ``Conflict`` if the edge refuses us."""
        try:
            sock = connect_unix(self._folder / "edge.sock")
        except OSError:
            return None
        self._sock = sock
        self._reader = FrameReader(FromEdge)
        self._out = SendBuffer()
        try:
            sock.sendall(encode(self._hello))
            sock.settimeout(ANSWER_SECONDS)
            while True:
                data = sock.recv(1 << 16)
                if not data:
                    self._disconnect()
                    return None
                for message in self._reader.feed(data):
                    if isinstance(message, Hello):
                        sock.settimeout(None)
                        return message
                    if isinstance(message, Refused):
                        self._disconnect()
                        raise Conflict(f"the edge refuses this daemon: {message.reason}")
        except (OSError, LinkError):
            self._disconnect()
            return None

    def _spawn(self) -> Hello:
        command = [
            *(sys.executable, "-m", "ndactors", "--role=edge", f"--state-dir={self._state_dir}"),
            *(f"--http={self._http}", f"--workers={self._workers}"),
            *(f"--listen-fd={descriptor}" for descriptor in self._sockets),
        ]
        with open_log(self._folder / "edge.log") as output:
            begins = output.tell()
            process = start_outliving(command, output, child_environment(), self._sockets)
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            hello = self._connect()
            if hello is not None:
                return hello
            if process.poll() is not None:
                words = (self._folder / "edge.log").read_bytes()[begins:].decode("utf-8", "replace").strip()
                raise NextDeployError(
                    f"the edge ended at once: {words.splitlines()[-1] if words else process.returncode}"
                )
            gevent.sleep(0.02)
        raise NextDeployError(f"the edge did not answer within {ANSWER_SECONDS:g} s")

    # -- talking -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        backoff = Backoff(first=0.05, longest=5.0, reset_after=30.0)
        while not self._closed:
            self._hear()
            if self._closed:
                return
            self._on_change("the link to the edge ended")
            while not self._closed:
                try:
                    self._connect_or_spawn()
                    break
                except NextDeployError as error:
                    log.error("%s", error)
                    gevent.sleep(backoff.next(time.monotonic()))

    def _hear(self) -> None:
        """Until the connection ends."""
        sock = self._sock
        if sock is None:
            return
        try:
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    break
                self._take(self._reader.feed(data))
        except (OSError, LinkError) as error:
            log.warning("the edge's link: %s", error)
        self._disconnect()

    def _take(self, messages: list[FromEdge]) -> None:
        for message in messages:
            if isinstance(message, EdgeReport):
                self._on_report(message)
            elif isinstance(message, RequestRecords):
                self._on_records(RecordsArrived(message, self.stored))

    def _send(self, message: RoutingSnapshot | Stop | RecordsStored | Upgrade) -> None:
        if self._sock is None:
            return
        if not self._out.push(encode(message)):
            log.error("the edge takes no messages; one was dropped")
        if self._flushing is None or self._flushing.dead:
            self._flushing = gevent.spawn(self._flush)

    def _flush(self) -> None:
        while self._out and self._sock is not None:
            sock = self._sock
            try:
                done = self._out.flush(sock)
            except OSError:
                return  # the listener hears of it and starts over
            if not done:
                return

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        self.master_pid = None
        if sock is not None:
            sock.close()


def default_workers() -> int:
    """One for each core, at most 4."""
    return min(4, os.cpu_count() or 1)


def _wait_until_gone(pid: int, state_dir: Path, seconds: float) -> None:
    """Until process ``pid`` ended; past that it is killed, if it still is our edge."""
    command_line = Path(f"/proc/{pid}/cmdline")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            words = command_line.read_bytes()
        except OSError:
            return
        if b"--role=edge" not in words or os.fsencode(state_dir) not in words:
            return
        gevent.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
        log.error("the edge (pid %d) did not end and was killed", pid)

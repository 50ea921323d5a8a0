"""The edge as the daemon knows it: find the one that runs, or start one; tell it what to do; hear how it is. The edge
outlives the daemon, so nothing of it hangs on this object."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
from .children import child_environment
from .outliving import OutlivingProcess

FromEdge = Hello | Refused | EdgeReport | RequestRecords

UPGRADE_SECONDS = 15.0


class EdgePool(OutlivingProcess):
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
        hello = Hello(protocol=PROTOCOL, epoch=epoch, version=version, pid=os.getpid(), role="daemon")
        super().__init__(state_dir, "edge", FromEdge, hello)
        self._http = http
        self._workers = workers or default_workers()
        self._sockets = sockets
        self._on_report = on_report
        self._on_records = on_records
        self._changed = on_change  # type: ignore[method-assign]
        self._snapshot: RoutingSnapshot | None = None

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Hand it over; it is sent again to whichever edge comes next."""
        self._snapshot = snapshot
        self._send(snapshot)

    def stored(self, message: RecordsStored) -> None:
        """Tell the edge that it may forget these records."""
        self._send(message)

    def stop(self, deadline: float) -> None:
        """Ask it to finish what it has within ``deadline`` seconds and to end; see that it did."""
        self._end(Stop(deadline_seconds=deadline), deadline + 5.0)

    def change(self, http: str, workers: int | None) -> None:
        """From now on an edge with these is wanted: the one that runs hands over to it."""
        self._http = http
        self._workers = workers or default_workers()
        self._send(self._upgrade())

    # -- finding and starting ----------------------------------------------------------------------

    def _adopt_or_start(self) -> None:
        hello = self._connect()
        if hello is not None and not self._as_wanted(hello):
            hello = self._replace(hello)
        if hello is not None:
            self._changed(f"adopted the edge that runs (pid {hello.pid})")
        else:
            arguments = [f"--http={self._http}", f"--workers={self._workers}"]
            arguments += [f"--listen-fd={descriptor}" for descriptor in self._sockets]
            hello = self._spawn(arguments, self._sockets)
            self._changed(f"started an edge (pid {hello.pid})")
        self.pid = hello.pid
        if self._snapshot is not None:
            self._send(self._snapshot)

    def _as_wanted(self, hello: Hello) -> bool:
        return (hello.listen, hello.workers, hello.version) == (self._http, self._workers, self._hello.version)

    def _replace(self, hello: Hello) -> Hello | None:
        """Another edge takes the sockets over. One that listens elsewhere and cannot do so is ended instead."""
        self._log.info("the edge is %s on %s; another one takes over", hello.version, hello.listen)
        self._send(self._upgrade())
        after = self._connect() if self._link_ends(UPGRADE_SECONDS) else hello
        if after is not None and after.listen != self._http:
            self.pid = after.pid
            closed, self._closed = self._closed, False
            self.stop(5.0)
            self._closed = closed
            return None
        return after

    def _upgrade(self) -> Upgrade:
        environment = {name: value for name, value in child_environment().items() if name == "PYTHONPATH"}
        program = (sys.executable, "-m", "ndactors")
        return Upgrade(program=program, environment=environment, listen=self._http, workers=self._workers)

    def _take(self, message: FromEdge) -> None:
        if isinstance(message, EdgeReport):
            self._on_report(message)
        elif isinstance(message, RequestRecords):
            self._on_records(RecordsArrived(message, self.stored))


def default_workers() -> int:
    """One for each core, at most 4."""
    return min(4, os.cpu_count() or 1)

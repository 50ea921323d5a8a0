"""Finding hung containers while requests wait for them: see ``core.suspecting`` for when, here is how. A probe is one
request on a fresh connection; any byte back ends it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..core.suspecting import (
    ANSWERED,
    LATE,
    PROBE_SECONDS,
    SILENT,
    SUSPECT,
    TRANSITIONS,
    TRUSTED,
    excuse,
    patience,
)
from .stream import Data
from .upstream import BackendState, Upstream

if TYPE_CHECKING:
    from .worker import Worker

CONNECT_PATIENCE_SECONDS = 0.25
"""A container whose connection is not made by then loses the request to another one, if there is another."""

OWN_LAG_SECONDS = 0.2


class Probe:
    """Asks one container whether it answers at all."""

    def __init__(self, worker: Worker, backend: BackendState, now: float) -> None:
        self.backend = backend
        self.deadline = now + PROBE_SECONDS
        self.over = ""
        settings = backend.service.settings if backend.service is not None else None
        method = settings.probe_method if settings is not None else "HEAD"
        path = settings.probe_path if settings is not None else "/"
        host = (settings.probe_host if settings is not None else "") or f"{backend.address}:{backend.port}"
        self._upstream = Upstream(worker, backend, self)
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: NextDeploy-Edge-Probe\r\nConnection: close\r\n\r\n"
        self._upstream.send(request.encode("latin-1", "replace"))

    def end(self, how: str) -> None:
        self.over = self.over or how
        self._upstream.user = None
        self._upstream.close()

    def on_fault(self) -> None:
        self.end(SILENT)

    def upstream_connected(self, upstream: Upstream) -> None: ...

    def upstream_data(self, upstream: Upstream, data: Data) -> None:
        self.end(ANSWERED)

    def upstream_drained(self, upstream: Upstream) -> None: ...

    def upstream_ended(self, upstream: Upstream, error: str) -> None:
        # one that is refused is not alive; one that is closed in good order was read by somebody
        self.end(SILENT if error else ANSWERED)


class Suspicion:
    """Looks at every container with waiting requests, some twenty times a second."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._probes: dict[BackendState, Probe] = {}
        self._looked = worker.now()

    @property
    def asks(self) -> bool:
        """A container is being asked."""
        return bool(self._probes)

    def look(self, now: float) -> None:
        late, self._looked = now - self._looked, now
        if late > OWN_LAG_SECONDS:
            # it is we who did not look: whatever came meanwhile must be read first
            for probe in self._probes.values():
                probe.deadline += late
            return
        for probe in list(self._probes.values()):
            if not probe.over and now >= probe.deadline:
                probe.end(SILENT)
            if probe.over:
                del self._probes[probe.backend]
                self._happened(probe.backend, probe.over, now)
        for backend in self._worker.knowledge.every_backend():
            if backend.waiting and backend.standing == TRUSTED:
                self._late(backend, now)

    def leave_those_gone(self) -> None:
        """Nobody waits for a container that left: it is not asked any more, and once a report says that nothing of it is
        in flight, nothing is."""
        for backend in [b for b in self._probes if b.removed and not b.waiting]:
            self._probes.pop(backend).end(SILENT)
            backend.standing = TRUSTED

    def _late(self, backend: BackendState, now: float) -> None:
        oldest, since = next(iter(backend.waiting.items()))
        if backend.excused is not None and backend.excused is not oldest:
            backend.excused, backend.excuses, backend.ask_after = None, 0, 0.0
        if now >= backend.ask_after and now - since > self._patience(backend):
            self._happened(backend, LATE, now)

    @staticmethod
    def _patience(backend: BackendState) -> float:
        service = backend.service
        return patience(service.answers, service.slow) if service is not None else patience(0, ())

    def answered(self, backend: BackendState) -> None:
        """A byte came from one that was asked about."""
        probe = self._probes.pop(backend, None)
        if probe is not None:
            probe.end(ANSWERED)
        self._happened(backend, ANSWERED, self._worker.now())

    def _happened(self, backend: BackendState, event: str, now: float) -> None:
        before = backend.standing
        after = backend.standing = TRANSITIONS.get((before, event), before)
        if after == TRUSTED:
            backend.ask_after = now + excuse(self._patience(backend), backend.excuses)
            backend.excused = next(iter(backend.waiting), None)
            backend.excuses += 1
            if before == SUSPECT:
                backend.avoid_until = now
            return
        if backend.removed and not backend.waiting:
            backend.standing = TRUSTED
            return
        if after == SUSPECT:
            backend.avoid_until = math.inf
            if before != SUSPECT:
                self._worker.count_suspect(backend)
            for client in list(backend.waiting):
                client.leave_suspect(backend)
            if not backend.waiting and backend.removed:
                backend.standing = TRUSTED
                return
        self._probes[backend] = Probe(self._worker, backend, now)

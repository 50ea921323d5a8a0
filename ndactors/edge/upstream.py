"""Connections to containers: made, kept for the next request, and given up. One request at a time on each."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, Protocol

from ..core.steering import mark
from ..core.suspecting import TRUSTED
from .stream import CLOSED, CONNECTING, Data, Stream

if TYPE_CHECKING:
    from .connection import Connection
    from .services import ServiceState
    from .worker import Worker

IDLE_PER_BACKEND = 64
IDLE_SECONDS = 30.0
KEEPALIVE_SECONDS = 30
"""A container that vanished without a word ends its streams and tunnels about twice as long after."""
FRESH_SECONDS = 1.0
"""An idle connection older than this may be just about to be closed by the app: not for what cannot be repeated."""
AVOID_SECONDS = 1.0
LONGEST_AVOID_SECONDS = 10.0
"""How long a container that could not be reached, or ended connections, is asked last; it doubles while it goes on."""
BAD_ANSWERS = 5
"""So many 5xx in a row, and it is asked last for a while."""


class User(Protocol):
    """Who sends a request over an upstream connection and hears of it."""

    def upstream_connected(self, upstream: Upstream) -> None: ...

    def upstream_data(self, upstream: Upstream, data: Data) -> None: ...

    def upstream_drained(self, upstream: Upstream) -> None: ...

    def upstream_ended(self, upstream: Upstream, error: str) -> None:
        """``error`` is empty for an orderly end, else connect_failed or upstream_reset."""
        ...


class BackendState:
    """One container as this worker knows it: load, idle connections, and how it behaved lately."""

    __slots__ = (
        "address",
        "ask_after",
        "avoid_until",
        "bad",
        "excused",
        "excuses",
        "id",
        "idle",
        "in_flight",
        "mark",
        "port",
        "removed",
        "revision",
        "role",
        "service",
        "standing",
        "tunnels",
        "waiting",
    )

    def __init__(self, id: str, address: str, port: int, service: ServiceState | None = None) -> None:
        self.id = id
        self.address = address
        self.port = port
        self.service = service
        self.mark = mark(id)
        self.revision = 0
        self.role = ""
        self.in_flight = 0
        self.tunnels = 0
        """Of those in flight, how many are tunnels."""
        self.waiting: dict[Connection, float] = {}
        """Clients without a byte of their answer, by when the request was sent: the oldest first."""
        self.avoid_until = 0.0
        self.bad = 0
        """Failures in a row: refused, reset, 5xx."""
        self.standing = TRUSTED
        self.excused: Connection | None = None
        self.excuses = 0
        self.ask_after = 0.0
        self.idle: list[Upstream] = []
        self.removed = False

    def take_idle(self, now: float, *, fresh: bool) -> Upstream | None:
        """The connection used last; with ``fresh`` only if that was a moment ago."""
        if not self.idle or (fresh and now - self.idle[-1].idle_since > FRESH_SECONDS):
            return None
        return self.idle.pop()

    def failed(self, now: float) -> None:
        """It refused or ended a connection."""
        self.bad += 1
        self.avoid_until = max(
            self.avoid_until, now + min(LONGEST_AVOID_SECONDS, AVOID_SECONDS * 2.0 ** min(self.bad - 1, 10))
        )

    def answered_badly(self, now: float) -> None:
        """It answered 5xx."""
        self.bad += 1
        if self.bad >= BAD_ANSWERS:
            self.failed(now)

    def remove(self) -> None:
        """It gets no more requests; those in flight go on."""
        self.removed = True
        self.drop_idle()

    def drop_idle(self) -> None:
        idle, self.idle = self.idle, []
        for upstream in idle:
            upstream.close()


class Upstream(Stream):
    """A connection to one container."""

    __slots__ = ("backend", "idle_since", "reused", "user")

    def __init__(self, worker: Worker, backend: BackendState, user: User) -> None:
        self.backend = backend
        self.user: User | None = user
        self.idle_since = 0.0
        self.reused = False
        family = socket.AF_INET6 if ":" in backend.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        super().__init__(worker, sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS // 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        code = sock.connect_ex((backend.address, backend.port))
        if code in (0, errno.EINPROGRESS):
            self.start_connecting()
        else:
            # told in the next turn of the loop: the caller is not ready to hear it yet
            worker.soon(self._refused)

    @property
    def connecting(self) -> bool:
        return self.state == CONNECTING

    def _refused(self) -> None:
        if self.state != CLOSED:
            self.on_end("connect_failed")

    def park(self, now: float) -> None:
        """Keep it for the next request, unless there are enough."""
        self.user = None
        backend = self.backend
        if backend.removed or len(backend.idle) >= IDLE_PER_BACKEND or self.state == CLOSED or self.paused:
            self.close()
            return
        self.idle_since = now
        self.bulk = False
        backend.idle.append(self)

    # -- what the stream tells ---------------------------------------------------------------------

    def on_connected(self) -> None:
        if self.user is not None:
            self.user.upstream_connected(self)

    def on_data(self, data: Data) -> None:
        if self.user is not None:
            self.user.upstream_data(self, data)
        else:
            self.close()  # an app that speaks unasked

    def on_drained(self) -> None:
        if self.user is not None:
            self.user.upstream_drained(self)

    def on_end(self, error: str) -> None:
        user = self.user
        self.close()
        if error == "connect_failed":
            self.backend.failed(self.worker.now())
        if user is not None:
            user.upstream_ended(self, error)
        self.user = None  # not before: a fault in there must find whom it concerns

    def on_fault(self) -> None:
        user, self.user = self.user, None
        self.close()
        on_fault: Any = getattr(user, "on_fault", None)
        if on_fault is not None:
            on_fault()

    def close(self) -> None:
        if self in self.backend.idle:
            self.backend.idle.remove(self)
        super().close()

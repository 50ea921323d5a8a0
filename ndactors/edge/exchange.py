"""One request and its answer, on their way through; afterwards, what is counted and remembered of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import http1

if TYPE_CHECKING:
    from .plan import Plan, Reply
    from .services import ServiceState
    from .upstream import BackendState

REPLAY_BYTES = 64 * 1024
"""So much of a request's body is kept, to be sent again elsewhere."""
MAX_RESETS = 2
"""A request that ends the connection of so many containers may be what ends them: it is not sent again."""
NOBODY: frozenset[BackendState] = frozenset()


class Exchange:
    """``request_done``: its body has come whole. ``answer_begun``: the client has seen a byte of the answer.

    Most exchanges never touch most of these, so the usual values are the class's own."""

    request_done = True
    bytes_in = 0
    bytes_out = 0
    # the request's body
    left = 0
    reader: http1.ChunkedReader | None = None
    replay: list[bytes] | None = None
    """What went upstream behind the head, as long as it is little."""
    replay_size = 0
    body: list[bytes] | None = None
    """What is kept of it for the record."""
    body_size = 0
    # where it is
    backend: BackendState | None = None
    """Whose load it is part of at the moment."""
    container = ""
    """Which container had it last."""
    tried: frozenset[BackendState] = NOBODY
    canary: bool | None = None
    """Whether it is of the canary's share; None: not decided."""
    cookie = b""
    """What its answer gets besides the usual fields: a line end and one field, or nothing."""
    attempts = 0
    resets = 0
    last_error = ""
    deadline = 0.0
    hold_until = 0.0
    held_since = 0.0
    held = 0.0
    retry_at = 0.0
    # the answer
    reply: Reply | None = None
    status = 0
    answer_buffer = b""
    answer_begun = False
    answer_body = http1.NONE
    answer_left = 0
    answer_chunked: http1.ChunkedReader | None = None
    # when
    sent = 0.0
    first_byte = 0.0
    ended = 0.0
    error = ""

    def __init__(self, plan: Plan, service: ServiceState, id: bytes, address: str, country: str, now: float) -> None:
        self.plan = plan
        self.service = service
        self.id = id
        self.address = address
        self.country = country
        self.started = now
        self.close_client = not plan.request.keep_alive
        self.head = b""

    def expect_body(self, request: http1.Request) -> None:
        self.request_done = False
        self.left = request.length
        self.replay = []
        if request.body == http1.CHUNKED:
            self.reader = http1.ChunkedReader()

    def keep(self, data: http1.Data) -> None:
        """Remember a piece of the body for another try, as long as it is little."""
        if self.replay is not None:
            self.replay_size += len(data)
            if self.replay_size > REPLAY_BYTES:
                self.replay = None
            else:
                self.replay.append(bytes(data))

    @property
    def whole(self) -> bool:
        """Everything that went upstream could be sent again."""
        return self.replay is not None or not self.replay_size

    def hold(self, now: float) -> None:
        """It waits for a container."""
        self.held_since = self.held_since or now

    def hold_no_longer(self, now: float) -> None:
        if self.held_since:
            self.held += now - self.held_since
            self.held_since = 0.0

    def keep_for_record(self, data: http1.Data, limit: int) -> None:
        if self.body_size < limit:
            piece = bytes(data[: limit - self.body_size])
            self.body_size += len(piece)
            if self.body is None:
                self.body = []
            self.body.append(piece)

    def may_repeat(self, *, sent: bool) -> bool:
        """Contract: on another container only if nothing was sent, or the method is idempotent; and only with the
        body still at hand."""
        if not self.whole:
            return False
        return not sent or (self.plan.idempotent and self.resets < MAX_RESETS)


def chunk(data: http1.Data) -> bytes:
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


LAST_CHUNK = b"0\r\n\r\n"

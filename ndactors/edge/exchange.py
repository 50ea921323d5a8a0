"""One request and its answer, on their way through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import http1

if TYPE_CHECKING:
    from .services import ServiceState
    from .upstream import BackendState

REPLAY_BYTES = 64 * 1024
"""So much of a request's body is kept, to be sent again elsewhere."""
MAX_RESETS = 2
"""A request that ends the connection of so many containers may be what ends them: it is not sent again."""


class Exchange:
    """``request_done``: its body has come whole. ``answer_begun``: the client has seen a byte of the answer."""

    __slots__ = (
        "answer",
        "answer_begun",
        "answer_body",
        "answer_buffer",
        "answer_chunked",
        "answer_left",
        "attempts",
        "backend",
        "body_in",
        "bytes_out",
        "close_client",
        "deadline",
        "head",
        "hold_until",
        "id",
        "idempotent",
        "last_error",
        "left",
        "reader",
        "replay",
        "replay_size",
        "request",
        "request_done",
        "resets",
        "retry_at",
        "service",
        "started",
        "tried",
    )

    def __init__(self, request: http1.Request, service: ServiceState, head: bytes, id: bytes, now: float) -> None:
        self.request = request
        self.service = service
        self.head = head
        self.id = id
        self.started = now
        self.idempotent = request.method in http1.IDEMPOTENT
        self.left = request.length
        self.reader = http1.ChunkedReader() if request.body == http1.CHUNKED else None
        self.request_done = request.body == http1.NONE
        self.body_in = 0
        self.replay: list[bytes] | None = []
        """What went upstream behind the head; None once it was too much to keep."""
        self.replay_size = 0
        self.backend: BackendState | None = None
        self.tried: set[BackendState] = set()
        self.attempts = 0
        self.resets = 0
        self.last_error = ""
        self.deadline = 0.0
        self.hold_until = 0.0
        self.retry_at = 0.0
        self.answer: http1.Response | None = None
        self.answer_buffer = b""
        self.answer_begun = False
        self.answer_body = http1.NONE
        self.answer_left = 0
        self.answer_chunked: http1.ChunkedReader | None = None
        self.bytes_out = 0
        self.close_client = not request.keep_alive

    def keep(self, data: bytes) -> None:
        """Remember a piece of the body for another try, as long as it is little."""
        if self.replay is not None:
            self.replay_size += len(data)
            if self.replay_size > REPLAY_BYTES:
                self.replay = None
            else:
                self.replay.append(data)

    def may_repeat(self, *, sent: bool) -> bool:
        """Contract: on another container only if nothing was sent, or the method is idempotent; and only with the
        body still at hand."""
        if self.replay is None:
            return False
        return not sent or (self.idempotent and self.resets < MAX_RESETS)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"

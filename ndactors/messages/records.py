"""Request records on their way from an edge worker to the store. Clients and apps repeat themselves, so a batch says
every request head and answer head once, and each request is one short row that points to them."""

from __future__ import annotations

from msgspec import Struct, field

from .base import Message, Value

SETTLE_SECONDS = 1.0
"""A request that ended so long ago is counted by ``GetTraffic``: workers send their records some twenty times a second, and
the answer waits for what is known to be on its way."""
CUT_OFF = ("upstream_reset", "upstream_timeout", "connect_failed", "no_backend", "shutting_down", "edge_fault")
"""What an ``error`` says of a request whose answer was cut off, or never came, without its client or its app's rules
being the reason. The others: the client left or sent nonsense, or was turned away (limit, password, address)."""
DELIBERATE = "maintenance"
"""The one ``error`` with a status of 5xx that is no failure: somebody switched it on."""


class RequestHead(Struct, frozen=True, array_like=True):
    """What records of requests with the same head share. Secrets are out of it already."""

    app: str
    process: str
    http11: bool
    method: bytes
    host: bytes
    target: bytes
    """Path and query."""
    fields: bytes
    """Lines as they were passed on."""


class AnswerHead(Struct, frozen=True, array_like=True):
    status: int
    fields: bytes


class Row(Struct, frozen=True, array_like=True):
    """Times in seconds: ``at`` since the batch's ``base``. ``head`` and ``answer`` are places in the batch's lists,
    -1: none (a request that could not be read; an answer that is the edge's own: then ``status`` says which)."""

    at: float
    duration: float
    upstream: float
    head: int
    answer: int
    status: int
    bytes_in: int
    bytes_out: int
    id: bytes
    address: str
    country: str
    container: str
    retries: int
    error: str
    body: bytes = b""
    held: float = 0.0
    """Of the duration, what it waited at the edge for a container."""


class Batch(Value, frozen=True, kw_only=True):
    """``base`` is in seconds since 1970."""

    base: float
    heads: list[RequestHead]
    answers: list[AnswerHead]
    rows: list[Row]


class RequestRecord(Value, frozen=True, kw_only=True):
    """One request as the API shows it. Times in milliseconds; ``ts`` is when its first byte came."""

    ts: str
    id: str
    app: str
    process: str
    container: str
    ip: str
    method: str
    host: str
    path: str
    status: int
    duration_ms: float
    upstream_ms: float
    bytes_in: int
    bytes_out: int
    protocol: str
    user_agent: str
    request_headers: dict[str, str]
    response_headers: dict[str, str]
    retries: int
    country: str | None = None
    query: str | None = None
    referer: str | None = None
    body: str | None = None
    error: str | None = None
    held_ms: float | None = None
    """How long it waited at the edge for a container; None if it did not."""


class GetRequests(Message, frozen=True, kw_only=True):
    """Answers ``RequestPage``, newest first. ``path`` is a prefix with a ``*`` at its end, else the whole path;
    ``status`` a code (``404``) or a class (``5xx``); ``since`` in seconds since 1970; ``before`` a cursor."""

    app: str | None = None
    method: str | None = None
    path: str | None = None
    status: str | None = None
    ip: str | None = None
    country: str | None = None
    id: str | None = None
    min_ms: float | None = None
    since: float | None = None
    before: int | None = None
    limit: int = 100


class RequestPage(Value, frozen=True, kw_only=True):
    items: tuple[RequestRecord, ...]
    next: int | None = None


class GetTraffic(Message, frozen=True, kw_only=True):
    """Requests of ``app`` that ended from ``since`` to before ``until`` (seconds since 1970), added up. ``over_ms``:
    count those that took longer, too. Answers ``TrafficSummary``, with everything that ended more than ``SETTLE_SECONDS``
    ago; what is still under way is not in it. It costs by how much came since ``since``, not by how much there is."""

    app: str
    since: float
    until: float
    over_ms: float | None = None


class Traffic(Value, frozen=True, kw_only=True):
    """``failed``: answered with 5xx (but for maintenance) or cut off by anybody but the client (``CUT_OFF``). ``held``:
    waited at the edge for a container. ``p95_ms`` (the nearest rank) and ``over`` are of the durations of all but
    tunnels (status 101), which last as long as somebody likes; None when there are none."""

    requests: int = 0
    failed: int = 0
    held: int = 0
    held_max_ms: float = 0.0
    p95_ms: float | None = None
    over: int = 0


class TrafficSummary(Value, frozen=True, kw_only=True):
    """``containers`` by container id; what reached none is under the empty id. ``complete`` is False if records that were
    on their way could not be stored in time, so that some may be missing."""

    complete: bool = True
    all: Traffic = Traffic()
    containers: dict[str, Traffic] = field(default_factory=dict)

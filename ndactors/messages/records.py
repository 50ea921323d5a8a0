"""Request records on their way from an edge worker to the store. Clients and apps repeat themselves, so a batch says
every request head and answer head once, and each request is one short row that points to them."""

from __future__ import annotations

from msgspec import Struct, field

from .base import Message, Value


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
    """Requests of ``app`` that began from ``since`` to before ``until`` (seconds since 1970), added up. ``over_ms``:
    count those that took longer, too. Answers ``TrafficSummary``."""

    app: str
    since: float
    until: float
    over_ms: float | None = None


class Traffic(Value, frozen=True, kw_only=True):
    """``failed``: answered with 5xx or cut off by anybody but the client. ``held``: waited at the edge for a container.
    ``p95_ms`` is of all; None when there are none."""

    requests: int = 0
    failed: int = 0
    held: int = 0
    held_max_ms: float = 0.0
    p95_ms: float | None = None
    over: int = 0


class TrafficSummary(Value, frozen=True, kw_only=True):
    """``containers`` by container id; what reached none is under the empty id."""

    all: Traffic = Traffic()
    containers: dict[str, Traffic] = field(default_factory=dict)

"""Request records on their way from an edge worker to the store. Clients and apps repeat themselves, so a batch says
every request head and answer head once, and each request is one short row that points to them."""

from __future__ import annotations

from msgspec import Struct, field

from .base import Value


class RequestHead(Value, frozen=True, kw_only=True):
    """What records of requests with the same head share. Secrets are out of it already."""

    app: str
    process: str
    method: str
    host: str
    path: str
    query: str
    protocol: str
    user_agent: str
    referer: str
    headers: list[tuple[str, str]] = field(default_factory=list)


class AnswerHead(Value, frozen=True, kw_only=True):
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)


class Row(Struct, frozen=True, array_like=True):
    """Times in microseconds: ``at`` since the batch's ``base``. ``head`` and ``answer`` are places in the batch's lists,
    -1: none (a request that could not be read; an answer that is the edge's own: then ``status`` says which)."""

    at: int
    duration: int
    upstream: int
    head: int
    answer: int
    status: int
    bytes_in: int
    bytes_out: int
    id: str
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

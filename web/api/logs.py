"""``/api/v1``: what apps print. ``log_filter`` reads what is asked for, for stored records and for live ones."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flask import Blueprint, Response, g, request

from ndactors.core.logquery import MAX_QUERY_CHARACTERS, LogFilter, level_mask
from ndactors.core.logrecords import STREAMS, format_ns, parse_ns
from ndactors.core.units import duration
from ndactors.errors import Invalid, NotFound
from ndactors.messages.logs import GetLogs, LogChunk, LogPage
from ndactors.messages.queries import AppView, GetApps

from ..auth import Guard
from ..openapi import LIST, PAGING, Described, query
from .parts import json, number

if TYPE_CHECKING:
    from .. import Refs

SECONDS = 20.0
"""So long an answer may take: much may have to be searched, and others may come first."""
ORDERS = ("newest", "oldest")
FILTERS = {
    "app": "of this app",
    "process": "of this process",
    "container": "of this container: its name, or the beginning of its id",
    "replica": "of this replica",
    "level": "error: that and worse; info,error: exactly these",
    "stream": "stdout or stderr",
    "q": "with this text; /…/ is a regular expression (RE2), field:value a field of a JSON line",
    "request_id": "of the request with this id",
    "since": "RFC 3339, Unix seconds, or so long ago: 10m",
    "until": "before that time",
}
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/logs",
        "Log records, the newest that match, in the order of time",
        [
            *(query(name, words) for name, words in FILTERS.items()),
            query("order", "oldest: the oldest that match; `next` leads to newer ones"),
            *PAGING,
        ],
        LIST,
        [404, 422, 504],
        False,
    ),
]

_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9})\d*)?")
_HEX = re.compile(r"[0-9a-f]+")
_END_NS = parse_ns("9999-12-31T23:59:59.999999999Z") or 0


class LogStream(Protocol):
    """As ``ndactors.ports.LogStream``."""

    def receive(self) -> LogChunk | None: ...
    def close(self) -> None: ...


class LogStreams(Protocol):
    """As ``ndactors.ports.LogStreams``."""

    def open(self, wanted: LogFilter, *, batch: bool, tail: int) -> LogStream: ...


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/logs")
    @guard.needs("viewer", limited=True)
    def logs() -> Response:
        order = request.args.get("order", ORDERS[0])
        if order not in ORDERS:
            raise Invalid("order must be newest or oldest.")
        asked = GetLogs(
            filter=log_filter(request.args, g.identity.apps, ids(refs, g.identity.apps)),
            limit=number("limit", request.args.get("limit"), 100) or 100,
            cursor=request.args.get("cursor") or None,
            oldest_first=order == "oldest",
            asker=g.identity.name,
        )
        page: LogPage = refs.logs.ask(asked, SECONDS)
        answer: dict[str, Any] = {"items": page.items, "next": page.next}
        return json({**answer, "damaged": page.damaged} if page.damaged else answer)


def log_filter(
    given: Mapping[str, str], apps: tuple[str, ...] | None, id_of: Callable[[str], str], now: float | None = None
) -> LogFilter:
    """From words by name. ``apps``: who asks may see no others (None: all); one that they name is ``NotFound``. ``id_of``
    gives a container's id for its name. ``Invalid`` for what cannot be understood; names that are no filter are ignored."""
    app, container, level, q = (given.get(name) or None for name in ("app", "container", "level", "q"))
    if app is not None and apps is not None and app not in apps:
        raise NotFound(f"There is no app called {app}.")
    stream = given.get("stream") or None
    if stream is not None and stream not in STREAMS:
        raise Invalid(f"stream must be {' or '.join(STREAMS)}.")
    if q is not None and len(q) > MAX_QUERY_CHARACTERS:
        raise Invalid(f"q must have at most {MAX_QUERY_CHARACTERS} characters.")
    now = time.time() if now is None else now
    return LogFilter(
        app=app,
        apps=apps,
        process=given.get("process") or None,
        container=None if container is None else id_of(container),
        replica=number("replica", given.get("replica") or None, None),
        stream=stream,  # type: ignore[arg-type]
        levels=level_mask(level) if level is not None else 0,
        q=q,
        request_id=given.get("request_id") or None,
        since=moment("since", given.get("since"), now),
        until=moment("until", given.get("until"), now),
    )


def ids(refs: Refs, apps: tuple[str, ...] | None) -> Callable[[str], str]:
    """The id of the container of that name, of ``apps`` only; else what was given. Only what cannot be an id is looked up."""

    def id_of(text: str) -> str:
        if _HEX.fullmatch(text):
            return text
        views: tuple[AppView, ...] = refs.apps.ask(GetApps())
        names = {c.name: c.id for view in views if apps is None or view.name in apps for c in view.containers}
        return names.get(text) or text

    return id_of


def moment(name: str, text: str | None, now: float) -> str | None:
    """RFC 3339 (without an offset: UTC), Unix seconds, or a duration before ``now`` (Unix seconds), as the store writes
    times: UTC with nanoseconds."""
    text = (text or "").strip()
    if not text:
        return None
    if unix := _UNIX.fullmatch(text):
        ns: int | None = int(unix[1]) * 1_000_000_000 + int(f"{unix[2] or '':0<9}")
    elif text[0].isdigit() and text[-1] in "smhd":
        try:
            ns = round((now - duration(text)) * 1e9)
        except ValueError as error:
            raise Invalid(f"{name}: {error}") from error
    else:
        ns = _rfc3339(text)
    if ns is None or not 0 <= ns <= _END_NS:
        raise Invalid(f"{name} must be a time like 2026-01-31T12:00:00Z, Unix seconds, or a duration like 10m.")
    return format_ns(ns)


def _rfc3339(text: str) -> int | None:
    """Nanoseconds; None if it is no time."""
    if text[10:11] == " ":
        text = f"{text[:10]}T{text[11:]}"
    text = text.replace(" ", "+").upper()  # in a query a plus sign is a space, unless it was quoted
    for form in (text, f"{text}Z"):
        if (found := parse_ns(form)) is not None:
            return found
    try:
        day = datetime.datetime.fromisoformat(text)
        return parse_ns((day if day.tzinfo else day.replace(tzinfo=datetime.UTC)).isoformat())
    except ValueError:
        return None

"""``/api/v1``: the server's file, edited while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from flask import Blueprint, Response, request

from ndactors.messages.config import (
    ConfigHistory,
    ConfigView,
    ConfigWritten,
    GetConfig,
    GetConfigHistory,
    PutConfig,
    RollbackConfig,
)

from ..auth import Guard
from ..openapi import LIST, PAGING, Described
from .operations import who
from .parts import body, cursor, json, number

if TYPE_CHECKING:
    from .. import Refs

MAX_BODY_BYTES = 7 * 1024 * 1024
"""A file of 1 MiB, each of its bytes escaped."""
SECONDS = 30.0
"""A large file takes a while to check."""
NO_ETAG = ("",)


class ConfigBody(msgspec.Struct, forbid_unknown_fields=True):
    yaml: str
    message: str | None = None


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    to: int
    message: str | None = None


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/config")
    @guard.needs("admin")
    def config() -> Response:
        view: ConfigView = refs.config.ask(GetConfig(), SECONDS)
        response = json({"version": view.version, "etag": view.etag, "yaml": view.text, "effective": view.effective})
        response.set_etag(view.etag)
        return response

    @api.put("/api/v1/config")
    @guard.needs("admin")
    def put_config() -> Response:
        request.max_content_length = MAX_BODY_BYTES
        given = body(ConfigBody)
        ask = PutConfig(text=given.yaml, by=who(), message=given.message, if_match=_if_match())
        return _written(refs.config.ask(ask, SECONDS))

    @api.get("/api/v1/config/history")
    @guard.needs("admin")
    def config_history() -> Response:
        query = GetConfigHistory(
            before=number("cursor", request.args.get("cursor"), None),
            limit=number("limit", request.args.get("limit"), 100) or 100,
        )
        found: ConfigHistory = refs.config.ask(query)
        return json({"items": found.items, "next": cursor(found.next)})

    @api.post("/api/v1/config/rollback")
    @guard.needs("admin")
    def rollback_config() -> Response:
        given = body(RollbackBody)
        return _written(refs.config.ask(RollbackConfig(to=given.to, by=who(), message=given.message), SECONDS))


def _if_match() -> tuple[str, ...]:
    """Etags of which the file must have one; empty: it may have any. A field that names none that could be matches
    nothing."""
    if "If-Match" not in request.headers or request.if_match.star_tag:
        return ()
    return tuple(sorted(request.if_match.as_set())) or NO_ETAG


def _written(written: ConfigWritten) -> Response:
    """What follows from it are operations of their own, one for each app that changes."""
    response = json({"version": written.version, "etag": written.etag, "operation": None})
    response.status_code = 202
    response.set_etag(written.etag)
    return response


_WRITTEN = {"type": "object", "required": ["version", "etag", "operation"]}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "Only if the file still has this etag; else 409",
}
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/config",
        "The server's file as it is, and what is in force, secrets masked (admin)",
        [],
        {"type": "object", "required": ["version", "etag", "yaml", "effective"]},
        [403, 404],
        False,
    ),
    (
        "put",
        "/api/v1/config",
        'Another text for it: {"yaml", "message"?}; checked first, then applied where something changed (admin)',
        [_IF_MATCH],
        _WRITTEN,
        [403, 409, 413, 422, 500],
        False,
    ),
    ("get", "/api/v1/config/history", "Its versions, newest first (admin)", PAGING, LIST, [403, 422], False),
    (
        "post",
        "/api/v1/config/rollback",
        'An older version again: {"to"} (admin)',
        [],
        _WRITTEN,
        [403, 404, 409, 422, 500],
        False,
    ),
]

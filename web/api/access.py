"""``/api/v1``: API tokens, and the hooks that git servers call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, Response, request

from ndactors.core.git_urls import git_context, is_remote
from ndactors.core.gitpush import Push, ignored, other_event, push_of
from ndactors.errors import Conflict
from ndactors.messages.access import CreatedToken, CreateToken, GetTokens, Kind, RevokeToken, Role, TokenView
from ndactors.messages.operations import BeginOperation, DeployApp, Git, Origin
from ndactors.messages.sources import GetSource, SourceView

from ..auth import Guard
from ..openapi import LIST, PAGING, Described, named
from .operations import who
from .parts import accepted, body, json, page, rfc3339

if TYPE_CHECKING:
    from .. import Refs

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
"""A push of many commits is told at length."""


class TokenBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    role: Role = "operator"
    apps: list[str] | None = None
    kind: Kind = "api"


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/tokens")
    @guard.needs("admin")
    def tokens() -> Response:
        return page([_row(token) for token in refs.access.ask(GetTokens())])

    @api.post("/api/v1/tokens")
    @guard.needs("admin")
    def create_token() -> Response:
        given = body(TokenBody)
        apps = tuple(given.apps) if given.apps is not None else None
        made: CreatedToken = refs.access.ask(
            CreateToken(name=given.name, role=given.role, apps=apps, kind=given.kind, by=who())
        )
        response = json({**_row(made.token), "token": made.secret})
        response.status_code = 201
        return response

    @api.delete("/api/v1/tokens/<id>")
    @guard.needs("admin")
    def revoke_token(id: str) -> Response:
        revoked: TokenView = refs.access.ask(RevokeToken(id=id))
        guard.tokens.forget()
        return json({"revoked": revoked.id})

    @api.post("/api/v1/hooks/<token>")
    def hook(token: str) -> Response:
        (app,) = guard.hook(token).apps or ()
        event = other_event(request.headers)
        if event is not None:
            return _ignored(f"it is no push but {event}")
        push = push_of(_payload())
        reason = ignored(push, _context(refs, app))
        if reason is not None:
            return _ignored(reason)
        return accepted(
            refs.operations.ask(BeginOperation(app=app, change=DeployApp(), origin=Origin(by="hook", git=_git(push))))
        )


def _row(token: TokenView) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(token)
    data["created_at"] = rfc3339(token.created_at)
    data["used_at"] = rfc3339(token.used_at) if token.used_at is not None else None
    return data


def _payload() -> bytes:
    """JSON as the body, or in the field ``payload`` of a form, as GitHub sends it unless told otherwise."""
    request.max_content_length = MAX_PAYLOAD_BYTES
    request.max_form_memory_size = MAX_PAYLOAD_BYTES
    if request.mimetype == "application/x-www-form-urlencoded":
        return request.form.get("payload", "").encode()
    return request.get_data() if request.is_json else b""


def _context(refs: Refs, app: str) -> Any:
    source: SourceView = refs.apps.ask(GetSource(app=app))
    if source.context is None or not is_remote(source.context):
        raise Conflict(f"{app} is not built from a git repository: its `build.context` is no https:// address.")
    return git_context(source.context)


def _git(push: Push) -> Git | None:
    return Git(sha=push.sha, ref=push.ref, message=push.message) if push.ref else None


def _ignored(reason: str) -> Response:
    response = json({"operation": None, "ignored": reason})
    response.status_code = 202
    return response


_TOKEN = {"type": "object", "required": ["id", "name", "role", "apps", "kind"]}
DESCRIBED: list[Described] = [
    ("get", "/api/v1/tokens", "API tokens, without their secrets (admin)", PAGING, LIST, [403, 422], False),
    (
        "post",
        "/api/v1/tokens",
        "A new one; `token` in the answer is told only here (admin)",
        [],
        _TOKEN,
        [403, 413, 422],
        False,
    ),
    ("delete", "/api/v1/tokens/{id}", "It is worth nothing any more (admin)", named("id"), {}, [403, 404], False),
    (
        "post",
        "/api/v1/hooks/{token}",
        "A git server tells of a push: the token's app is deployed from its repository",
        named("token"),
        {"type": "object", "required": ["operation"]},
        [404, 409, 413, 422, 429],
        True,
    ),
]

"""``/api/v1``: what is being changed, what each change made, and the verbs that change an app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, Response, g, jsonify, request

from ndactors.errors import Invalid, NotFound
from ndactors.messages.operations import (
    BeginOperation,
    CancelOperation,
    Change,
    DeployApp,
    GetOperation,
    GetOperations,
    GetRevisions,
    Git,
    Operation,
    Origin,
    RestartApp,
    RevisionPage,
    RollbackApp,
    RunCommand,
    ScaleApp,
    StartApp,
    StopApp,
)

from ..auth import Guard
from ..openapi import LIST, PAGING, Described, named, query
from .parts import accepted, body, cursor, json, number, refuse_on_host, visible_page

if TYPE_CHECKING:
    from .. import Refs

STATES = ("running", "succeeded", "failed", "cancelled")
LONGEST_RUN_SECONDS = 86_400.0


class DeployBody(msgspec.Struct, forbid_unknown_fields=True):
    """``git_sha`` and ``ref`` are what the client says of the version."""

    image: str | None = None
    git_sha: str | None = None
    ref: str | None = None
    message: str | None = None
    rebuild: bool = False
    pull: bool = False


class RollbackBody(msgspec.Struct, forbid_unknown_fields=True):
    to: int | None = None
    steps: int | None = None


class ScaleBody(msgspec.Struct, forbid_unknown_fields=True):
    replicas: int
    process: str = "web"


class Empty(msgspec.Struct):
    """What is sent to a verb that takes nothing does not matter."""


class RunBody(msgspec.Struct, forbid_unknown_fields=True):
    command: str | list[str]
    process: str = "web"
    timeout: float = 3600.0


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    def begin(app: str, change: Change, origin: Origin | None = None) -> Response:
        guard.app(app)
        ask = BeginOperation(app=app, change=change, origin=origin or Origin(by=who()))
        return accepted(refs.operations.ask(ask))

    @api.get("/api/v1/operations")
    @guard.needs("viewer", limited=True)
    def operations() -> Response:
        given = request.args
        state = given.get("state")
        if state is not None and state not in STATES:
            raise Invalid(f"state must be one of {', '.join(STATES)}.")
        query = GetOperations(
            app=guard.wanted_app(),
            state=state,
            before=number("cursor", given.get("cursor"), None),
            limit=number("limit", given.get("limit"), 100) or 100,
        )
        return visible_page(query, refs.operations.ask, lambda operation: guard.may_all(operation.apps))

    @api.get("/api/v1/operations/<id>")
    @guard.needs("viewer", limited=True)
    def operation(id: str) -> Response:
        found = visible(id)
        start = request.args.get("log_from", "0")
        if not (start.isascii() and start.isdigit()) or len(start) > 12:
            raise Invalid("log_from must be a whole number.")
        data: dict[str, Any] = msgspec.to_builtins(found)
        # what was cut off at its beginning counts, so that a reader who follows misses nothing in silence
        cut = found.log_cut
        data["log"] = found.log[max(0, int(start) - cut) :]
        data["log_length"] = cut + len(found.log)
        return json(data)

    @api.post("/api/v1/operations/<id>/cancel")
    @guard.needs("operator", limited=True)
    def cancel(id: str) -> Response:
        visible(id)
        refs.operations.ask(CancelOperation(id=id))
        response = jsonify({"operation": id})
        response.status_code = 202
        return response

    def visible(id: str) -> Operation:
        found: Operation = refs.operations.ask(GetOperation(id=id))
        if not guard.may_all(found.apps):
            raise NotFound(f"There is no operation {id}.")
        return found

    @api.get("/api/v1/apps/<name>/revisions")
    @guard.needs("viewer")
    def revisions(name: str) -> Response:
        guard.app(name)
        page: RevisionPage = refs.operations.ask(
            GetRevisions(
                app=name,
                before=number("cursor", request.args.get("cursor"), None),
                limit=number("limit", request.args.get("limit"), 100) or 100,
            )
        )
        items = [{k: v for k, v in msgspec.to_builtins(item).items() if k != "spec"} for item in page.items]
        return json({"items": items, "next": cursor(page.next)})

    @api.post("/api/v1/apps/<name>/deploy")
    @guard.needs("operator")
    def deploy(name: str) -> Response:
        given = body(DeployBody)
        if given.image is not None and (not given.image.strip() or any(c.isspace() for c in given.image)):
            raise Invalid("image must be the name of an image.")
        git = Git(sha=given.git_sha, ref=given.ref) if given.git_sha or given.ref else None
        refuse_on_host(refs, name)
        origin = Origin(by=who(), git=git, message=given.message, rebuild=given.rebuild, pull=given.pull)
        return begin(name, DeployApp(image=given.image, rebuild=given.rebuild, pull=given.pull), origin)

    @api.post("/api/v1/apps/<name>/rollback")
    @guard.needs("operator")
    def rollback(name: str) -> Response:
        given = body(RollbackBody)
        refuse_on_host(refs, name)
        if given.to is not None and given.steps is not None:
            raise Invalid("Give `to` or `steps`, not both.")
        if given.steps is not None and given.steps < 1:
            raise Invalid("steps must be at least 1.")
        return begin(name, RollbackApp(to=given.to, steps=given.steps or 1))

    @api.post("/api/v1/apps/<name>/scale")
    @guard.needs("operator")
    def scale(name: str) -> Response:
        given = body(ScaleBody)
        if not 0 <= given.replicas <= 1000:
            raise Invalid("replicas must be between 0 and 1000.")
        return begin(name, ScaleApp(process=given.process, replicas=given.replicas))

    @api.post("/api/v1/apps/<name>/restart")
    @guard.needs("operator")
    def restart(name: str) -> Response:
        body(Empty)
        return begin(name, RestartApp())

    @api.post("/api/v1/apps/<name>/stop")
    @guard.needs("operator")
    def stop(name: str) -> Response:
        body(Empty)
        return begin(name, StopApp())

    @api.post("/api/v1/apps/<name>/start")
    @guard.needs("operator")
    def start(name: str) -> Response:
        body(Empty)
        return begin(name, StartApp())

    @api.post("/api/v1/apps/<name>/run")
    @guard.needs("operator")
    def run(name: str) -> Response:
        given = body(RunBody)
        if not given.command or not all(isinstance(part, str) and "\0" not in part for part in given.command):
            raise Invalid("command must be a string or a list of strings.")
        if not 0 < given.timeout <= LONGEST_RUN_SECONDS:
            raise Invalid(f"timeout must be more than 0 and at most {LONGEST_RUN_SECONDS:g} seconds.")
        refuse_on_host(refs, name)
        command = given.command if isinstance(given.command, str) else tuple(given.command)
        return begin(name, RunCommand(command=command, process=given.process, timeout=given.timeout))


def who() -> str:
    """Whose change it is, for the record."""
    return f"api:{g.identity.name}"


_APP = named("app")
_DONE = {"type": "object", "required": ["operation"], "properties": {"operation": {"type": ["string", "null"]}}}
_VERB = [403, 404, 409, 422]
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/operations",
        "Changes, newest first",
        [query("app", "of this app"), query("state", "running, succeeded, failed or cancelled"), *PAGING],
        LIST,
        [422],
        False,
    ),
    (
        "get",
        "/api/v1/operations/{id}",
        "One change: steps, log, receipt",
        [*named("id"), query("log_from", "leave out so many characters of the log")],
        {"type": "object"},
        [404, 422],
        False,
    ),
    ("post", "/api/v1/operations/{id}/cancel", "Stop it, and go back", named("id"), _DONE, [403, 404, 409], False),
    (
        "get",
        "/api/v1/apps/{app}/revisions",
        "What each change made, newest first",
        [*_APP, *PAGING],
        LIST,
        [404, 422],
        False,
    ),
    ("post", "/api/v1/apps/{app}/deploy", "Deploy it again, or another image", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/rollback", "Back to an older revision", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/scale", "So many replicas of a process", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/restart", "New containers of the same version, rolling", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/stop", "No containers until it is started", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/start", "Containers again", _APP, _DONE, _VERB, False),
    ("post", "/api/v1/apps/{app}/run", "A one-off from the current revision", _APP, _DONE, _VERB, False),
]

"""``/api/v1``: a project file, sent by a client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, Response, g, request

from ndactors.core.schema import NAME
from ndactors.errors import Invalid
from ndactors.messages.operations import Git, Origin
from ndactors.messages.projects import (
    AppPlan,
    Bundle,
    DeployProject,
    GetPlan,
    PlanProject,
    ProjectAccepted,
    RemoveApp,
)

from ..auth import Guard
from ..openapi import LIST, Described, named, query
from .operations import who
from .parts import accepted, body, json

if TYPE_CHECKING:
    from .. import Refs

MAX_MANIFEST_BYTES = 48 * 1024 * 1024
"""A hundred thousand files with long names."""
DEPLOY_SECONDS = 300.0
"""Blobs are laid out as files before the answer."""


class ProjectBody(msgspec.Struct):
    bundle: Bundle
    prune: bool = False
    rebuild: bool = False
    pull: bool = False
    message: str | None = None
    git: Git | None = None


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.post("/api/v1/projects/<project>/deploy")
    @guard.needs("operator", limited=True)
    def deploy_project(project: str) -> Response:
        given = _body(project)
        done: ProjectAccepted = refs.config.ask(
            DeployProject(
                project=project,
                bundle=given.bundle,
                prune=given.prune,
                origin=Origin(by=who(), git=given.git, message=given.message, rebuild=given.rebuild, pull=given.pull),
                only=_only(),
            ),
            DEPLOY_SECONDS,
        )
        return accepted(done.operation, apps=done.apps, warnings=done.warnings)

    @api.post("/api/v1/projects/<project>/plan")
    @guard.needs("operator", limited=True)
    def plan_project(project: str) -> Response:
        given = _body(project)
        ask = PlanProject(project=project, bundle=given.bundle, prune=given.prune, only=_only())
        return json(refs.config.ask(ask, DEPLOY_SECONDS))

    @api.get("/api/v1/plan")
    @guard.needs("viewer", limited=True)
    def plan() -> Response:
        rows: tuple[AppPlan, ...] = refs.config.ask(GetPlan(app=guard.wanted_app()))
        return json({"items": [row for row in rows if guard.may(row.app)], "next": None})

    @api.delete("/api/v1/apps/<name>")
    @guard.needs("operator")
    def remove_app(name: str) -> Response:
        guard.app(name)
        refs.config.ask(RemoveApp(app=name, by=who()))
        response = json({"removed": name})
        response.status_code = 202
        return response


def _body(project: str) -> ProjectBody:
    if not re.fullmatch(NAME, project):
        raise Invalid("Not a valid project name; use a-z, 0-9 and -, at most 40 characters.")
    request.max_content_length = MAX_MANIFEST_BYTES
    return body(ProjectBody)


def _only() -> tuple[str, ...] | None:
    apps = g.identity.apps
    return tuple(sorted(apps)) if apps is not None else None


_ACCEPTED: dict[str, Any] = {"type": "object", "required": ["operation", "apps"]}
DESCRIBED: list[Described] = [
    (
        "post",
        "/api/v1/projects/{project}/deploy",
        "Deploy a project file with what it names; blobs are uploaded before",
        named("project"),
        _ACCEPTED,
        [403, 404, 409, 413, 422],
        False,
    ),
    (
        "post",
        "/api/v1/projects/{project}/plan",
        "What such a deploy would change",
        named("project"),
        {"type": "object"},
        [403, 404, 409, 413, 422],
        False,
    ),
    ("get", "/api/v1/plan", "How what runs differs from the files", [query("app", "of this app")], LIST, [404], False),
    (
        "delete",
        "/api/v1/apps/{app}",
        "Remove an app of a project",
        named("app"),
        {"type": "object"},
        [403, 404, 409],
        False,
    ),
]

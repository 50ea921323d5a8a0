"""``/api/v1``: what there is, as JSON."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, Response, g, jsonify, request

from ndactors.errors import Invalid, NextDeployError, NotFound
from ndactors.messages.queries import (
    ActorNode,
    AppView,
    GetApps,
    GetDaemon,
    GetEdge,
    GetEngine,
    GetEvents,
    GetHost,
    GetReadiness,
    GetTree,
    SetMaintenance,
)
from ndactors.messages.records import GetRequests
from ndactors.messages.stats import ContainerUsage, GetPorts, GetUsage
from ndactors.runtime.tree import RestartActor

from ..auth import Guard, Unauthorized
from ..openapi import document
from . import access, alerts, blobs, config, live, logs, metrics, operations, projects, secrets, terminals
from .parts import STATUS, json, milliseconds, number, page, rfc3339, since, visible_page

if TYPE_CHECKING:
    from .. import Refs

TOPICS: tuple[Any, ...] = (operations, projects, blobs, secrets, config, access, terminals, logs, live, metrics, alerts)
"""Each file adds its ``routes`` and describes them in its ``DESCRIBED``."""


def description() -> dict[str, Any]:
    """All routes, as OpenAPI."""
    return document([route for topic in TOPICS for route in topic.DESCRIBED])


def blueprint(refs: Refs, guard: Guard) -> Blueprint:
    api = Blueprint("api", __name__)

    @api.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @api.get("/readyz")
    def readyz() -> Response:
        ready = refs.apps.ask(GetReadiness())
        response = jsonify({"status": "ready" if ready.ready else "waiting", "waiting": list(ready.waiting)})
        response.status_code = 200 if ready.ready else 503
        return response

    @api.get("/api/v1/openapi.json")
    def openapi() -> Response:
        return jsonify(description())

    @api.post("/api/v1/token")
    def token() -> Response:
        header = request.authorization
        if header is None or header.type != "basic":
            raise Unauthorized("Send user and password as basic auth.")
        signed, expires = guard.token(guard.sign_in(header.username or "", header.password or ""))
        return jsonify({"token": signed, "expires_at": rfc3339(expires)})

    def visible_apps() -> tuple[AppView, ...]:
        return tuple(view for view in refs.apps.ask(GetApps()) if guard.may(view.name))

    def usages() -> dict[str, ContainerUsage]:
        """By container. Without them everything else is shown."""
        try:
            return {usage.container: usage for usage in refs.host.ask(GetUsage())}
        except NextDeployError:
            return {}

    @api.get("/api/v1/status")
    @guard.needs("viewer", limited=True)
    def status() -> Response:
        daemon = refs.daemon.ask(GetDaemon())
        apps = visible_apps()
        shown = {
            "version": daemon.version,
            "environment": daemon.environment,
            "env": daemon.environment,
            "uptime": max(0.0, time.time() - daemon.started_at),
            "started_at": rfc3339(daemon.started_at),
            "counts": {
                "apps": len(apps),
                "healthy": sum(app.state == "healthy" for app in apps),
                "containers": sum(len(app.containers) for app in apps),
                "running": sum(c.state == "running" for app in apps for c in app.containers),
            },
        }
        if g.identity.apps is not None:
            return json(shown)
        edge = refs.edge.ask(GetEdge())
        return json(
            {
                **shown,
                "project": daemon.project,
                "pid": daemon.pid,
                "daemon_id": daemon.daemon_id,
                "epoch": daemon.epoch,
                "config_path": daemon.config_path,
                "state_dir": daemon.state_dir,
                "engine": refs.engine.ask(GetEngine()),
                "host": refs.host.ask(GetHost()),
                "ports": refs.host.ask(GetPorts()),
                "edge": None
                if edge is None
                else {
                    "pid": edge.master_pid,
                    "http": edge.http,
                    "workers": edge.workers,
                    "restarts": edge.restarts,
                    "faults": edge.faults,
                    "errors": edge.errors,
                },
            }
        )

    @api.get("/api/v1/actors")
    @guard.needs("viewer")
    def actors() -> Response:
        tree: ActorNode = refs.root.ask(GetTree())
        return json({"tree": tree, "items": [_flat(node, parent) for node, parent in _walk(tree, None)], "next": None})

    @api.post("/api/v1/actors/<path:name>/restart")
    @guard.needs("admin")
    def restart_actor(name: str) -> Response:
        refs.root.ask(RestartActor(name=name))
        response = jsonify({"restarted": name})
        response.status_code = 202
        return response

    @api.get("/api/v1/apps")
    @guard.needs("viewer", limited=True)
    def apps() -> Response:
        found = usages()
        return page([_app(view, found) for view in visible_apps()])

    @api.get("/api/v1/apps/<name>")
    @guard.needs("viewer")
    def app(name: str) -> Response:
        for view in refs.apps.ask(GetApps()):
            if view.name == name:
                return json(_app(view, usages()))
        raise NotFound(f"There is no app called {name}.")

    @api.post("/api/v1/apps/<name>/maintenance")
    @guard.needs("operator")
    def maintenance(name: str) -> Response:
        body = request.get_json(silent=True)
        if not isinstance(body, dict) or not isinstance(body.get("on"), bool):
            raise Invalid('Send {"on": true} or {"on": false}.')
        refs.edge.ask(SetMaintenance(app=name, on=body["on"]))
        response = jsonify({"operation": None, "app": name, "maintenance": body["on"]})
        response.status_code = 202
        return response

    @api.get("/api/v1/containers")
    @guard.needs("viewer", limited=True)
    def containers() -> Response:
        wanted = guard.wanted_app()
        views = [c for view in visible_apps() for c in view.containers if wanted in (None, view.name)]
        found = usages()
        return page([_container(view, found.get(view.id)) for view in views])

    @api.get("/api/v1/events")
    @guard.needs("viewer", limited=True)
    def events() -> Response:
        query = GetEvents(
            app=guard.wanted_app(),
            kind=request.args.get("kind"),
            since=since(request.args.get("since")),
            before=number("cursor", request.args.get("cursor", request.args.get("before")), None),
            limit=number("limit", request.args.get("limit"), 100) or 100,
        )
        return visible_page(query, refs.events.ask, lambda event: guard.may(event.app))

    @api.get("/api/v1/requests")
    @guard.needs("viewer", limited=True)
    def requests() -> Response:
        given = request.args
        status = given.get("status")
        if status is not None and not STATUS.fullmatch(status):
            raise Invalid("status must be a code like 404 or a class like 5xx.")
        after = since(given.get("since"))
        query = GetRequests(
            app=guard.wanted_app(),
            method=given.get("method"),
            path=given.get("path"),
            status=status,
            ip=given.get("ip"),
            country=given.get("country"),
            id=given.get("request_id"),
            min_ms=milliseconds(given.get("min_ms")),
            since=datetime.datetime.fromisoformat(after).timestamp() if after else None,
            before=number("cursor", given.get("cursor"), None),
            limit=number("limit", given.get("limit"), 100) or 100,
        )
        return visible_page(query, refs.records.ask, lambda record: guard.may(record.app))

    for topic in TOPICS:
        topic.routes(api, refs, guard)
    return api


def _app(view: AppView, found: dict[str, ContainerUsage]) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(view)
    web = next((p for p in view.processes if p.name == "web"), None)
    data["replicas"] = {"desired": web.desired, "running": web.running, "routed": web.routed} if web else None
    data["desired"] = {p.name: p.desired for p in view.processes}
    data["containers"] = [_container(c, found.get(c.id)) for c in view.containers]
    return data


def _container(view: Any, usage: ContainerUsage | None) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(view)
    if usage is not None:
        data |= {"cpu": usage.cpu_percent, "memory": usage.memory, "memory_limit": usage.memory_limit}
        data |= {"oom_kills": usage.oom_kills, "pids": usage.pids, "disk": usage.disk}
        if usage.network_receive is not None:
            data["net"] = {"receive": usage.network_receive, "transmit": usage.network_transmit}
    data["restart_reasons"] = data.pop("restarts")
    data["restarts"] = sum(view.restarts.values())
    data["started_at"] = rfc3339(view.started_at) if view.started_at else None
    if view.started_at:
        data["uptime"] = round(max(0.0, time.time() - view.started_at), 3)
    return data


def _walk(node: ActorNode, parent: str | None) -> list[tuple[ActorNode, str | None]]:
    return [(node, parent), *(row for child in node.children for row in _walk(child, node.name))]


def _flat(node: ActorNode, parent: str | None) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(node)
    del data["children"]
    return {**data, "class": node.cls, "parent": parent}

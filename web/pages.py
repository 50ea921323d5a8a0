"""The sign-in form and the plain status pages: server-rendered, no script."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, redirect, render_template, request, session, url_for

from ndactors.errors import NextDeployError, Unauthorized
from ndactors.messages.control import WebSettings
from ndactors.messages.queries import ActorNode, GetApps, GetDaemon, GetEdge, GetEngine, GetEvents, GetHost, GetTree

from .auth import Guard, Identity
from .problems import TooManyRequests

if TYPE_CHECKING:
    from . import Refs

WORST = {"failed": 0, "degraded": 1, "starting": 2, "stopped": 3, "healthy": 4}


def blueprint(refs: Refs, guard: Guard, settings: WebSettings) -> Blueprint:
    pages = Blueprint("pages", __name__)

    def identity() -> Identity | None:
        """Pages show everything, so they are for those without limits."""
        try:
            who = guard.identify()
        except Unauthorized:
            return None
        return who if who is not None and who.apps is None else None

    def show(template: str, **values: Any) -> Any:
        who = identity()
        if who is None:
            return _sign_in_form(401)
        g.identity = who
        try:
            return render_template(
                template, who=who, settings=settings, **{name: get() for name, get in values.items()}
            )
        except NextDeployError as error:
            return render_template("away.html", who=who, settings=settings, error=error), error.status

    def _sign_in_form(status: int, error: str = "") -> Any:
        return Response(
            render_template("sign_in.html", settings=settings, error=error), status=status if error else 200
        )

    @pages.get("/")
    def overview() -> Any:
        return show(
            "overview.html",
            apps=lambda: sorted(refs.apps.ask(GetApps()), key=lambda app: (WORST.get(app.state, 0), app.name)),
            events=lambda: refs.events.ask(GetEvents(limit=12)).items,
            host=lambda: refs.host.ask(GetHost()),
            edge=lambda: refs.edge.ask(GetEdge()),
            daemon=lambda: refs.daemon.ask(GetDaemon()),
        )

    @pages.get("/apps")
    def apps() -> Any:
        return show("apps.html", apps=lambda: refs.apps.ask(GetApps()))

    @pages.get("/events")
    def events() -> Any:
        return show("events.html", events=lambda: refs.events.ask(GetEvents(limit=200)).items)

    @pages.get("/system")
    def system() -> Any:
        return show(
            "system.html",
            rows=lambda: _rows(refs.root.ask(GetTree()), 0),
            host=lambda: refs.host.ask(GetHost()),
            engine=lambda: refs.engine.ask(GetEngine()),
            edge=lambda: refs.edge.ask(GetEdge()),
            daemon=lambda: refs.daemon.ask(GetDaemon()),
        )

    @pages.post("/sign-in")
    def sign_in() -> Any:
        try:
            who = guard.sign_in(request.form.get("user", ""), request.form.get("password", ""))
        except TooManyRequests as error:
            return _sign_in_form(429, str(error))
        except Unauthorized as error:
            return _sign_in_form(401, str(error))
        session.clear()
        session["user"] = who.name
        session["stamp"] = guard.users.stamp(who.name)
        return redirect(url_for("pages.overview"), 303)

    @pages.post("/sign-out")
    def sign_out() -> Any:
        session.clear()
        return redirect(url_for("pages.overview"), 303)

    @pages.app_template_filter()
    def size(count: float) -> str:
        for unit in ("B", "KiB", "MiB", "GiB"):
            if abs(count) < 1024:
                return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
            count /= 1024
        return f"{count:.1f} TiB"

    @pages.app_template_filter()
    def since(moment: float | None) -> str:
        return "" if not moment else span(max(0.0, time.time() - moment))

    return pages


def span(seconds: float) -> str:
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def _rows(node: ActorNode, depth: int) -> list[tuple[int, ActorNode]]:
    return [(depth, node), *(row for child in node.children for row in _rows(child, depth + 1))]

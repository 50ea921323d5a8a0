"""API and pages: a Flask app that asks actors through refs. It does not know whether they live in this process."""

from __future__ import annotations

import re
import secrets
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from flask import Flask, g, request

from ndactors.errors import Forbidden
from ndactors.messages.control import WebSettings
from ndactors.runtime.tracing import request_id

from . import api, metrics, pages, problems, upgrades
from .api.blobs import Store
from .api.logs import LogStreams
from .api.terminals import Terminals
from .auth import Guard, Users
from .relay import Relay

MAX_BODY_BYTES = 1024 * 1024
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Ref(Protocol):
    """The address of an actor, near or far."""

    def ask(self, message: Any, timeout: float = ...) -> Any: ...


class Refs(NamedTuple):
    """Who answers what."""

    root: Ref
    daemon: Ref
    apps: Ref
    events: Ref
    records: Ref
    edge: Ref
    host: Ref
    engine: Ref
    operations: Ref
    config: Ref
    access: Ref
    secrets: Ref
    logs: Ref
    metrics: Ref
    alerts: Ref
    notify: Ref


def create_app(
    refs: Refs,
    settings: WebSettings,
    terminals: Terminals | None = None,
    relay: Relay | None = None,
    blobs: Store | None = None,
    logs: LogStreams | None = None,
) -> Flask:
    """``terminals`` reaches into containers; a process that cannot has a ``relay`` to the one that can. ``blobs`` takes
    uploads. ``logs`` gives log records as they come."""
    app = Flask(__name__)
    app.extensions["nextdeploy.terminals"] = terminals
    app.extensions["nextdeploy.relay"] = relay
    app.extensions["nextdeploy.blobs"] = blobs
    app.extensions["nextdeploy.logs"] = logs
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["SESSION_COOKIE_NAME"] = "nextdeploy"
    app.config["SESSION_COOKIE_HTTPONLY"] = True
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    app.secret_key = settings.key
    app.json.sort_keys = False  # type: ignore[attr-defined]
    guard = Guard(Users(settings.users), settings.key, refs.access)
    problems.install(app)
    app.register_blueprint(api.blueprint(refs, guard))
    app.register_blueprint(metrics.blueprint(refs, guard, open_to_all=settings.metrics_open))
    app.register_blueprint(pages.blueprint(refs, guard, settings))

    @app.before_request
    def name_it() -> None:
        """A client may name its request; its name is in the answer and in the log."""
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        request_id.set(g.request_id)

    @app.before_request
    def refuse_other_sites() -> None:
        """A page of somebody else must not act with credentials that the browser adds by itself."""
        if upgrades.is_asked_for():
            upgrades.check_origin(settings.allowed_origins)
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        origin = request.headers.get("Origin")
        foreign = origin is not None and origin != "null" and urlsplit(origin).netloc != request.host
        if foreign or request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            raise Forbidden("This request comes from another site.")

    @app.after_request
    def protect(response: Any) -> Any:
        headers = response.headers
        headers.setdefault("X-Request-Id", g.get("request_id", ""))
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        )
        headers.setdefault("Cache-Control", "no-store")
        return response

    return app

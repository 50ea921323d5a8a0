"""``/api/v1``: terminals and ports of containers, over WebSockets."""

from __future__ import annotations

import shlex
import socket as sockets
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from flask import Blueprint, current_app, g, request

from ndactors.core.masking import mask_words
from ndactors.errors import Conflict, EngineUnreachable, Invalid, NextDeployError, NotFound
from ndactors.messages.containers import RecordEvent
from ndactors.messages.queries import AppView, ContainerView, GetApps

from .. import upgrades
from ..auth import Guard
from ..openapi import Described, named, query
from ..problems import TooManyRequests
from ..sessions import IDLE_SECONDS, Connection, Terminal, log, serve_terminal
from ..sockets import Socket
from ..upgrades import Serve
from .parts import number, refuse_on_host

if TYPE_CHECKING:
    from .. import Refs

MOST = 100
"""So many terminals and connections at once: each holds a connection of the server, which has 200."""
COMMAND_BYTES = 16 * 1024
SHELL = ("sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash; else exec sh; fi")
"""The best shell that is there."""
ALIVE = ("running", "unhealthy", "starting")
"""States in which a container has processes, the best first."""
PATIENT = {"silence": IDLE_SECONDS, "stall": IDLE_SECONDS}
"""Whoever pages through output, or has stopped it, is silent for long and well."""

PLACE = [
    *named("app"),
    query("process", "of this process (default: web, else the app's only one)"),
    query("replica", "this replica of it"),
]
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/apps/{app}/exec",
        "A terminal in a container (WebSocket): binary messages are input and output, text messages are JSON",
        [
            *PLACE,
            query("command", "an argument of the command; repeated (default: a shell)"),
            query("tty", "1: with a terminal"),
            query("rows", "of the terminal"),
            query("columns", "of the terminal"),
        ],
        {},
        [403, 404, 409, 422, 426, 429],
        False,
    ),
    (
        "get",
        "/api/v1/apps/{app}/forward",
        "One TCP connection to a port of a container (WebSocket)",
        [*PLACE, query("port", "of the container")],
        {},
        [403, 404, 409, 422, 426, 429, 502],
        False,
    ),
]


class Terminals(Protocol):
    """The way into containers."""

    def open(self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int) -> Terminal:
        """Start ``argv`` in it."""
        ...

    def connect(self, container: str, port: int) -> sockets.socket:
        """``Conflict`` if nothing listens there, ``Forbidden`` for a port that is not the container's own."""
        ...


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @upgrades.route(api, guard, "/api/v1/apps/<app>/exec", "operator", **PATIENT)
    def exec_(app: str) -> Serve:
        refuse_on_host(refs, app)
        argv = _argv(request.args.getlist("command"))
        tty = _flag("tty")
        rows, columns = number("rows", request.args.get("rows"), 24), number("columns", request.args.get("columns"), 80)
        container = _container(refs, app)
        visit = _Visit(refs, "exec", container, mask_words(shlex.join(argv)))
        terminal = _terminals().open(container.id, argv, tty=tty, rows=rows or 24, columns=columns or 80)

        def serve(socket: Socket) -> None:
            with closing(terminal), visit:
                visit.detail["exit_code"] = serve_terminal(socket, terminal)
            socket.close(within=IDLE_SECONDS)  # it may have much to read before it sees our goodbye

        return serve

    @upgrades.route(api, guard, "/api/v1/apps/<app>/forward", "operator", **PATIENT)
    def forward(app: str) -> Serve:
        port = number("port", request.args.get("port"), None)
        if port is None or port > 65535:
            raise Invalid("port must be a number from 1 to 65535.")
        refuse_on_host(refs, app)
        container = _container(refs, app)
        visit = _Visit(refs, "forward", container, f"port {port}")
        tcp = _terminals().connect(container.id, port)

        def serve(socket: Socket) -> None:
            connection = Connection(socket, tcp)
            with closing(tcp), visit:
                try:
                    connection.serve()
                finally:
                    visit.detail["bytes_in"], visit.detail["bytes_out"] = connection.moved
            socket.close(within=IDLE_SECONDS)

        return serve


class _Visit:
    """One stay in a container: its begin and its end are events, and there are at most ``MOST``."""

    open = 0

    def __init__(self, refs: Refs, kind: str, container: ContainerView, what: str) -> None:
        if _Visit.open >= MOST:
            raise TooManyRequests(f"There are {MOST} terminals and connections already.", 10.0)
        self._refs, self._kind, self._container, self._what = refs, kind, container, what
        self._who = g.identity.name
        self._began = 0.0
        self.detail: dict[str, Any] = {}

    def __enter__(self) -> None:
        _Visit.open += 1
        self._began = time.monotonic()
        self._record("started", {})

    def __exit__(self, *_: object) -> None:
        _Visit.open -= 1
        self._record("ended", {**self.detail, "seconds": round(time.monotonic() - self._began, 3)})

    def _record(self, what: str, detail: dict[str, Any]) -> None:
        container = self._container
        try:
            self._refs.events.ask(
                RecordEvent(
                    kind=f"{self._kind}.{what}",
                    app=container.app,
                    process=container.process,
                    container=container.name,
                    reason=f"{self._who}: {self._what}"[:1000],
                    detail={"by": self._who, **detail},
                )
            )
        except NextDeployError as error:
            log.warning("%s.%s of %s by %s is not recorded: %s", self._kind, what, container.name, self._who, error)


def _terminals() -> Terminals:
    terminals: Terminals | None = current_app.extensions["nextdeploy.terminals"]
    if terminals is None:
        raise EngineUnreachable("No container can be reached from here.")
    return terminals


def _container(refs: Refs, app: str) -> ContainerView:
    """The one that is asked for: of the newest revision, and the healthiest of those."""
    apps: tuple[AppView, ...] = refs.apps.ask(GetApps())
    view = next((view for view in apps if view.name == app), None)
    if view is None:
        raise NotFound(f"There is no app {app}.")
    names = [process.name for process in view.processes]
    process = request.args.get("process") or (names[0] if len(names) == 1 else "web")
    if process not in names:
        raise NotFound(f"{app} has no process {process}; it has {', '.join(names)}.")
    replica = number("replica", request.args.get("replica"), None)
    return chosen(view.containers, f"{app}/{process}", process, replica)


def chosen(containers: Sequence[ContainerView], name: str, process: str, replica: int | None) -> ContainerView:
    """``Conflict`` if none of them runs."""
    found = [c for c in containers if c.process == process and c.state in ALIVE and c.id]
    found = [c for c in found if replica in (None, c.replica)]
    if not found:
        raise Conflict(f"No container of {name} runs" + (f" as replica {replica}." if replica else "."))
    return min(found, key=lambda c: (c.role != "primary", -c.revision, ALIVE.index(c.state), c.replica))


def _argv(words: list[str]) -> tuple[str, ...]:
    if not words:
        return SHELL
    if not words[0] or any("\0" in word for word in words):
        raise Invalid("A command is a program and its arguments, without NUL.")
    if sum(len(word) for word in words) > COMMAND_BYTES:
        raise Invalid(f"A command may have at most {COMMAND_BYTES} bytes.")
    return tuple(words)


def _flag(name: str) -> bool:
    text = request.args.get(name, "0")
    if text not in ("0", "1", "true", "false"):
        raise Invalid(f"{name} must be 0 or 1.")
    return text in ("1", "true")

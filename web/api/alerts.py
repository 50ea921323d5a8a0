"""``/api/v1``: alerts, silences, and the channels by which people are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec
from flask import Blueprint, Response, g, request

from ndactors.core.alerts import one_of
from ndactors.core.schema import KINDS
from ndactors.core.units import duration
from ndactors.errors import Forbidden, Invalid, NotFound
from ndactors.messages.alerts import (
    AcknowledgeAlert,
    AddSilence,
    AlertState,
    AlertView,
    ChannelResult,
    ChannelsView,
    EndSilence,
    GetAlerts,
    GetChannels,
    GetSigningKey,
    GetSilences,
    ResolveAlert,
    Silence,
    TestChannels,
)
from ndactors.messages.queries import GetApps

from ..auth import Guard
from ..openapi import LIST, PAGING, Described, named, query
from .operations import who
from .parts import body, json, page, rfc3339

if TYPE_CHECKING:
    from .. import Refs

STATES = get_args(AlertState)
TEST_SECONDS = 50.0
"""Every channel has its own limit, and they are tried at the same time."""
MAX_REASON = 500


class SilenceBody(msgspec.Struct, forbid_unknown_fields=True):
    seconds: str | float = msgspec.field(name="for")
    kind: str | None = None
    app: str | None = None
    reason: str = ""


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/alerts")
    @guard.needs("viewer", limited=True)
    def alerts() -> Response:
        state = request.args.get("state")
        if state is not None and state not in STATES:
            raise Invalid(f"state must be one of: {', '.join(STATES)}.")
        found: tuple[AlertView, ...] = refs.alerts.ask(
            GetAlerts(state=state, app=guard.wanted_app(), apps=g.identity.apps)
        )
        return page([_alert(alert) for alert in found if guard.may(alert.app)])

    @api.post("/api/v1/alerts/<id>/ack")
    @guard.needs("operator", limited=True)
    def acknowledge(id: str) -> Response:
        return json(_alert(refs.alerts.ask(AcknowledgeAlert(id=id, by=who(), apps=g.identity.apps))))

    @api.post("/api/v1/alerts/<id>/resolve")
    @guard.needs("operator", limited=True)
    def resolve(id: str) -> Response:
        return json(_alert(refs.alerts.ask(ResolveAlert(id=id, by=who(), apps=g.identity.apps))))

    @api.get("/api/v1/alerts/channels")
    @guard.needs("operator")
    def channels() -> Response:
        view: ChannelsView = refs.notify.ask(GetChannels())
        letters = [{**msgspec.to_builtins(letter), "at": rfc3339(letter.at)} for letter in view.dead_letters]
        return json({"items": view.channels, "dead_letters": letters, "next": None})

    @api.post("/api/v1/alerts/test")
    @guard.needs("operator")
    def test() -> Response:
        results: tuple[ChannelResult, ...] = refs.notify.ask(TestChannels(by=who()), TEST_SECONDS)
        return json({"items": results, "next": None})

    @api.get("/api/v1/alerts/key")
    @guard.needs("admin")
    def key() -> Response:
        return json({"key": refs.notify.ask(GetSigningKey())})

    @api.get("/api/v1/silences")
    @guard.needs("viewer", limited=True)
    def silences() -> Response:
        return page([_silence(silence) for silence in visible()])

    @api.post("/api/v1/silences")
    @guard.needs("operator", limited=True)
    def silence() -> Response:
        given = body(SilenceBody)
        seconds = _seconds(given.seconds)
        if given.kind is not None and given.kind not in KINDS:
            raise Invalid(f"kind must be one of: {', '.join(KINDS)}.")
        if len(given.reason) > MAX_REASON:
            raise Invalid(f"reason must be at most {MAX_REASON} characters.")
        if given.app is not None:
            guard.app(given.app)
            if all(view.name != given.app for view in refs.apps.ask(GetApps())):
                raise NotFound(f"There is no app called {given.app[:60]}.")
        elif g.identity.apps is not None:
            raise Forbidden(f"{g.identity.name} is limited to some apps: name one of them.")
        made: Silence = refs.alerts.ask(
            AddSilence(seconds=seconds, kind=given.kind, app=given.app, reason=given.reason, by=who())
        )
        response = json(_silence(made))
        response.status_code = 201
        return response

    @api.delete("/api/v1/silences/<id>")
    @guard.needs("operator", limited=True)
    def end_silence(id: str) -> Response:
        found = one_of((silence.id for silence in visible()), id)
        if found is None:
            raise NotFound(f"There is no silence {id[:60]}, or more than one.")
        return json(_silence(refs.alerts.ask(EndSilence(id=found))))

    def visible() -> list[Silence]:
        return [silence for silence in refs.alerts.ask(GetSilences()) if guard.may(silence.app)]


def _seconds(given: str | float) -> float:
    try:
        seconds = duration(given)
    except ValueError as error:
        raise Invalid(f"for: {error}") from error
    if seconds <= 0:
        raise Invalid("for: Must be longer than 0.")
    return seconds


def _alert(alert: AlertView) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(alert)
    for name in ("since", "fired_at", "last_at", "acknowledged_at", "resolved_at"):
        data[name] = rfc3339(data[name]) if data[name] else None
    return data


def _silence(silence: Silence) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(silence)
    del data["begun"]  # whether it holds is seen from its times
    return {**data, "begins": rfc3339(silence.begins), "ends": rfc3339(silence.ends)}


_ALERT = {"type": "object", "required": ["id", "kind", "severity", "state", "since", "summary"]}
_SILENCE = {"type": "object", "required": ["id", "begins", "ends", "kind", "app", "reason", "by"]}
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/alerts",
        "What fires, then what is over, newest first",
        [query("state", "firing, acknowledged or resolved"), query("app", "of this app"), *PAGING],
        LIST,
        [404, 422],
        False,
    ),
    (
        "post",
        "/api/v1/alerts/{id}/ack",
        "Somebody looks after it: no more messages until it is over",
        named("id"),
        _ALERT,
        [403, 404, 409],
        False,
    ),
    (
        "post",
        "/api/v1/alerts/{id}/resolve",
        "It is over: of what happened, rather than of figures, which tell by themselves",
        named("id"),
        _ALERT,
        [403, 404, 409],
        False,
    ),
    (
        "get",
        "/api/v1/alerts/channels",
        "How people are told, what waits, and what could not be delivered (`dead_letters`)",
        [],
        {**LIST, "required": ["items", "dead_letters", "next"]},
        [403],
        False,
    ),
    (
        "post",
        "/api/v1/alerts/test",
        "Send a test message on every channel now; how each went",
        [],
        LIST,
        [403, 409, 504],
        False,
    ),
    (
        "get",
        "/api/v1/alerts/key",
        "The key that webhooks are signed with, if it was made here (admin)",
        [],
        {"type": "object", "required": ["key"]},
        [403, 409],
        False,
    ),
    ("get", "/api/v1/silences", "Silences that are not over", PAGING, LIST, [422], False),
    (
        "post",
        "/api/v1/silences",
        'Tell nobody for a while: {"for": "2h", "kind"?, "app"?, "reason"?}',
        [],
        _SILENCE,
        [403, 404, 413, 422],
        False,
    ),
    ("delete", "/api/v1/silences/{id}", "End one", named("id"), _SILENCE, [403, 404], False),
]

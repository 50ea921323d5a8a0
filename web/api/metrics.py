"""``/api/v1/metrics``: what was measured, over time."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, g, request

from ndactors.core.logrecords import parse_ns
from ndactors.core.units import duration
from ndactors.errors import Invalid, NotFound
from ndactors.messages.metrics import GetMetricNames, GetMetrics, MetricHistory

from ..auth import Guard
from ..openapi import Described, query
from .logs import moment
from .parts import json

if TYPE_CHECKING:
    from .. import Refs

SECONDS = 20.0
"""So long an answer may take: much may have to be read."""
SINCE_SECONDS = 3600.0
POINTS = 300
"""About so many there are if nobody says otherwise."""
FINEST = 10
STEPS = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""What a step is if nobody says otherwise: round, and made of what is kept."""
LABELS = ("app", "process", "container")
MAX_NAME = 200
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,3})?")

NUMBER = {"type": "number"}
HISTORY = {
    "type": "object",
    "required": ["name", "kind", "step", "series"],
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": ["gauge", "counter", "histogram"]},
        "step": {"type": "number", "description": "Seconds; may be more than what was asked for."},
        "series": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["labels", "points"],
                "properties": {
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "points": {
                        "type": "array",
                        "description": "[Unix seconds at which the step begins, value]: a gauge's mean, a counter's"
                        " increase per second, a histogram's observations per second.",
                        "items": {"type": "array", "prefixItems": [NUMBER, NUMBER]},
                    },
                    "highest": {"type": "array", "description": "Of a gauge, by point.", "items": NUMBER},
                    "quantiles": {
                        "type": "array",
                        "description": "Of a histogram, by point: [p50, p95, p99], null without observations.",
                        "items": {"type": "array", "items": {"type": ["number", "null"]}},
                    },
                },
            },
        },
    },
}
NAMES = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "kind", "series"],
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"enum": ["gauge", "counter", "histogram"]},
                    "series": {"type": "integer"},
                },
            },
        }
    },
}
DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/metrics/query",
        "One metric over time",
        [
            {**query("name", "as Prometheus knows it, like nextdeploy_requests_total"), "required": True},
            *(query(name, f"of this {name}") for name in LABELS),
            query("since", "RFC 3339, Unix seconds, or so long ago: 10m; without it: 1h"),
            query("until", "before that time; without it: now"),
            query("step", "seconds, or 5m; without it about 300 points"),
        ],
        HISTORY,
        [404, 422, 429, 504],
        False,
    ),
    ("get", "/api/v1/metrics/names", "What there is a history of", [], NAMES, [429, 504], False),
]


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/metrics/query")
    @guard.needs("viewer", limited=True)
    def query_metrics() -> Response:
        answer: MetricHistory = refs.metrics.ask(wanted(request.args, g.identity.apps, time.time()), SECONDS)
        return json(answer)

    @api.get("/api/v1/metrics/names")
    @guard.needs("viewer", limited=True)
    def metric_names() -> Response:
        return json({"items": refs.metrics.ask(GetMetricNames(apps=g.identity.apps), SECONDS)})


def wanted(given: Any, apps: tuple[str, ...] | None, now: float) -> GetMetrics:
    """What is asked for. ``apps``: who asks may see no others (None: all); one that they name is ``NotFound``. ``Invalid``
    for what cannot be understood. ``now`` is Unix seconds."""
    name = given.get("name", "")
    if not name or len(name) > MAX_NAME:
        raise Invalid("name must be that of a metric; GET /api/v1/metrics/names tells which there are.")
    labels = {label: value for label in LABELS if (value := given.get(label))}
    if "app" in labels and apps is not None and labels["app"] not in apps:
        raise NotFound(f"There is no app called {labels['app']}.")
    until = _moment("until", given.get("until"), now)
    since = _moment("since", given.get("since"), now)
    until = until if until is not None else now
    since = since if since is not None else until - SINCE_SECONDS
    if since >= until:
        raise Invalid("since must be before until.")
    step = _step(given.get("step")) or automatic(until - since)
    return GetMetrics(name=name, since=since, until=until, step=step, labels=labels, apps=apps)


def automatic(seconds: float) -> float:
    """A step that makes no more than about ``POINTS`` of so many seconds."""
    least = seconds / POINTS
    return float(next((step for step in STEPS if step >= least), -(-least // STEPS[-1]) * STEPS[-1]))


def _moment(name: str, text: str | None, now: float) -> float | None:
    found = moment(name, text, now)
    return (parse_ns(found) or 0) / 1e9 if found is not None else None


def _step(text: str | None) -> float | None:
    text = (text or "").strip()
    if not text:
        return None
    try:
        step = float(text) if _SECONDS.fullmatch(text) else duration(text)
    except ValueError as error:
        raise Invalid(f"step: {error}") from error
    if not step > 0:
        raise Invalid("step must be more than 0.")
    return max(step, float(FINEST))

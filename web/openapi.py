"""The API's description of itself (OpenAPI 3.1). A test compares it with the routes."""

from __future__ import annotations

from typing import Any

from ndactors import __version__

LIST = {
    "type": "object",
    "required": ["items", "next"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "next": {"type": ["string", "null"], "description": "Send it as `cursor` for the next page."},
    },
}
PAGING = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 10000}},
    {"name": "cursor", "in": "query", "schema": {"type": "string"}},
]


def query(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": words}


Described = tuple[str, str, str, list[dict[str, Any]], dict[str, Any], list[int], bool]
"""Method, path, summary, parameters, schema of the answer, further statuses, open to all."""

ROUTES: list[Described] = [
    ("get", "/healthz", "200 while the daemon lives", [], {"type": "object"}, [], True),
    (
        "get",
        "/readyz",
        "503 until every app has its replicas, or has visibly failed",
        [],
        {"type": "object"},
        [503],
        True,
    ),
    ("get", "/metrics", "Prometheus metrics", [], {"type": "string"}, [401], True),
    ("get", "/api/v1/openapi.json", "This document", [], {"type": "object"}, [], True),
    ("post", "/api/v1/token", "A bearer token for user and password", [], {"type": "object"}, [401, 429], True),
    ("get", "/api/v1/status", "Version, uptime, engine, host, edge, counts", [], {"type": "object"}, [], False),
    ("get", "/api/v1/actors", "The supervision tree", [], LIST, [], False),
    (
        "post",
        "/api/v1/actors/{name}/restart",
        "Restart one actor (admin)",
        [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        {"type": "object"},
        [403, 404],
        False,
    ),
    ("get", "/api/v1/apps", "Every app, desired and actual", PAGING, LIST, [422], False),
    (
        "get",
        "/api/v1/apps/{app}",
        "One app",
        [{"name": "app", "in": "path", "required": True, "schema": {"type": "string"}}],
        {"type": "object"},
        [404],
        False,
    ),
    (
        "post",
        "/api/v1/apps/{app}/maintenance",
        'Answer an app\'s requests with 503, or no longer: {"on": true}',
        [{"name": "app", "in": "path", "required": True, "schema": {"type": "string"}}],
        {"type": "object"},
        [404, 422],
        False,
    ),
    (
        "get",
        "/api/v1/containers",
        "Every container",
        [query("app", "of this app only"), *PAGING],
        LIST,
        [422],
        False,
    ),
    (
        "get",
        "/api/v1/events",
        "What happened, newest first",
        [query("app", "of this app"), query("kind", "of this kind"), query("since", "RFC 3339"), *PAGING],
        LIST,
        [422],
        False,
    ),
    (
        "get",
        "/api/v1/requests",
        "Requests, newest first",
        [
            query("app", "of this app"),
            query("method", "with this method"),
            query("path", "with this path; a * at its end: all that begin so"),
            query("status", "404, or 4xx"),
            query("ip", "from this address"),
            query("country", "from this country"),
            query("request_id", "with this id"),
            query("min_ms", "that took at least so long"),
            query("since", "RFC 3339"),
            *PAGING,
        ],
        LIST,
        [422],
        False,
    ),
]


def named(*names: str) -> list[dict[str, Any]]:
    """Parameters in the path."""
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


AT_ONCE = ("/api/v1/token", "/api/v1/projects/{project}/plan", "/api/v1/blobs", "/api/v1/blobs/missing")
"""What is sent by POST and answered with 200."""
OTHERWISE = {
    ("post", "/api/v1/tokens"): "201",
    ("delete", "/api/v1/tokens/{id}"): "200",
    ("post", "/api/v1/alerts/{id}/ack"): "200",
    ("post", "/api/v1/alerts/{id}/resolve"): "200",
    ("post", "/api/v1/alerts/test"): "200",
    ("post", "/api/v1/silences"): "201",
    ("delete", "/api/v1/silences/{id}"): "200",
    ("post", "/api/v1/secrets/rotate"): "200",
    ("put", "/api/v1/config"): "202",
    ("patch", "/api/v1/apps/{app}/env"): "202",
    ("patch", "/api/v1/apps/{app}/secrets"): "202",
    ("put", "/api/v1/apps/{app}/secrets/{secret}"): "202",
}


def document(more_routes: list[Described]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for method, path, summary, parameters, schema, more, is_open in [*ROUTES, *more_routes]:
        kind = "text/plain" if path == "/metrics" else "application/json"
        good = "202" if method in ("post", "delete") and path not in AT_ONCE else "200"
        good = OTHERWISE.get((method, path), good)
        responses: dict[str, Any] = {good: {"description": "Done", "content": {kind: {"schema": schema}}}}
        for status in sorted({*more, *([] if is_open else [401, 503])}):
            responses[str(status)] = {"$ref": "#/components/responses/Problem"}
        operation: dict[str, Any] = {"summary": summary, "parameters": parameters, "responses": responses}
        operation["security"] = (
            [{"basic": []}] if path == "/api/v1/token" else [] if is_open else [{"basic": []}, {"bearer": []}]
        )
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "NextDeploy", "version": __version__},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
            "responses": {
                "Problem": {
                    "description": "What is wrong (RFC 9457)",
                    "content": {
                        "application/problem+json": {
                            "schema": {
                                "type": "object",
                                "required": ["type", "title", "status", "detail"],
                                "properties": {
                                    "type": {"type": "string"},
                                    "title": {"type": "string"},
                                    "status": {"type": "integer"},
                                    "detail": {"type": "string"},
                                },
                            }
                        }
                    },
                }
            },
        },
    }

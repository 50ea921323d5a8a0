"""Who may do what with a token: API tokens, tokens limited to some apps, hooks."""

from __future__ import annotations

import json
import logging
import re

import pytest
from msgspec.structs import replace
from werkzeug.security import generate_password_hash

import web
import web.tokens
from ndactors.core.model import User
from ndactors.errors import Conflict, Invalid, NotFound
from ndactors.messages.access import CreatedToken, CreateToken, GetTokens, RevokeToken, TokenView, VerifyToken
from ndactors.messages.control import WebSettings
from ndactors.messages.operations import (
    BeginOperation,
    CancelOperation,
    DeployApp,
    GetOperation,
    GetOperations,
    Git,
    Operation,
    OperationPage,
    Origin,
)
from ndactors.messages.projects import AppPlan, DeployProject, GetPlan, PlanProject, ProjectAccepted, ProjectPlan
from ndactors.messages.queries import Event, EventPage, GetApps, GetEvents
from ndactors.messages.records import GetRequests, RequestPage, RequestRecord
from ndactors.messages.secrets import EnvView, GetEnv
from ndactors.messages.sources import GetSource, SourceView

USERS = (User(name="oli", password_hash=generate_password_hash("secret", "scrypt:1024:8:1"), role="operator"),)
TOKEN = "ndt_" + "a" * 52
HOOK = "ndh_" + "b" * 52

OPEN = {"/healthz", "/readyz", "/metrics", "/api/v1/openapi.json", "/api/v1/token", "/api/v1/hooks/<token>"}
FILTERED = {
    "/api/v1/status",
    "/api/v1/apps",
    "/api/v1/containers",
    "/api/v1/events",
    "/api/v1/requests",
    "/api/v1/operations",
    "/api/v1/operations/<id>",
    "/api/v1/operations/<id>/cancel",
    "/api/v1/plan",
    "/api/v1/projects/<project>/deploy",
    "/api/v1/projects/<project>/plan",
    "/api/v1/blobs",
    "/api/v1/blobs/missing",
    "/api/v1/blobs/<digest>",
    "/api/v1/logs",
    "/api/v1/metrics/query",
    "/api/v1/metrics/names",
    "/api/v1/ws",
    "/api/v1/alerts",
    "/api/v1/alerts/<id>/ack",
    "/api/v1/alerts/<id>/resolve",
    "/api/v1/silences",
    "/api/v1/silences/<id>",
}
"""Routes that look after limits themselves; each has its test: here, in test_claimed_blobs, test_logs, test_live,
test_metrics or test_alerts."""


def view(name: str, ref):
    (shop,) = ref.answers[GetApps] if len(ref.answers[GetApps]) == 1 else ref.answers[GetApps][:1]
    if name == "shop":
        return shop
    containers = tuple(replace(c, id=f"{name}-{c.id}", name=f"nd-{name}", app=name) for c in shop.containers)
    return replace(shop, name=name, containers=containers, project="secret-project")


def record(app: str) -> RequestRecord:
    return RequestRecord(
        ts="2026-01-01T00:00:00Z", id=f"r-{app}", app=app, process="web", container="c", ip="::1", method="GET",
        host=f"{app}.test", path="/", status=200, duration_ms=1.0, upstream_ms=1.0, bytes_in=1, bytes_out=1,
        protocol="HTTP/1.1", user_agent="", request_headers={}, response_headers={}, retries=0,
    )  # fmt: skip


@pytest.fixture
def crowded(ref):
    """Two apps of two projects, and an event of nobody's."""
    ref.answers[GetApps] = (view("shop", ref), view("blog", ref))
    events = [
        Event(id=n, ts="2026-01-01T00:00:00Z", kind="x", app=a, reason=f"of {a}")
        for n, a in enumerate(["blog", None, "shop", "blog"])
    ]
    pages = {
        GetEvents: (EventPage, events),
        GetRequests: (RequestPage, [record("blog"), record(""), record("shop"), record("blog")]),
        GetOperations: (
            OperationPage,
            [Operation(id=f"o{n}", kind="deploy", apps=apps, log="blog") for n, apps in enumerate([("blog",), (), ("shop",), ("shop", "blog")])],
        ),
    }  # fmt: skip

    def paged(message):
        """As stores page: newest first, the cursor is a place in the list."""
        kind, rows = pages[type(message)]
        start = message.before or 0
        rows = [(n, row) for n, row in enumerate(rows) if n >= start and message.app in (None, *_apps(row))]
        more = len(rows) > message.limit
        items = tuple(row for _, row in rows[: message.limit])
        return kind(items=items, next=rows[message.limit][0] if more else None)

    for kind in pages:
        ref.answers[kind] = paged
    operations = {row.id: row for row in pages[GetOperations][1]}

    def one(message):
        if message.id not in operations:
            raise NotFound(f"There is no operation {message.id}.")
        return operations[message.id]

    ref.answers[GetOperation] = one
    ref.answers[CancelOperation] = lambda message: None
    ref.answers[GetPlan] = lambda message: tuple(AppPlan(app=a, action="none") for a in ("blog", "shop"))
    ref.answers[DeployProject] = ProjectAccepted(operation="op1", apps=("shop",))
    ref.answers[PlanProject] = ProjectPlan(project="acme", apps=())
    return ref


def _apps(row):
    return row.apps if isinstance(row, Operation) else (row.app,)


def problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return response.get_json()["detail"]


def routes(app):
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(("/api/", "/healthz", "/readyz", "/metrics")):
            for method in sorted(rule.methods - {"HEAD", "OPTIONS"} or rule.methods - {"OPTIONS"}):
                yield method, rule.rule, rule.websocket


# -- the matrix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_limited_token_at_every_route(make_client, crowded, role):
    """Another app is not there; what is about the whole server is refused; nobody else is even asked."""
    client = make_client(metrics_open=False)
    headers = crowded.token(TOKEN, role=role, apps=("shop",))
    seen = set()
    for method, rule, websocket in routes(client.application):
        if rule in OPEN - {"/metrics"} or rule in FILTERED:
            continue
        seen.add(rule)
        app = "/apps/<" in rule
        path = re.sub(r"<[^>]*>", "x1", re.sub(r"/apps/<[^>]*>", "/apps/blog", rule))
        crowded.asked.clear()
        more = {"Connection": "Upgrade", "Upgrade": "websocket"} if websocket else {}
        response = client.open(
            path, method=method, headers={**headers, **more}, json={"value": "x"} if method in ("PUT", "POST", "PATCH") else None,
            base_url="ws://localhost" if websocket else None,
        )  # fmt: skip
        if app:
            # the role is judged first, so that 403 tells nothing about the app either
            assert response.status_code in ((404,) if role != "viewer" else (404, 403)), (method, rule)
            if response.status_code == 404:
                assert problem(response, 404) == "There is no app called blog.", (method, rule)
        else:
            assert response.status_code == 403, (method, rule)
        assert crowded.asked_for(VerifyToken) == crowded.asked, (method, rule)
    assert {"/metrics", "/api/v1/actors", "/api/v1/tokens", "/api/v1/config", "/api/v1/apps/<app>/exec"} <= seen
    assert len(seen) > 20


def test_an_app_of_ones_own_is_there(client, crowded):
    headers = crowded.token(TOKEN, apps=("shop", "other"))
    for path in ("/api/v1/apps/shop", "/api/v1/apps/shop/env"):
        assert client.get(path, headers=headers).status_code == 200
    assert client.post("/api/v1/apps/shop/restart", headers=headers).status_code == 202
    assert crowded.asked_for(BeginOperation)[-1].origin == Origin(by="api:token:ci")


def test_that_there_is_such_an_app_and_that_there_is_none_look_the_same(client, crowded):
    headers = crowded.token(TOKEN, apps=("shop",))
    one, none = client.get("/api/v1/apps/blog", headers=headers), client.get("/api/v1/apps/nope", headers=headers)
    assert one.get_data(as_text=True).replace("blog", "nope") == none.get_data(as_text=True)


@pytest.mark.parametrize("apps", [("shop",), ("shop", "other")])
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("path", ["apps", "containers", "events", "requests", "operations", "plan"])
def test_lists_show_ones_own(client, crowded, path, apps, limit):
    headers = crowded.token(TOKEN, apps=apps)
    rows, cursor = [], ""
    for _ in range(10):
        body = client.get(f"/api/v1/{path}?limit={limit}{cursor}", headers=headers).get_json()
        rows += body["items"]
        if body["next"] is None:
            break
        cursor = f"&cursor={body['next']}"
    assert rows
    assert len(rows) == (2 if path == "containers" else 1)
    assert "blog" not in json.dumps([{**row, "log": ""} for row in rows])
    assert "secret-project" not in json.dumps(rows)
    for wanted in ("blog", "nope"):
        problem(client.get(f"/api/v1/{path}?app={wanted}", headers=headers), 404) if path != "apps" else None
    if path != "apps":
        assert client.get(f"/api/v1/{path}?app=shop", headers=headers).status_code == 200


def test_a_filtered_page_is_filled_up_but_not_for_ever(client, ref):
    ref.answers[GetEvents] = lambda message: EventPage(
        items=(Event(id=1, ts="t", kind="x", app="blog"),), next=(message.before or 0) + 1
    )
    headers = ref.token(TOKEN, apps=("shop", "other"))
    body = client.get("/api/v1/events?limit=5", headers=headers).get_json()
    assert body == {"items": [], "next": "10"}
    assert len(ref.asked_for(GetEvents)) == 10


def test_an_unlimited_token_sees_everything(client, crowded):
    headers = crowded.token(TOKEN, role="viewer", apps=None)
    assert len(client.get("/api/v1/events", headers=headers).get_json()["items"]) == 4
    assert len(client.get("/api/v1/apps", headers=headers).get_json()["items"]) == 2
    assert client.get("/api/v1/actors", headers=headers).status_code == 200
    problem(client.post("/api/v1/apps/blog/restart", headers=headers), 403)


def test_status_tells_little(client, crowded):
    body = client.get("/api/v1/status", headers=crowded.token(TOKEN)).get_json()
    assert set(body) == {"version", "environment", "env", "uptime", "started_at", "counts"}
    assert body["counts"] == {"apps": 1, "healthy": 1, "containers": 2, "running": 2}
    status = client.get("/api/v1/status", auth=("ana", "secret")).get_json()
    assert {"host", "engine", "state_dir"} <= status.keys()
    assert [(port["address"], port["port"], port["reachable"]) for port in status["ports"]] == [
        ("127.0.0.1", 80, False)
    ]


def test_operations_of_others_are_not_there(client, crowded):
    headers = crowded.token(TOKEN)
    assert client.get("/api/v1/operations/o2", headers=headers).status_code == 200
    for other in ("o0", "o1", "o3", "none"):
        for response in (
            client.get(f"/api/v1/operations/{other}", headers=headers),
            client.post(f"/api/v1/operations/{other}/cancel", headers=headers),
        ):
            assert problem(response, 404) == f"There is no operation {other}."
    assert crowded.asked_for(CancelOperation) == []
    assert client.post("/api/v1/operations/o2/cancel", headers=headers).status_code == 202


def test_a_project_is_deployed_within_the_limit(client, crowded):
    body = {"bundle": {"text": "apps: {}"}}
    client.post("/api/v1/projects/acme/deploy", json=body, headers=crowded.token(TOKEN, apps=("shop", "api")))
    client.post("/api/v1/projects/acme/plan", json=body, headers=crowded.token(TOKEN, apps=("shop", "api")))
    for message in crowded.asked_for(DeployProject, PlanProject):
        assert message.only == ("api", "shop")
    client.post("/api/v1/projects/acme/deploy", json=body, auth=("ana", "secret"))
    assert crowded.asked_for(DeployProject)[-1].only is None


def test_blobs_are_seen_as_far_as_ones_apps_go(ref):
    class Blobs:
        """Tells for whom it is."""

        def __init__(self, apps=None):
            self.apps = apps

        def seen_by(self, apps):
            return Blobs(apps)

        def missing(self, digests):
            return [str(self.apps)]

    app = web.create_app(
        web.Refs(*[ref] * len(web.Refs._fields)),
        WebSettings(users=USERS, key=b"k" * 32, metrics_open=True, project="test", environment="dev"),
        blobs=Blobs(),
    )
    client = app.test_client()

    def seen(**who):
        return client.post("/api/v1/blobs/missing", json={"sha256": []}, **who).get_json()["missing"]

    assert seen(auth=("oli", "secret")) == ["None"]
    assert seen(headers=ref.token(TOKEN, apps=None)) == ["None"]
    assert seen(headers=ref.token(TOKEN[:-1] + "c", apps=("shop",))) == ["('shop',)"]


def test_what_commands_the_host_takes_somebody_without_limits(client, crowded):
    crowded.answers[GetEnv] = EnvView(on_host=True)
    headers = crowded.token(TOKEN)
    attempts = [
        lambda who: client.post("/api/v1/apps/shop/run", json={"command": "id"}, **who),
        lambda who: client.patch("/api/v1/apps/shop/env", json={"set": {"LD_PRELOAD": "/x"}}, **who),
    ]
    for attempt in attempts:
        assert "runs on the host" in problem(attempt({"headers": headers}), 403)
    assert crowded.asked_for(BeginOperation) == []
    for attempt in attempts:
        assert attempt({"auth": ("oli", "secret")}).status_code == 202
    crowded.answers[GetEnv] = EnvView(on_host=False)
    for attempt in attempts:
        assert attempt({"headers": headers}).status_code == 202


def test_pages_are_for_people_without_limits(client, crowded):
    for path in ("/", "/apps", "/events", "/system"):
        text = client.get(path, headers=crowded.token(TOKEN, role="viewer")).get_data(as_text=True)
        assert 'name="password"' in text
        assert "blog" not in text


# -- tokens as such --------------------------------------------------------------------------------


def test_roles_count(client, ref):
    headers = ref.token(TOKEN, role="viewer", apps=None)
    assert client.get("/api/v1/apps", headers=headers).status_code == 200
    assert "ci is viewer" in problem(client.post("/api/v1/apps/shop/stop", headers=headers), 403)
    headers = ref.token(TOKEN, role="operator", apps=None)
    assert client.post("/api/v1/apps/shop/stop", headers=headers).status_code == 403, "remembered for a moment"
    headers = ref.token(TOKEN[:-1] + "c", role="operator", apps=None)
    assert client.post("/api/v1/apps/shop/stop", headers=headers).status_code == 202
    problem(client.get("/api/v1/tokens", headers=headers), 403)


@pytest.mark.parametrize("token", ["ndt_", "ndt_" + "z" * 52, "ndt_" + "a" * 500, "ndt_\u00e4", HOOK])
def test_what_is_no_token_is_nobody(client, ref, token):
    ref.token(TOKEN)
    ref.token(HOOK)
    problem(client.get("/api/v1/apps", headers={"Authorization": f"Bearer {token}"}), 401)


def test_who_guesses_tokens_must_wait(client, ref):
    good = ref.token(TOKEN)
    statuses = [
        client.get("/api/v1/apps", headers={"Authorization": f"Bearer ndt_{n:052}"}).status_code for n in range(8)
    ]
    assert statuses == [401] * 5 + [429] * 3
    assert int(client.get("/api/v1/apps", headers=good).headers["Retry-After"]) >= 1
    assert len(ref.asked_for(VerifyToken)) == 5, "nobody is asked meanwhile"


def test_a_good_token_is_not_asked_about_each_time_and_a_revoked_one_dies_soon(client, ref, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(web.tokens.time, "monotonic", lambda: now[0])
    headers = ref.token(TOKEN)
    for _ in range(10):
        assert client.get("/api/v1/apps", headers=headers).status_code == 200
        now[0] += 0.4
    assert len(ref.asked_for(VerifyToken)) == 1
    ref.tokens.clear()
    now[0] += 5.0
    problem(client.get("/api/v1/apps", headers=headers), 401)


def test_one_that_is_revoked_here_dies_at_once(client, ref, ana):
    headers = ref.token(TOKEN)
    assert client.get("/api/v1/apps", headers=headers).status_code == 200

    def revoke(message):
        ref.tokens.clear()
        return TokenView(id=message.id, name="ci", role="operator", created_at=1.0, created_by="x")

    ref.answers[RevokeToken] = revoke
    assert client.delete("/api/v1/tokens/t1", auth=ana).get_json() == {"revoked": "t1"}
    problem(client.get("/api/v1/apps", headers=headers), 401)


def test_making_a_token(client, ref, ana):
    made = TokenView(id="t1", name="ci", role="operator", apps=("shop",), created_at=0.0, created_by="api:ana")
    ref.answers[CreateToken] = CreatedToken(token=made, secret=TOKEN)
    response = client.post("/api/v1/tokens", auth=ana, json={"name": "ci", "role": "operator", "apps": ["shop"]})
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert response.get_json() == {
        "id": "t1",
        "name": "ci",
        "role": "operator",
        "apps": ["shop"],
        "kind": "api",
        "created_at": "1970-01-01T00:00:00.000Z",
        "created_by": "api:ana",
        "used_at": None,
        "token": TOKEN,
    }
    assert ref.asked_for(CreateToken) == [CreateToken(name="ci", role="operator", apps=("shop",), by="api:ana")]
    ref.answers[CreateToken] = Invalid("no")
    problem(client.post("/api/v1/tokens", auth=ana, json={"name": "ci"}), 422)
    assert ref.asked_for(CreateToken)[-1].apps is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": 5},
        {"name": "x", "role": "root"},
        {"name": "x", "apps": "shop"},
        {"name": "x", "apps": [5]},
        {"name": "x", "kind": "x"},
        {"name": "x", "app": "shop"},
        [],
    ],
)
def test_wrong_bodies(client, ref, ana, body):
    problem(client.post("/api/v1/tokens", auth=ana, json=body), 422)
    assert ref.asked_for(CreateToken) == []


def test_tokens_are_listed_without_secrets(client, ref, ana):
    ref.answers[GetTokens] = tuple(
        TokenView(id=f"t{n}", name="ci", role="viewer", created_at=0.0, created_by="x", used_at=3600.0)
        for n in range(3)
    )
    body = client.get("/api/v1/tokens?limit=2", auth=ana).get_json()
    assert ([row["id"] for row in body["items"]], body["next"]) == (["t0", "t1"], "2")
    assert body["items"][0]["used_at"] == "1970-01-01T01:00:00.000Z"
    assert not {"token", "secret", "digest"} & body["items"][0].keys()
    for user in ("vic", "oli"):
        problem(client.get("/api/v1/tokens", auth=(user, "secret")), 403)


# -- hooks -----------------------------------------------------------------------------------------

PUSH = {
    "ref": "refs/heads/main",
    "after": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "head_commit": {"message": "Fix the cart"},
    "repository": {"default_branch": "main"},
}


def test_a_push_deploys(client, ref):
    ref.token(HOOK)
    for send in (
        {"json": PUSH, "headers": {"X-GitHub-Event": "push"}},
        {"json": PUSH, "headers": {"X-Gitlab-Event": "Push Hook"}},
        {"data": {"payload": json.dumps(PUSH)}, "headers": {"X-Gitea-Event": "push"}},
    ):
        response = client.post(f"/api/v1/hooks/{HOOK}", **send)
        assert (response.status_code, response.get_json()) == (202, {"operation": "op1"})
        assert ref.asked_for(BeginOperation)[-1] == BeginOperation(
            app="shop",
            change=DeployApp(),
            origin=Origin(by="hook", git=Git(sha=PUSH["after"], ref=PUSH["ref"], message="Fix the cart")),
        )


def test_a_call_by_hand_deploys(client, ref):
    ref.token(HOOK)
    for send in ({}, {"data": b"anything", "content_type": "text/plain"}, {"json": {}}):
        assert client.post(f"/api/v1/hooks/{HOOK}", **send).get_json() == {"operation": "op1"}
        assert ref.asked_for(BeginOperation)[-1].origin.git is None


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        ({"json": {"zen": "x"}, "headers": {"X-GitHub-Event": "ping"}}, "it is no push but ping"),
        ({"json": {**PUSH, "ref": "refs/heads/other"}}, "the push is to other, the app is built from main"),
        ({"json": {**PUSH, "deleted": True}}, "main was deleted"),
    ],
)
def test_what_does_not_concern_the_app_is_ignored(client, ref, send, reason):
    ref.token(HOOK)
    response = client.post(f"/api/v1/hooks/{HOOK}", **send)
    assert (response.status_code, response.get_json()) == (202, {"operation": None, "ignored": reason})
    assert ref.asked_for(BeginOperation) == []


def test_hooks_that_are_none(client, ref):
    ref.token(HOOK)
    ref.token(TOKEN)
    for wrong in ("x", TOKEN, HOOK[:-1], HOOK + "b", "ndh_" + "c" * 52):
        assert problem(client.post(f"/api/v1/hooks/{wrong}", json=PUSH), 404) == "There is no such hook."
    problem(client.post(f"/api/v1/hooks/{HOOK}", json=PUSH), 429)
    assert ref.asked_for(BeginOperation) == []


def test_a_hook_needs_an_app_from_git(client, ref):
    ref.token(HOOK)
    for context in (None, "./web", "."):
        ref.answers[GetSource] = SourceView(context=context)
        assert "not built from a git repository" in problem(client.post(f"/api/v1/hooks/{HOOK}"), 409)
    ref.answers[GetSource] = NotFound("There is no app called shop.")
    problem(client.post(f"/api/v1/hooks/{HOOK}"), 404)
    ref.answers[GetSource] = SourceView(context="https://user:hunter2@git.test/a.git#main")
    ref.answers[BeginOperation] = Conflict("shop is being changed already")
    assert "hunter2" not in problem(client.post(f"/api/v1/hooks/{HOOK}", json=PUSH), 409)


def test_payloads_are_bounded_and_checked_after_the_token(client, ref):
    ref.token(HOOK)
    large = {**PUSH, "commits": [{"message": "x" * 1000}] * 3000}
    assert client.post(f"/api/v1/hooks/{HOOK}", json=large).status_code == 202
    assert client.post(f"/api/v1/hooks/{HOOK}", data={"payload": json.dumps(large)}).status_code == 202
    problem(client.post(f"/api/v1/hooks/{HOOK}", data=b"x" * 9_000_000, content_type="application/json"), 413)
    problem(client.post(f"/api/v1/hooks/{HOOK}", data=b"{", content_type="application/json"), 422)
    problem(client.post(f"/api/v1/hooks/{HOOK}", data={"payload": "{"}), 422)


def test_no_token_is_in_the_log(client, ref, caplog):
    ref.token(HOOK)
    ref.answers[GetSource] = lambda message: 1 / 0
    with caplog.at_level(logging.DEBUG):
        problem(client.post(f"/api/v1/hooks/{HOOK}"), 500)
    assert "/api/v1/hooks/ndh_********" in caplog.text
    assert HOOK not in caplog.text.replace("Traceback", "")

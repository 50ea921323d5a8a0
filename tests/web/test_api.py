"""``/api/v1`` as the contract has it."""

from __future__ import annotations

import logging
import re
import time

import jwt
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from ndactors.errors import ActorStopped, AskTimeout
from ndactors.messages.edge import EdgeReport, Histogram, ServiceTotals
from ndactors.messages.queries import GetApps, GetEdgeTotals, GetEvents, GetReadiness, GetTree, Readiness
from ndactors.messages.stats import GetUsage
from ndactors.runtime.tracing import Tracing
from web.api import description
from web.metrics import FAMILIES

PROTECTED = [
    "/api/v1/status",
    "/api/v1/actors",
    "/api/v1/apps",
    "/api/v1/apps/shop",
    "/api/v1/containers",
    "/api/v1/events",
    "/api/v1/logs",
]


def problem(response, status):
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body = response.get_json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    return body


def test_health_asks_nobody(client, ref):
    response = client.get("/healthz")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})
    assert ref.asked == []


def test_readiness(client, ref):
    assert client.get("/readyz").status_code == 200
    ref.answers[GetReadiness] = Readiness(ready=False, waiting=("shop/web has 0 of 2",))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.get_json()["waiting"] == ["shop/web has 0 of 2"]


@pytest.mark.parametrize("path", PROTECTED)
def test_nobody_gets_in_without_a_password(client, path):
    response = client.get(path)
    problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    problem(client.get(path, auth=("ana", "wrong")), 401)
    problem(client.get(path, headers={"Authorization": "Bearer nonsense"}), 401)
    problem(client.get(path, headers={"Authorization": "Magic x"}), 401)


@pytest.mark.parametrize("user", ["ana", "vic", "oli"])
@pytest.mark.parametrize("path", PROTECTED)
def test_everyone_with_a_password_may_look(client, path, user):
    assert client.get(path, auth=(user, "secret")).status_code == 200


def test_only_admins_restart_actors(client):
    for user, status in (("vic", 403), ("oli", 403), ("ana", 202)):
        assert client.post("/api/v1/actors/app:shop/restart", auth=(user, "secret")).status_code == status
    problem(client.post("/api/v1/actors/nobody/restart", auth=("ana", "secret")), 404)


def test_tokens(client, ana):
    response = client.post("/api/v1/token", auth=ana)
    body = response.get_json()
    assert set(body) == {"token", "expires_at"}
    assert jwt.get_unverified_header(body["token"])["alg"] == "HS256"
    claims = jwt.decode(body["token"], options={"verify_signature": False})
    assert 3500 < claims["exp"] - time.time() <= 3600
    headers = {"Authorization": f"Bearer {body['token']}"}
    assert client.get("/api/v1/status", headers=headers).status_code == 200
    problem(client.post("/api/v1/token"), 401)


@pytest.mark.parametrize("kind", ["expired", "other key", "none", "no user", "no end"])
def test_forged_tokens(client, make_client, ana, kind):
    good = client.post("/api/v1/token", auth=ana).get_json()["token"]
    claims = jwt.decode(good, options={"verify_signature": False})
    if kind == "other key":
        token = make_client(key=b"x" * 32).post("/api/v1/token", auth=ana).get_json()["token"]
    elif kind == "none":
        token = jwt.encode(claims, None, algorithm="none")
    else:
        changed = {
            "expired": {**claims, "exp": int(time.time()) - 1},
            "no user": {**claims, "sub": "nobody"},
            "no end": {k: v for k, v in claims.items() if k != "exp"},
        }[kind]
        from web.auth import Guard, Users

        token = jwt.encode(changed, Guard(Users(()), b"k" * 32, None)._key, algorithm="HS256")
    problem(client.get("/api/v1/status", headers={"Authorization": f"Bearer {token}"}), 401)


def test_who_guesses_must_wait(client, ana):
    statuses = [client.get("/api/v1/status", auth=("ana", f"guess {n}")).status_code for n in range(8)]
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    response = client.get("/api/v1/status", auth=ana)
    problem(response, 429)
    assert int(response.headers["Retry-After"]) >= 1


def test_the_control_socket_needs_no_password(client):
    local = {"nextdeploy.local": True}
    assert client.get("/api/v1/status", environ_overrides=local).status_code == 200
    problem(client.get("/api/v1/status", auth=("ana", "wrong"), environ_overrides=local), 401)


def test_other_sites_cannot_act(client, ana):
    for headers in ({"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}):
        problem(client.post("/api/v1/actors/app:shop/restart", auth=ana, headers=headers), 403)
    assert (
        client.post("/api/v1/actors/app:shop/restart", auth=ana, headers={"Origin": "http://localhost"}).status_code
        == 202
    )


def test_problems(client, ana):
    problem(client.get("/api/v1/nothing", auth=ana), 404)
    problem(client.get("/api/v1/apps/none", auth=ana), 404)
    response = client.post("/api/v1/apps", auth=ana)
    problem(response, 405)
    assert "GET" in response.headers["Allow"]
    problem(client.post("/sign-in", data=b"x" * 2_000_000, content_type="application/x-www-form-urlencoded"), 413)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=10001",
        "limit=-1",
        "limit=99999999999999999999",
        "cursor=x",
        "since=yesterday",
        "since=1e999",
    ],
)
def test_bad_queries(client, ana, query):
    problem(client.get(f"/api/v1/events?{query}", auth=ana), 422)


def test_queries_reach_the_actor(client, ana, ref):
    client.get("/api/v1/events?app=shop&kind=x&limit=7&cursor=9&since=2026-01-01T01:00:00%2B01:00", auth=ana)
    assert ref.asked[-1] == GetEvents(app="shop", kind="x", limit=7, before=9, since="2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("error", "status"), [(AskTimeout("late"), 504), (ActorStopped("gone"), 503), (ValueError("bug"), 500)]
)
def test_an_actor_that_does_not_answer_is_a_problem_not_a_traceback(client, ana, ref, error, status):
    ref.answers[GetApps] = error
    body = problem(client.get("/api/v1/apps", auth=ana), status)
    assert "Traceback" not in str(body)


def test_lists_are_paged(client, ana):
    first = client.get("/api/v1/containers?limit=1", auth=ana).get_json()
    assert [row["id"] for row in first["items"]] == ["c1"]
    second = client.get(f"/api/v1/containers?limit=1&cursor={first['next']}", auth=ana).get_json()
    assert ([row["id"] for row in second["items"]], second["next"]) == (["c2"], None)
    assert client.get("/api/v1/containers?app=none", auth=ana).get_json()["items"] == []


def test_what_a_container_shows(client, ana):
    row = client.get("/api/v1/containers", auth=ana).get_json()["items"][0]
    assert {
        "id",
        "app",
        "process",
        "role",
        "state",
        "health",
        "restarts",
        "uptime",
        "cpu",
        "memory",
        "net",
    } <= row.keys()
    assert (row["restarts"], row["restart_reasons"]) == (2, {"exit": 2})
    assert row["uptime"] >= 60


def test_the_tree_is_a_list_too(client, ana):
    body = client.get("/api/v1/actors", auth=ana).get_json()
    assert [(row["name"], row["parent"]) for row in body["items"]] == [
        ("root", None),
        ("apps", "root"),
        ("app:shop", "apps"),
    ]
    assert {"name", "class", "state", "mailbox", "handled", "restarts", "last_error"} <= body["items"][0].keys()
    assert body["tree"]["children"][0]["children"][0]["name"] == "app:shop"


def test_the_description_is_true(client):
    described = {(method.upper(), path) for path, methods in description()["paths"].items() for method in methods}
    routes = set()
    for rule in client.application.url_map.iter_rules():
        if rule.rule.startswith(("/api/", "/healthz", "/readyz", "/metrics")):
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).replace("/apps/{name}", "/apps/{app}")
            # Flask adds HEAD to every GET
            routes |= {(method, path) for method in rule.methods - {"OPTIONS", "HEAD" if "GET" in rule.methods else ""}}
    assert routes == described
    assert client.get("/api/v1/openapi.json").get_json()["openapi"] == "3.1.0"


def test_every_metric_family_is_always_there(client):
    response = client.get("/metrics")
    assert response.content_type.startswith("text/plain; version=")
    families = {family.name: family for family in prometheus(response.get_data(as_text=True))}
    for name, kind, _, _ in FAMILIES:
        assert families[name].type == {"c": "counter", "g": "gauge", "h": "histogram"}[kind], name
        assert families[name].documentation
    (sample,) = families["nextdeploy_requests"].samples
    assert (sample.name, sample.labels, sample.value) == (
        "nextdeploy_requests_total",
        {"app": "shop", "process": "web", "method": "GET", "code": "200"},
        7.0,
    )
    assert any(name.startswith("process_") for name in families)
    (sample,) = families["nextdeploy_deploys"].samples
    assert (sample.labels, sample.value) == ({"app": "shop", "result": "succeeded"}, 2.0)
    restarts = {s.labels["reason"]: s.value for s in families["nextdeploy_container_restarts"].samples}
    assert restarts.keys() >= {"exit", "oom", "unhealthy", "start_failed"}, "before the first, too"
    assert restarts["oom"] == 0
    buckets = {
        s.labels["le"]: s.value for s in families["nextdeploy_deploy_duration_seconds"].samples if "le" in s.labels
    }
    assert (buckets["60.0"], buckets["3600.0"], buckets["+Inf"]) == (1, 1, 1)


def test_histograms_of_another_version_are_left_out(client, ref):
    totals = ServiceTotals(app="shop", process="web", durations={"2xx": Histogram(counts=(1, 2), total=0.5)})
    ref.answers[GetEdgeTotals] = EdgeReport(epoch=1, master_pid=1, services={"shop": totals})
    families = {family.name: family for family in prometheus(client.get("/metrics").get_data(as_text=True))}
    assert families["nextdeploy_request_duration_seconds"].samples == []
    assert families["nextdeploy_request_bytes"].samples[0].value == 0
    (sample,) = families["nextdeploy_job_last_success_timestamp_seconds"].samples
    assert (sample.labels, sample.value) == ({"app": "shop", "process": "tidy"}, 7.0)


def test_figures_of_containers_appear_only_where_they_are_known(client):
    families = {family.name: family for family in prometheus(client.get("/metrics").get_data(as_text=True))}
    (sample,) = families["nextdeploy_container_cpu_seconds"].samples
    own = {"app": "shop", "process": "web", "container": "nd-shop-web-1-1"}
    assert (sample.name, sample.labels, sample.value) == ("nextdeploy_container_cpu_seconds_total", own, 3.5)
    assert families["nextdeploy_container_memory_bytes"].samples[0].value == 1000
    assert families["nextdeploy_container_disk_bytes"].samples == []
    assert families["nextdeploy_container_memory_limit_bytes"].samples == []
    assert families["nextdeploy_host_open_ports"].samples[0].value == 1
    assert families["nextdeploy_host_load1"].samples[0].value == 0.1


def test_containers_have_what_they_use(client, ref, ana):
    one, two = client.get("/api/v1/containers", auth=ana).get_json()["items"]
    assert (one["cpu"], one["memory"], one["net"]) == (12.5, 1000, {"receive": 7, "transmit": 8})
    assert (two["cpu"], two["memory"], two["net"]) == (None, None, None)
    ref.answers[GetUsage] = AskTimeout("late")
    one, _ = client.get("/api/v1/containers", auth=ana).get_json()["items"]
    assert one["cpu"] is None, "without figures everything else is shown"
    assert one["state"] == "running"


def test_open_metrics_when_asked(client):
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.content_type.startswith("application/openmetrics-text")
    assert len(list(open_metrics(response.get_data(as_text=True)))) > 40


def test_metrics_can_be_closed(make_client):
    client = make_client(metrics_open=False)
    problem(client.get("/metrics"), 401)
    assert client.get("/metrics", auth=("vic", "secret")).status_code == 200


def test_one_actor_that_is_silent_leaves_the_others_metrics(client, ref):
    ref.answers[GetApps] = AskTimeout("late")
    text = client.get("/metrics").get_data(as_text=True)
    assert 'nextdeploy_requests_total{app="shop"' in text


def test_headers_that_protect(client, ana):
    for path in ("/", "/api/v1/status", "/healthz"):
        headers = client.get(path, auth=ana).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert client.get("/api/v1/status", auth=ana).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("given", ["abc-1.2_3", "", "a b", "x" * 65, "é", "a\tb"])
def test_every_answer_names_its_request(client, ana, ref, caplog, given):
    def fault(message):
        logging.getLogger("ndactors.web").warning("from within")
        raise RuntimeError("boom")

    ref.answers[GetTree] = fault
    caplog.handler.addFilter(Tracing())
    headers = {"X-Request-Id": given} if given else {}
    for path, status in (("/healthz", 200), ("/api/v1/nothing", 404), ("/api/v1/actors", 500)):
        response = client.get(path, auth=ana, headers=headers)
        own = response.headers["X-Request-Id"]
        assert response.status_code == status
        assert own == given if given == "abc-1.2_3" else len(own) == 32 and own != given
    lines = [record for record in caplog.records if record.name == "ndactors.web"]
    assert len(lines) == 2 and {record.request_id for record in lines} == {own}

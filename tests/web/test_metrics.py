"""``/api/v1/metrics``: what is asked for reaches the history as it was meant. ``/metrics``: what a scraper gets."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from ndactors.errors import Invalid, NotFound
from ndactors.messages.alerts import AlertView, GetAlerts
from ndactors.messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricSeries
from web.api.metrics import POINTS, STEPS, automatic

QUERY = "/api/v1/metrics/query?name=nextdeploy_requests_total"


def problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return response.get_json()["detail"]


def asked(ref) -> GetMetrics:
    return ref.asked_for(GetMetrics)[-1]


def test_without_anything_it_asks_for_the_last_hour(client, ana, ref):
    before = time.time()
    assert client.get(QUERY, auth=ana).status_code == 200
    found = asked(ref)
    assert before <= found.until <= time.time()
    assert (found.name, found.until - found.since, found.step) == ("nextdeploy_requests_total", 3600.0, 20.0)
    assert (found.labels, found.apps) == ({}, None)


def test_everything_reaches_the_history(client, ana, ref):
    words = {
        "app": "shop", "process": "web", "container": "nd-shop-web-1-1", "since": "2026-01-31T12:00:00Z",
        "until": "1769864400.5", "step": "5m", "other": "ignored",
    }  # fmt: skip
    assert client.get("/api/v1/metrics/query", query_string={"name": "x", **words}, auth=ana).status_code == 200
    assert asked(ref) == GetMetrics(
        name="x", since=1769860800.0, until=1769864400.5, step=300.0, apps=None,
        labels={"app": "shop", "process": "web", "container": "nd-shop-web-1-1"},
    )  # fmt: skip


def test_the_answer_as_json(client, ana, ref):
    row = MetricSeries(labels={"app": "shop"}, points=((10.0, 1.5),), quantiles=((0.1, 0.2, None),))
    ref.answers[GetMetrics] = MetricHistory(name="h", kind="histogram", step=10.0, series=(row,))
    assert client.get(QUERY, auth=ana).get_json() == {
        "name": "h",
        "kind": "histogram",
        "step": 10.0,
        "series": [
            {"labels": {"app": "shop"}, "points": [[10.0, 1.5]], "highest": [], "quantiles": [[0.1, 0.2, None]]}
        ],
    }
    names = client.get("/api/v1/metrics/names", auth=ana).get_json()
    assert names == {"items": [{"name": "nextdeploy_requests_total", "kind": "counter", "series": 1}]}


@pytest.mark.parametrize(
    "query",
    [
        "name=", f"name={'x' * 201}", "since=yesterday", "until=10x", "since=10m&until=20m", "since=5m&until=5m", "step=0",
        "step=-1", "step=x", "step=1e9", "step=nan", "step=99999999999",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told(client, ana, ref, query):
    path = f"/api/v1/metrics/query?{query}" if query.startswith("name") else f"{QUERY}&{query}"
    assert query.partition("=")[0] in problem(client.get(path, auth=ana), 422)
    assert ref.asked_for(GetMetrics) == []


def test_refusals_of_the_history_are_answers(client, ana, ref):
    ref.answers[GetMetrics] = Invalid("That makes too many points.")
    assert "too many" in problem(client.get(QUERY, auth=ana), 422)
    ref.answers[GetMetrics] = NotFound("There is no history of x.")
    assert "no history" in problem(client.get(QUERY, auth=ana), 404)


def test_tokens_see_their_apps(client, ref):
    headers = ref.token(role="viewer", apps=("shop",))
    assert client.get(QUERY, headers=headers).status_code == 200
    assert asked(ref).apps == ("shop",)
    assert client.get(f"{QUERY}&app=shop", headers=headers).status_code == 200
    ref.asked.clear()
    assert problem(client.get(f"{QUERY}&app=blog", headers=headers), 404) == "There is no app called blog."
    assert ref.asked_for(GetMetrics) == []
    client.get("/api/v1/metrics/names", headers=headers)
    assert ref.asked_for(GetMetricNames)[-1].apps == ("shop",)


def test_nobody_else_sees_anything(client):
    problem(client.get(QUERY), 401)
    problem(client.get("/api/v1/metrics/names"), 401)


@pytest.mark.parametrize("seconds", [1, 60, 3600, 86_400, 7 * 86_400, 365 * 86_400, 3000 * 86_400])
def test_a_step_that_nobody_chose_makes_about_three_hundred_points(seconds):
    step = automatic(seconds)
    assert seconds / step <= POINTS
    assert step in STEPS or step % STEPS[-1] == 0
    assert step <= max(10, 3.1 * seconds / POINTS, STEPS[-1])


def test_alerts_that_fire_by_kind(client, ref):
    firing = AlertView(id="a", kind="crash", rule="crash")
    seen = replace(firing, id="b", state="acknowledged")
    ref.answers[GetAlerts] = (
        firing,
        seen,
        replace(firing, id="c", state="resolved"),
        replace(firing, id="d", kind="new"),
    )
    text = client.get("/metrics").get_data(as_text=True)
    assert 'nextdeploy_alerts_firing{kind="crash"} 2.0' in text
    assert 'nextdeploy_alerts_firing{kind="oom"} 0.0' in text
    assert 'nextdeploy_alerts_firing{kind="new"} 1.0' in text


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        (PROMETHEUS, "application/openmetrics-text"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ('application/openmetrics-text; version="1.0.0"', "application/openmetrics-text"),
        ("application/openmetrics-text; version=1.9.77", "application/openmetrics-text"),
        ("application/openmetrics-text; version=2.0.0", "text/plain"),
        ("application/openmetrics-text;q=0", "text/plain"),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", "text/plain"),
        ("text/plain; version=x", "text/plain"),
        ('text/plain;version="0.0.4"', "text/plain"),
        ("text/plain; version=1.0.0; escaping=nonsense", "text/plain"),
        (";;;,=,q=x", "text/plain"),
        ("application/json", "text/plain"),
    ],
)
def test_a_scraper_gets_one_of_two_formats_whatever_it_says(client, ana, accept, kind):
    response = client.get("/metrics", headers={"Accept": accept}, auth=ana)
    assert response.status_code == 200
    version = "1.0.0" if "open" in kind else "0.0.4"
    assert response.content_type.startswith(f"{kind}; version={version}")
    assert "nonsense" not in response.content_type


def test_versions_that_a_scraper_makes_up_share_one_answer(client, ana, ref):
    for n in range(20):
        client.get("/metrics", headers={"Accept": f"application/openmetrics-text; version=1.0.{n}"}, auth=ana)
    assert len(ref.asked_for(GetAlerts)) == 1

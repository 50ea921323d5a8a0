"""``GET /api/v1/logs``: what is asked for reaches the log process as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ndactors.core.logquery import LogFilter
from ndactors.core.logrecords import Gap, LogRecord, format_ns, parse_ns
from ndactors.errors import AskTimeout, Invalid, LogsAway
from ndactors.messages.logs import GetLogs, LogPage
from ndactors.messages.queries import GetApps
from web.api.logs import FILTERS, moment

NOW = 1769860800.0
"""2026-01-31T12:00:00Z"""
SHOP = LogRecord(
    ts="2026-01-31T12:00:00.123456789Z",
    app="shop",
    process="web",
    container="c1",
    replica=1,
    stream="stdout",
    level="info",
    message="GET /",
)


def problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return response.get_json()["detail"]


def asked(ref) -> GetLogs:
    return ref.asked_for(GetLogs)[-1]


# -- what is asked ---------------------------------------------------------------------------------


def test_without_anything_it_asks_for_the_newest_hundred(client, ana, ref):
    assert client.get("/api/v1/logs", auth=ana).get_json() == {"items": [], "next": None}
    assert asked(ref) == GetLogs(filter=LogFilter(), limit=100, cursor=None, oldest_first=False, asker="ana")


def test_everything_reaches_the_log_process(client, ana, ref):
    words = {
        "app": "shop", "process": "web", "container": "c0ffee", "replica": "2", "level": "error", "stream": "stderr",
        "q": "/a b+/", "request_id": "r1", "since": "2026-01-31T12:00:00.5Z", "until": "1769860801.25", "limit": "7",
        "cursor": "x:y", "order": "oldest",
    }  # fmt: skip
    assert client.get("/api/v1/logs", query_string=words, auth=ana).status_code == 200
    wanted = LogFilter(
        app="shop", process="web", container="c0ffee", replica=2, levels=0b11000, stream="stderr", q="/a b+/",
        request_id="r1", since="2026-01-31T12:00:00.500000000Z", until="2026-01-31T12:00:01.250000000Z",
    )  # fmt: skip
    assert asked(ref) == GetLogs(filter=wanted, limit=7, cursor="x:y", oldest_first=True, asker="ana")
    assert set(FILTERS) <= words.keys()


def test_what_is_empty_is_not_asked_for(client, ana, ref):
    query = "&".join(f"{name}=" for name in (*FILTERS, "cursor"))
    assert client.get(f"/api/v1/logs?{query}", auth=ana).status_code == 200
    assert asked(ref) == GetLogs(asker="ana")


@pytest.mark.parametrize(
    ("level", "mask"), [("debug", 0b11111), ("error", 0b11000), ("critical", 0b10000), ("info,error", 0b01010)]
)
def test_levels(client, ana, ref, level, mask):
    client.get("/api/v1/logs", query_string={"level": level}, auth=ana)
    assert asked(ref).filter.levels == mask


def test_a_containers_name_becomes_its_id(client, ana, ref):
    client.get("/api/v1/logs?container=nd-shop-web-1-2", auth=ana)
    assert asked(ref).filter.container == "c2"
    client.get("/api/v1/logs?container=nd-gone-web-1-2", auth=ana)
    assert asked(ref).filter.container == "nd-gone-web-1-2"
    ref.asked.clear()
    client.get("/api/v1/logs?container=c0ffee12", auth=ana)
    assert asked(ref).filter.container == "c0ffee12" and ref.asked_for(GetApps) == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=x", "limit=10001", "level=bad", "level=info,bad", "level=info,", "stream=both", "order=up",
        "replica=0", "replica=x", "since=yesterday", "since=10x", "since=11y", "until=-5", "since=9999d9999d",
        "since=1e999", "since=999999999999", "since=2026-13-01T00:00:00Z", "since=1969-01-01T00:00:00Z",
        f"q={'x' * 1001}",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told(client, ana, ref, query):
    name = query.partition("=")[0]
    assert name in problem(client.get(f"/api/v1/logs?{query}", auth=ana), 422)
    assert ref.asked_for(GetLogs) == []


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123456789Z"),
        ("2026-01-31T13:30:00+01:30", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31T13:30:00 01:30", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31 12:00:00", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31T12:00", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31", "2026-01-31T00:00:00.000000000Z"),
        ("1769860800", "2026-01-31T12:00:00.000000000Z"),
        ("1769860800.123456789", "2026-01-31T12:00:00.123456789Z"),
        ("10m", "2026-01-31T11:50:00.000000000Z"),
        ("1h30m", "2026-01-31T10:30:00.000000000Z"),
        ("500ms", "2026-01-31T11:59:59.500000000Z"),
        ("2d", "2026-01-29T12:00:00.000000000Z"),
        ("0s", "2026-01-31T12:00:00.000000000Z"),
        ("", None),
        (None, None),
    ],
)
def test_times_become_those_of_the_store(text, time):
    assert moment("since", text, NOW) == time


@given(st.integers(0, 253_402_300_799_999_999_999))
def test_a_records_time_can_be_given_as_it_is(ns):
    assert moment("since", format_ns(ns), NOW) == format_ns(ns)


@given(st.text(max_size=40) | st.from_regex(r"[0-9TZ:.+ smhd-]{1,40}", fullmatch=True))
def test_whatever_is_given_is_a_time_or_a_mistake(text):
    try:
        found = moment("since", text, NOW)
    except Invalid:
        return
    assert found is None or (len(found) == 30 and parse_ns(found) is not None)


# -- what is answered ------------------------------------------------------------------------------


def test_records_are_shown_as_they_are(client, ana, ref):
    gap = replace(SHOP, message="[gap: 5 bytes of output were lost: x]", gap=Gap(bytes=5, reason="x"))
    ref.answers[GetLogs] = LogPage(items=(SHOP, replace(SHOP, request_id="r1"), gap), next="older")
    body = client.get("/api/v1/logs", auth=ana).get_json()
    first, second, third = body["items"]
    assert (body["next"], set(body)) == ("older", {"items", "next"})
    assert first == {
        "ts": SHOP.ts, "app": "shop", "process": "web", "container": "c1", "replica": 1, "stream": "stdout",
        "level": "info", "message": "GET /",
    }  # fmt: skip
    assert second == {**first, "request_id": "r1"}
    assert third["message"] == gap.message and third["gap"]["bytes"] == 5


def test_damage_is_told(client, ana, ref):
    ref.answers[GetLogs] = LogPage(items=(SHOP,), damaged=2)
    assert client.get("/api/v1/logs", auth=ana).get_json()["damaged"] == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(Invalid("q is no regular expression"), 422), (LogsAway("it is away"), 503), (AskTimeout("late"), 504)],
)
def test_what_the_log_process_says_is_told(client, ana, ref, error, status):
    ref.answers[GetLogs] = error
    assert problem(client.get("/api/v1/logs", auth=ana), status) == str(error)


def test_a_long_search_may_take_its_time(client, ana, ref, monkeypatch):
    waited = []
    monkeypatch.setattr(ref, "ask", lambda message, timeout=5.0: waited.append(timeout) or LogPage())
    client.get("/api/v1/logs", auth=ana)
    assert waited == [20.0]


# -- who asks --------------------------------------------------------------------------------------


def test_a_viewer_may(client):
    assert client.get("/api/v1/logs", auth=("vic", "secret")).status_code == 200


@pytest.mark.parametrize("apps", [("shop",), ("shop", "other"), ()])
def test_a_limited_token_gets_its_own_apps_only(client, ref, apps):
    headers = ref.token(role="viewer", apps=apps)
    client.get("/api/v1/logs", headers=headers)
    assert asked(ref).filter == LogFilter(apps=apps)
    for wanted in ("blog", "nope"):
        ref.asked.clear()
        detail = problem(client.get(f"/api/v1/logs?app={wanted}", headers=headers), 404)
        assert detail == f"There is no app called {wanted}." and ref.asked_for(GetLogs) == []


def test_a_limited_token_may_name_its_app(client, ref):
    headers = ref.token(role="viewer", apps=("shop", "other"))
    assert client.get("/api/v1/logs?app=shop", headers=headers).status_code == 200
    assert asked(ref).filter == LogFilter(app="shop", apps=("shop", "other"))


def test_a_limited_token_learns_no_names_of_other_containers(client, ref):
    headers = ref.token(role="viewer", apps=("other",))
    client.get("/api/v1/logs?container=nd-shop-web-1-1", headers=headers)
    assert asked(ref).filter.container == "nd-shop-web-1-1"

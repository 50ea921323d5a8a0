"""Alerts, silences and channels over the API, and who may do what."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ndactors.errors import Conflict, NotFound
from ndactors.messages.alerts import (
    AcknowledgeAlert,
    AddSilence,
    AlertView,
    ChannelResult,
    ChannelsView,
    ChannelView,
    DeadLetter,
    EndSilence,
    GetAlerts,
    GetChannels,
    GetSigningKey,
    GetSilences,
    ResolveAlert,
    Silence,
    TestChannels,
)
from ndactors.messages.control import ANSWERS, Askable
from ndactors.messages.queries import GetApps

NOON = 1_769_860_800.0
SHOP = AlertView(id="a1", kind="oom", rule="oom", app="shop", since=NOON, fired_at=NOON + 1, summary="out of memory")
BLOG = AlertView(id="a2", kind="oom", rule="oom", app="blog", since=NOON, fired_at=NOON + 1)
HOST = AlertView(id="a3", kind="high_disk", rule="disk", since=NOON, fired_at=NOON + 1, value=float("nan"))
SILENCES = tuple(
    Silence(id=f"s{n}", begins=NOON, ends=NOON + 60, app=app) for n, app in enumerate(["shop", "blog", None])
)


@pytest.fixture
def alerts(ref):
    def listed(message):
        rows = (SHOP, BLOG, HOST)
        rows = tuple(row for row in rows if message.app in (None, row.app))
        return tuple(row for row in rows if message.apps is None or row.app in message.apps)

    def acknowledged(message):
        if message.id not in ("a1", "a2") or (message.apps is not None and message.id != "a1"):
            raise NotFound(f"There is no alert {message.id}.")
        return replace(SHOP, state="acknowledged", acknowledged_by=message.by, acknowledged_at=NOON + 9)

    ref.answers[GetApps] = (*ref.answers[GetApps], replace(ref.answers[GetApps][0], name="blog"))
    ref.answers[GetAlerts] = listed
    ref.answers[AcknowledgeAlert] = acknowledged
    ref.answers[ResolveAlert] = lambda m: replace(SHOP, state="resolved", summary=f"over, by {m.by} of {m.apps}")
    ref.answers[GetSilences] = SILENCES
    ref.answers[AddSilence] = lambda m: Silence(
        id="s9", begins=NOON, ends=NOON + m.seconds, kind=m.kind, app=m.app, reason=m.reason, by=m.by
    )
    ref.answers[EndSilence] = lambda m: SILENCES[0]
    ref.answers[TestChannels] = (ChannelResult(channel="mail", good=False, words="answered 535"),)
    ref.answers[GetChannels] = ChannelsView(
        channels=(ChannelView(channel="mail", waiting=2),),
        dead_letters=(DeadLetter(id="n1", channel="mail", at=NOON, tries=6, words="answered 535", title="t"),),
    )
    ref.answers[GetSigningKey] = "whsec_x"
    return ref


def problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return response.get_json()["detail"]


def test_alerts_are_listed_with_times_that_people_can_read(client, alerts):
    rows = client.get("/api/v1/alerts", auth=("vic", "secret")).get_json()["items"]
    assert [row["id"] for row in rows] == ["a1", "a2", "a3"]
    assert (rows[0]["since"], rows[0]["resolved_at"]) == ("2026-01-31T12:00:00.000Z", None)
    assert rows[2]["value"] is None
    assert (
        client.get("/api/v1/alerts?state=firing&app=blog", auth=("vic", "secret")).get_json()["items"][0]["id"] == "a2"
    )
    assert alerts.asked_for(GetAlerts)[-1] == GetAlerts(state="firing", app="blog")
    problem(client.get("/api/v1/alerts?state=burning", auth=("vic", "secret")), 422)


def test_somebody_looks_after_it(client, alerts):
    row = client.post("/api/v1/alerts/a1/ack", auth=("oli", "secret")).get_json()
    assert (row["state"], row["acknowledged_by"], row["acknowledged_at"]) == (
        "acknowledged",
        "api:oli",
        "2026-01-31T12:00:09.000Z",
    )
    problem(client.post("/api/v1/alerts/none/ack", auth=("oli", "secret")), 404)
    problem(client.post("/api/v1/alerts/a1/ack", auth=("vic", "secret")), 403)
    alerts.answers[AcknowledgeAlert] = Conflict("it is over")
    assert problem(client.post("/api/v1/alerts/a1/ack", auth=("oli", "secret")), 409) == "it is over"


def test_times_are_told_as_times(client, alerts):
    alerts.answers[GetAlerts] = (replace(SHOP, fired_at=NOON, last_at=NOON + 60),)
    (row,) = client.get("/api/v1/alerts", auth=("oli", "secret")).get_json()["items"]
    assert (row["fired_at"], row["last_at"]) == ("2026-01-31T12:00:00.000Z", "2026-01-31T12:01:00.000Z")


def test_an_alert_is_ended(client, alerts):
    row = client.post("/api/v1/alerts/a1/resolve", auth=("oli", "secret")).get_json()
    assert (row["state"], row["summary"]) == ("resolved", "over, by api:oli of None")
    problem(client.post("/api/v1/alerts/a1/resolve", auth=("vic", "secret")), 403)
    headers = alerts.token(apps=("shop",))
    assert client.post("/api/v1/alerts/a1/resolve", headers=headers).get_json()["summary"].endswith("('shop',)")


def test_a_silence_begins_and_ends(client, alerts):
    body = {"for": "1h30m", "kind": "high_disk", "app": "shop", "reason": "cleaning"}
    response = client.post("/api/v1/silences", json=body, auth=("oli", "secret"))
    assert response.status_code == 201
    assert response.get_json() == {
        "id": "s9",
        "begins": "2026-01-31T12:00:00.000Z",
        "ends": "2026-01-31T13:30:00.000Z",
        "kind": "high_disk",
        "app": "shop",
        "reason": "cleaning",
        "by": "api:oli",
    }
    assert client.post("/api/v1/silences", json={"for": 60}, auth=("oli", "secret")).status_code == 201
    assert alerts.asked_for(AddSilence)[-1].seconds == 60.0
    assert client.delete("/api/v1/silences/s0", auth=("oli", "secret")).get_json()["id"] == "s0"
    assert alerts.asked_for(EndSilence) == [EndSilence(id="s0")]
    assert len(client.get("/api/v1/silences", auth=("vic", "secret")).get_json()["items"]) == 3


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "for"),
        ({"for": "soon"}, 422, "for: Not a valid duration"),
        ({"for": "0s"}, 422, "for: Must be longer than 0."),
        ({"for": -1}, 422, "for: Not a valid duration"),
        ({"for": True}, 422, "for"),
        ({"for": "1h", "kind": "high_dsk"}, 422, "kind must be one of"),
        ({"for": "1h", "app": "nope"}, 404, "There is no app called nope."),
        ({"for": "1h", "reason": "x" * 501}, 422, "reason"),
        ({"for": "1h", "aap": "shop"}, 422, "aap"),
        ([], 422, "body"),
    ],
)
def test_silences_that_make_no_sense(client, alerts, body, status, words):
    assert words in problem(client.post("/api/v1/silences", json=body, auth=("oli", "secret")), status)
    assert alerts.asked_for(AddSilence) == []


def test_channels_and_what_could_not_be_delivered(client, alerts):
    told = client.get("/api/v1/alerts/channels", auth=("oli", "secret")).get_json()
    assert told["items"][0]["waiting"] == 2
    assert told["dead_letters"][0]["at"] == "2026-01-31T12:00:00.000Z"
    problem(client.get("/api/v1/alerts/channels", auth=("vic", "secret")), 403)


def test_channels_are_tried(client, alerts):
    told = client.post("/api/v1/alerts/test", auth=("oli", "secret")).get_json()
    assert told["items"] == [{"channel": "mail", "good": False, "words": "answered 535"}]
    assert alerts.asked_for(TestChannels) == [TestChannels(by="api:oli")]
    problem(client.post("/api/v1/alerts/test", auth=("vic", "secret")), 403)


def test_the_signing_key_is_for_administrators(client, alerts, ana):
    assert client.get("/api/v1/alerts/key", auth=ana).get_json() == {"key": "whsec_x"}
    problem(client.get("/api/v1/alerts/key", auth=("oli", "secret")), 403)
    problem(client.get("/api/v1/alerts/key", headers=alerts.token(role="admin", apps=("shop",))), 403)


@pytest.mark.parametrize("apps", [("shop",), ("shop", "other")])
def test_a_limited_token_sees_and_touches_its_own_apps_only(client, alerts, apps):
    headers = alerts.token(apps=apps)
    assert [row["id"] for row in client.get("/api/v1/alerts", headers=headers).get_json()["items"]] == ["a1"]
    assert alerts.asked_for(GetAlerts)[-1].apps == apps
    problem(client.get("/api/v1/alerts?app=blog", headers=headers), 404)
    assert client.post("/api/v1/alerts/a1/ack", headers=headers).status_code == 200
    assert problem(client.post("/api/v1/alerts/a2/ack", headers=headers), 404) == "There is no alert a2."
    assert [row["id"] for row in client.get("/api/v1/silences", headers=headers).get_json()["items"]] == ["s0"]
    assert client.post("/api/v1/silences", json={"for": "1h", "app": "shop"}, headers=headers).status_code == 201
    problem(client.post("/api/v1/silences", json={"for": "1h", "app": "blog"}, headers=headers), 404)
    problem(client.post("/api/v1/silences", json={"for": "1h"}, headers=headers), 403)
    assert len(alerts.asked_for(AddSilence)) == 1
    assert client.delete("/api/v1/silences/s0", headers=headers).status_code == 200
    for other in ("s1", "s2", "none"):
        assert (
            problem(client.delete(f"/api/v1/silences/{other}", headers=headers), 404)
            == f"There is no silence {other}, or more than one."
        )
    assert len(alerts.asked_for(EndSilence)) == 1


def test_a_careless_answer_shows_nothing_of_others(client, alerts):
    alerts.answers[GetAlerts] = (SHOP, BLOG, HOST)
    headers = alerts.token(apps=("shop",))
    assert [row["id"] for row in client.get("/api/v1/alerts", headers=headers).get_json()["items"]] == ["a1"]


def test_all_of_it_can_be_asked_from_another_process():
    asked = (AcknowledgeAlert, AddSilence, EndSilence, GetAlerts, GetChannels, GetSigningKey, GetSilences, TestChannels)
    assert set(asked) <= set(Askable.__args__) and set(asked) <= ANSWERS.keys()

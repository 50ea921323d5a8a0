"""What people read of alerts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.alerts import AlertView
from ndactors.core.notices import (
    MAX_ALERTS,
    MAX_SUBJECT,
    SLACK_BLOCK,
    SLACK_BLOCKS,
    escaped,
    figure,
    fitted,
    lasting,
    line,
    moment,
    plain,
    slack,
    subject,
    webhook_body,
)
from ndactors.core.notifications import Notification
from ndactors.core.webhooks import MAX_BODY

BEGAN = 1_769_860_800.0  # 2026-01-31 12:00:00 UTC


def alert(id: str = "a1", **more) -> AlertView:
    given = {
        "id": id,
        "kind": "high_disk",
        "rule": "disk",
        "severity": "critical",
        "app": "shop",
        "process": "web",
        "container": "nd-shop-web-1",
        "subject": {"disk": "/var"},
        "since": BEGAN,
        "fired_at": BEGAN + 60,
        "value": 96.14,
        "threshold": 90.0,
        "unit": "%",
        "summary": "The disk /var is 96 % full",
        "advice": "Remove old files",
    }
    return AlertView(**{**given, **more})


def notification(*alerts: AlertView, **more) -> Notification:
    given = {
        "id": "n1",
        "at": BEGAN + 200,
        "state": "firing",
        "title": "a disk is nearly full",
        "alerts": alerts or (alert(),),
        "server": "web1",
        "project": "acme",
        "environment": "prod",
    }
    return Notification(**{**given, **more})


def test_a_mail_says_what_where_since_when_how_much_and_what_to_do():
    assert plain(notification()).splitlines() == [
        "Critical: a disk is nearly full",
        "Server web1, project acme, environment prod, 2026-01-31 12:03:20 UTC",
        "",
        "CRITICAL: The disk /var is 96 % full",
        "  Where: app shop, process web, container nd-shop-web-1, disk /var, host web1",
        "  Since: 2026-01-31 12:00:00 UTC (3 min 20 s so far)",
        "  Figure: 96.14 % (threshold 90 %)",
        "  To do: Remove old files",
        "  Alert: high_disk, a1",
        "",
        "To say that you look after it: nextdeploy alerts ack a1",
    ]


def test_what_is_over_says_how_long_it_lasted():
    over = alert(state="resolved", resolved_at=BEGAN + 7260)
    text = plain(notification(over, state="resolved", at=BEGAN + 7300))
    assert "Resolved: a disk" in text and "RESOLVED: The disk" in text
    assert "Was: 2026-01-31 12:00:00 UTC to 2026-01-31 14:01:00 UTC; it lasted 2 h 1 min" in text
    assert "To do" not in text and "alerts ack" not in text


def test_what_happened_often_and_who_looks_after_it():
    text = plain(notification(alert(count=3, acknowledged_by="api:ana", value=None)))
    assert "Happened: 3 times" in text and "Looked after by: api:ana" in text and "Figure" not in text


def test_what_is_not_listed_is_counted():
    many = fitted(notification(*[alert(f"a{n}") for n in range(50)]))
    assert (len(many.alerts), many.more) == (MAX_ALERTS, 30)
    assert "30 more are not listed" in plain(many)
    assert "30 more are not listed" in json.dumps(slack(many))


def test_a_test_says_that_nothing_is_wrong():
    text = plain(Notification(id="t", at=BEGAN, state="test", title="a test by ana"))
    assert text.startswith("Test: a test by ana\n") and "Nothing is wrong." in text


def test_a_subject_is_one_line_whatever_it_is_made_of():
    evil = fitted(notification(title="x\r\nBcc: all@example.com\n\nbody", server="web1\r\nX: y"))
    assert subject(evil) == "[web1 X: y] Critical: x Bcc: all@example.com body"
    assert len(subject(fitted(notification(title="x" * 10_000)))) == MAX_SUBJECT


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (96.14, "%", "96.14 %"),
        (90.0, "%", "90 %"),
        (1.5 * 1024**3, "bytes", "1.5 GiB"),
        (12, "bytes", "12 B"),
        (0.25, "s", "0.25 s"),
        (123456.0, "", "123,456"),
        (float("nan"), "%", "nan %"),
        (float("inf"), "bytes", "inf bytes"),
    ],
)
def test_figures(value, unit, text):
    assert figure(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3725, "1 h 2 min"),
        (90_000, "1 d 1 h"),
        (-5, "0 s"),
        (1e300, "an unknown time"),
    ],
)
def test_how_long(seconds, text):
    assert lasting(seconds) == text


@pytest.mark.parametrize("seconds", [1e300, float("nan"), float("inf"), -1e18])
def test_moments_that_cannot_be(seconds):
    assert moment(seconds) == "at an unknown time"


def test_nothing_in_a_text_means_something_to_slack():
    body = slack(fitted(notification(alert(summary="<!channel> a & b <https://x.test|y>"), title="<!here>")))
    section = body["blocks"][1]["text"]["text"]
    assert section.startswith("CRITICAL: &lt;!channel&gt; a &amp; b &lt;https://x.test|y&gt;")
    assert body["text"] == "[web1] Critical: &lt;!here&gt;"
    assert body["blocks"][0]["text"]["type"] == "plain_text"


def test_an_escape_is_never_cut():
    assert escaped("&" * 10, 12) == "&amp;&amp;…"
    assert escaped("abc", 3) == "abc"
    assert escaped("abcd", 3) == "ab…"


texts = st.text(max_size=40) | st.sampled_from(
    ["\ud800", "\x00\x1b[31m", "<!channel>" * 400, "&" * 5000, "é\u2028\u202e" * 900]
)
alerts = st.builds(
    alert,
    texts,
    app=st.none() | texts,
    subject=st.dictionaries(texts, texts, max_size=12),
    summary=texts,
    advice=texts,
    unit=texts,
    value=st.none() | st.floats(),
    threshold=st.none() | st.floats(),
    since=st.floats(),
    resolved_at=st.none() | st.floats(),
)
notifications = st.builds(
    lambda alerts, state, title, server, at: fitted(
        notification(*alerts, state=state, title=title, server=server, at=at)
    ),
    st.lists(alerts, max_size=30),
    st.sampled_from(["firing", "resolved", "test"]),
    texts,
    texts,
    st.floats(),
)


@given(notifications)
def test_every_text_is_bounded_and_can_be_sent(told):
    body = slack(told)
    assert len(body["blocks"]) <= SLACK_BLOCKS
    for block in body["blocks"]:
        found = [block["text"]] if "text" in block else block["elements"]
        for text in found:
            assert 0 < len(text["text"]) <= (150 if block["type"] == "header" else SLACK_BLOCK)
            assert text["type"] == "plain_text" or not {"<", ">"} & set(text["text"])
    json.dumps(body).encode()
    assert len(json.dumps(body)) < 200_000
    head = subject(told)
    assert len(head) <= MAX_SUBJECT and head.isprintable() and head.strip() == head
    text = plain(told).encode()
    assert len(text) < 200_000
    assert all(c.isprintable() for each in text.decode().splitlines() for c in each)
    sent = webhook_body(told)
    assert len(sent) <= MAX_BODY
    data = json.loads(sent)["data"]
    assert len(data["alerts"]) + data["more"] == len(told.alerts) + told.more


@given(st.text(max_size=200), st.integers(2, 60))
def test_a_line_is_short_and_printable(text, most):
    found = line(text, most)
    assert len(found) <= most and found.isprintable()
    assert line(found, most) == found


def test_a_body_for_webhooks():
    body = json.loads(webhook_body(fitted(notification())))
    assert (body["type"], body["timestamp"]) == ("alert.firing", "2026-01-31T12:03:20.000Z")
    assert body["data"]["alerts"][0]["since"] == "2026-01-31T12:00:00.000Z"
    assert body["data"]["alerts"][0]["resolved_at"] is None
    assert body["data"]["alerts"][0]["subject"] == {"disk": "/var"}


def test_a_body_that_is_too_large_counts_what_it_leaves_out():
    huge = alert(summary="é" * 500, advice="ü" * 500, subject={f"k{n}": "ö" * 200 for n in range(10)})
    told = fitted(notification(*[huge] * 20))
    body = webhook_body(told)
    data = json.loads(body)["data"]
    assert len(body) <= MAX_BODY and data["more"] > 0 and len(data["alerts"]) + data["more"] == 20

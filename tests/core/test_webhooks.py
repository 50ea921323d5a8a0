"""Who is told what of a deploy, when again, and what is shown of it."""

from __future__ import annotations

import pytest

from ndactors.core.model import Webhook
from ndactors.core.webhooks import (
    DELAYS,
    LONGEST_WAIT,
    Delivery,
    HookAnswer,
    after,
    body_of,
    judge,
    next_of,
    shown,
    targets,
    variables_of,
)


def delivery(id: str = "1", target="https://a.test/x", **fields) -> Delivery:
    return Delivery(id=id, event="deploy.succeeded", app="shop", target=target, body="{}", **fields)


def test_who_is_told():
    hooks = Webhook(on_success=("https://a.test",), on_failure=(("mail", "x"),))
    assert targets(hooks, "deploy.succeeded") == ("https://a.test",)
    assert targets(hooks, "deploy.failed") == (("mail", "x"),)


def test_the_payload_cannot_say_which_event_it_is():
    assert body_of("deploy.failed", "shop", {"event": "x", "app": "y", "revision": 3}) == {
        "event": "deploy.failed",
        "app": "shop",
        "revision": 3,
    }


def test_a_command_finds_plain_values_in_its_environment():
    payload = {"operation": "op1", "revision": 3, "reason": "a\0b", "message": None, "receipt": {"failed": 0}, "x": 1}
    assert variables_of("deploy.failed", "shop", payload) == {
        "NEXTDEPLOY_EVENT": "deploy.failed",
        "NEXTDEPLOY_APP": "shop",
        "NEXTDEPLOY_OPERATION": "op1",
        "NEXTDEPLOY_REVISION": "3",
        "NEXTDEPLOY_REASON": "ab",
    }


def test_five_tries_over_about_five_minutes():
    now, tries, each = 1000.0, 1, delivery()
    while (later := after(each, HookAnswer(good=False, words="", again=True), now)) is not None:
        assert later.due > now
        now, each, tries = later.due, later, tries + 1
    assert tries == 5
    assert 240 < now - 1000.0 < 330


def test_when_not_to_try_again():
    bad = HookAnswer(good=False, words="", again=True)
    assert after(delivery(), HookAnswer(good=True, words=""), 0.0) is None
    assert after(delivery(), HookAnswer(good=False, words=""), 0.0) is None
    assert after(delivery(target=("cmd",)), bad, 0.0) is None


def test_a_receiver_may_ask_for_more_time_but_not_for_ever():
    def due(wait: float) -> float:
        later = after(delivery(), HookAnswer(good=False, words="", again=True, wait=wait), 0.0)
        assert later is not None
        return later.due

    assert [due(0), due(100), due(1e9)] == [DELAYS[0], 100, LONGEST_WAIT]


def test_each_receiver_hears_in_order_and_waits_for_no_other():
    a1, a2, b1, b2 = delivery("a1"), delivery("a2"), delivery("b1", "https://b.test"), delivery("b2", "https://b.test")
    assert next_of((a1, a2, b1, b2), frozenset()) == (a1, b1)
    assert next_of((a1, a2, b1, b2), frozenset({"a1"})) == (b1,)
    assert next_of((a2, b1, b2), frozenset({"b1"})) == (a2,)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("https://hooks.test/services/T0/SECRET", "https://hooks.test/********"),
        ("https://user:SECRET@hooks.test:8443/?token=SECRET", "https://hooks.test:8443/********"),
        ("http://hooks.test?key=SECRET", "http://hooks.test/********"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("http://hooks.test", "http://hooks.test"),
        ("http://a:SECRET/", "********"),
        (("/usr/bin/notify", "--token", "SECRET"), "notify"),
        (("/",), "a command"),
    ],
)
def test_what_is_shown_of_a_receiver(target, text):
    assert shown(target) == text


@pytest.mark.parametrize(
    ("status", "good", "again"),
    [(200, True, False), (204, True, False), (301, False, False), (400, False, False), (404, False, False)]
    + [(status, False, True) for status in (408, 425, 429, 500, 502, 503, 599)],
)
def test_how_an_answer_is_judged(status, good, again):
    found = judge(status)
    assert (found.good, found.again) == (good, again)
    assert str(status) in found.words


def test_retry_after_counts_where_it_makes_sense():
    assert judge(503, "120").wait == 120
    assert judge(503, "Wed, 21 Oct 2026 07:28:00 GMT").wait == 0
    assert judge(503, "9" * 400).wait == 0
    assert judge(404, "120").wait == 0

"""`nextdeploy alerts`."""

from __future__ import annotations

import json
import re
from importlib import import_module

import pytest
from double import Double, problem

from ndactors.cli.main import VERBS
from ndactors.core.alert_rules import EVENTS, LEVELS
from ndactors.core.alert_watch import said

SILENCE = {
    "id": "s1",
    "begins": "2026-01-31T12:00:00Z",
    "ends": "2026-01-31T14:00:00Z",
    "kind": None,
    "app": None,
    "by": "u",
    "reason": "",
}
ALERT = {
    "id": "a1", "kind": "high_disk", "severity": "critical", "app": None, "state": "firing", "silenced": True,
    "since": "2026-01-31T12:00:00.000Z", "resolved_at": None, "summary": "The disk \x1b[31m/var is full",
}  # fmt: skip


def test_what_fires_and_what_is_over(run, local, double: Double):
    over = {
        **ALERT,
        "id": "a2",
        "state": "acknowledged",
        "acknowledged_by": "api:ana",
        "silenced": False,
        "app": "shop",
    }
    double.on("GET /api/v1/alerts?", {"items": [ALERT, over], "next": None})
    done = run("alerts", "--app", "shop", "--state", "firing")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["ID", "STATE", "SEVERITY", "KIND", "APP", "SINCE", "WHAT"]
    assert "firing (silenced)" in lines[1] and "\x1b" not in done.out
    assert "acknowledged by api:ana" in lines[2]
    assert "app=shop" in double.asked[-1][1] and "state=firing" in double.asked[-1][1]
    assert json.loads(run("alerts", "--json").out)["items"][0]["id"] == "a1"


def test_no_alerts(run, local, double: Double):
    double.on("GET /api/v1/alerts", {"items": [], "next": None})
    assert run("alerts").out == "no alerts\n"


def test_acknowledging(run, local, double: Double):
    double.on("POST /api/v1/alerts/*/ack", {**ALERT, "acknowledged_by": "api:local"})
    assert run("alerts", "ack", "a1").out == "a1 is looked after by api:local\n"
    double.on("POST /api/v1/alerts/*/ack", problem(409, "It is over."), 409)
    done = run("alerts", "ack", "a1")
    assert (done.code, done.err) == (3, "nextdeploy: It is over.\n")


def test_ending(run, local, double: Double):
    double.on("POST /api/v1/alerts/*/resolve", {**ALERT, "state": "resolved"})
    assert run("alerts", "resolve", "a1").out == "a1 is over\n"
    assert run("alerts", "resolve").code == 2


def test_silences(run, local, double: Double):
    double.on("POST /api/v1/silences", SILENCE, 201)
    done = run("alerts", "silence", "--for", "2h", "--kind", "oom", "--app", "shop", "--reason", "a b")
    assert (done.code, done.out) == (0, "s1: everything of all apps until 2026-01-31T14:00:00Z\n")
    assert double.calls("POST .*") == [{"for": "2h", "kind": "oom", "app": "shop", "reason": "a b"}]
    run("alerts", "silence", "--for", "2h")
    assert double.calls("POST .*")[-1] == {"for": "2h"}
    double.on("GET /api/v1/silences", {"items": [SILENCE], "next": None})
    assert "s1  all   all  2026-01-31T14:00:00Z  u" in run("alerts", "silences").out
    double.on("DELETE /api/v1/silences/*", SILENCE)
    assert run("alerts", "unsilence", "s1").out == "s1 is over\n"


@pytest.mark.parametrize("good", [True, False])
def test_a_test_fails_if_one_channel_does(run, local, double: Double, good):
    rows = [
        {"channel": "mail", "good": True, "words": "accepted"},
        {"channel": "hook", "good": good, "words": "answered x"},
    ]
    double.on("POST /api/v1/alerts/test", {"items": rows, "next": None})
    done = run("alerts", "test")
    assert done.code == (0 if good else 1)
    assert done.out.splitlines() == ["ok  mail: accepted", f"{'ok' if good else 'FAILED'}  hook: answered x"]
    done = run("alerts", "test", "--json")
    assert (done.code, json.loads(done.out)["items"]) == (0 if good else 1, rows)


def test_channels(run, local, double: Double):
    letter = {
        "id": "n",
        "channel": "mail",
        "at": "2026-01-31T12:00:00Z",
        "tries": 6,
        "words": "answered 535",
        "title": "t",
    }
    row = {"channel": "mail", "waiting": 0, "delivered": 3, "failed": 1, "last_words": "accepted"}
    double.on("GET /api/v1/alerts/channels", {"items": [row], "dead_letters": [letter], "next": None})
    done = run("alerts", "channels")
    assert done.code == 0 and "mail     0        3          1       accepted" in done.out
    assert "Not delivered:" in done.out and "answered 535" in done.out


def test_the_key(run, local, double: Double):
    double.on("GET /api/v1/alerts/key", {"key": "whsec_x"})
    assert run("alerts", "key").out == "whsec_x\n"


@pytest.mark.parametrize(
    "words",
    [
        ("ack",),
        ("unsilence",),
        ("silence",),
        ("silence", "x", "--for", "1h"),
        ("test", "x"),
        ("list", "--for", "1h"),
        ("ack", "a1", "--reason", "x"),
        ("burn",),
    ],
)
def test_what_makes_no_sense_asks_nobody(run, local, double: Double, words):
    done = run("alerts", *words)
    assert (done.code, done.out, double.asked) == (2, "", [])


@pytest.mark.parametrize("rule", [*LEVELS, *EVENTS], ids=lambda rule: rule.rule)
def test_what_alerts_advise_are_commands_that_there_are(rule):
    """Understood as the client would; none is run."""
    names = {"app": "shop", "process": "web", "container": "c", "mount": "/", "actor": "apps", "domain": "a.test"}
    for words in re.findall(r"`nextdeploy ([^`]+)`", said(rule.advice, names)):
        verb, *arguments = words.split()
        assert verb in VERBS, words
        command = import_module(f"ndactors.cli.{verb}").command
        if arguments:
            command.make_context(verb, arguments)

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core import alerts
from ndactors.core.alert_rules import EVENTS, LEVELS, shown
from ndactors.core.alert_watch import KINDS, said
from ndactors.core.alerts import REMIND_SECONDS, AlertBook, Bad, Over, Saved, Silence
from ndactors.core.model import Monitoring

ALL = ("crash", "high_cpu", "high_disk")


def bad(rule="host.cpu", kind="high_cpu", severity="warning", again=False, value=95.0, **subject):
    return Bad(
        rule=rule, kind=kind, subject=subject, since=90.0, severity=severity, value=value, summary=f"{rule} is bad",
        advice="do", again=again,
    )  # fmt: skip


def over(rule="host.cpu", **subject):
    return Over(key=bad(rule, **subject).key)


@pytest.fixture
def book():
    ids = itertools.count(1)
    return AlertBook(lambda: f"a{next(ids)}")


def told(book, now=200.0, kinds=ALL):
    firing, ended = book.take(kinds, now)
    return [alert.id for alert in firing], [alert.id for alert in ended]


def test_what_is_wrong_is_one_alert_until_it_is_over(book):
    first = book.bad(bad(), 100.0)
    assert (first.id, first.state, first.since, first.fired_at) == ("a1", "firing", 90.0, 100.0)
    assert book.bad(bad(value=99.0), 110.0) is None
    assert book.alerts["a1"].value == 99.0
    assert told(book) == (["a1"], [])
    ended = book.over(over(), 300.0)
    assert (ended.state, ended.resolved_at) == ("resolved", 300.0)
    assert told(book) == ([], ["a1"])
    assert book.over(over(), 310.0) is None
    assert book.bad(bad(), 400.0).id == "a2"


def test_another_subject_is_another_alert(book):
    book.bad(bad("disk.used", "high_disk", mount="/"), 100.0)
    book.bad(bad("disk.used", "high_disk", mount="/data"), 100.0)
    assert told(book) == (["a1", "a2"], [])
    book.over(over("disk.used", mount="/"), 110.0)
    assert told(book) == ([], ["a1"])


def test_what_became_critical_is_told_again_also_to_who_looks_after_it(book):
    book.bad(bad(), 100.0)
    told(book)
    assert book.bad(bad(severity="critical"), 110.0).severity == "critical"
    assert told(book) == (["a1"], [])
    assert book.bad(bad(severity="warning"), 120.0) is None
    assert book.alerts["a1"].severity == "critical"
    book.bad(bad(app="b"), 130.0)
    told(book)
    book.acknowledge("a2", "ana", 140.0)
    book.bad(bad(severity="critical", app="b"), 150.0)
    assert told(book) == (["a2"], [])


def test_what_happens_is_counted(book):
    for again in (False, True, True):
        book.bad(bad("crash", "crash", again=again, app="shop"), 100.0)
    assert book.alerts["a1"].count == 3


def test_what_came_and_went_before_anybody_was_told_is_not_told(book):
    book.bad(bad(), 100.0)
    book.over(over(), 101.0)
    assert told(book) == ([], [])


def test_kinds_that_nobody_wants_are_in_the_book_only(book):
    book.bad(bad(), 100.0)
    assert told(book, kinds=("crash",)) == ([], [])
    book.over(over(), 110.0)
    assert told(book) == ([], [])
    assert len(book.alerts) == 1


def test_who_acknowledged_it_is_not_reminded(book):
    book.bad(bad(), 100.0)
    book.bad(bad(app="b"), 100.0)
    told(book, 100.0)
    book.acknowledge("a1", "ana", 110.0)
    assert book.acknowledge("a1", "bob", 120.0).acknowledged_by == "ana"
    assert told(book, 100.0 + REMIND_SECONDS - 1) == ([], [])
    assert told(book, 100.0 + REMIND_SECONDS) == (["a2"], [])
    assert told(book, 101.0 + REMIND_SECONDS) == ([], [])
    book.over(over(), 1e6)
    assert told(book) == ([], ["a1"])
    assert book.acknowledge("a1", "ana", 2e6) is None
    with pytest.raises(KeyError):
        book.acknowledge("a9", "ana", 2e6)


def silence(begins=0.0, ends=1000.0, **more):
    return Silence(id="s1", begins=begins, ends=ends, **more)


def test_a_silence_holds_back_and_tells_when_it_ends(book):
    assert book.silence(silence(), 100.0)
    book.bad(bad(), 100.0)
    book.tick(100.0)
    assert book.alerts["a1"].silenced
    assert told(book) == ([], [])
    book.tick(1000.0)
    assert not book.alerts["a1"].silenced
    assert told(book, 1000.0) == (["a1"], [])


def test_what_was_over_before_the_silence_was_is_never_told(book):
    book.silence(silence(), 100.0)
    book.bad(bad(), 100.0)
    book.tick(100.0)
    told(book)
    book.over(over(), 500.0)
    book.tick(1000.0)
    assert told(book, 1000.0) == ([], [])


def test_an_end_is_told_in_a_silence_too_as_the_begin_was(book):
    book.bad(bad(), 100.0)
    told(book)
    book.silence(silence(), 150.0)
    book.over(over(), 200.0)
    assert told(book) == ([], ["a1"])


def test_what_became_critical_in_a_silence_is_told_when_it_ends(book):
    book.bad(bad(), 100.0)
    told(book, 105.0)
    book.silence(silence(begins=110.0), 110.0)
    book.bad(bad(severity="critical"), 120.0)
    for now in (130.0, 999.0):
        book.tick(now)
        assert told(book, now) == ([], [])
    book = AlertBook(lambda: "new", book.saved())
    assert told(book, 1000.0) == (["a1"], [])
    assert told(book, 1001.0) == ([], [])


def test_a_reminder_that_falls_due_in_a_silence_is_told_when_it_ends(book):
    book.bad(bad(), 100.0)
    told(book, 100.0)
    book.silence(silence(begins=110.0, ends=REMIND_SECONDS + 500.0), 110.0)
    assert told(book, REMIND_SECONDS + 200.0) == ([], [])
    assert told(book, REMIND_SECONDS + 500.0) == (["a1"], [])
    assert told(book, REMIND_SECONDS + 501.0) == ([], [])


def test_a_silence_that_has_begun_holds_though_the_clock_goes_back(book):
    book.silence(silence(begins=5000.0, ends=9000.0), 5000.0)
    book.silence(silence(begins=6000.0, ends=9000.0, kind="crash"), 5000.0)
    book.bad(bad(), 1000.0)
    book.bad(bad("crash", "crash"), 1000.0)
    assert told(book, 1010.0) == ([], [])
    book.end_silence("s1", 1010.0)
    assert told(book, 1010.0) == (["a1", "a2"], [])


def test_a_later_silence_that_has_begun_holds_though_the_clock_goes_back(book):
    book.silence(silence(begins=6000.0, ends=9000.0), 5000.0)
    book.bad(bad(), 5000.0)
    book.tick(6000.0)
    assert told(book, 1010.0) == ([], [])


def test_an_alert_knows_at_once_that_it_is_silenced(book):
    book.silence(silence(app="shop"), 100.0)
    assert book.bad(bad(app="shop"), 100.0).silenced and not book.bad(bad(app="blog"), 100.0).silenced


def test_a_kind_that_is_not_wanted_any_more_still_ends_and_one_that_is_now_is_told(book):
    book.bad(bad(), 100.0)
    book.bad(bad("crash", "crash"), 100.0)
    assert told(book, 110.0, kinds=("high_cpu",)) == (["a1"], [])
    assert [alert.id for alert in book.news(("crash",), 120.0)] == ["a2"]
    book.over(over(), 130.0)
    assert told(book, 140.0, kinds=("crash",)) == (["a2"], ["a1"])


def test_when_it_happened_last_is_known(book):
    book.bad(bad("crash", "crash"), 100.0)
    book.bad(bad("crash", "crash", again=True), 200.0)
    book.bad(bad("crash", "crash"), 300.0)
    assert (book.alerts["a1"].fired_at, book.alerts["a1"].last_at) == (100.0, 200.0)


def test_a_full_book_has_room_for_what_is_critical(book, monkeypatch):
    monkeypatch.setattr(alerts, "MOST_OPEN", 3)
    monkeypatch.setattr(alerts, "FOR_CRITICAL", 2)
    fired = [book.bad(bad(app=str(number)), 100.0) for number in range(4)]
    assert [alert is not None for alert in fired] == [True, True, True, False]
    fired = [book.bad(bad(severity="critical", app=f"c{number}"), 100.0) for number in range(3)]
    assert [alert is not None for alert in fired] == [True, True, False]


def test_what_is_said_can_be_written_and_is_bounded(book):
    from msgspec import json
    from msgspec.structs import replace

    dirty = replace(bad(), summary="a\x1b[31m\ud800b\nc" + "x" * 10_000, advice="\x00" * 2000)
    alert = book.bad(dirty, 100.0)
    assert alert.summary.startswith("a[31mb cx") and len(alert.summary) == 500 and alert.summary.isprintable()
    book.bad(dirty, 110.0)
    assert json.decode(json.encode(book.saved()), type=Saved) == book.saved()


@pytest.mark.parametrize(
    ("more", "silenced"),
    [
        ({}, True),
        ({"kind": "high_cpu"}, True),
        ({"kind": "crash"}, False),
        ({"app": "shop"}, True),
        ({"app": "blog"}, False),
    ],
)
def test_a_silence_may_be_about_a_kind_or_an_app(book, more, silenced):
    book.silence(silence(**more), 100.0)
    book.bad(bad(app="shop"), 100.0)
    assert told(book) == ([] if silenced else ["a1"], [])


def test_silences_can_be_ended_and_are_bounded(book, monkeypatch):
    monkeypatch.setattr(alerts, "MOST_SILENCES", 2)
    assert book.silence(silence(), 0.0) and book.silence(silence(), 0.0)
    assert not book.silence(silence(), 0.0)
    assert book.silence(silence(), 1000.0)  # the others are over
    assert book.end_silence("s1", 100.0) and book.end_silence("s1", 100.0) is None


def test_the_silences_of_one_app_leave_room_for_others(book, monkeypatch):
    monkeypatch.setattr(alerts, "MOST_OF_AN_APP", 2)
    assert [book.silence(silence(app="shop"), 0.0) for _ in range(3)] == [True, True, False]
    assert book.silence(silence(app="blog"), 0.0) and book.silence(silence(), 0.0)


def test_the_book_goes_on_after_a_restart(book):
    book.bad(bad(app="told"), 100.0)
    told(book)
    book.bad(bad(app="untold"), 100.0)
    book.silence(silence(kind="crash"), 100.0)
    saved = book.saved()
    again = AlertBook(lambda: "new", saved)
    assert again.saved() == saved
    assert again.bad(bad(app="told"), 110.0) is None
    assert told(again) == (["a2"], [])
    again.over(over(app="told"), 120.0)
    assert told(again) == ([], ["a1"])


def test_what_is_over_is_forgotten_in_the_end(book, monkeypatch):
    monkeypatch.setattr(alerts, "KEPT", 3)
    for number in range(10):
        book.bad(bad(app=str(number)), 100.0 + number)
        book.over(over(app=str(number)), 100.5 + number)
        told(book)
    assert len(book.alerts) <= 4 and "a10" in book.alerts
    book.bad(bad(), 1e9)
    book.over(over(), 1e9)
    told(book, 1e9)
    assert len(book.alerts) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["bad", "critical", "over", "ack", "silence", "tick", "take", "restart"]), st.integers(0, 3)
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_fires_twice_and_no_end_is_told_without_a_begin(steps):
    ids = itertools.count(1)
    book, now, heard = AlertBook(lambda: f"a{next(ids)}"), 100.0, set()
    for what, number in steps:
        now += 10.0
        subject = {"app": str(number)}
        match what:
            case "bad" | "critical":
                book.bad(bad(severity="critical" if what == "critical" else "warning", **subject), now)
            case "over":
                book.over(over(**subject), now)
            case "ack" if book.alerts:
                book.acknowledge(sorted(book.alerts)[0], "ana", now)
            case "silence":
                book.silence(Silence(id="s", begins=now, ends=now + 25.0, app=str(number)), now)
            case "tick":
                book.tick(now)
            case "restart":
                book = AlertBook(lambda: f"a{next(ids)}", book.saved())
            case "take":
                firing, ended = book.take(ALL, now)
                heard |= {alert.id for alert in firing}
                for alert in ended:
                    assert alert.id in heard
                    heard.discard(alert.id)
                assert all(alert.state != "resolved" for alert in firing)
        open_keys = [f"{a.rule}{a.subject}" for a in book.alerts.values() if a.state != "resolved"]
        assert len(open_keys) == len(set(open_keys)) == len(book.open)
    assert Saved() == AlertBook(lambda: "x").saved()


# -- the tables ------------------------------------------------------------------------------------


def test_every_rule_has_its_own_name_and_says_what_to_do():
    names = [rule.rule for rule in (*LEVELS, *EVENTS)]
    assert len(names) == len(set(names))
    for rule in (*LEVELS, *EVENTS):
        assert (rule.words and rule.advice.endswith(".")) or rule.advice


def test_every_rule_has_room_between_bad_and_good_on_the_right_side():
    for rule in LEVELS:
        threshold = rule.threshold(Monitoring())
        assert rule.margin >= 0
        if rule.critical is not None:
            assert (rule.critical < threshold) == rule.below


def test_what_rules_say_names_parts_that_their_subjects_have():
    for rule in EVENTS:
        names = dict.fromkeys((*rule.by, "reason"), "x")
        assert "?" not in said(rule.words, names) and "?" not in said(rule.advice.replace("?", ""), names)


def test_the_kinds_of_rules_can_be_asked_for_in_the_configuration():
    from ndactors.core.schema import KINDS as CONFIGURABLE

    assert set(CONFIGURABLE) >= KINDS - {"certificate", "job", "backup", "self", "port"}


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (93.4, "%", "93 %"), (5.25, "%", "5.2 %"), (0.5, "h", "30 min"), (3.25, "h", "3.2 h"), (0.312, "s", "0.31 s"),
        (12.0, "", "12"), (1234.5, "MB", "1,234 MB"),
    ],
)  # fmt: skip
def test_figures_as_people_read_them(value, unit, words):
    assert shown(value, unit) == words


def test_every_rule_is_described():
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    for rule in (*LEVELS, *EVENTS):
        row = next(
            (line for line in text.splitlines() if f"`{rule.rule}`" in line and f"| `{rule.kind}` |" in line), ""
        )
        assert row, rule.rule

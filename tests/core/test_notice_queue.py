"""What waits for a channel: order, tries, the hour's messages, digests, dead letters."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.alerts import AlertView
from ndactors.core.notice_queue import (
    DELAYS,
    HOUR,
    HOURLY,
    MAX_DEAD,
    MAX_WAITING,
    ChannelRecord,
    added,
    answered,
    began,
    held,
    next_step,
    record_name,
)
from ndactors.core.notices import fitted
from ndactors.core.notifications import Notification
from ndactors.core.webhooks import LONGEST_WAIT, HookAnswer

NOW = 1_000_000.0
GOOD = HookAnswer(good=True, words="answered 200")
LATER = HookAnswer(good=False, words="answered 500", again=True)
NEVER = HookAnswer(good=False, words="answered 404")


def note(number, *, severity="warning", state="firing", alerts=None, at=NOW) -> Notification:
    views = tuple(
        AlertView(id=name, kind="error", rule="r", severity=severity, summary=f"trouble {name}")
        for name in (alerts or [f"a{number}"])
    )
    return Notification(id=f"n{number}", at=at, state=state, title=f"trouble {number}", alerts=views)


def put(record, *notes, now=NOW):
    for each in notes:
        record, dropped = added(record, each, now)
        assert dropped == ()
    return record


def take(record, now, answer=GOOD):
    """One try of what is due; the message, or None."""
    message = next_step(record, now).message
    if message is None:
        return record, None
    record, message = began(record, message)
    return answered(record, message, answer, now)[0], message.notification


def drain(record, now):
    sent = []
    while True:
        record, told = take(record, now)
        if told is None:
            return record, sent
        sent.append(told)


EMPTY = ChannelRecord(name="c")


def test_messages_go_in_order_one_at_a_time():
    record = put(EMPTY, note(1), note(2), note(3))
    record, sent = drain(record, NOW)
    assert [each.id for each in sent] == ["n1", "n2", "n3"]
    assert (record.delivered, record.waiting, next_step(record, NOW)) == (3, (), (None, None))


def test_the_same_message_twice_is_one_also_after_it_went():
    record = put(EMPTY, note(1), note(1))
    assert len(record.waiting) == 1
    record, _ = drain(record, NOW)
    assert put(record, note(1)).waiting == ()
    assert len(put(record, note(1, at=NOW + 5), note(1, state="resolved")).waiting) == 2


def test_it_is_tried_again_with_longer_and_longer_waits_and_then_given_up():
    record, now, waits = put(EMPTY, note(1), note(2)), NOW, []
    for _ in DELAYS:
        record, told = take(record, now, LATER)
        assert told.id == "n1"
        step = next_step(record, now)
        assert step.message is None, "the second does not pass the first"
        waits.append(step.at - now)
        now = step.at
    assert tuple(waits) == DELAYS
    record, _ = take(record, now, LATER)
    assert [(letter.id, letter.tries, letter.words) for letter in record.dead] == [
        ("n1", len(DELAYS) + 1, "answered 500")
    ]
    assert (record.failed, next_step(record, now).message.notification.id) == (1, "n2")


def test_what_will_not_get_better_is_not_tried_again():
    record, _ = take(put(EMPTY, note(1)), NOW, NEVER)
    assert (record.waiting, record.dead[0].tries, record.last_words) == ((), 1, "answered 404")


@pytest.mark.parametrize(("asked", "waited"), [(1.0, 5.0), (120.0, 120.0), (1e6, LONGEST_WAIT)])
def test_a_receiver_may_ask_for_a_longer_wait(asked, waited):
    record, _ = take(put(EMPTY, note(1)), NOW, HookAnswer(good=False, words="", again=True, wait=asked))
    assert next_step(record, NOW).at == NOW + waited


def test_a_wait_of_a_clock_that_was_wrong_is_none():
    record, _ = take(put(EMPTY, note(1)), NOW, LATER)
    assert next_step(record, NOW - 1e6).message is not None


def test_beyond_the_hours_messages_there_is_one_digest():
    record, sent = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    assert len(sent) == HOURLY
    record = put(record, *(note(100 + n) for n in range(17)), now=NOW + 60)
    assert next_step(record, NOW + 60) == (None, NOW + HOUR) and held(record) == 17
    record, sent = drain(record, NOW + HOUR)
    assert len(sent) == 1
    assert sent[0].title.startswith("17 more alerts: trouble a100; trouble a101")
    assert len(sent[0].alerts) == 17 and sent[0].state == "firing"
    assert held(record) == 0


def test_what_is_critical_and_what_is_over_goes_whatever_went_before():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50), note(51, severity="critical"), note(52, state="resolved", alerts=["a3"]))
    record, sent = drain(record, NOW)
    assert [each.id for each in sent] == ["n51", "n52"]
    assert len(record.sent) == HOURLY, "they do not count"
    record, sent = drain(record, NOW + HOUR)
    assert [each.id for each in sent] == ["n50"]


def test_what_is_over_is_not_in_the_digest_any_more():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50), note(51), note(52, state="resolved", alerts=["a50"]))
    record, sent = drain(record, NOW)
    assert sent == [], "nobody was told that it began"
    record, sent = drain(record, NOW + HOUR)
    assert [[alert.id for alert in each.alerts] for each in sent] == [["a51"]]
    assert sent[0].title == "1 more alert: trouble a51"


def test_an_end_is_told_without_those_that_nobody_was_told_of():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50), note(52, state="resolved", alerts=["a50", "a3", "a4"]))
    record, sent = drain(record, NOW)
    assert [(each.title, [alert.id for alert in each.alerts]) for each in sent] == [
        ("trouble a3, and 1 more", ["a3", "a4"])
    ]


def test_the_end_of_what_people_were_to_be_reminded_of_is_told():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50, alerts=["a3"]), note(52, state="resolved", alerts=["a3"]))
    record, sent = drain(record, NOW)
    assert [each.id for each in sent] == ["n52"] and record.waiting == ()
    assert "a3" not in record.told and "a4" in record.told


def test_an_alert_that_comes_and_goes_all_the_time_is_told_with_its_ends():
    record, told, now = EMPTY, [], NOW
    for number in range(180):
        for state in ("firing", "resolved"):
            now += 10.0
            record = put(record, note(number, state=state, at=now), now=now)
            record, sent = drain(record, now)
            told += [(each.state, alert.id) for each in sent for alert in each.alerts]
    begun = {id for state, id in told if state == "firing"}
    assert len(begun) >= HOURLY and {id for state, id in told if state == "resolved"} <= begun
    assert record.waiting == ()


def test_a_digest_counts_each_alert_once_and_none_that_is_over():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    names = [f"b{number}" for number in range(40)]
    record = put(record, *(note(100 + n, alerts=[name]) for n, name in enumerate(names)))
    record = put(record, *(note(200 + n, alerts=["b0"]) for n in range(3)))
    assert held(record) == 40 and record.waiting[0].notification.title.startswith("40 more alerts: ")
    record = put(record, note(300, state="resolved", alerts=names[:30]))
    assert held(record) == 10 and record.waiting[0].notification.title.startswith("10 more alerts: ")
    record = put(record, note(301, state="resolved", alerts=names[30:]))
    assert record.waiting == ()


def test_a_message_of_many_counts_those_that_it_does_not_list():
    many = fitted(note(400, alerts=[f"c{number}" for number in range(50)]))
    assert (len(many.alerts), many.more, len(many.unlisted)) == (20, 30, 30)
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, many, note(401, alerts=["c49"]))
    assert held(record) == 50
    over = fitted(note(402, state="resolved", alerts=[f"c{number}" for number in range(45)]))
    record = put(record, over)
    assert held(record) == 5
    record, sent = drain(record, NOW)
    assert sent == []


def test_a_digest_of_nothing_is_none():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50), note(52, state="resolved", alerts=["a50"]))
    record, _ = drain(record, NOW)
    assert record.waiting == ()


def test_a_digest_that_may_have_arrived_stays_as_it_is():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50))
    later = NOW + HOUR
    message = next_step(record, later).message
    record, message = began(record, message)
    record = put(record, note(51), note(52, state="resolved", alerts=["a50"]), now=later)
    assert record.waiting[0].notification == message.notification
    record, _ = answered(record, message, GOOD, later)
    record, sent = drain(record, later)
    assert [each.id for each in sent] == ["n51", "n52"], "nothing was lost with it"


def test_a_digest_lists_the_newest_and_counts_all():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, *(note(100 + n) for n in range(500)))
    assert len(record.waiting) == 1 and held(record) == 500
    digest = record.waiting[0].notification
    assert (len(digest.alerts), digest.more, digest.alerts[-1].id) == (20, 480, "a599")
    assert len(digest.title) <= 200


def test_a_digest_that_waits_holds_up_nothing_that_need_not_wait_and_wakes_up_in_time():
    record, _ = drain(put(EMPTY, *(note(n) for n in range(HOURLY))), NOW)
    record = put(record, note(50), note(51, severity="critical"))
    record, _ = take(record, NOW + HOUR - 2, LATER)
    assert next_step(record, NOW + HOUR - 2) == (None, NOW + HOUR), "the hour opens before the next try"


def test_an_outage_does_not_end_in_a_flood():
    record = EMPTY
    for hour in range(5):
        record = put(record, *(note(hour * 100 + n) for n in range(40)), now=NOW + hour * HOUR)
    record, sent = drain(record, NOW + 5 * HOUR)
    assert len(sent) == HOURLY
    record, sent = drain(record, NOW + 6 * HOUR)
    assert [len(each.alerts) + each.more for each in sent] == [200 - HOURLY]


def test_the_oldest_goes_when_too_many_wait_but_not_what_is_on_its_way():
    record = put(EMPTY, *(note(n, severity="critical") for n in range(MAX_WAITING)))
    record, flying = began(record, next_step(record, NOW).message)
    record, dropped = added(record, note(999, severity="critical"), NOW)
    assert [(letter.id, letter.tries) for letter in dropped] == [("n1", 0)]
    assert (len(record.waiting), record.failed, record.dead[-1].words) == (
        MAX_WAITING,
        1,
        "more than 100 messages wait",
    )
    assert flying in record.waiting


def test_dead_letters_are_bounded():
    record = EMPTY
    for number in range(MAX_DEAD + 20):
        record, _ = take(put(record, note(number, severity="critical")), NOW, NEVER)
    assert len(record.dead) == MAX_DEAD and record.dead[-1].id == f"n{MAX_DEAD + 19}" and record.failed == MAX_DEAD + 20


def test_a_records_name_tells_nothing():
    name = record_name("webhook https://a.test/S3CRET")
    assert name.startswith("notify/") and "S3CRET" not in name and name != record_name("webhook https://a.test/OTHER")


steps = st.lists(
    st.tuples(
        st.sampled_from(["warning", "critical", "resolved"]),
        st.integers(0, 40),
        st.sampled_from([0.0, 1.0, 30.0, 600.0, 3600.0]),
        st.sampled_from([GOOD, GOOD, GOOD, LATER, NEVER]),
    ),
    max_size=150,
)


@given(steps)
def test_whatever_comes_nobody_hears_too_much_and_nothing_vanishes(script):
    """Every alert is told, listed as a dead letter, counted, or over before it was told."""
    record, now, delivered, fired, over = EMPTY, NOW, [], {}, set()
    for number, (what, name, pause, answer) in enumerate(script):
        state = "resolved" if what == "resolved" else "firing"
        severity = "critical" if what == "critical" else "warning"
        told = note(number, severity=severity, state=state, alerts=[f"a{name}"], at=now)
        fired[f"n{number}"] = told
        if state == "resolved":
            over.add(f"a{name}")
        record, _ = added(record, told, now)
        record = msgspec.json.decode(msgspec.json.encode(record), type=ChannelRecord)
        now += pause
        before = len(record.dead), record.delivered
        record, message = take(record, now, answer)
        if message is not None and record.delivered > before[1]:
            delivered.append((now, message))
        assert len(record.waiting) <= MAX_WAITING
    for _ in range(500):
        step = next_step(record, now)
        if step.message is None and step.at is None:
            break
        now = max(now, step.at or now)
        count = record.delivered
        record, message = take(record, now)
        if record.delivered > count:
            delivered.append((now, message))
    assert record.waiting == ()
    plain = [
        at for at, each in delivered if each.state == "firing" and each.alerts and each.alerts[0].severity == "warning"
    ]
    for at in plain:
        assert sum(at - HOUR < other <= at for other in plain) <= HOURLY
    heard = {alert.id for _, each in delivered for alert in each.alerts}
    dead = {alert.id for letter in record.dead for alert in fired[letter.id].alerts}
    missing = {alert.id for each in fired.values() for alert in each.alerts} - heard - dead - over
    listed = sum(each.more for _, each in delivered)
    assert not missing or listed or record.failed, missing

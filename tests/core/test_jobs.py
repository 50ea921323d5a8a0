"""What is due by now, and what is remembered of a job."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.jobs import (
    CATCH_UP_SECONDS,
    KEEP_ENDED,
    Ending,
    Identity,
    JobRecord,
    ScheduleRecord,
    container_name,
    due_of,
    ended,
    identity_of,
    labels_of,
    look,
    schedule_key,
    scheduled,
    with_ended,
    words,
)
from ndactors.core.model import Process


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


def row(schedule: str = "0 3 * * *", handled: str = "2026-11-24T03:00", **fields) -> ScheduleRecord:
    return ScheduleRecord(schedule=schedule, timezone="UTC", handled=at(handled), **fields)


def test_nothing_is_due_before_its_time():
    due = look(row(), at("2026-11-25T02:59:59"))
    assert (due.run, due.missed, due.next) == (None, None, at("2026-11-25T03:00"))


def test_it_is_due_at_its_time_and_then_no_more():
    due = look(row(), at("2026-11-25T03:00"))
    assert (due.run, due.missed, due.next) == (at("2026-11-25T03:00"), None, at("2026-11-26T03:00"))
    again = look(row(handled="2026-11-25T03:00"), at("2026-11-25T03:00:05"))
    assert again.run is None


def test_one_run_is_made_up_within_the_hour():
    assert look(row(), at("2026-11-25T03:59")).run == at("2026-11-25T03:00")
    late = look(row(), at("2026-11-25T04:01"))
    assert (late.run, late.missed, late.next) == (None, at("2026-11-25T03:00"), at("2026-11-26T03:00"))
    # and it is told once
    assert look(row(handled="2026-11-25T03:01"), at("2026-11-25T04:02")).missed is None


def test_of_many_missed_runs_the_last_is_made():
    due = look(row("* * * * *", "2026-11-25T02:00"), at("2026-11-25T03:00:30"))
    assert (due.run, due.next) == (at("2026-11-25T03:00"), at("2026-11-25T03:01"))
    assert due.missed == at("2026-11-25T02:01")
    assert due.handled == due.run


def test_a_clock_that_was_set_back_a_little_repeats_nothing():
    due = look(row(handled="2026-11-25T03:00"), at("2026-11-25T02:30"))
    assert (due.run, due.next) == (None, at("2026-11-26T03:00"))


def test_a_clock_that_was_put_right_does_not_wait_for_the_wrong_time():
    due = look(row(handled="2036-01-01T00:00"), at("2026-11-25T02:30"))
    assert (due.run, due.next) == (None, at("2026-11-25T03:00"))
    assert due.handled == at("2026-11-25T02:30")


@given(
    st.sampled_from(["* * * * *", "*/15 * * * *", "0 3 * * *", "30 2 * * 0", "@monthly"]),
    st.floats(0, 4e9),
    st.floats(-1e6, 1e6),
)
def test_looking_again_finds_nothing_more(schedule, now, since):
    first = look(ScheduleRecord(schedule=schedule, timezone="Europe/Berlin", handled=now - since), now)
    assert first.next is not None
    assert first.next > now
    if first.run is not None:
        assert now - CATCH_UP_SECONDS < first.run <= now
    second = look(ScheduleRecord(schedule=schedule, timezone="Europe/Berlin", handled=first.handled), now)
    assert (second.run, second.missed) == (None, None)
    assert second.next == first.next


def test_a_new_or_changed_schedule_is_due_from_now_on():
    nightly = Process(name="nightly", schedule="0 3 * * *")
    record = scheduled(JobRecord(), {"nightly": nightly}, 1000.0)
    assert record.schedules["nightly"].handled == 1000.0
    assert scheduled(record, {"nightly": nightly}, 5000.0) is record
    changed = Process(name="nightly", schedule="0 3 * * *", timezone="Asia/Tokyo")
    assert scheduled(record, {"nightly": changed}, 5000.0).schedules["nightly"].handled == 5000.0
    assert scheduled(record, {}, 5000.0).schedules == {}


def test_labels_carry_who_a_job_is():
    one = Identity(key="run-7", kind="run", process="web", revision=3, operation="op7", timeout=90.5)
    assert identity_of(labels_of(one)) == one
    assert identity_of({}) == Identity(key="", kind="run", process="", revision=0)
    assert identity_of({"nextdeploy.timeout": "soon", "nextdeploy.revision": "²"}).timeout is None


def test_names_are_the_same_for_the_same_job_only():
    due = at("2026-11-25T03:00")
    nightly = Identity(key=schedule_key("nightly", due), kind="schedule", process="nightly", revision=7)
    assert due_of(nightly) == due
    assert container_name("shop", nightly) == f"nd-shop-nightly-7-s{int(due) // 60}"
    one = Identity(key="release", kind="release", process="migrate", revision=7, operation="a")
    other = Identity(key="release", kind="release", process="migrate", revision=7, operation="b")
    assert container_name("shop", one) != container_name("shop", other)
    assert container_name("shop", one).startswith("nd-shop-migrate-7-d")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"exit_code": 0}, (0, "")),
        ({"exit_code": 3}, (3, "exited 3")),
        ({"exit_code": 137, "oom": True}, (137, "exited 137 (out of memory)")),
        ({"exit_code": None}, (None, "ended (exit code unknown)")),
        ({"exit_code": 0, "stopped": "cancelled"}, (143, "cancelled")),
        ({"exit_code": 137, "seconds": 3601.0, "timeout": 3600.0}, (137, "took longer than 1 h")),
        ({"exit_code": 0, "seconds": 3601.0, "timeout": 3600.0}, (0, "")),
    ],
)
def test_how_it_ended(given_, expected):
    how = ended(**{"oom": False, "seconds": 1.0, "at": 5.0, "timeout": None, "stopped": "", **given_})
    assert (how.exit_code, how.reason) == expected


def test_only_so_many_ends_are_remembered():
    record = JobRecord()
    for number in range(KEEP_ENDED + 5):
        record = with_ended(record, str(number), Ending(exit_code=0, reason=""))
    assert list(record.ended) == [str(number) for number in range(5, KEEP_ENDED + 5)]


def test_durations_in_words():
    assert [words(s) for s in (3600, 5400, 90, 0.5, 120)] == ["1 h", "90 min", "90 s", "0.5 s", "2 min"]

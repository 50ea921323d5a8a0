from __future__ import annotations

from ndactors.core.model import App, Process
from ndactors.core.revisions import AppRecord, back, observed, proven, removed, restarts_of, taken


def app(image: str = "shop:1") -> App:
    return App(name="shop", image=image, processes={"web": Process(name="web")})


def first() -> AppRecord:
    return taken(None, app(), 1, {"web": "a"}, None)


def second(record: AppRecord, canary: float | None = None) -> AppRecord:
    return taken(record, app("shop:2"), 2, {"web": "b"}, canary)


def test_a_new_version_remembers_the_one_that_serves():
    record = second(proven(first()))
    assert (record.revision, record.proven, record.previous.revision, record.previous.configs) == (
        2,
        False,
        1,
        {"web": "a"},
    )


def test_one_that_never_served_is_nothing_to_go_back_to():
    assert second(first()).previous is None
    third = taken(second(proven(first())), app("shop:3"), 3, {"web": "c"}, None)
    assert third.previous.revision == 1


def test_told_again_it_stays_what_it_is_but_for_its_share():
    record = second(proven(first()), canary=5.0)
    again = second(record, canary=25.0)
    assert (again.canary, again.previous.revision, again.proven) == (25.0, 1, False)
    assert second(again, canary=25.0) == again


def test_proven_has_no_way_back():
    record = proven(second(proven(first()), canary=50.0))
    assert (record.proven, record.previous, record.canary) == (True, None, None)
    assert proven(record) is record


def test_back_is_the_version_before_and_why():
    record = back(second(proven(first())), "exited 1")
    assert (record.revision, record.app.image, record.refused, record.proven) == (1, "shop:1", {2: "exited 1"}, True)
    stays = back(first(), "exited 1")
    assert (stays.revision, stays.refused) == (1, {1: "exited 1"})


def test_refusals_are_forgotten_one_by_one():
    record = proven(first())
    for number in range(2, 40):
        record = back(taken(record, app(), number, {"web": str(number)}, None), "no")
    assert len(record.refused) == 10
    assert list(record.refused)[-1] == 39


def test_counters_survive_restarts_and_removals_and_never_fall():
    record = first()
    record = observed(record, "web-1-1", {"exit": 2}, None)
    assert observed(record, "web-1-1", {"exit": 2}, None) is record
    record = observed(record, "web-1-2", {"oom": 1}, "exited 1; restart: no")
    assert restarts_of(record, "web", ["web-1-1", "web-1-2"]) == {"exit": 2, "oom": 1}
    assert second(proven(record)).restarts == record.restarts
    record = removed(record, "web-1-1", "web")
    assert restarts_of(record, "web", list(record.restarts)) == {"exit": 2, "oom": 1}
    assert record.gave_up == {"web-1-2": "exited 1; restart: no"}
    assert removed(record, "web-1-2", "web").gave_up == {}

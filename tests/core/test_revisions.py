from __future__ import annotations

from ndactors.core.model import App, Process
from ndactors.core.revisions import AppRecord, back, observed, removed, restarts_of, wanted


def app(image: str = "shop:1") -> App:
    return App(name="shop", image=image, processes={"web": Process(name="web")})


def test_the_first_version_is_revision_one_or_what_was_found():
    assert wanted(None, app(), "f1").revision == 1
    assert wanted(None, app(), "f1", highest_seen=7).revision == 7


def test_a_change_is_a_new_revision_that_remembers_the_one_before():
    first = wanted(None, app(), "f1")
    second = wanted(first, app("shop:2"), "f2")
    assert (second.revision, second.previous.fingerprint, second.app.image) == (2, "f1", "shop:2")


def test_what_needs_no_new_container_keeps_the_revision():
    first = wanted(None, app(), "f1")
    again = wanted(first, App(name="shop", image="shop:1", domains=("a.example",), processes=app().processes), "f1")
    assert (again.revision, again.app.domains) == (1, ("a.example",))


def test_a_refused_version_is_not_tried_again_until_it_changes():
    first = wanted(None, app(), "f1")
    reverted = back(wanted(first, app("shop:2"), "f2"))
    assert (reverted.fingerprint, reverted.refused, reverted.app.image) == ("f1", "f2", "shop:1")
    assert wanted(reverted, app("shop:2"), "f2") is reverted
    third = wanted(reverted, app("shop:3"), "f3", highest_seen=2)
    assert third.revision == 3


def test_counters_survive_restarts_and_removals_and_never_fall():
    record = AppRecord(app=app(), fingerprint="f1")
    record = observed(record, "web-1-1", {"exit": 2}, None)
    assert observed(record, "web-1-1", {"exit": 2}, None) is record
    record = observed(record, "web-1-2", {"oom": 1}, "exited 1; restart: no")
    assert restarts_of(record, "web", ["web-1-1", "web-1-2"]) == {"exit": 2, "oom": 1}
    record = removed(record, "web-1-1", "web")
    assert restarts_of(record, "web", list(record.restarts)) == {"exit": 2, "oom": 1}
    assert record.gave_up == {"web-1-2": "exited 1; restart: no"}
    assert removed(record, "web-1-2", "web").gave_up == {}

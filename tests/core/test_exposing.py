from __future__ import annotations

from ndactors.core.exposing import HOLD_SECONDS, Candidate, Exposure, expose


def candidate(key: str, **kwargs) -> Candidate:
    return Candidate(**{"key": key, "reachable": True, "healthy": True, "served": True, "expected": True, **kwargs})


def test_healthy_ones_get_the_traffic():
    assert expose([candidate("b"), candidate("a"), candidate("c", healthy=False)]).keys == ("a", "b")


def test_if_none_is_healthy_those_that_served_before_are_tried():
    sick = [candidate("a", healthy=False), candidate("b", healthy=False, served=False)]
    assert expose(sick).keys == ("a",)


def test_one_that_never_answered_gets_nothing_and_requests_wait_for_it():
    assert expose([candidate("a", healthy=False, served=False)]) == Exposure((), HOLD_SECONDS)


def test_nothing_is_waited_for_when_nothing_is_expected():
    assert expose([candidate("a", healthy=False, served=False, expected=False)]) == Exposure((), 0.0)
    assert expose([]) == Exposure((), 0.0)


def test_one_that_leaves_or_has_no_address_gets_nothing():
    assert expose([candidate("a", leaving=True), candidate("b", reachable=False), candidate("c")]).keys == ("c",)

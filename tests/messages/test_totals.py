"""Counters over edges that followed one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndactors.messages.edge import EdgeReport, Histogram, ServiceTotals
from ndactors.messages.totals import EdgeTotals, all_told, carried

APPS = ("shop", "blog")


def totals(requests: int, app: str = "shop", **more) -> ServiceTotals:
    histogram = Histogram(counts=(requests, 0), total=requests / 10)
    return ServiceTotals(
        app=app, process="web", requests={"GET 200": requests}, durations={"2xx": histogram}, bytes_in=requests, **more
    )


def report(requests: int, line: str = "a", pid: int = 1, **more) -> EdgeReport:
    return EdgeReport(epoch=1, master_pid=pid, line=line, services={"shop": totals(requests)}, **more)


def told(known: EdgeTotals | None, newest: EdgeReport, apps=APPS) -> tuple[EdgeTotals, int]:
    known = carried(known, newest, apps)
    found = all_told(known, newest).services.get("shop")
    return known, found.requests["GET 200"] if found is not None else 0


def test_an_edge_that_begins_goes_on_from_the_one_before():
    known, shown = told(None, report(10, dropped=1))
    assert shown == 10
    known, shown = told(known, report(12, dropped=1))
    assert shown == 12
    known, shown = told(known, report(3, line="b", pid=2, dropped=2))
    assert shown == 15
    everything = all_told(known, report(3, line="b", pid=2))
    assert everything.dropped == 3
    service = everything.services["shop"]
    assert service.durations["2xx"] == Histogram(counts=(15, 0), total=1.2 + 0.3)
    assert service.bytes_in == 15


def test_a_successor_that_took_over_counts_on():
    known, _ = told(None, report(10))
    known, shown = told(known, report(11, pid=2))
    assert (shown, known.ended) == (11, {})


def test_an_edge_of_an_earlier_version_goes_on_if_it_has_not_less():
    known, _ = told(None, report(10, line=""))
    known, shown = told(known, report(12, line="", pid=2))
    assert shown == 12
    known, shown = told(known, report(1, line="", pid=3))
    assert shown == 13
    # its successor is of this version, and no successor of its counters
    known, shown = told(known, report(1, line="c", pid=4))
    assert shown == 14


def test_requests_in_flight_end_with_their_edge():
    busy = EdgeReport(epoch=1, master_pid=1, line="a", services={"shop": totals(1, in_flight={"c": 5}, held=2)})
    known, _ = told(None, busy)
    idle = EdgeReport(epoch=1, master_pid=2, line="b", services={"shop": totals(0)})
    shown = all_told(carried(known, idle, APPS), idle).services["shop"]
    assert (shown.in_flight, shown.held) == ({}, 0)


def test_an_app_that_is_gone_begins_anew():
    known, _ = told(None, report(10))
    nothing = EdgeReport(epoch=1, master_pid=2, line="b")
    known, shown = told(known, nothing)
    assert shown == 10, "the edge knows nothing of it yet"
    known, shown = told(known, nothing, apps=("blog",))
    assert shown == 0
    assert told(known, report(2, line="b", pid=2))[1] == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["work", "kill edge", "kill daemon", "hand over"])), max_size=40
    )
)
def test_what_was_told_never_falls(steps):
    """What is told was saved; a daemon that is killed begins with what was saved last."""
    saved: EdgeTotals | None = None
    known, line, pid, count, before, everything = saved, 0, 1, 0, 0, 0
    for number, what in steps:
        if what == "kill edge":
            line, pid, count = line + 1, pid + 1, 0
        elif what == "kill daemon":
            known = saved
        elif what == "hand over":
            pid += 1
        count += number
        everything += number
        known, shown = told(known, report(count, line=str(line), pid=pid))
        saved = known
        assert shown >= before
        assert shown == everything
        before = shown

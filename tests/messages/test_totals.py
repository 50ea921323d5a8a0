"""Counters over edges that followed one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
    found = all_told(known, newest, apps).services.get("shop")
    return known, found.requests["GET 200"] if found is not None else 0


def test_an_edge_that_begins_goes_on_from_the_one_before():
    known, shown = told(None, report(10, dropped=1))
    assert shown == 10
    known, shown = told(known, report(12, dropped=1))
    assert shown == 12
    known, shown = told(known, report(3, line="b", pid=2, dropped=2))
    assert shown == 15
    everything = all_told(known, report(3, line="b", pid=2), APPS)
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
    shown = all_told(carried(known, idle, APPS), idle, APPS).services["shop"]
    assert (shown.in_flight, shown.held) == ({}, 0)


def test_an_app_that_is_gone_begins_anew():
    known, _ = told(None, report(10))
    nothing = EdgeReport(epoch=1, master_pid=2, line="b")
    known, shown = told(known, nothing)
    assert shown == 10, "the edge knows nothing of it yet"
    known, shown = told(known, nothing, apps=("blog",))
    assert shown == 0
    assert told(known, report(2, line="b", pid=2))[1] == 2


def test_an_app_that_comes_back_while_the_edge_still_counts_it_goes_on_where_it_was():
    """Workers that ended were buried with what they counted, those that live forgot it."""
    known, _ = told(None, report(1_000_000))
    known, shown = told(known, report(500_000, line="b"))
    assert shown == 1_500_000
    known, shown = told(known, report(500_000, line="b"), apps=())
    assert shown == 0, "it is not told while there is no such app"
    known, shown = told(known, report(200_000, line="b"), apps=())
    known, shown = told(known, report(200_001, line="b"))
    assert shown == 1_500_001


def test_a_service_that_workers_forget_for_a_while_does_not_fall():
    known, _ = told(None, report(10))
    nothing = EdgeReport(epoch=1, master_pid=1, line="a")
    known, shown = told(known, nothing)
    assert shown == 10
    known, shown = told(known, report(3))
    assert shown == 13
    assert all_told(known, report(3), APPS).services["shop"].durations["2xx"].counts == (13, 0)


def test_records_dropped_do_not_fall():
    known, _ = told(None, report(1, dropped=5))
    known, _ = told(known, report(1, dropped=2))
    assert all_told(known, report(1), APPS).dropped == 5


def test_histograms_of_another_version_begin_anew():
    known, _ = told(None, report(10))
    wider = replace(totals(1), durations={"2xx": Histogram(counts=(1, 0, 0), total=0.1)})
    for line in ("a", "b"):
        newest = EdgeReport(epoch=1, master_pid=2, line=line, services={"shop": wider})
        found = all_told(carried(known, newest, APPS), newest, APPS).services["shop"]
        assert found.durations["2xx"] == Histogram(counts=(1, 0, 0), total=0.1)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["work", "remove", "add", "forget", "kill worker", "kill edge"])),
        max_size=60,
    )
)
def test_an_app_that_comes_and_goes_never_falls_nor_jumps(steps):
    """``live`` is what a worker counted and forgets with the app, ``buried`` stays with the edge. While there is an app, what
    it is told rises by what was counted, or begins anew."""
    known, line, live, buried, apps, before, real = None, 0, 0, 0, {"shop"}, 0, 0
    for more, what in steps:
        if what == "remove":
            apps = set()
        elif what == "add":
            apps = {"shop"}
        elif what == "forget" and not apps:
            live = 0
        elif what == "kill worker":
            live, buried = 0, buried + live
        elif what == "kill edge":
            line, live, buried = line + 1, 0, 0
        if apps:
            live += more
            real += more
        there = live + buried > 0 or bool(apps)
        newest = EdgeReport(
            epoch=1, master_pid=1, line=str(line), services={"shop": totals(live + buried)} if there else {}
        )
        known, shown = told(known, newest, apps)
        if apps:
            increase = shown - before if shown >= before else shown
            assert increase <= real
            real -= increase
            before = shown


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

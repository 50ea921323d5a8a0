"""Counters over log processes that followed one another."""

from __future__ import annotations

from ndactors.messages.log_totals import LogTotals, carried_lines, told_lines
from ndactors.messages.logs import LineCounts, LogsReport

SHOP = {"shop"}


def report(pid: int, lines: int | None, dropped: int = 0) -> LogsReport:
    rows = (LineCounts(app="shop", process="web", levels=(0, lines, 0, 0, 0)),) if lines is not None else ()
    return LogsReport(pid=pid, started_at=float(pid), counts=rows, dropped={"shop": dropped} if dropped else {})


def told(known: LogTotals, newest: LogsReport, apps=SHOP) -> tuple[LogTotals, int | None]:
    known = carried_lines(known, newest, apps)
    rows = told_lines(known, newest, apps).counts
    return known, rows[0].levels[1] if rows else None


def test_a_log_process_that_begins_goes_on_from_the_one_before():
    known, shown = told(LogTotals(), report(1, 1000))
    assert shown == 1000
    assert told(known, report(2, 400))[1] == 1400


def test_an_app_that_is_gone_is_not_told_and_goes_on_when_it_comes_back():
    known, _ = told(LogTotals(), report(1, 1000, dropped=3))
    known, shown = told(known, report(2, 400, dropped=1), ())
    assert shown is None
    assert told_lines(known, report(2, 400, dropped=1), ()).dropped == {}
    known, shown = told(known, report(2, 401, dropped=1))
    assert shown == 1401
    assert told_lines(known, report(2, 401, dropped=1), SHOP).dropped == {"shop": 4}


def test_an_app_that_is_gone_begins_anew_once_the_log_process_knows_nothing_of_it():
    known, _ = told(LogTotals(), report(1, 1000))
    known, _ = told(known, report(2, None), ())
    assert told(known, report(2, 5))[1] == 5

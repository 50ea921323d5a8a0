"""Adding up what log processes counted that followed one another."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from .base import Value
from .logs import LineCounts, LogsReport
from .totals import added_counts


class LogTotals(Value, frozen=True, kw_only=True):
    """Counters of all log processes that ever were: ``ended`` of those before, ``last`` of the newest as it told last. Of a
    report only the counters are kept."""

    ended: LogsReport | None = None
    last: LogsReport | None = None


def carried_lines(known: LogTotals, report: LogsReport, apps: Collection[str]) -> LogTotals:
    """With the newest report. What log processes before counted stays for ``apps``. An app that is gone begins anew, once the
    log process knows nothing of it, too: half of a count would look like a counter that began anew at that height."""
    ended, last = known.ended, known.last
    if last is not None and (last.pid, last.started_at) != (report.pid, report.started_at):
        ended = added_lines(ended, last)
    if ended is not None:
        ended = of_apps(ended, {*apps, *(row.app for row in report.counts), *report.dropped})
    return LogTotals(ended=ended, last=_counters(report))


def told_lines(totals: LogTotals, report: LogsReport, apps: Collection[str]) -> LogsReport:
    """The report with counters over all log processes, of the ``apps`` that there are."""
    return of_apps(added_lines(totals.ended, report), apps)


def of_apps(report: LogsReport, apps: Collection[str]) -> LogsReport:
    return replace(
        report,
        counts=tuple(row for row in report.counts if row.app in apps),
        dropped={app: lines for app, lines in report.dropped.items() if app in apps},
    )


def _counters(report: LogsReport) -> LogsReport:
    return LogsReport(
        pid=report.pid,
        started_at=report.started_at,
        counts=report.counts,
        dropped=report.dropped,
        gaps=report.gaps,
        gap_bytes=report.gap_bytes,
        stored_lines=report.stored_lines,
        cpu_seconds=report.cpu_seconds,
    )


def added_lines(before: LogsReport | None, report: LogsReport) -> LogsReport:
    """Counters of both; everything else is the newer one's."""
    if before is None:
        return report
    counts = {(row.app, row.process): row.levels for row in before.counts}
    for row in report.counts:
        old = counts.get((row.app, row.process), (0, 0, 0, 0, 0))
        counts[row.app, row.process] = tuple(a + b for a, b in zip(old, row.levels, strict=True))  # type: ignore[assignment]
    return replace(
        report,
        counts=tuple(
            LineCounts(app=app, process=process, levels=own) for (app, process), own in sorted(counts.items())
        ),
        dropped=added_counts(before.dropped, report.dropped),
        gaps=before.gaps + report.gaps,
        gap_bytes=before.gap_bytes + report.gap_bytes,
        stored_lines=before.stored_lines + report.stored_lines,
        cpu_seconds=before.cpu_seconds + report.cpu_seconds,
    )

"""What the log process counts."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, deque
from collections.abc import Iterable

from .. import __version__
from ..core.loglevels import CRITICAL, ERROR
from ..core.logrecords import Columns, Gap, LogSource, format_ns
from ..messages.logs import LineCounts, LogsReport, Loss
from .intake import Intake
from .segments import Segments

MAX_NOTES = 10
FEW_LINES = 100
"""So many, and nothing else, are no news."""


class Figures:
    def __init__(self) -> None:
        self._started = time.time()
        self._levels: dict[tuple[str, str], list[int]] = {}
        self._dropped: Counter[str] = Counter()
        self._gaps = self._gap_bytes = self._lines = 0
        self._oldest = 0
        self._losses: dict[str, Loss] = {}
        """By app, that were not told yet."""
        self.notes: deque[str] = deque(maxlen=MAX_NOTES)
        self._errors = 0
        self._told: tuple[int, int, int, tuple[str, ...]] = (0, 0, 0, ())
        """Lines, errors, lost lines and notes, as they were told last."""

    def begin(self, segments: Segments) -> None:
        self._oldest = segments.oldest()

    def expired(self, segments: Segments) -> None:
        self._oldest = segments.oldest()

    def stored(self, source: LogSource, columns: Columns, gap: Gap | None) -> None:
        if gap is not None:
            self._gaps += 1
            self._gap_bytes += gap.bytes
            before = self._losses.get(source.app, Loss(app=source.app, gaps=0, bytes=0, reason=""))
            self._losses[source.app] = Loss(
                app=source.app, gaps=before.gaps + 1, bytes=before.bytes + gap.bytes, reason=gap.reason
            )
            return
        counts = self._levels.setdefault((source.app, source.process), [0, 0, 0, 0, 0])
        for level in range(5):
            counts[level] += columns.levels.count(level)
        self._errors += columns.levels.count(ERROR) + columns.levels.count(CRITICAL)
        self._lines += columns.text.count("\n")

    def lost(self, source: LogSource, gap: Gap) -> None:
        self._dropped[source.app] += gap.lines or 0

    def told(self) -> None:
        """The last report is on its way."""
        self._losses.clear()
        self._told = self._lines, self._errors, self._dropped.total(), tuple(self.notes)

    @property
    def has_news(self) -> bool:
        """What should be told soon."""
        lines, errors, dropped, notes = self._told
        told = (errors, dropped, notes) == (self._errors, self._dropped.total(), tuple(self.notes))
        return bool(self._losses) or self._lines - lines > FEW_LINES or not told

    def report(self, segments: Segments, intakes: Iterable[Intake], subscribers: int) -> LogsReport:
        behind = held = sources = 0
        for intake in intakes:
            sources += 1
            own, deleted = intake.behind()
            behind, held = behind + own, held + deleted
        self._oldest = self._oldest or segments.oldest()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return LogsReport(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started,
            counts=tuple(
                LineCounts(app=app, process=process, levels=(own[0], own[1], own[2], own[3], own[4]))
                for (app, process), own in sorted(self._levels.items())
            ),
            dropped=dict(self._dropped),
            gaps=self._gaps,
            gap_bytes=self._gap_bytes,
            losses=tuple(self._losses.values()),
            sources=sources,
            behind=behind,
            held=held,
            stored_bytes=segments.stored_bytes,
            stored_lines=self._lines,
            oldest=format_ns(self._oldest) if self._oldest else "",
            subscribers=subscribers,
            cpu_seconds=used.ru_utime + used.ru_stime,
            notes=tuple(self.notes),
        )

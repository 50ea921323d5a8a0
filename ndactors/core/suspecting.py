"""When a container that accepts but does not answer is taken for hung: a request waits too long, two probes stay without
an answer. Suspicion only steers new work away; it ends with the first byte the container sends."""

from __future__ import annotations

import math
from collections.abc import Collection

TRUSTED, ASKED, ASKED_AGAIN, SUSPECT = range(4)
STANDINGS = ("trusted", "asked", "asked again", "suspect")
LATE, SILENT, ANSWERED = "late", "silent", "answered"
TRANSITIONS: dict[tuple[int, str], int] = {
    (TRUSTED, LATE): ASKED,
    (ASKED, SILENT): ASKED_AGAIN,
    (ASKED_AGAIN, SILENT): SUSPECT,
    (SUSPECT, SILENT): SUSPECT,
    (ASKED, ANSWERED): TRUSTED,
    (ASKED_AGAIN, ANSWERED): TRUSTED,
    (SUSPECT, ANSWERED): TRUSTED,
}
"""late: its oldest request waits beyond ``patience``; silent: a probe had no answer in ``PROBE_SECONDS``; answered: any
byte came, to a probe or to a request."""

PROBE_SECONDS = 0.3
SHORTEST_PATIENCE = 0.25
PATIENCE_FACTOR = 4.0
SLOW_SECONDS = SHORTEST_PATIENCE / PATIENCE_FACTOR
"""First bytes that come sooner cannot make the patience longer than its minimum: they need not be remembered."""
LONGEST_EXCUSE = 5.0


def patience(answers: int, slow: Collection[float]) -> float:
    """Seconds that a request may wait for its first byte: 4 times the 99th percentile, at least 250 ms. ``slow`` are
    those waits, among ``answers`` of late, that were longer than ``SLOW_SECONDS``."""
    rank = math.ceil(answers * 0.01)
    if len(slow) < max(rank, 1):
        return SHORTEST_PATIENCE
    return max(SHORTEST_PATIENCE, PATIENCE_FACTOR * sorted(slow, reverse=True)[max(rank, 1) - 1])


def excuse(patience_seconds: float, times: int) -> float:
    """For how long a slow request is not asked about again after ``times`` probes in a row were answered."""
    return min(LONGEST_EXCUSE, patience_seconds * 2.0**times)

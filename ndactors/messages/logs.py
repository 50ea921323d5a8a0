"""What the daemon and the log process tell one another. The log process lives longer than the daemon, so these names are
a protocol: fields may be added with a default; nothing is renamed. Hello, Refused and Stop are the edge's."""

from __future__ import annotations

from msgspec import field

from ..core.logquery import LogFilter
from ..core.logrecords import LogRecord, LogSource
from ..core.model import Bucket, Forward
from .base import Message, Value

PROTOCOL = 1
CHUNK_BYTES = 64 * 1024
"""About so much travels at once to a live subscriber."""


MAX_LIMIT = 10_000
"""Records in a page."""


class FollowLogs(Message, frozen=True, kw_only=True):
    """Keep the output of these containers too. ``complete``: there are no others."""

    sources: tuple[LogSource, ...]
    complete: bool = False


class KeepLogs(Message, frozen=True, kw_only=True):
    """How long, how much, and where else to."""

    days: float
    bytes: int
    archive: Bucket | None = None
    forward: tuple[Forward, ...] = ()


class FlushLogs(Message, frozen=True, kw_only=True):
    """Everything that these containers have written so far is to be read now; answered by ``LogsFlushed`` with ``id``."""

    id: int
    containers: tuple[str, ...]


class LogsFlushed(Message, frozen=True, kw_only=True):
    id: int


# -- containers whose files cannot be read ---------------------------------------------------------


class WantLines(Message, frozen=True, kw_only=True):
    """From the log process: what did ``container`` write from ``since`` (RFC 3339; empty: from its start) on?"""

    container: str
    since: str = ""


class AskedLines(Message, frozen=True, kw_only=True):
    """The engine's answer: (time, stream, a piece of a line, the last of each with its line end), oldest first. What is
    stored already is left out by who gets it."""

    container: str
    rows: tuple[tuple[str, str, str], ...]


# -- queries ---------------------------------------------------------------------------------------


class GetLogs(Message, frozen=True, kw_only=True):
    """A page of records, the oldest first. Without ``oldest_first`` it has the newest that match, and ``next`` leads to
    older ones; with it the oldest from ``filter.since`` on, and ``next`` leads to newer ones. ``asker``: who takes turns with
    others. Answers ``LogPage``."""

    filter: LogFilter = LogFilter()
    limit: int = 100
    cursor: str | None = None
    oldest_first: bool = False
    asker: str = ""


class LogPage(Value, frozen=True, kw_only=True):
    """``next`` None: there are no more. A page may have fewer records than asked for and still a ``next``: the time for
    one page was over before all was searched. ``damaged`` blocks could not be read."""

    items: tuple[LogRecord, ...] = ()
    next: str | None = None
    damaged: int = 0


class QueryLogs(Message, frozen=True, kw_only=True):
    """A query on its way to the log process, and on to its reader. ``upto``: so much of the store counts (the segment that
    is written, and its length); None: all. ``patience``: seconds that it may wait for its turn."""

    id: int
    query: GetLogs
    upto: tuple[int, int] | None = None
    patience: float = 15.0


class LogsFound(Message, frozen=True, kw_only=True):
    """Its answer; ``refused``: what is wrong with the query; ``failed``: why there is no answer."""

    id: int
    page: LogPage = LogPage()
    refused: str = ""
    failed: str = ""


# -- live ------------------------------------------------------------------------------------------


class SubscribeLogs(Message, frozen=True, kw_only=True):
    """Send what comes from now on and matches, and before that the last ``tail`` records that did, with nothing missing
    and nothing twice in between. At most ``window`` chunks are on their way unacknowledged. ``batch``: records travel in
    columns, else one by one."""

    id: int
    filter: LogFilter
    batch: bool = False
    tail: int = 0
    window: int = 16


class UnsubscribeLogs(Message, frozen=True, kw_only=True):
    id: int


class ChunkTaken(Message, frozen=True, kw_only=True):
    """The subscriber has taken one chunk."""

    id: int


class LogChunk(Message, frozen=True, kw_only=True):
    """``count`` records, as JSON texts of WebSocket messages, one a line. ``missed`` records before them are lost to this
    subscriber, because it was too slow."""

    id: int
    count: int
    body: bytes
    missed: int = 0


class SubscriptionRefused(Message, frozen=True, kw_only=True):
    id: int
    reason: str


class LiveColumns(Value, frozen=True, kw_only=True):
    """Of a batch: some records of one container. ``levels`` and ``streams`` have a digit for each: a place in
    debug, info, warning, error, critical, and 0 for stdout, 1 for stderr. A gap has one record."""

    app: str
    process: str
    container: str
    replica: int
    times: list[str]
    levels: str
    streams: str
    messages: list[str]
    gap: bool = False


# -- figures ---------------------------------------------------------------------------------------


class LineCounts(Value, frozen=True, kw_only=True):
    """Records stored, by level: debug, info, warning, error, critical."""

    app: str
    process: str
    levels: tuple[int, int, int, int, int]


class Loss(Value, frozen=True, kw_only=True):
    """Output of an app that was lost, and the last reason."""

    app: str
    gaps: int
    bytes: int
    reason: str


REPORT_SECONDS = 1.0
"""Between two reports of the log process,"""
QUIET_REPORT_SECONDS = 5.0
"""and between two with little to tell."""


class LogsReport(Message, frozen=True, kw_only=True):
    """How the log process is. Counters begin with it. ``dropped``: lines lost, by app, as far as they could be counted;
    ``behind``: bytes of log files that are not stored yet; ``held``: those of them in files that are deleted already."""

    pid: int
    version: str = ""
    started_at: float = 0.0
    counts: tuple[LineCounts, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    gaps: int = 0
    gap_bytes: int = 0
    losses: tuple[Loss, ...] = ()
    """Since the report before."""
    sources: int = 0
    behind: int = 0
    held: int = 0
    stored_bytes: int = 0
    stored_lines: int = 0
    oldest: str = ""
    subscribers: int = 0
    cpu_seconds: float = 0.0
    full: bool = False
    """The disk takes no more."""
    archived: int = 0
    """Segments."""
    notes: tuple[str, ...] = ()


class GetLogReport(Message, frozen=True, kw_only=True):
    """Answers the last ``LogsReport`` with counters over all log processes that ever were, or None while there was none. What
    it tells is saved, so that these never fall, whoever is killed."""

"""What actors need from outside, by need, not by technology. Each port has its adapters in ``adapters/``.

Every method may block its caller (a greenlet) and raises only errors of ``ndactors.errors``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from .core.containers import ContainerSpec, ContainerStatus, EngineEvent, EngineInfo, ExecResult
from .core.images import BuildContext, BuildRequest, ImageInfo
from .core.listening import SeenSockets
from .core.logquery import LogFilter
from .core.logrecords import LogSource
from .core.model import App, Build, Healthcheck, Registry, Settings
from .core.notifications import Notification
from .core.processes import ZombieNews
from .core.webhooks import HookAnswer
from .messages.base import Value
from .messages.config import ConfigHistory, ConfigView, ConfigWritten, GetConfigHistory
from .messages.edge import RequestRecords
from .messages.logs import AskedLines, GetLogs, KeepLogs, LogChunk, LogPage, LogsReport, WantLines
from .messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName, Sampled
from .messages.operations import (
    GetOperations,
    GetRevisions,
    Operation,
    OperationPage,
    Origin,
    Revision,
    RevisionPage,
)
from .messages.projects import Bundle
from .messages.queries import Event, EventPage, GetEvents, HostView
from .messages.records import GetRequests, GetTraffic, RequestPage, TrafficSummary
from .messages.stats import ContainerUsage

T = TypeVar("T")


class ContainerEngine(Protocol):
    """Runs containers. It never restarts one by itself, and touches nothing without its daemon's label.

    Every call may raise ``EngineUnreachable``; after that nothing is known until ``containers`` answers again. A method
    that takes a container's id raises ``ContainerNotFound`` for one that does not exist *or is not ours*.
    """

    name: str

    def info(self) -> EngineInfo: ...

    def containers(self) -> list[ContainerStatus]:
        """Every container with this daemon's label, in any state."""
        ...

    def inspect(self, container: str) -> ContainerStatus: ...

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        """Create, do not start; networks and named volumes it needs are made. ``ImageNotFound`` if there is none.

        A name already taken by one of ours is a ``Conflict``; one taken by a stranger's container is
        avoided by a suffix. Whatever fails leaves nothing behind.
        """
        ...

    def start(self, container: str) -> ContainerStatus:
        """Start it, or start it again after it exited. Already running: no change."""
        ...

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        """Send ``signal``, wait up to ``grace`` seconds, then kill, also when paused. Not running: no change."""
        ...

    def kill(self, container: str, signal: str = "SIGKILL") -> None: ...

    def remove(self, container: str) -> None:
        """Remove it, killing it first if it runs. Already gone: no change. Named volumes stay."""
        ...

    def execute(self, container: str, argv: tuple[str, ...], timeout: float) -> ExecResult:
        """Run ``argv`` inside it; past ``timeout`` it is killed and the exit code is 124."""
        ...

    def output(self, container: str, lines: int) -> list[str]:
        """Its last lines of output, both streams, oldest first, without line ends."""
        ...

    def events(self, since: float | None) -> Iterator[EngineEvent]:
        """Changes of our containers from ``since`` on, as they happen, for ever.

        Raises ``EngineUnreachable`` when the engine goes away; it never just ends. An event may come twice.
        """
        ...

    def terminal(self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int) -> Terminal:
        """Start ``argv`` inside it with its streams in our hands. ``Conflict`` if it does not run, or is frozen. A
        program that is not there ends at once with 127 or 126 and says so on its output."""
        ...

    def close(self) -> None: ...


class Terminal(Protocol):
    """A process inside a container that somebody talks to. ``send`` and ``receive`` may each wait, in greenlets of their
    own; ``close`` is for when neither does any more."""

    def send(self, data: bytes) -> None:
        """To its standard input. Once it reads no more, this is dropped."""
        ...

    def end_input(self) -> None:
        """Nothing more will be sent; with a terminal this is Ctrl-D, which only a program that reads lines at that moment
        understands."""
        ...

    def receive(self) -> tuple[bytes, bool]:
        """What it printed, as it comes, and whether on its standard error (with a terminal there is one stream only);
        empty at its end. ``EngineUnreachable`` if that cannot be known any more."""
        ...

    def resize(self, rows: int, columns: int) -> None: ...

    def exit_code(self) -> int | None:
        """After the end of its output; None if it cannot be known."""
        ...

    def close(self) -> None:
        """The process ends, if it has not. Never waits for one that is frozen. Twice does no harm."""
        ...


class OutputReader(Protocol):
    """What one container prints, from its start on. It never holds up the container."""

    def read(self) -> str:
        """What is new since the last call, both streams; empty if nothing is. Bounded: of too much at once a part is left
        out, and said so."""
        ...

    def close(self) -> None: ...


class JobOutputs(Protocol):
    def open(self, container: ContainerStatus) -> OutputReader: ...


Progress = Callable[[str], None]
"""Hears lines of a build or a pull as they come."""


class ImageStore(Protocol):
    """The images of one engine. It removes only what it built itself."""

    def find(self, name: str) -> ImageInfo | None:
        """An image that is there already, by name or id."""
        ...

    def pull(self, name: str, registries: Mapping[str, Registry], progress: Progress) -> ImageInfo:
        """Fetch it. ``ImageNotFound`` if no registry has it or none can be reached; ``EngineError``."""
        ...

    def build(self, request: BuildRequest, progress: Progress) -> ImageInfo:
        """Build it, or find that the very same was built before (``ImageInfo.cached``). ``BuildFailed`` with the last
        lines of its output; ``BuildTimeout`` is one."""
        ...

    def load(self, archive: Path, request: BuildRequest, progress: Progress) -> ImageInfo:
        """Take an image that was built elsewhere, as `docker save` writes it."""
        ...

    def prune(self, project: str, app: str, keep: Iterable[str]) -> list[str]:
        """Remove the images that we built for ``app`` but those with the ids ``keep`` and those in use. Their names."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckedProject:
    """A project's file, understood. ``folder`` is where its files are laid out, empty if they are not. ``digests`` tell
    the files of each app's build context from others; ``changed_files`` are apps whose context is another now."""

    apps: dict[str, App]
    folder: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    changed_files: frozenset[str] = frozenset()
    missing_blobs: int = 0
    missing_bytes: int = 0
    warnings: tuple[str, ...] = ()


class ConfigSource(Protocol):
    """What should run: the server's own file, and the projects that clients sent. It remembers the last good of each."""

    def current(self) -> Settings: ...

    def origins(self) -> dict[str, Origin]:
        """Of the apps that came by a project: who sent them, as part of which operation."""
        ...

    def reload(self) -> tuple[Settings, tuple[str, ...]]:
        """Read the file again; the settings and the warnings. ``ConfigurationError`` leaves everything as it was."""
        ...

    def check(
        self, project: str, bundle: Bundle, *, lay_out: bool, only: tuple[str, ...] | None = None
    ) -> CheckedProject:
        """Understand a project's file, and lay its files out. ``only``: for somebody who may touch these apps, and has
        the blobs that were sent by such; None: no limit. ``ConfigurationError``, ``MissingBlobs``, ``Invalid``."""
        ...

    def judge(self, project: str, apps: Mapping[str, App], only: Collection[str] | None) -> None:
        """``Conflict`` if these cannot be the project's; ``NotFound`` if who is limited to ``only`` may not touch it."""
        ...

    def apps_of(self, project: str) -> Mapping[str, App]: ...

    def accept(self, project: str, checked: CheckedProject, origin: Origin, gone: Collection[str]) -> None:
        """From now on it is part of ``current``, also after a restart; ``gone`` are its apps that are no more."""
        ...

    def remove(self, app: str) -> None:
        """``NotFound``, or ``Conflict`` for an app of the server's own file."""
        ...

    def clean(self) -> None:
        """Uploads that nothing needs any more go. ``StateError``."""
        ...


class ConfigTexts(Protocol):
    """The texts of the server's own file: the one that is there, and every one before."""

    def observe(self) -> int | None:
        """What somebody wrote into the file by hand becomes a version; the newest version's number."""
        ...

    def view(self) -> ConfigView:
        """``NotFound`` while the file is gone."""
        ...

    def put(self, text: str, by: str, message: str | None = None, if_match: Collection[str] = ()) -> ConfigWritten:
        """Write another text and load it. ``ConfigurationError``, ``Conflict``, ``StateError``."""
        ...

    def rollback(self, to: int, by: str, message: str | None = None) -> ConfigWritten:
        """``NotFound`` for no such version."""
        ...

    def page(self, query: GetConfigHistory) -> ConfigHistory: ...


class BuildContexts(Protocol):
    """Where the files of a build come from: a folder on this machine, or a git repository."""

    def open(self, app: str, build: Build, progress: Progress) -> BuildContext:
        """``Invalid`` for a context that is not there; ``BuildFailed`` for a repository that cannot be fetched."""
        ...

    def close(self, context: BuildContext) -> None:
        """Whatever was fetched for it goes."""
        ...


class Ledger(Protocol):
    """Operations and revisions. Everything is durable when a call returns."""

    def save_operation(self, operation: Operation) -> None:
        """Insert it, or replace the one with its id."""
        ...

    def operation(self, id: str) -> Operation | None: ...

    def operations(self, query: GetOperations) -> OperationPage: ...

    def save_revision(self, revision: Revision) -> None: ...

    def revision(self, app: str, number: int) -> Revision | None: ...

    def revisions(self, query: GetRevisions) -> RevisionPage: ...

    def close(self) -> None: ...


class SecretStore(Protocol):
    """Secrets by app and environment, encrypted on disk. Values never leave it but to make a container.

    All may raise ``SecretsUnreadable``: the key is lost or another one, or somebody changed a secret on disk."""

    def names(self, app: str) -> dict[str, str]:
        """Name → when it was set (RFC 3339)."""
        ...

    def values(self, app: str) -> dict[str, str]: ...

    def marks(self, app: str) -> dict[str, str]:
        """Name → a keyed digest that changes with the value and tells nothing about it."""
        ...

    def set(self, app: str, name: str, value: str) -> None: ...

    def delete(self, app: str, name: str) -> None:
        """``NotFound`` if there is none."""
        ...

    def change(self, app: str, values: Mapping[str, str], removed: Sequence[str]) -> None:
        """Set some and delete some, all of it or nothing."""
        ...

    def rotate(self) -> int:
        """Encrypt everything with a new key. How many secrets there are."""
        ...

    def resume(self) -> int:
        """End a rotation that was interrupted, if there is one."""
        ...


class BlobStore(Protocol):
    """Files by their SHA-256 (lower-case hex). Every call runs off the event loop where that matters."""

    def path(self, digest: str) -> Path | None:
        """Where a complete one is."""
        ...

    def offset(self, digest: str) -> int:
        """How many bytes of an unfinished upload are there; 0 if none."""
        ...

    def missing(self, digests: Iterable[str]) -> list[str]: ...

    def append(self, digest: str, offset: int, size: int | None, read: Callable[[int], bytes]) -> bool:
        """Go on at ``offset`` with what ``read`` gives until it gives nothing. True when the whole of ``size`` bytes
        (None: of what ``read`` gives) is there and its digest is right. ``Conflict`` for another offset than there is,
        ``TooLarge``, ``Invalid`` when the digest is wrong (then nothing of it stays)."""
        ...

    def add(self, blobs: Sequence[tuple[str, bytes]]) -> int:
        """Several small ones as a whole. How many are in: fewer than given if the digest of the next is wrong.
        ``TooLarge``."""
        ...

    def take(self, digest: str) -> None:
        """It was used just now: not to be cleaned away for a while."""
        ...


class HookSender(Protocol):
    """Tells others of a deploy. Never raises; bounded in time and in what it reads."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HookAnswer: ...

    def run(self, argv: Sequence[str], body: bytes, variables: Mapping[str, str]) -> HookAnswer:
        """Without a shell, ``body`` on its standard input, with ``variables`` and hardly any others."""
        ...


class AlertChannel(Protocol):
    """One way to tell people of alerts."""

    key: str
    """Tells it from others, also after a restart. It may be secret."""
    name: str
    """What it is and where it leads, without secrets."""

    def send(self, notification: Notification) -> HookAnswer:
        """Never raises; bounded in time as a whole. What was sent may be sent again with the same id."""
        ...


class AlertChannelSource(Protocol):
    """The channels as the configuration has them now."""

    server: str
    """What this machine is called."""

    def current(self) -> Sequence[AlertChannel]: ...

    def own_key(self) -> str | None:
        """What webhooks are signed with (``whsec_…``); None where the configuration has it. ``StateError``."""
        ...


class StateStore(Protocol):
    """Small named records that survive everything. ``name`` is a relative path such as ``apps/shop``."""

    def load(self, name: str, kind: type[T]) -> T | None:
        """The last one saved; if that is damaged the last good one before it. None if there never was one."""
        ...

    def save(self, name: str, value: object) -> None:
        """Durable when it returns."""
        ...

    def delete(self, name: str) -> None: ...

    def names(self, folder: str) -> list[str]: ...


class EventStore(Protocol):
    """Events, newest first, numbered."""

    def append(self, events: Sequence[Event]) -> None:
        """Durable when it returns; ids are given here."""
        ...

    def page(self, query: GetEvents) -> EventPage: ...

    def close(self) -> None: ...


class RecordStore(Protocol):
    """Request records, newest first."""

    def append(self, batches: Sequence[RequestRecords]) -> None:
        """Durable when it returns. A batch whose worker and sequence are known is not stored twice."""
        ...

    def page(self, query: GetRequests) -> RequestPage: ...

    def traffic(self, query: GetTraffic) -> TrafficSummary: ...

    def close(self) -> None: ...


class LogStream(Protocol):
    """Log records as they come, for one subscriber."""

    def receive(self) -> LogChunk | None:
        """The next ones. Waits; None at the end. The one before counts as taken: a subscriber that takes nothing holds up
        nobody, and is told how many it missed."""
        ...

    def close(self) -> None: ...


class LogStreams(Protocol):
    def open(self, wanted: LogFilter, *, batch: bool, tail: int) -> LogStream:
        """``messages.logs.SubscribeLogs`` says what these mean. ``Invalid`` for a filter that cannot be, ``LogsAway``."""
        ...


class LogService(Protocol):
    """What keeps the output of containers. It goes on without us."""

    def listen(
        self,
        on_report: Callable[[LogsReport], None],
        on_wanted: Callable[[WantLines], None],
        on_change: Callable[[str], None],
    ) -> None:
        """Before ``start``: who hears how it is, what it wants to know of an engine, and that it came or went."""
        ...

    def start(self) -> None: ...

    def keep(self, keep: KeepLogs) -> None: ...

    def follow(self, sources: Sequence[LogSource], *, complete: bool) -> None:
        """All containers that are known; ``complete``: every engine has told."""
        ...

    def lines(self, lines: AskedLines) -> None: ...

    def query(self, query: GetLogs) -> LogPage:
        """Waits. ``Invalid``, ``LogsAway``."""
        ...

    def close(self) -> None:
        """Leave it running."""
        ...

    def stop(self) -> None: ...


class Listeners(Protocol):
    """Where a container's processes listen."""

    def of(self, pid: int) -> list[tuple[str, int]] | None:
        """Address and port of every listening TCP socket in the network of ``pid``; None if that cannot be seen."""
        ...


class Prober(Protocol):
    """Asks a container whether it is well. Returns None if so, else why not, in words; never raises."""

    def http(self, target: tuple[str, int], check: Healthcheck, host: str) -> str | None: ...

    def tcp(self, target: tuple[str, int], check: Healthcheck) -> str | None: ...


class Lag(Protocol):
    """How late our own event loop is."""

    def total(self) -> float:
        """Seconds of lateness added up since the start: two readings tell how much fell between them."""
        ...


class MetricsAdded(Value, frozen=True, kw_only=True):
    """``refused``: series that there was no room for, of at ``most`` so many."""

    refused: int = 0
    most: int = 0


class MetricStore(Protocol):
    """The history of metrics."""

    def append(self, batches: Sequence[Sampled]) -> MetricsAdded:
        """Add what sources told, each at its own time. All of it or, with ``StateError``, nothing. Batches of the last
        write that come again (the very objects) are left out: who told them may not know what became of them."""
        ...

    def query(self, query: GetMetrics) -> MetricHistory:
        """``NotFound`` for a name that nothing is known of, ``Invalid`` for too many points."""
        ...

    def names(self, query: GetMetricNames) -> tuple[MetricName, ...]: ...

    def close(self) -> None: ...


class HostReader(Protocol):
    """Figures about the host."""

    def read(self) -> tuple[HostView, tuple[ZombieNews, ...]]:
        """The figures, and what is to be told of zombies. Never raises."""
        ...


class UsageReader(Protocol):
    """What containers use. ``containers``: by the name of their engine. Never raises."""

    def read(self, containers: Mapping[str, Sequence[ContainerStatus]]) -> tuple[ContainerUsage, ...]:
        """Of each that runs and that can be read."""
        ...

    def measure(self, containers: Mapping[str, Sequence[ContainerStatus]], settings: Settings) -> None:
        """Look how much they take on disk, which takes long; ``read`` tells it from then on."""
        ...


class SocketOwners(Protocol):
    def look(self) -> SeenSockets | None:
        """Everything that listens on the host; None where that cannot be seen."""
        ...

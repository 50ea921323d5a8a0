"""What the daemon's actors tell one another about apps, containers and the engine. Mailbox only: some carry refs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import field

from ..core.containers import ContainerStatus, EngineEvent, EngineInfo
from ..core.model import App, Settings
from .base import Message
from .edge import RecordsStored, RequestRecords
from .operations import Change, Origin
from .queries import AppView, ContainerView

# -- the engine ------------------------------------------------------------------------------------


Role = Literal["primary", "job"]
"""Who looks after a container: the AppActor, or the JobsActor. What has no such label is the AppActor's."""


class WatchApp(Message, frozen=True, kw_only=True):
    """To an InventoryActor: tell ``watcher`` (a ref) everything about ``app``'s containers of that role, now and from now
    on."""

    app: str
    watcher: Any
    role: Role = "primary"


class UnwatchApp(Message, frozen=True, kw_only=True):
    """The end of a ``WatchApp``, if it is still this watcher's."""

    app: str
    watcher: Any
    role: Role = "primary"


class ContainersListed(Message, frozen=True, kw_only=True):
    """All containers of one app, as the engine just listed them."""

    containers: tuple[ContainerStatus, ...]


class ContainerObserved(Message, frozen=True, kw_only=True):
    """One container after something happened to it; ``status`` None: the engine knows it no more."""

    container: str
    status: ContainerStatus | None
    event: EngineEvent | None = None


class ContainersSeen(Message, frozen=True, kw_only=True):
    """To the LogActor and the StatsActor: containers of ours on ``engine``. ``complete``: there are no others. ``announced``: just created,
    perhaps in no listing yet."""

    engine: str
    containers: tuple[ContainerStatus, ...]
    complete: bool = False
    announced: bool = False


class EngineFound(Message, frozen=True, kw_only=True):
    info: EngineInfo


class EngineLost(Message, frozen=True, kw_only=True):
    reason: str


class EngineChanged(Message, frozen=True, kw_only=True):
    """From the watching task to its InventoryActor."""

    event: EngineEvent


class OrphansFound(Message, frozen=True, kw_only=True):
    """To the AppsActor: ``engine`` has containers of ours whose apps (named here) nobody watches."""

    engine: str
    apps: tuple[str, ...]


# -- apps ------------------------------------------------------------------------------------------


class ApplySettings(Message, frozen=True, kw_only=True):
    """Make it so: the whole configuration, checked."""

    settings: Settings
    origins: dict[str, Origin] = field(default_factory=dict)
    """Of apps that did not come from the server's own file."""


class ApplyApp(Message, frozen=True, kw_only=True):
    """To one app's DeployActor: what the files say; ``app`` None: stop and remove everything of it."""

    app: App | None
    origin: Origin = Origin()


class CarryOut(Message, frozen=True, kw_only=True):
    """To the AppsActor and on to the app's DeployActor: an operation that is on record."""

    operation: str
    app: str
    change: Change
    origin: Origin


class AccountFor(Message, frozen=True, kw_only=True):
    """The same way: the operation is on record as running since before a restart; say what became of it."""

    operation: str
    app: str


class CancelChange(Message, frozen=True, kw_only=True):
    """The same way: stop it, if it can still be stopped."""

    operation: str
    app: str
    by: str


class AppChanged(Message, frozen=True, kw_only=True):
    """From an AppActor to the AppsActor."""

    view: AppView
    engine: str


class AppGone(Message, frozen=True, kw_only=True):
    """Nothing of it is left on that engine."""

    app: str
    engine: str


class TellService(Message, frozen=True, kw_only=True):
    """To the AppsActor and on to every AppActor: the ProxyActor has forgotten; tell it your service again."""


# -- one app's deployment: between its DeployActor and its AppActor ---------------------------------


class RunRevision(Message, frozen=True, kw_only=True):
    """Make ``app`` run, as ``revision``, in containers with these ``configs`` (by process). ``canary``: with that share of
    the requests (percent), beside the one that serves. The same again changes nothing and is answered again."""

    app: App
    revision: int
    configs: dict[str, str]
    canary: float | None = None


class AbandonRevision(Message, frozen=True, kw_only=True):
    """Go back to the one before, if there is one and ``revision`` has not replaced it yet."""

    revision: int
    reason: str


class RemoveEverything(Message, frozen=True, kw_only=True):
    """The app is in no file any more."""


class RetryApp(Message, frozen=True, kw_only=True):
    """Try again what had been given up."""


class ShowDeploy(Message, frozen=True, kw_only=True):
    """What to show of the deployment under way, or of one that failed before there was anything to run."""

    app: App
    operation: str | None = None
    reason: str = ""
    failed: bool = False


class HighestSeen(Message, frozen=True, kw_only=True):
    """The engine was listed: no revision above this was ever made."""

    revision: int


class RevisionProgress(Message, frozen=True, kw_only=True):
    revision: int
    up: int
    wanted: int


class RevisionHolding(Message, frozen=True, kw_only=True):
    """Its canaries (container ids) get their share."""

    revision: int
    canaries: tuple[str, ...]


class RevisionServes(Message, frozen=True, kw_only=True):
    """All of it is up; older ones may still be finishing what they have."""

    revision: int


class RevisionSettled(Message, frozen=True, kw_only=True):
    """Nothing older gets requests any more. ``websockets`` were open on containers that left."""

    revision: int
    websockets: int = 0


class RevisionFailing(Message, frozen=True, kw_only=True):
    """It does not come up. It waits for ``AbandonRevision``, so that somebody can look why first."""

    revision: int
    container: ContainerView | None


class RevisionRefused(Message, frozen=True, kw_only=True):
    revision: int
    reason: str
    websockets: int = 0


# -- one container ---------------------------------------------------------------------------------


class ContainerChanged(Message, frozen=True, kw_only=True):
    """From a ContainerActor to its AppActor, after every change. ``served``: healthy once since its start;
    ``status``: the container as last seen, None while there is none."""

    key: str
    view: ContainerView
    served: bool
    status: ContainerStatus | None


class RestartWanted(Message, frozen=True, kw_only=True):
    """From a ContainerActor that is unhealthy for too long: may I?"""

    key: str


class RestartContainer(Message, frozen=True, kw_only=True):
    """Restart it now; ``reason`` goes into counters and events."""

    reason: str


class RetryContainer(Message, frozen=True, kw_only=True):
    """To one that failed or stopped: try again, with a fresh count."""


class UpdateContainer(Message, frozen=True, kw_only=True):
    """The app's settings changed in a way that needs no new container."""

    app: App


class StopContainer(Message, frozen=True, kw_only=True):
    """Stop it and remove it."""


class ContainerRemoved(Message, frozen=True, kw_only=True):
    key: str


# -- traffic ---------------------------------------------------------------------------------------


class DrainBackend(Message, frozen=True, kw_only=True):
    """To the ProxyActor: tell ``reply_to`` (a ref) ``BackendDrained`` once no worker has a request for ``backend`` in
    flight any more and none can get one, or after ``seconds``."""

    backend: str
    key: str
    seconds: float
    reply_to: Any


class BackendDrained(Message, frozen=True, kw_only=True):
    key: str
    in_time: bool
    websockets: int = 0
    """How many were open when it began."""


# -- records ---------------------------------------------------------------------------------------


class RecordEvent(Message, frozen=True, kw_only=True):
    """To the EventActor, which stamps, numbers, stores and logs it."""

    kind: str
    app: str | None = None
    process: str | None = None
    container: str | None = None
    reason: str = ""
    detail: dict[str, object] = field(default_factory=dict)


# -- configuration ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordsArrived:
    """From the edge; ``stored`` tells it that they are safe."""

    records: RequestRecords
    stored: Callable[[RecordsStored], None]


class ReloadConfig(Message, frozen=True, kw_only=True):
    """Read the file again and apply the difference."""

"""Operations: what somebody wants changed, how far it is, what came of it. And revisions: what each change made."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from ..core.model import App
from .base import Message, Value
from .edge import Histogram

OperationState = Literal["running", "succeeded", "failed", "cancelled"]
StepState = Literal["pending", "running", "succeeded", "failed", "skipped"]


class Git(Value, frozen=True, kw_only=True):
    """Where a version came from. All of it is what the client said."""

    sha: str | None = None
    ref: str | None = None
    message: str | None = None


class Origin(Value, frozen=True, kw_only=True):
    """Who wanted a change, and why. ``by`` is ``file``, ``api:<user>``, ``hook``, ``schedule`` or ``scaler``.
    ``operation`` is the id of the operation that it is part of; empty: it gets one of its own."""

    by: str = "file"
    operation: str = ""
    git: Git | None = None
    message: str | None = None
    rebuild: bool = False
    pull: bool = False


# -- changes to one app ----------------------------------------------------------------------------


class DeployApp(Message, frozen=True, kw_only=True):
    """Build or fetch what the app asks for, again, and run it. ``image`` replaces the app's. ``rebuild``: without the
    image cache; ``pull``: fetch the image also if the engine has one of that name."""

    image: str | None = None
    rebuild: bool = False
    pull: bool = False


class RollbackApp(Message, frozen=True, kw_only=True):
    """To revision ``to``, or ``steps`` back."""

    to: int | None = None
    steps: int = 1


class ScaleApp(Message, frozen=True, kw_only=True):
    process: str = "web"
    replicas: int


class RestartApp(Message, frozen=True, kw_only=True):
    """New containers of the same version, rolling."""


class StopApp(Message, frozen=True, kw_only=True):
    """No containers, until it is started or deployed."""


class StartApp(Message, frozen=True, kw_only=True): ...


class ChangeEnv(Message, frozen=True, kw_only=True):
    """Set and remove variables, for ``process`` or for all of them."""

    set: dict[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    process: str | None = None


class RefreshApp(Message, frozen=True, kw_only=True):
    """A secret changed: new containers where it is used."""


class RunCommand(Message, frozen=True, kw_only=True):
    """A one-off from the current revision, as ``process`` is set up. Seconds until it is ended."""

    command: str | tuple[str, ...]
    process: str = "web"
    timeout: float = 3600.0


Change = DeployApp | RollbackApp | ScaleApp | RestartApp | StopApp | StartApp | ChangeEnv | RefreshApp | RunCommand


class BeginOperation(Message, frozen=True, kw_only=True):
    """Answers the operation's id. ``NotFound`` for no such app, ``Conflict`` while it is being changed already."""

    app: str
    change: Change
    origin: Origin


# -- how it goes -----------------------------------------------------------------------------------


class Step(Value, frozen=True, kw_only=True):
    """``started`` is RFC 3339; ``seconds`` how long it took, or has taken so far."""

    name: str
    state: StepState = "pending"
    started: str | None = None
    seconds: float | None = None
    detail: str = ""


class Receipt(Value, frozen=True, kw_only=True):
    """What visitors noticed of a switch. ``requests`` counts those that ended before, during and after it, by
    ``windows`` (RFC 3339, from and to): the same that the request records show for these times. ``failed`` are those
    during and after that were answered with 5xx or cut off. ``seconds``: from the start of the switch to its end."""

    requests: dict[str, int]
    failed: int
    held: int
    held_max_ms: float
    p95_before_ms: float | None
    p95_after_ms: float | None
    websockets_drained: int
    seconds: float
    windows: dict[str, tuple[str, str]] = field(default_factory=dict)


class Operation(Value, frozen=True, kw_only=True):
    """``kind``: deploy rollback scale restart stop start env secrets run. ``log`` is text, its oldest part (``log_cut``
    characters) cut off when it is long. ``revisions`` by app; ``exit_code`` of a one-off."""

    id: str
    kind: str
    state: OperationState = "running"
    apps: tuple[str, ...] = ()
    project: str = ""
    by: str = ""
    message: str | None = None
    git: Git | None = None
    started: str = ""
    ended: str | None = None
    reason: str = ""
    steps: tuple[Step, ...] = ()
    log: str = ""
    log_cut: int = 0
    receipt: Receipt | None = None
    receipts: dict[str, Receipt] = field(default_factory=dict)
    """By app, for an operation on several; ``receipt`` is then their sum."""
    parts: dict[str, OperationState] = field(default_factory=dict)
    """How it ended for the apps for which it is over already."""
    revisions: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    evidence: dict[str, object] = field(default_factory=dict)
    """What a canary was judged by."""


class GetDeploys(Message, frozen=True, kw_only=True):
    """Answers ``tuple[DeployTotals, …]``: deploys and rollbacks that ended."""


DEPLOY_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Upper bounds in seconds of how long deploys take."""
DEPLOY_RESULTS: tuple[OperationState, ...] = ("succeeded", "failed", "cancelled")


class DeployTotals(Value, frozen=True, kw_only=True):
    """``results`` counts by how they ended, those with 0 included; ``durations`` are of those that succeeded, by
    ``DEPLOY_BUCKETS``."""

    app: str
    results: dict[str, int]
    durations: Histogram


class GetOperation(Message, frozen=True, kw_only=True):
    """Answers ``Operation``; ``NotFound``."""

    id: str


class GetOperations(Message, frozen=True, kw_only=True):
    """Answers ``OperationPage``, newest first, without logs. ``before`` is a cursor."""

    app: str | None = None
    state: str | None = None
    before: int | None = None
    limit: int = 100


class OperationPage(Value, frozen=True, kw_only=True):
    items: tuple[Operation, ...] = ()
    next: int | None = None


class CancelOperation(Message, frozen=True, kw_only=True):
    """Stop it and go back to what was. Answers None; ``Conflict`` if it has ended."""

    id: str


# -- revisions -------------------------------------------------------------------------------------


class Difference(Value, frozen=True, kw_only=True):
    """One key that changed; secrets are masked. None: it was, or is, not there."""

    path: str
    before: Any = None
    after: Any = None


class Revision(Value, frozen=True, kw_only=True):
    """``state``: current, former, refused (it never served), pending. ``app`` is what it runs (it stays inside the
    daemon: it may hold secrets)."""

    app: str
    number: int
    at: str
    by: str
    kind: str = "deploy"
    operation: str = ""
    message: str | None = None
    git: Git | None = None
    image: str | None = None
    image_id: str | None = None
    state: str = "former"
    reason: str = ""
    diff: tuple[Difference, ...] = ()
    spec: App | None = None


class GetRevisions(Message, frozen=True, kw_only=True):
    """Answers ``RevisionPage``, newest first, without ``spec``."""

    app: str
    before: int | None = None
    limit: int = 100


class RevisionPage(Value, frozen=True, kw_only=True):
    items: tuple[Revision, ...] = ()
    next: int | None = None


# -- a project's deploy: between the ConfigActor and the OperationsActor ------------------------------


class ReserveOperation(Message, frozen=True, kw_only=True):
    """Open an operation on several apps at once, unless one of them is being changed. Answered to ``reply_to`` (a ref)."""

    request: int
    apps: tuple[str, ...]
    project: str
    origin: Origin
    reply_to: Any


class OperationReserved(Message, frozen=True, kw_only=True):
    request: int
    operation: str
    apps: tuple[str, ...] = ()


class OperationRefused(Message, frozen=True, kw_only=True):
    request: int
    reason: str


# -- from an app's actors to the OperationsActor ---------------------------------------------------


class OperationOpened(Message, frozen=True, kw_only=True):
    """An operation that was not asked for by ``BeginOperation``: the file changed, a secret changed."""

    operation: Operation


class AskAgain(Message, frozen=True, kw_only=True):
    """Whoever carries out ``app``'s changes was started anew: what is running of them is asked of it again."""

    app: str


class StepChanged(Message, frozen=True, kw_only=True):
    """``app`` of ``operation`` is at this step now; one of the same name is replaced."""

    operation: str
    app: str
    step: Step


class OperationLogged(Message, frozen=True, kw_only=True):
    """More text for its log."""

    operation: str
    text: str


class PartEnded(Message, frozen=True, kw_only=True):
    """``app``'s part of ``operation`` is over; with the last of its apps the operation is."""

    operation: str
    app: str
    state: OperationState
    reason: str = ""
    revision: int | None = None
    receipt: Receipt | None = None
    exit_code: int | None = None
    evidence: dict[str, object] = field(default_factory=dict)

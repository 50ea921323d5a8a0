"""What is on record of an app's deployment: what the file said, what was accepted, what is under way. A daemon that dies
in any phase begins that phase again, so every phase can be begun twice. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import field
from msgspec.structs import replace

from ..core.model import App
from ..errors import Invalid
from .base import Value
from .operations import (
    Change,
    ChangeEnv,
    DeployApp,
    OperationState,
    Origin,
    Receipt,
    RefreshApp,
    RestartApp,
    ScaleApp,
    StartApp,
    StopApp,
)
from .records import Traffic

Phase = Literal["prepare", "release", "switch", "canary", "count"]


class Outcome(Value, frozen=True, kw_only=True):
    """How an operation ended for this app."""

    operation: str
    state: OperationState
    reason: str = ""
    revision: int | None = None
    receipt: Receipt | None = None
    evidence: dict[str, object] = field(default_factory=dict)


class Pending(Value, frozen=True, kw_only=True):
    """A change under way. ``base`` is what the file says with it (None: it is no change of the file). Times are Unix
    seconds; ``outcome`` is known from when the switch is over, one way or the other."""

    kind: str
    origin: Origin
    target: App
    base: App | None = None
    phase: Phase = "prepare"
    number: int = 0
    """Of the revision; 0: it has none yet."""
    configs: dict[str, str] = field(default_factory=dict)
    diff: tuple[tuple[str, object, object], ...] = ()
    rolled_back_from: int | None = None
    switch_began: float = 0.0
    switch_ended: float = 0.0
    stage: int = 0
    """Which step of the canary."""
    outcome: Outcome | None = None
    websockets: int = 0
    evidence: dict[str, object] = field(default_factory=dict)
    """What a canary was judged by last."""

    @property
    def operation(self) -> str:
        return self.origin.operation


class DeployRecord(Value, frozen=True, kw_only=True):
    """``base``: what the file said when ``live`` was accepted; None: it never was. ``live`` is what should run, changes
    made since included, as revision ``number``. ``attempted`` is what the file said of a version that was refused."""

    base: App | None = None
    live: App | None = None
    configs: dict[str, str] = field(default_factory=dict)
    """Hashes of what its containers depend on, by process."""
    number: int = 0
    highest: int = 0
    attempted: App | None = None
    taken: str = ""
    """The operation with which the file's current text came; it is taken up once, however often it is told."""
    unproven: bool = False
    """``live`` never came up; it is what should run because nothing did before it."""
    before_rollback: App | None = None
    """What ran before the first of the rollbacks since the last deploy."""
    pending: Pending | None = None
    last: Outcome | None = None

    @property
    def nothing_to_keep(self) -> bool:
        """No version ever came up: there is none to go back to."""
        return self.live is None or self.unproven


KINDS: dict[type, str] = {
    DeployApp: "deploy",
    ScaleApp: "scale",
    RestartApp: "restart",
    StopApp: "stop",
    StartApp: "start",
    ChangeEnv: "env",
    RefreshApp: "secrets",
}
"""A rollback is a kind of its own: it needs the revisions."""


def changed(live: App, change: Change) -> App:
    """``live`` with ``change``. ``Invalid`` for what cannot be."""
    match change:
        case DeployApp(image=None):
            return replace(live, image_id=None, stopped=False)
        case DeployApp(image=image):
            return replace(live, image=image, build=None, image_id=None, stopped=False)
        case ScaleApp(process=process, replicas=replicas):
            return _scaled(live, process, replicas)
        case RestartApp():
            return replace(live, nonce=live.nonce + 1)
        case StopApp():
            return replace(live, stopped=True)
        case StartApp():
            return replace(live, stopped=False)
        case ChangeEnv():
            return _with_env(live, change)
        case RefreshApp():
            return live
    raise Invalid(f"{type(change).__name__} changes nothing of an app")


def _scaled(live: App, name: str, replicas: int) -> App:
    process = live.processes.get(name)
    if process is None:
        raise Invalid(f"{live.name} has no process `{name}`; it has {', '.join(live.processes)}")
    if process.schedule is not None:
        raise Invalid(f"`{name}` runs by its schedule, not in replicas")
    if not 0 <= replicas <= 1000:
        raise Invalid("replicas must be between 0 and 1000")
    if replicas > 1 and process.volumes and not live.domains:
        raise Invalid(f"{live.name} has volumes and no domain: it keeps state and runs once")
    return replace(live, processes={**live.processes, name: replace(process, replicas=replicas)})


def _with_env(live: App, change: ChangeEnv) -> App:
    if change.process is not None and change.process not in live.processes:
        raise Invalid(f"{live.name} has no process `{change.process}`; it has {', '.join(live.processes)}")
    processes = dict(live.processes)
    for name, process in live.processes.items():
        if change.process in (None, name):
            kept = {key: value for key, value in process.env.items() if key not in change.unset}
            processes[name] = replace(process, env={**kept, **change.set})
    return replace(live, processes=processes)


def begun(record: DeployRecord, pending: Pending) -> DeployRecord:
    return replace(record, pending=pending)


def accepted(record: DeployRecord, outcome: Outcome) -> DeployRecord:
    """The change under way is what runs now."""
    pending = record.pending
    assert pending is not None
    before = record.before_rollback
    if pending.kind in ("deploy", "rollback"):
        before = (before or record.live) if pending.kind == "rollback" else None
    return replace(
        record,
        before_rollback=before,
        base=pending.base if pending.base is not None else record.base,
        live=pending.target,
        configs=pending.configs or record.configs,
        number=pending.number or record.number,
        highest=max(record.highest, pending.number),
        attempted=None,
        unproven=False,
        pending=None,
        last=outcome,
    )


def refused(record: DeployRecord, outcome: Outcome, *, stays: bool) -> DeployRecord:
    """It did not come up, or was stopped. ``stays``: there is nothing to go back to, so it is what should run."""
    pending = record.pending
    assert pending is not None
    highest = max(record.highest, pending.number)
    if stays and pending.switch_began:
        return replace(
            record,
            base=pending.base,
            live=pending.target,
            configs=pending.configs,
            number=pending.number,
            highest=highest,
            unproven=True,
            pending=None,
            last=outcome,
        )
    return replace(record, highest=highest, attempted=pending.base or record.attempted, pending=None, last=outcome)


def receipt_of(
    before: Traffic,
    during: Traffic,
    after: Traffic,
    windows: dict[str, tuple[str, str]],
    websockets: int,
    seconds: float,
) -> Receipt:
    """What visitors noticed: everything since the switch began counts, what came before is there to compare."""
    return Receipt(
        requests={"before": before.requests, "during": during.requests, "after": after.requests},
        failed=during.failed + after.failed,
        held=during.held + after.held,
        held_max_ms=max(during.held_max_ms, after.held_max_ms),
        p95_before_ms=before.p95_ms,
        p95_after_ms=after.p95_ms,
        websockets_drained=websockets,
        seconds=round(seconds, 3),
        windows=windows,
    )


def shown(app: App) -> dict[str, Any]:
    """As a tree to compare and to show: without what is not the user's to change, and without the build (whether its
    files are others, only its image tells)."""
    tree: dict[str, Any] = msgspec.to_builtins(app)
    for key in ("name", "project", "build", "nonce"):
        del tree[key]
    return tree

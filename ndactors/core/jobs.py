"""Jobs, the pure part: how their containers are named and labelled, what is remembered of them, when a schedule is due."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from . import containers as labels
from . import cron
from .containers import ContainerSpec
from .model import App, Process, Rotate
from .restarting import ending
from .specs import NO_SECRETS, Owner, Seat, Secrets, container_spec

Kind = Literal["release", "run", "schedule"]
LETTERS: dict[Kind, str] = {"release": "d", "run": "r", "schedule": "s"}

JOB, KIND = labels.LABEL + "job", labels.LABEL + "job-kind"
OPERATION, TIMEOUT = labels.LABEL + "operation", labels.LABEL + "timeout"

CATCH_UP_SECONDS = 3600.0
"""A run that was due while nobody could start it is made up for so long; of several the last. A clock that is set back by
less than this repeats nothing; by more, it counts as put right."""
KEEP_ENDED = 20
STOPPED = 143
"""The exit code of one that was told to stop and then ended as if all were well."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which job a container is, as its labels say: all that a daemon needs to go on with one that another daemon began.
    ``key`` and ``operation`` together are never used twice."""

    key: str
    kind: Kind
    process: str
    revision: int
    operation: str = ""
    timeout: float | None = None

    @property
    def id(self) -> str:
        return f"{self.operation}/{self.key}"


def schedule_key(process: str, due: float) -> str:
    return f"{process}@{int(due)}"


def due_of(identity: Identity) -> float | None:
    """When a scheduled run was due."""
    text = identity.key.rpartition("@")[2]
    return float(text) if identity.kind == "schedule" and text.isascii() and text.isdigit() else None


def container_name(app: str, identity: Identity) -> str:
    """The same for the same job, so that it is not started twice."""
    due = due_of(identity)
    mark = str(int(due) // 60) if due is not None else hashlib.sha256(identity.id.encode()).hexdigest()[:10]
    return f"nd-{app}-{identity.process}-{identity.revision}-{LETTERS[identity.kind]}{mark}"


def labels_of(identity: Identity) -> dict[str, str]:
    return {
        labels.ROLE: "job",
        labels.PROCESS: identity.process,
        labels.REVISION: str(identity.revision),
        JOB: identity.key,
        KIND: identity.kind,
        OPERATION: identity.operation,
        TIMEOUT: "" if identity.timeout is None else f"{identity.timeout:g}",
    }


def identity_of(own: Mapping[str, str]) -> Identity:
    """Read from a container's labels. What makes no sense counts as a one-off that nobody waits for."""
    kinds: dict[str, Kind] = {"release": "release", "schedule": "schedule"}
    number = own.get(labels.REVISION, "")
    try:
        timeout = float(own[TIMEOUT]) if own.get(TIMEOUT) else None
    except ValueError:
        timeout = None
    return Identity(
        key=own.get(JOB, ""),
        kind=kinds.get(own.get(KIND, ""), "run"),
        process=own.get(labels.PROCESS, ""),
        revision=int(number) if number.isascii() and number.isdigit() else 0,
        operation=own.get(OPERATION, ""),
        timeout=timeout,
    )


def job_spec(
    app: App,
    process: Process,
    name: str,
    own: Mapping[str, str],
    *,
    owner: Owner,
    engine: str,
    rotate: Rotate,
    secrets: Secrets = NO_SECRETS,
) -> ContainerSpec:
    """As ``process`` is set up, but for its port: nobody dials a job, and no name leads to it."""
    seat = Seat(process=process.name, revision=int(own[labels.REVISION]), replica=1)
    spec = container_spec(
        app, process, seat=seat, owner=owner, engine=engine, rotate=rotate, secrets=secrets, role="job"
    )
    return replace(spec, name=name, labels={**spec.labels, **own}, port=None)


# -- what came of one ------------------------------------------------------------------------------


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """``exit_code`` None: it never ran, or nobody knows. One that was told to stop never has 0. ``at`` is Unix seconds.
    ``tail``: its last lines."""

    exit_code: int | None
    reason: str
    seconds: float = 0.0
    at: float = 0.0
    tail: tuple[str, ...] = ()


def ended(
    exit_code: int | None, *, oom: bool, seconds: float, at: float, timeout: float | None, stopped: str
) -> Ending:
    """``stopped``: why it was told to stop, if it was. Nobody may remember that after a restart; one that ended badly past
    its time-out was."""
    if not stopped and timeout is not None and exit_code != 0 and seconds >= timeout:
        stopped = too_long(timeout)
    if stopped and exit_code == 0:
        exit_code = STOPPED
    reason = stopped or ("" if exit_code == 0 else ending(exit_code, oom=oom))
    return Ending(exit_code=exit_code, reason=reason, seconds=max(0.0, seconds), at=at)


def too_long(timeout: float) -> str:
    return f"took longer than {words(timeout)}"


def words(seconds: float) -> str:
    """``90 s``, ``5 min``, ``1 h``."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


# -- what is remembered ----------------------------------------------------------------------------


class ScheduleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One scheduled process. ``handled``: no run that was due at or before this is made any more. Times are Unix seconds;
    ``skipped`` counts runs that were left out because the one before still went on."""

    schedule: str
    timezone: str
    handled: float
    last_start: float | None = None
    last_end: float | None = None
    last_exit: int | None = None
    last_success: float | None = None
    last_seconds: float | None = None
    skipped: int = 0


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One app's. ``ended`` by the job's id: those whose end was told, or not yet asked for."""

    schedules: dict[str, ScheduleRecord] = msgspec.field(default_factory=dict)
    ended: dict[str, Ending] = msgspec.field(default_factory=dict)


def scheduled(record: JobRecord, processes: Mapping[str, Process], now: float) -> JobRecord:
    """The record for these processes: a new schedule, or a changed one, is due from now on. Those that are gone are
    forgotten."""
    rows = {}
    for name, process in processes.items():
        row = record.schedules.get(name)
        schedule, timezone = process.schedule or "", process.timezone
        if row is None:
            row = ScheduleRecord(schedule=schedule, timezone=timezone, handled=now)
        elif (row.schedule, row.timezone) != (schedule, timezone):
            row = replace(row, schedule=schedule, timezone=timezone, handled=now)
        rows[name] = row
    return record if rows == record.schedules else replace(record, schedules=rows)


def with_schedule(record: JobRecord, process: str, **fields: object) -> JobRecord:
    row = record.schedules.get(process)
    if row is None:
        return record  # its schedule is gone, and with it what was remembered
    return replace(record, schedules={**record.schedules, process: replace(row, **fields)})


def with_ended(record: JobRecord, id: str, how: Ending) -> JobRecord:
    others = [(key, value) for key, value in record.ended.items() if key != id]
    return replace(record, ended=dict([*others, (id, how)][-KEEP_ENDED:]))


# -- when ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Due:
    """``run``: the due time of the run to be made now. ``missed``: the first that was due and is not made up. ``next`` is
    the first one after now; ``handled`` is for the record. Unix seconds."""

    run: float | None
    missed: float | None
    next: float | None
    handled: float


def look(row: ScheduleRecord, now: float) -> Due:
    """What is due by now."""
    schedule, zone = cron.parse(row.schedule), cron.zone(row.timezone)

    def after(moment: float) -> float | None:
        found = cron.next_after(schedule, datetime.datetime.fromtimestamp(moment, zone))
        return found.timestamp() if found is not None else None

    oldest = now - CATCH_UP_SECONDS
    handled = row.handled if row.handled <= now + CATCH_UP_SECONDS else now
    upcoming, run = after(handled), None
    first = upcoming if upcoming is not None and upcoming <= now else None
    if first is not None and first <= oldest:
        upcoming = after(oldest)
    while upcoming is not None and upcoming <= now:
        run, upcoming = upcoming, after(upcoming)
    missed = first if first != run else None
    if run is not None or missed is not None:
        handled = oldest if run is None else run
    return Due(run=run, missed=missed, next=upcoming, handled=handled)

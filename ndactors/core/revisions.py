"""Which version of an app runs: durable, so that a restart of the daemon forgets neither a version nor what came of it.
Two records: the AppActor's (what runs now) and the DeployActor's (what was wanted, and by whom)."""

from __future__ import annotations

import msgspec

from .model import App


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``app`` is what should run, as revision ``revision``, in containers with these ``configs`` (hashes by process, as
    they were when it was accepted); ``previous`` is what to go back to while ``proven`` is false.
    ``canary`` is the share of requests (percent) it gets until it may have all. ``refused`` says why a revision went
    away again. ``aside`` are containers of old revisions that stay for their visitors, with the Unix time until when.
    ``restarts`` (by reason) and ``gave_up`` are by container key, ``past_restarts`` are those of containers that are
    gone, by process."""

    app: App
    configs: dict[str, str]
    revision: int = 1
    proven: bool = False
    previous: AppRecord | None = None
    canary: float | None = None
    refused: dict[int, str] = msgspec.field(default_factory=dict)
    aside: dict[str, float] = msgspec.field(default_factory=dict)
    restarts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    past_restarts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    gave_up: dict[str, str] = msgspec.field(default_factory=dict)


REFUSALS_REMEMBERED = 10


def taken(
    record: AppRecord | None, app: App, revision: int, configs: dict[str, str], canary: float | None
) -> AppRecord:
    """The record after it was told to run ``app`` as ``revision``. The version that served last stays ``previous``, also
    when the one after it is replaced before it served."""
    if record is None:
        return AppRecord(app=app, configs=configs, revision=revision, canary=canary)
    if revision == record.revision:
        return msgspec.structs.replace(record, app=app, configs=configs, canary=canary)
    served = record if record.proven else record.previous
    return msgspec.structs.replace(
        record,
        app=app,
        configs=configs,
        revision=revision,
        proven=False,
        canary=canary,
        previous=_alone(served) if served is not None else None,
    )


def _alone(record: AppRecord) -> AppRecord:
    return msgspec.structs.replace(
        record, previous=None, refused={}, aside={}, restarts={}, past_restarts={}, gave_up={}
    )


def proven(record: AppRecord) -> AppRecord:
    """It serves, and nothing of an older version does any more."""
    if record.proven and record.previous is None and record.canary is None:
        return record
    return msgspec.structs.replace(record, proven=True, previous=None, canary=None)


def back(record: AppRecord, reason: str) -> AppRecord:
    """After a refusal: the version before. Without one it stays, and the reason with it."""
    refused = {**dict(list(record.refused.items())[1 - REFUSALS_REMEMBERED :]), record.revision: reason}
    if record.previous is None:
        return msgspec.structs.replace(record, refused=refused)
    return msgspec.structs.replace(
        record.previous,
        refused=refused,
        aside=record.aside,
        restarts=record.restarts,
        past_restarts=record.past_restarts,
        gave_up=record.gave_up,
    )


def observed(record: AppRecord, key: str, restarts: dict[str, int], gave_up: str | None) -> AppRecord:
    """The record after one container told its counters. The very same record if there is nothing new to remember."""
    if record.restarts.get(key, {}) == restarts and record.gave_up.get(key) == gave_up:
        return record
    others = {k: v for k, v in record.gave_up.items() if k != key}
    return msgspec.structs.replace(
        record,
        restarts={**record.restarts, key: dict(restarts)},
        gave_up={**others, key: gave_up} if gave_up is not None else others,
    )


def removed(record: AppRecord, key: str, process: str) -> AppRecord:
    """The record after a container is gone: what it counted stays counted for its process."""
    past = dict(record.past_restarts.get(process, {}))
    for reason, count in record.restarts.get(key, {}).items():
        past[reason] = past.get(reason, 0) + count
    return msgspec.structs.replace(
        record,
        restarts={k: v for k, v in record.restarts.items() if k != key},
        gave_up={k: v for k, v in record.gave_up.items() if k != key},
        aside={k: v for k, v in record.aside.items() if k != key},
        past_restarts={**record.past_restarts, process: past} if past else record.past_restarts,
    )


def restarts_of(record: AppRecord, process: str, keys: list[str]) -> dict[str, int]:
    """All restarts of one process by reason, containers that are gone included: a counter that never falls."""
    total = dict(record.past_restarts.get(process, {}))
    for key in keys:
        for reason, count in record.restarts.get(key, {}).items():
            total[reason] = total.get(reason, 0) + count
    return total

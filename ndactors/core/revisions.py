"""Which version of an app is wanted: durable, so that a restart of the daemon neither forgets a version nor retries one
that was refused."""

from __future__ import annotations

import msgspec

from .model import App


class AppRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``app`` is what should run, as revision ``revision``; ``previous`` what to go back to. ``refused`` is the
    fingerprint of a version that did not come up. ``restarts`` (by reason) and ``gave_up`` are by container key,
    ``past_restarts`` are those of containers that are gone, by process."""

    app: App
    fingerprint: str
    revision: int = 1
    highest: int = 1
    """No number is used twice, also not after a refusal."""
    previous: AppRecord | None = None
    refused: str | None = None
    restarts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    past_restarts: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    gave_up: dict[str, str] = msgspec.field(default_factory=dict)


def wanted(record: AppRecord | None, app: App, fingerprint: str, highest_seen: int = 0) -> AppRecord:
    """The record after the configuration asked for ``app``. ``fingerprint`` covers what needs new containers; other
    changes keep the revision. ``highest_seen`` is the highest revision among the containers found."""
    if record is None:
        first = max(1, highest_seen)
        return AppRecord(app=app, fingerprint=fingerprint, revision=first, highest=first)
    if fingerprint == record.fingerprint:
        return msgspec.structs.replace(record, app=app)
    if fingerprint == record.refused:
        return record
    number = max(record.highest, highest_seen) + 1
    return AppRecord(
        app=app,
        fingerprint=fingerprint,
        revision=number,
        highest=number,
        previous=msgspec.structs.replace(record, previous=None, restarts={}, past_restarts={}, gave_up={}),
        restarts=record.restarts,
        past_restarts=record.past_restarts,
        gave_up=record.gave_up,
    )


def back(record: AppRecord) -> AppRecord:
    """After a refusal: the version before, which still runs."""
    if record.previous is None:
        return msgspec.structs.replace(record, refused=record.fingerprint)
    return msgspec.structs.replace(
        record.previous,
        highest=record.highest,
        refused=record.fingerprint,
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
        past_restarts={**record.past_restarts, process: past} if past else record.past_restarts,
    )


def restarts_of(record: AppRecord, process: str, keys: list[str]) -> dict[str, int]:
    """All restarts of one process by reason, containers that are gone included: a counter that never falls."""
    total = dict(record.past_restarts.get(process, {}))
    for key in keys:
        for reason, count in record.restarts.get(key, {}).items():
            total[reason] = total.get(reason, 0) + count
    return total

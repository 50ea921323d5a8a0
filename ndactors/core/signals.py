"""Signals: what alert rules look at, made from samples. A signal has a name, what it is about, and a value."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from msgspec import Struct

ERROR_SECONDS = 60.0
"""Errors are counted over so long."""
FEW_ERRORS = 10
"""Fewer than that within it are no share of anything."""
MOST_SERIES = 50_000
PRUNE_SECONDS = 600.0
"""Totals that nobody told of for so long are forgotten."""

Labels = tuple[tuple[str, str], ...]


class Signal(Struct, frozen=True, kw_only=True):
    """``subject``: the labels that tell one from another, sorted. ``value`` None: it is there, but how much is unknown."""

    name: str
    subject: Labels
    value: float | None


class Figure(Protocol):
    """A sample as this file needs it: the name that Prometheus has for it, its labels, its value, a histogram's counts."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def value(self) -> float: ...
    @property
    def counts(self) -> tuple[int, ...]: ...


class Increases:
    """By how much totals grew. A total that fell has begun anew, one that is new says nothing yet."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, Labels], tuple[float, Sequence[int]]] = {}
        self._asked: set[tuple[str, Labels]] = set()

    def of(self, figure: Figure, *, new: bool = False) -> tuple[float, Sequence[int]] | None:
        """Since it was last asked for. At the first time None, or all of it if it is known to be ``new``."""
        key = figure.name, labels(figure.labels)
        before = self._totals.get(key)
        self._asked.add(key)
        if before is not None or len(self._totals) < MOST_SERIES:
            self._totals[key] = figure.value, figure.counts
        if before is None:
            return (figure.value, figure.counts) if new else None
        value, counts = before
        again = figure.value < value or len(counts) != len(figure.counts)
        grown = [new - old for new, old in zip(figure.counts, counts, strict=False)]
        if again or any(each < 0 for each in grown):
            return figure.value, figure.counts
        return figure.value - value, grown

    def prune(self) -> None:
        """Forget those that were not asked for since the last time."""
        self._totals = {key: total for key, total in self._totals.items() if key in self._asked}
        self._asked.clear()


def labels(given: dict[str, str], *only: str) -> Labels:
    return tuple(sorted((k, v) for k, v in given.items() if not only or k in only))


def quantile(q: float, counts: Sequence[float], bounds: Sequence[float]) -> float | None:
    """Of a histogram, between the bounds of its bucket; the last bound for what is beyond. None if there is nothing."""
    total = sum(counts)
    if total <= 0:
        return None
    rank, before = q * total, 0.0
    for place, reached in enumerate(accumulate(counts)):
        if reached >= rank:
            if place >= len(bounds):
                return bounds[-1]
            low = bounds[place - 1] if place else 0.0
            return low + (bounds[place] - low) * (rank - before) / (reached - before)
        before = reached
    return bounds[-1]


class SignalMaker:
    """One for all sources. ``bounds``: of the buckets of durations, in seconds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._increases = Increases()
        self._asked_at: dict[str, float] = {}
        self._pruned = 0.0
        self._new = False
        self._errors: dict[str, deque[tuple[float, float, float]]] = {}
        """By app: when, how many requests, how many of them failed."""

    def signals(self, source: str, figures: Sequence[Figure], at: float, *, from_zero: bool = False) -> list[Signal]:
        """What these figures of one source mean, at ``at`` (Unix seconds). ``from_zero``: totals that it did not tell before
        began after the last time."""
        by_name: dict[str, list[Figure]] = {}
        for figure in figures:
            by_name.setdefault(figure.name, []).append(figure)
        if at - self._pruned >= PRUNE_SECONDS or at < self._pruned:
            self._pruned = at
            self._increases.prune()
        self._new = from_zero and source in self._asked_at
        seconds = at - self._asked_at.get(source, at)
        self._asked_at[source] = at
        return [
            *_levels(by_name),
            *self._requests(by_name, at, seconds),
            *self._uses(by_name, seconds),
            *self._own(by_name),
        ]

    def _requests(self, by_name: dict[str, list[Figure]], at: float, seconds: float) -> Iterator[Signal]:
        totals: dict[str, list[float]] = {}
        for figure in by_name.get("nextdeploy_requests_total", ()):
            app = figure.labels.get("app", "")
            grown = self._increases.of(figure, new=self._new)
            own = totals.setdefault(app, [0.0, 0.0])
            if grown is not None:
                own[0] += grown[0]
                own[1] += grown[0] if figure.labels.get("code", "").startswith("5") else 0.0
        for app, (requests, errors) in totals.items():
            window = self._errors.setdefault(app, deque())
            window.append((at, requests, errors))
            while window and not at - ERROR_SECONDS < window[0][0] <= at:
                window.popleft()
            failed, all_ = sum(row[2] for row in window), sum(row[1] for row in window)
            share = 100.0 * failed / all_ if failed >= FEW_ERRORS and all_ else 0.0
            subject = (("app", app),)
            yield Signal(name="app.errors", subject=subject, value=share)
            if seconds > 0:
                yield Signal(name="app.requests", subject=subject, value=requests / seconds)
        if totals:
            self._errors = {app: window for app, window in self._errors.items() if app in totals}
        p95 = self._latency(by_name)
        for app in totals.keys() | p95.keys():  # without requests there is none, but that is no reason to forget
            yield Signal(name="app.p95", subject=(("app", app),), value=p95.get(app))

    def _latency(self, by_name: dict[str, list[Figure]]) -> dict[str, float | None]:
        """By app."""
        merged: dict[str, list[float]] = {}
        for figure in by_name.get("nextdeploy_request_duration_seconds", ()):
            grown = self._increases.of(figure, new=self._new)
            if grown is not None:
                own = merged.setdefault(figure.labels.get("app", ""), [0.0] * len(figure.counts))
                for place, count in enumerate(grown[1][: len(own)]):
                    own[place] += count
        buckets = len(self._bounds) + 1
        return {
            app: quantile(0.95, counts, self._bounds) if len(counts) == buckets else None
            for app, counts in merged.items()
        }

    def _uses(self, by_name: dict[str, list[Figure]], seconds: float) -> Iterator[Signal]:
        cpu: dict[Labels, float] = {}
        for figure in by_name.get("nextdeploy_container_cpu_seconds_total", ()):
            grown = self._increases.of(figure, new=self._new)
            if grown is not None and seconds > 0:
                key = labels(figure.labels, "app", "process")
                cpu[key] = cpu.get(key, 0.0) + 100.0 * grown[0] / seconds
        memory: dict[Labels, float] = {}
        for figure in by_name.get("nextdeploy_container_memory_bytes", ()):
            key = labels(figure.labels, "app", "process")
            memory[key] = memory.get(key, 0.0) + figure.value
        for key, value in cpu.items():
            yield Signal(name="process.cpu", subject=key, value=value)
        for key, value in memory.items():
            yield Signal(name="process.memory", subject=key, value=value)

    def _own(self, by_name: dict[str, list[Figure]]) -> Iterator[Signal]:
        for name, signal in _DROPPED.items():
            for figure in by_name.get(name, ()):
                grown = self._increases.of(figure, new=self._new)
                if grown is not None:
                    yield Signal(name=signal, subject=labels(figure.labels, "app"), value=grown[0])
        for figure in by_name.get("nextdeploy_hub_lag_seconds", ()):
            grown = self._increases.of(figure, new=self._new)
            late = quantile(0.95, grown[1], self._bounds) if grown is not None else None
            if late is not None:
                yield Signal(name="daemon.lag", subject=(), value=late)


_DROPPED = {"nextdeploy_requests_dropped_total": "requests.dropped", "nextdeploy_log_dropped_total": "logs.dropped"}

_PLAIN = {
    "nextdeploy_host_cpu_percent": "host.cpu",
    "nextdeploy_certificate_expiry_timestamp_seconds": "certificate.ends",
    "nextdeploy_actor_silent_seconds": "actor.silent",
    "nextdeploy_host_zombie_processes": "host.zombies",
}
_SHARES = {
    "host.memory": ("nextdeploy_host_memory_used_bytes", "nextdeploy_host_memory_total_bytes"),
    "host.swap": ("nextdeploy_host_swap_used_bytes", "nextdeploy_host_swap_total_bytes"),
    "disk.used": ("nextdeploy_host_disk_used_bytes", "nextdeploy_host_disk_total_bytes"),
    "disk.inodes": ("nextdeploy_host_inodes_used", "nextdeploy_host_inodes"),
    "container.memory": ("nextdeploy_container_memory_bytes", "nextdeploy_container_memory_limit_bytes"),
}
"""Signals in percent: how much of what."""
_BYTES = {"disk.bytes": "nextdeploy_host_disk_used_bytes", "disk.size": "nextdeploy_host_disk_total_bytes"}


def _levels(by_name: dict[str, list[Figure]]) -> Iterator[Signal]:
    for name, signal in (*_PLAIN.items(), *((name, signal) for signal, name in _BYTES.items())):
        for figure in by_name.get(name, ()):
            yield Signal(name=signal, subject=labels(figure.labels), value=figure.value)
    for signal, (used, total) in _SHARES.items():
        sizes = {labels(figure.labels): figure.value for figure in by_name.get(total, ())}
        for figure in by_name.get(used, ()):
            size = sizes.get(labels(figure.labels), 0.0)
            if size > 0:
                yield Signal(name=signal, subject=labels(figure.labels), value=100.0 * figure.value / size)

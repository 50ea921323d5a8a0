"""From what should run and what does run to the next steps. Level-triggered: the same call, made again after every
change, leads there, also when a daemon died in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """One process type as it should be. ``in_place`` replaces old containers before new ones start (a fixed port on
    the host, or ``recreate``); otherwise new ones are up before old ones go. ``canary``: so many new ones beside all of
    the old, and no more for now. ``gate``: there is an older version to go back to, so one that fails is refused."""

    process: str
    config: str
    replicas: int
    in_place: bool = False
    canary: int | None = None
    gate: bool = False


@dataclass(frozen=True)
class Replica:
    """One container as known. ``up`` means: may take traffic, or runs if it takes none. ``leaving``: already told to
    go. ``failed``: it will not come up by itself. ``fresh``: made for the version that is to be proven."""

    key: str
    process: str
    config: str
    replica: int
    up: bool = False
    leaving: bool = False
    failed: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Create:
    process: str
    replica: int


@dataclass(frozen=True)
class Retire:
    """Take it out of the traffic, let it finish, stop and remove it."""

    key: str


Phase = Literal["settled", "moving", "refused", "holding"]


@dataclass(frozen=True)
class Plan:
    """``refused``: the new configuration did not come up; what it started goes away again, the old stays. ``holding``:
    as many canaries as there may be are up."""

    phase: Phase
    steps: tuple[Create | Retire, ...] = ()


def plan(targets: list[Target], replicas: list[Replica]) -> Plan:
    """The steps that may be taken now. ``refused`` is left for the caller to act on (it decides what to go back to)."""
    steps: list[Create | Retire] = []
    moving = refused = holding = False
    wanted = {target.process for target in targets}
    for target in targets:
        own = [r for r in replicas if r.process == target.process]
        new = sorted((r for r in own if r.config == target.config and not r.leaving), key=lambda r: r.replica)
        old = sorted((r for r in own if r.config != target.config and not r.leaving), key=lambda r: r.replica)
        duplicates = _without_first_of_each_replica(new)
        surplus = [r for r in new if r.replica > target.replicas and r not in duplicates]
        steps += [Retire(r.key) for r in duplicates + surplus]
        new = [r for r in new if r.replica <= target.replicas and r not in duplicates]
        missing = [n for n in range(1, target.replicas + 1) if n not in {r.replica for r in new}]
        if any(r.failed and (old or (target.gate and r.fresh)) for r in new):
            refused = True
            continue
        if old and target.canary is not None:
            allowed = missing[: max(0, target.canary - len(new))]
            steps += [Create(target.process, n) for n in allowed]
            holding = True
            moving = moving or bool(allowed) or any(not r.up for r in new)
        elif old:
            moving = True
            steps += _replace(target, new, old, missing, any(r.leaving for r in own))
        else:
            # a leaving one still holds the port that its successor in place needs
            if not (target.in_place and any(r.leaving for r in own)):
                steps += [Create(target.process, n) for n in missing]
            moving = moving or bool(missing) or any(not r.up and not r.failed for r in new)
    if not (refused or moving or holding):
        # a process that the new version does not have goes last: until then there may be a way back
        steps += [Retire(r.key) for r in replicas if r.process not in wanted and not r.leaving]
    phase: Phase = "refused" if refused else "moving" if moving else "holding" if holding else "settled"
    return Plan(phase, tuple(steps))


def _replace(
    target: Target, new: list[Replica], old: list[Replica], missing: list[int], leaving: bool
) -> list[Create | Retire]:
    if target.in_place:
        return [Retire(r.key) for r in old]
    steps: list[Create | Retire] = []
    up = sum(r.up for r in new)
    if missing and up == len(new):
        # one at a time: a bad version costs one container, never the capacity
        steps.append(Create(target.process, missing[0]))
    excess = len(old) - max(0, target.replicas - up)
    # what does not serve goes first: it is no loss
    steps += [Retire(r.key) for r in sorted(old, key=lambda r: (r.up, -r.replica))[: max(0, excess)]]
    return steps


def _without_first_of_each_replica(replicas: list[Replica]) -> list[Replica]:
    """All but the best of those that claim the same replica number."""
    best: dict[int, Replica] = {}
    for r in replicas:
        known = best.get(r.replica)
        if known is None or (r.up, not r.failed) > (known.up, not known.failed):
            best[r.replica] = r
    return [r for r in replicas if best[r.replica] is not r]

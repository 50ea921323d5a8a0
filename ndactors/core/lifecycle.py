"""The life of one container as we drive it: a table of states. The diagram in the docs is made from this table."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    PENDING = "pending"
    """Nothing exists yet, or it exists and was not started."""
    STARTING = "starting"
    """It runs; no health check has passed since."""
    RUNNING = "running"
    UNHEALTHY = "unhealthy"
    """It runs, but answers no more: ejected from the traffic."""
    RESTARTING = "restarting"
    """It ended, or was told to, and starts again when its backoff is over."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    """It ended in a way that `restart:` accepts."""
    FAILED = "failed"
    """It ended and will not be started again by itself."""
    GONE = "gone"
    """Removed."""


class Step(Enum):
    STARTED = "started"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    ENDED = "ended"
    RETRY = "retry"
    GAVE_UP = "gave up"
    ACCEPTED = "accepted"
    STOP = "stop"
    REMOVED = "removed"
    VANISHED = "vanished"


_ALIVE = (State.STARTING, State.RUNNING, State.UNHEALTHY)
_SETTLED = (State.STOPPED, State.FAILED)

TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.PENDING, Step.STARTED): State.STARTING,
    (State.RESTARTING, Step.STARTED): State.STARTING,
    (State.STARTING, Step.HEALTHY): State.RUNNING,
    (State.UNHEALTHY, Step.HEALTHY): State.RUNNING,
    (State.STARTING, Step.UNHEALTHY): State.UNHEALTHY,
    (State.RUNNING, Step.UNHEALTHY): State.UNHEALTHY,
    **{(state, Step.ENDED): State.RESTARTING for state in (State.PENDING, *_ALIVE, State.RESTARTING)},
    (State.RESTARTING, Step.GAVE_UP): State.FAILED,
    (State.RESTARTING, Step.ACCEPTED): State.STOPPED,
    **{(state, Step.RETRY): State.RESTARTING for state in _SETTLED},
    **{(state, Step.STARTED): State.STARTING for state in _SETTLED},  # somebody started it by hand
    **{(state, Step.VANISHED): State.PENDING for state in (State.PENDING, *_ALIVE, State.RESTARTING, *_SETTLED)},
    **{(state, Step.STOP): State.STOPPING for state in State if state not in (State.STOPPING, State.GONE)},
    (State.STOPPING, Step.REMOVED): State.GONE,
}


class Impossible(Exception):
    """A step that the table does not know: a bug in the caller."""


def advance(state: State, step: Step) -> State:
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise Impossible(f"a container that is {state.value} cannot be {step.value}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {a.value} --> {b.value}: {step.value}" for (a, step), b in TRANSITIONS.items()]
    return "\n".join([*lines, "    gone --> [*]"]) + "\n"

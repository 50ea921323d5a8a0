"""When a signal fires a rule, and when that is over. Time counts only as far as it was seen: neither a gap nor a clock that
jumps makes anything last."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

MOST_SECONDS = 60.0
"""Between two looks no more than this counts."""

State = Literal["calm", "rising", "firing", "falling"]


class Watched(Struct, frozen=True, kw_only=True):
    """One signal under one rule. ``held``: seconds in this state, as far as they were seen; ``began``: when it became bad,
    in Unix seconds; ``at``: the last look; ``value``: the last one, or while it falls the last before that."""

    state: State = "calm"
    held: float = 0.0
    began: float = 0.0
    at: float = 0.0
    value: float = 0.0


class Span(Struct):
    """Seconds that were seen to pass until ``at``."""

    at: float
    seconds: float = 0.0

    def seen(self, now: float, most: float = MOST_SECONDS) -> float:
        """How many they are by now; at most ``most`` since the last time."""
        self.seconds += min(max(now - self.at, 0.0), most)
        self.at = now
        return self.seconds


class Limit(Struct, frozen=True, kw_only=True):
    """Bad is at ``bad`` or beyond, good at ``good`` or on its other side, for that long."""

    bad: float
    good: float
    lasts: float
    over: float

    @property
    def below(self) -> bool:
        return self.good > self.bad

    def is_bad(self, value: float) -> bool:
        return value <= self.bad if self.below else value >= self.bad

    def is_good(self, value: float) -> bool:
        if self.good == self.bad:
            return not self.is_bad(value)
        return value >= self.good if self.below else value <= self.good


def look(before: Watched, limit: Limit, value: float, at: float) -> Watched:
    """What another look at the signal makes of it. Between bad and good nothing changes: what rose is calm again, what
    fires fires on."""
    seen = min(max(at - before.at, 0.0), MOST_SECONDS) if before.at else 0.0
    now = replace(before, at=at, value=value)
    match before.state:
        case "calm" | "rising":
            if not limit.is_bad(value):
                return replace(now, state="calm", held=0.0)
            held = before.held + seen if before.state == "rising" else 0.0
            began = before.began if before.state == "rising" else at
            return replace(now, state="firing" if held >= limit.lasts else "rising", held=held, began=began)
        case _:
            if not limit.is_good(value):
                return replace(now, state="firing", held=0.0)
            held = before.held + seen if before.state == "falling" else 0.0
            # what is told of it is how bad it was
            return replace(now, state="calm" if held >= limit.over else "falling", held=held, value=before.value)

"""What a build or a pull prints, made fit to be read and kept: whole plain lines, no colours, no secrets, not too many."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

TAIL_LINES = 20
LINE_LENGTH = 2000
"""What is shown of one line, in characters."""
HELD = 64 * 1024
"""What is held of a line that does not end, in characters; the rest of it is dropped."""
SHORTEST_SECRET = 3
"""A shorter value would blot out half of the text, and is none."""
MASK = "********"
PULL_SECONDS = 1.0
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]"
)


class Masker:
    """Puts ``********`` where a secret stands. A secret of several lines is masked line by line too, as output is seen
    in lines."""

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part.strip() for value in values for part in (value, *value.splitlines())}
        found = sorted((part for part in parts if len(part) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text


class Lines:
    """Pieces of output in, whole lines out. What a carriage return overwrites is not shown."""

    def __init__(self, mask: Masker) -> None:
        self._mask = mask
        self._held = ""

    def feed(self, piece: str) -> list[str]:
        *whole, rest = (self._held + piece).split("\n")
        self._held = rest[:HELD]
        return [self._plain(line) for line in whole]

    def end(self) -> list[str]:
        rest, self._held = self._held, ""
        return [self._plain(rest)] if rest else []

    def _plain(self, line: str) -> str:
        shown = next((part for part in reversed(line.split("\r")) if part), "")
        # masked as it will be seen, or a colour inside of a secret would hide it from the mask
        return shortened(self._mask(_ESCAPES.sub("", shown).rstrip()))


def shortened(line: str) -> str:
    return line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]}…"


class Step(Struct, frozen=True, kw_only=True):
    """One step of BuildKit's graph as last heard. Times are Unix seconds."""

    digest: str
    name: str
    cached: bool = False
    started: float | None = None
    completed: float | None = None
    error: str = ""


class StepsLog:
    """BuildKit's news as lines. Steps run side by side, so each line begins with the number of its step."""

    def __init__(self, mask: Masker) -> None:
        self._mask = mask
        self._numbers: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()
        self._lines: dict[str, Lines] = {}
        self._tails: dict[str, deque[str]] = {}
        self.failed: Step | None = None

    def step(self, step: Step) -> list[str]:
        if step.error and not (self.failed or _cancelled(step.error)):
            self.failed = step
        name = self._mask(" ".join(step.name.split()))
        if not step.error and (step.started is None or name.startswith("[internal]")):
            return []
        said = self._once(step, "name", shortened(name))
        if step.completed is None:
            return said
        number = self._number(step.digest)
        held = self._lines.pop(step.digest, None)
        said += [f"#{number} {line}" for line in (held.end() if held else ())]
        if step.error:
            return said + self._once(step, "end", shortened(f"ERROR: {self._mask(step.error)}"))
        seconds = step.completed - (step.started or step.completed)
        return said + self._once(step, "end", "CACHED" if step.cached else f"done in {seconds:.1f} s")

    def output(self, digest: str, piece: str) -> list[str]:
        lines = self._lines.setdefault(digest, Lines(self._mask)).feed(piece)
        self._tails.setdefault(digest, deque(maxlen=TAIL_LINES)).extend(line for line in lines if line)
        number = self._number(digest)
        return [f"#{number} {line}" for line in lines]

    def tail(self) -> Sequence[str]:
        """The last lines of the step that failed."""
        digest = self.failed.digest if self.failed else ""
        held = self._lines.get(digest)
        return (*self._tails.get(digest, ()), *(held.end() if held else ()))[-TAIL_LINES:]

    def _once(self, step: Step, kind: str, words: str) -> list[str]:
        if (step.digest, kind) in self._said:
            return []
        self._said.add((step.digest, kind))
        return [f"#{self._number(step.digest)} {words}"]

    def _number(self, digest: str) -> int:
        return self._numbers.setdefault(digest, len(self._numbers) + 1)


def _cancelled(error: str) -> bool:
    """A step that was ended because another failed."""
    return "context canceled" in error or "Canceled" in error


class PullLog:
    """An Engine's news of a pull as at most one line a second: layers and bytes of all that are known."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._ready: set[str] = set()
        self._last_line = ""
        self._last_at = float("-inf")

    def hear(self, news: Mapping[str, Any], now: float) -> str | None:
        layer, status = str(news.get("id") or ""), str(news.get("status") or "")
        if not layer or status.startswith("Pulling from"):
            return None
        detail = news.get("progressDetail") or {}
        current, total = detail.get("current"), detail.get("total")
        known = self._layers.setdefault(layer, (0, 0))
        if status == "Downloading" and isinstance(current, int) and isinstance(total, int):
            self._layers[layer] = (current, total)
        elif status in ("Download complete", "Pull complete"):
            self._layers[layer] = (known[1], known[1])
        if status in ("Already exists", "Pull complete"):
            self._ready.add(layer)
        if now - self._last_at < PULL_SECONDS:
            return None
        line = self._line()
        if line == self._last_line:
            return None
        self._last_line, self._last_at = line, now
        return line

    def _line(self) -> str:
        fetched, total = map(sum, zip(*self._layers.values(), strict=True))
        parts = f"{len(self._ready)} of {len(self._layers)} layers"
        return f"{parts}, {_megabytes(fetched)} of {_megabytes(total)} MB" if total else parts


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}" if count < 10_000_000 else f"{count / 1e6:.0f}"

"""Log records as lines: who wrote it, a bar, what was written. A terminal is steered by nothing that an app prints."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO
from zlib import crc32

from ..core.levels import LEVELS
from ..core.logquery import ANSI

RESET = "\x1b[0m"
DIM, YELLOW = "\x1b[2m", "\x1b[33m"
LEVEL_COLOURS = {"debug": DIM, "warning": YELLOW, "error": "\x1b[31m", "critical": "\x1b[1;31m"}
APP_COLOURS = (36, 32, 35, 34, 96, 92, 95, 94)
"""Codes of SGR: no red and no yellow, which levels have."""
TIME_LENGTH = 30
MAX_WIDTH = 40
"""Names are padded to the longest, but to no more than this."""

_BAD = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
_HARMFUL = re.compile(_BAD)
"""What could steer a terminal, or turn the order of what is shown: everything but line feeds and tabs."""
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_BARE = re.compile(r"(?!\x1b\[[0-9;:]{0,64}m)" + _BAD)
_LINE_END = re.compile(r"\r+(?=\n|$)")
_HIDDEN = {n: f"\\u{n:04x}" for n in (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


@dataclass(frozen=True)
class Style:
    """How lines look. ``colours``: names and levels have them. ``clean``: of what apps print only colours stay, and those
    only with ``colours``. ``aligned``: names are padded to the longest so far. ``prefix``: there are names at all."""

    colours: bool = False
    clean: bool = False
    aligned: bool = False
    prefix: bool = True
    times: bool = False


def style_for(stream: Any, variables: Mapping[str, str], *, no_color: bool, prefix: bool, times: bool) -> Style:
    """On a terminal colours and nothing harmful; elsewhere messages pass as they are, less their colours if that is asked
    for. ``$NO_COLOR`` counts on a terminal, as it says."""
    terminal = stream is not None and stream.isatty()
    colours = terminal and not no_color and not variables.get("NO_COLOR") and variables.get("TERM", "dumb") != "dumb"
    return Style(colours=colours, clean=terminal or no_color, aligned=terminal, prefix=prefix, times=times)


class Lines:
    """Makes text of records, many at once."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._width = 0
        self._prefixes: dict[tuple[str, str, int], str] = {}
        colours = LEVEL_COLOURS if style.colours else {}
        self._starts = {name: colours.get(name, "") for name in LEVELS}
        self._starts |= {str(number): colours.get(name, "") for number, name in enumerate(LEVELS)}
        """By name, and by place in ``LEVELS``."""

    def columns(self, row: Mapping[str, Any]) -> str:
        """Of a batch, one entry: some records of one container."""
        levels = row["levels"]
        return self._text(row, row["times"], levels, row["messages"], gap=bool(row.get("gap")))

    def records(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Of a page."""
        for row in rows:
            self._prefix(row)  # so that all of them are aligned
        runs = groupby(rows, lambda row: (row["app"], row["process"], row["replica"], "gap" in row))
        return "".join(self._run(list(run), gap=key[3]) for key, run in runs)

    def _run(self, rows: list[Mapping[str, Any]], *, gap: bool) -> str:
        times, levels, messages = ([row[name] for row in rows] for name in ("ts", "level", "message"))
        return self._text(rows[0], times, levels, messages, gap=gap)

    def _text(
        self, source: Mapping[str, Any], times: Sequence[str], levels: Iterable[str], messages: list[str], *, gap: bool
    ) -> str:
        """Every line of a message has the prefix, so that a traceback stays together."""
        style, prefix = self._style, self._prefix(source)
        if style.clean and _HARMFUL.search("\n".join(messages)):
            messages = [cleaned(message, colours=style.colours) for message in messages]
        if not style.colours and not style.times:
            return prefix + "\n".join(messages).replace("\n", f"\n{prefix}") + "\n"
        starts = self._starts
        found = []
        for time, level, message in zip(times, levels, messages, strict=True):
            start = (YELLOW if gap else starts.get(level, "")) if style.colours else ""
            end = RESET if start or (style.colours and "\x1b" in message) else ""
            if "\n" in message:
                blank = " " * (TIME_LENGTH + 1) if style.times else ""
                message = message.replace("\n", f"{end}\n{blank}{prefix}{start}")
            if style.times:
                found.append(f"{DIM}{time}{RESET} " if style.colours else f"{time} ")
            found.append(f"{prefix}{start}{message}{end}\n")
        return "".join(found)

    def _prefix(self, source: Mapping[str, Any]) -> str:
        """Who wrote it, up to the message."""
        key = (source["app"], source["process"], source["replica"])
        found = self._prefixes.get(key)
        if found is None:
            found = self._prefixes[key] = self._new_prefix(*key)
        return found

    def _new_prefix(self, app: str, process: str, replica: int) -> str:
        style = self._style
        if not style.prefix:
            return ""
        name = cleaned(f"{app}/{process}.{replica}", colours=False)
        if style.aligned:
            if self._width < len(name) <= MAX_WIDTH:
                self._width = len(name)
                self._prefixes.clear()
            name = name.ljust(self._width)
        if not style.colours:
            return f"{name} | "
        return f"\x1b[{APP_COLOURS[crc32(app.encode()) % len(APP_COLOURS)]}m{name} |{RESET} "


def cleaned(text: str, *, colours: bool) -> str:
    """Without what would steer a terminal: escapes go, other control characters become �. ``colours``: those stay."""
    if not _HARMFUL.search(text):
        return text
    text = _LINE_END.sub("", text)
    text = ANSI.sub(lambda match: match[0] if colours and _COLOUR.fullmatch(match[0]) else "", text)
    return (_BARE if colours else _HARMFUL).sub("\N{REPLACEMENT CHARACTER}", text)


def as_json(record: Mapping[str, Any]) -> str:
    """One line, to whoever reads it. JSON leaves DEL and C1, which could steer a terminal, and further ends of lines."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).translate(_HIDDEN) + "\n"


class Output:
    """stdout, as bytes and at once: what is written is seen, and nothing is taken out of it."""

    def __init__(self) -> None:
        self._stream: BinaryIO | None = sys.stdout.buffer if sys.stdout is not None else None

    @property
    def descriptor(self) -> int | None:
        """To watch whether somebody still reads."""
        try:
            return self._stream.fileno() if self._stream is not None else None
        except (OSError, ValueError):
            return None

    def write(self, text: str) -> None:
        """Waits for whoever reads. ``BrokenPipeError`` when nobody does any more."""
        if self._stream is not None and text:
            self._stream.write(text.encode("utf-8", "replace"))
            self._stream.flush()

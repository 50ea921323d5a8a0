"""What happens to a file between reading and checking: overlays, ``--set``, ``${VAR}``. Each value keeps the place it
came from, so that every later complaint points there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from ..errors import Problem

Path = tuple[str | int, ...]
Mark = tuple[int, int]
"""Line and column, from 1."""

_PLACEHOLDER = re.compile(r"\$(?:\$|\{([^}]*)\})")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
STANDARD = ("dev", "staging", "prod")
MAX_MOVES = 8
MAX_TEXT = 1_000_000
"""Characters that all values together may have once variables are in."""


class Text(str):
    """A string that was a placeholder as a whole: ``scalar`` is what its text means as YAML, for keys that are no
    strings."""

    scalar: Any


class Number(int):
    """An integer that remembers how it was written."""

    text: str


class Decimal(float):
    """A float that remembers how it was written."""

    text: str


@dataclass
class Document:
    """A tree of plain values and the places of its keys and values. ``origins`` names those that came by ``--set``."""

    tree: dict[str, Any]
    keys: dict[Path, Mark] = field(default_factory=dict)
    values: dict[Path, Mark] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)
    moves: dict[Path, Path] = field(default_factory=dict)
    """Where a value was before it was moved: the marks stay there, so moving costs nothing."""

    def move(self, source: Path, target: Path) -> None:
        self.moves[target] = source

    def _place(self, path: Path) -> Path:
        """Where in the file the value at ``path`` came from."""
        for _ in range(MAX_MOVES):
            for length in range(len(path), 0, -1):
                if path[:length] in self.moves:
                    path = self.moves[path[:length]] + path[length:]
                    break
            else:
                break
        return path

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        """A mistake at ``path``, or at the nearest place above it that is in the file."""
        text = dotted(path)
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                origin = self.origins[path[:length]]
                return Problem(0, 0, origin, f"{text}: {message}" if length < len(path) else message)
            place = self._place(path[:length])
            marks = self.keys if at_key or length < len(path) else self.values
            mark = marks.get(place) or self.values.get(place)
            if mark is not None:
                return Problem(*mark, text, message)
        return Problem(1, 1, text, message)


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def overlaid(document: Document, environment: str) -> list[Problem]:
    """Merge ``environments.<environment>`` over the rest, in place, and take ``environments`` out. Maps merge, lists
    replace, null removes."""
    overlays = document.tree.get("environments")
    if overlays is None:
        document.tree.pop("environments", None)
        return []
    if not isinstance(overlays, dict):
        return [document.problem(("environments",), "Not a valid mapping.")]
    wrong = [
        document.problem(("environments", name), "Not a valid mapping.")
        for name, overlay in overlays.items()
        if overlay is not None and not isinstance(overlay, dict)
    ]
    if environment not in overlays and environment not in STANDARD:
        near = get_close_matches(environment, [*overlays, *STANDARD], 1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        wrong.append(document.problem(("environments",), f"There is no environment `{environment}`{hint}", at_key=True))
    if wrong:
        return wrong
    overlay = overlays.get(environment) or {}
    del document.tree["environments"]
    if "environments" in overlay:
        at = ("environments", environment, "environments")
        return [document.problem(at, "An overlay cannot have overlays.", at_key=True)]
    _merge(document, document.tree, overlay, (), ("environments", environment))
    return []


def _merge(document: Document, base: dict[str, Any], overlay: dict[str, Any], at: Path, source: Path) -> None:
    for key, value in overlay.items():
        here, there = (*at, key), (*source, key)
        if value is None:
            base.pop(key, None)
            continue
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(document, base[key], value, here, there)
            continue
        base[key] = value
        document.move(there, here)


def overridden(document: Document, overrides: list[str], parse: Callable[[str], Any]) -> list[Problem]:
    """Apply each ``KEY=VALUE`` in place. A key with dots in it is written in quotes: ``--set 'registries."ghcr.io"…'``.
    ``parse`` reads the value as YAML and raises ``ValueError``."""
    problems = []
    for override in overrides:
        origin = f"--set {override if len(override) < 200 else override[:200] + '…'}"
        key, equals, text = override.partition("=")
        parts = [a or b for a, b in re.findall(r'"([^"]+)"|([^."]+)', key)]
        if not equals or not parts:
            problems.append(Problem(0, 0, origin, "Write it as KEY=VALUE, with dots between the parts of the key."))
            continue
        try:
            value = parse(text)
        except ValueError as error:
            problems.append(Problem(0, 0, origin, str(error)))
            continue
        node: Any = document.tree
        for part in parts[:-1]:
            below = node.get(part)
            if not isinstance(below, dict):
                below = node[part] = {}
            node = below
        if value is None:
            node.pop(parts[-1], None)
        else:
            node[parts[-1]] = value
        document.origins[tuple(parts)] = origin
    return problems


def interpolated(document: Document, variables: Mapping[str, str], scalar: Callable[[str], Any]) -> list[Problem]:
    """Replace ``${VAR}`` and ``${VAR:-default}`` in all string values, in place; ``$$`` is a dollar sign. ``scalar``
    says what a text means as a YAML scalar."""
    problems: list[Problem] = []
    room = MAX_TEXT

    def text_of(value: str, path: Path) -> str:
        nonlocal room

        def one(match: re.Match[str]) -> str:
            if match[1] is None:
                return "$"
            name = _NAME.fullmatch(match[1])
            if name is None:
                problems.append(document.problem(path, f"`{match[0]}` is no variable; write `$$` for a dollar sign."))
                return ""
            found = variables.get(name[1]) or name[2]
            if found is None:
                found = variables.get(name[1])
            if found is None:
                problems.append(document.problem(path, f"The variable `{name[1]}` is not set."))
                return ""
            return found

        replaced = _PLACEHOLDER.sub(one, value)
        room -= len(replaced)
        if room < 0:
            if room + len(replaced) >= 0:
                problems.append(
                    document.problem(path, f"With the variables the file is longer than {MAX_TEXT} characters.")
                )
            return ""
        whole = _PLACEHOLDER.fullmatch(value)
        if whole is None or whole[1] is None:
            return replaced
        text = Text(replaced)
        text.scalar = scalar(replaced)
        return text

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return text_of(value, path) if "$" in value else value
        if isinstance(value, dict):
            return {key: walk(below, (*path, key)) for key, below in value.items()}
        if isinstance(value, list):
            return [walk(below, (*path, index)) for index, below in enumerate(value)]
        return value

    document.tree = walk(document.tree, ())
    return problems

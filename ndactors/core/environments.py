"""What happens to a file between reading and checking: overlays, ``--set``, ``${VAR}``. Each value keeps the place it
came from, so that every later complaint points there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import Problem

Path = tuple[str | int, ...]
Mark = tuple[int, int]
"""Line and column, from 1."""

_PLACEHOLDER = re.compile(r"\$(?:\$|\{([^}]*)\})")
_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*=")
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
    templates: set[Path] = field(default_factory=set)
    """Variables of apps with ``${NAME}`` of secrets in them."""

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


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known word that this one is most like, if any is like it at all."""
    from difflib import get_close_matches  # only mistakes need it

    return get_close_matches(word, list(known), 1)


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
        near = nearest(environment, [*overlays, *STANDARD])
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


class Interpolation(Protocol):
    """Where the values of ``${NAME}`` come from."""

    def value(self, name: str) -> str | None: ...

    def secret(self, path: Path, name: str) -> str | None:
        """The stored name of the secret that ``name`` stands for at ``path``, if it is one."""
        ...

    def unset(self, path: Path, name: str) -> str:
        """What is told of a name that nothing stands for."""
        ...


@dataclass(frozen=True)
class Variables:
    """Those of an environment, and no secrets."""

    values: Mapping[str, str]

    def value(self, name: str) -> str | None:
        return self.values.get(name)

    def secret(self, path: Path, name: str) -> str | None:
        return None

    def unset(self, path: Path, name: str) -> str:
        return f"The variable `{name}` is not set."


def interpolated(
    document: Document, variables: Mapping[str, str] | Interpolation, scalar: Callable[[str], Any]
) -> list[Problem]:
    """Replace ``${VAR}`` and ``${VAR:-default}`` in all string values, in place; ``$$`` is a dollar sign. ``scalar``
    says what a text means as a YAML scalar. A variable of an app (a value below ``env``) in which secrets are named
    becomes a template and is noted in ``document.templates``: ``${NAME}`` of the secret stays, every other dollar sign is
    written twice."""
    walk = _Interpolating(document, Variables(variables) if isinstance(variables, Mapping) else variables, scalar)
    document.tree = walk.value(document.tree, ())
    return walk.problems


class _Interpolating:
    def __init__(self, document: Document, names: Interpolation, scalar: Callable[[str], Any]) -> None:
        self._document = document
        self._names = names
        self._scalar = scalar
        self._room = MAX_TEXT
        self.problems: list[Problem] = []

    def value(self, value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return self._text(value, path) if "$" in value else value
        if isinstance(value, dict):
            return {key: self.value(below, (*path, key)) for key, below in value.items()}
        if isinstance(value, list):
            return [self.value(below, (*path, index)) for index, below in enumerate(value)]
        return value

    def _text(self, value: str, path: Path) -> str:
        texts: list[str] = []
        secrets: dict[int, str] = {}
        done = 0
        for match in _PLACEHOLDER.finditer(value):
            texts.append(value[done : match.start()])
            done = match.end()
            if match[1] is None:
                texts.append("$")
                continue
            secret = self._secret(match[1], path)
            if secret is not None:
                secrets[len(texts)] = f"${{{secret}}}"
            texts.append(self._plain(match, path) if secret is None else "")
        texts.append(value[done:])
        if secrets:
            self._document.templates.add(path)
            texts = [secrets.get(index, text.replace("$", "$$")) for index, text in enumerate(texts)]
        replaced = "".join(texts)
        self._room -= len(replaced)
        if self._room < 0:
            if self._room + len(replaced) >= 0:
                self._wrong(path, f"With the variables the file is longer than {MAX_TEXT} characters.")
            return ""
        whole = _PLACEHOLDER.fullmatch(value)
        if secrets or whole is None or whole[1] is None:
            return replaced
        text = Text(replaced)
        text.scalar = self._scalar(replaced)
        return text

    def _secret(self, inside: str, path: Path) -> str | None:
        name = _NAME.fullmatch(inside)
        return self._names.secret(path, name[1]) if name is not None and is_env(path) else None

    def _plain(self, match: re.Match[str], path: Path) -> str:
        name = _NAME.fullmatch(match[1])
        if name is None:
            self._wrong(path, f"`{match[0]}` is no variable; write `$$` for a dollar sign.")
            return ""
        value = self._names.value(name[1])
        found = value or name[2]
        if found is None:
            found = value
        if found is None:
            self._wrong(path, self._names.unset(path, name[1]))
            return ""
        return found

    def _wrong(self, path: Path, words: str) -> None:
        self.problems.append(self._document.problem(path, words))


def is_env(path: Path) -> bool:
    """Whether it is the value of a variable of an app or of one of its processes."""
    below = path[4:] if path[2:3] == ("processes",) else path[2:]
    return path[:1] == ("apps",) and len(below) == 2 and below[0] == "env" and isinstance(below[1], str)


def env_as_mappings(document: Document) -> None:
    """Variables that are written as a list of ``NAME=value`` become a mapping, in place. What is no such list stays, to
    be told of later."""
    for path, block in blocks(document.tree):
        env = block.get("env")
        if not isinstance(env, list) or not all(isinstance(item, str) and _ASSIGNED.match(item) for item in env):
            continue
        block["env"] = {}
        for index, item in enumerate(env):
            name, _, value = item.partition("=")
            block["env"][name] = value
            document.move((*path, "env", index), (*path, "env", name))


def blocks(tree: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every app and every process that is a mapping, and where it is."""
    apps = tree.get("apps")
    for name, app in apps.items() if isinstance(apps, dict) else ():
        if not isinstance(app, dict):
            continue
        yield ("apps", name), app
        processes = app.get("processes")
        for process, block in processes.items() if isinstance(processes, dict) else ():
            if isinstance(block, dict):
                yield ("apps", name, "processes", process), block

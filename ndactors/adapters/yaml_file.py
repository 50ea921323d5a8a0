"""`nextdeploy.yml` from disk: YAML with the place of every key and value, within limits of size, depth and expansion.
YAML 1.1's surprises (`on`, `22:22`, `2026-01-01`) stay strings."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import yaml

from ..core.environments import (
    Decimal,
    Document,
    Number,
    Path,
    blocks,
    dotted,
    env_as_mappings,
    interpolated,
    overlaid,
    overridden,
)
from ..core.legacy import is_original, modernised
from ..core.masking import mask_tree
from ..core.settings import SERVER_KEYS, Loaded, Role, settings_of
from ..errors import ConfigurationError, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 10_000
"""With aliases expanded."""
MAX_PLAIN_NODES = 100_000
MAX_DIGITS = 400

_INT = re.compile(r"[-+]?(?:0|[1-9]\d*)")
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?:\.\d*)?[eE][-+]?\d+)")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = ("", "~", "null", "Null", "NULL")
_STANDARD = "tag:yaml.org,2002:"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(
    path: FilePath,
    *,
    environment: str,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str],
    role: Role = "server",
) -> Loaded:
    """``ConfigurationError`` with everything that is wrong, whatever it is: also a file that is not there."""
    source = str(path)
    document, problems, warnings = opened(_read(path, source), source, environment, overrides, role)
    problems += interpolated(document, variables, scalar)
    if problems:
        raise ConfigurationError(source, problems)
    folder = path.resolve().parent
    env_files, problems = _env_files(document, folder)
    if problems:
        raise ConfigurationError(source, problems)
    _absolute_paths(document, folder)
    name = re.sub(r"[^a-z0-9-]+", "-", folder.name.lower()).strip("-")[:40].strip("-") or "project"
    return settings_of(
        document,
        source=source,
        environment=environment,
        role=role,
        folder_name=name,
        env_files=env_files,
        warnings=tuple(warnings),
    )


def opened(
    content: bytes, source: str, environment: str, overrides: Sequence[str] = (), role: Role = "server"
) -> tuple[Document, list[Problem], list[Problem]]:
    """A file's text as a tree in today's layout with the overlay merged in, variables not yet; problems and warnings.
    ``ConfigurationError`` for what is no YAML."""
    document = parse(content, source)
    problems = overlaid(document, environment)
    problems += overridden(document, list(overrides), _override_value)
    original = is_original(document)
    old_style, warnings = modernised(document)
    problems += old_style
    if role == "project":
        env_as_mappings(document)
    if role == "project" and original:
        # this layout had one file for everything
        for key in SERVER_KEYS & document.tree.keys():
            del document.tree[key]
            words = "This loads, but only the server's own file can say it: it has no effect."
            warnings.append(document.problem((key,), words, at_key=True))
    return document, problems, warnings


def _read(path: FilePath, source: str) -> bytes:
    def wrong(words: str) -> ConfigurationError:
        return ConfigurationError(source, [Problem(1, 1, "", words)])

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise wrong("This is no file." if not path.is_dir() else "This is a folder, not a file.")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        words = {2: "There is no such file.", 13: "This file may not be read.", 21: "This is a folder, not a file."}
        raise wrong(words.get(error.errno or 0, error.strerror or "It cannot be read.")) from error
    if len(content) > MAX_BYTES:
        raise wrong("The file is larger than 1 MiB.")
    return content


def parse(content: bytes, source: str) -> Document:
    """A tree of plain values with marks. ``ConfigurationError`` for what is no YAML, or too much of it."""

    def wrong(mark: Any, words: str) -> ConfigurationError:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return ConfigurationError(source, [Problem(line, column, "", words)])

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise ConfigurationError(source, [Problem(line, column, "", "Not valid UTF-8.")]) from error
    _check_depth(text, source)
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        words = error.problem or "malformed"
        raise wrong(error.problem_mark or error.context_mark, f"Not valid YAML: {words}.") from error
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0) or 0
        line = text.count("\n", 0, position) + 1
        raise ConfigurationError(
            source, [Problem(line, 1, "", "Not valid YAML: a character is not allowed.")]
        ) from error
    except RecursionError as error:
        raise wrong(None, f"The nesting is deeper than {MAX_DEPTH}.") from error
    if node is None:
        raise wrong(None, "The file is empty.")
    if not isinstance(node, yaml.MappingNode):
        raise wrong(node.start_mark, "The file must be a mapping of keys and values.")
    builder = _Builder(source)
    tree = builder.build(node, (), 0)
    if builder.problems:
        raise ConfigurationError(source, builder.problems)
    builder.document.tree = tree
    return builder.document


def _check_depth(text: str, source: str) -> None:
    """Deep nesting is refused before libyaml recurses into it."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
                if depth > MAX_DEPTH:
                    mark: Any = event.start_mark
                    words = f"The nesting is deeper than {MAX_DEPTH}."
                    raise ConfigurationError(source, [Problem(mark.line + 1, mark.column + 1, "", words)])
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
    except yaml.YAMLError:
        return  # told properly when it is composed


class _Builder:
    """Walks the nodes: plain values, marks, duplicate keys, the count of nodes with aliases expanded."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.document = Document({})
        self.problems: list[Problem] = []
        self._nodes = 0
        self._seen: set[int] = set()
        self._aliased = False

    def build(self, node: Any, path: Path, depth: int) -> Any:
        mark = (node.start_mark.line + 1, node.start_mark.column + 1)
        self._nodes += 1
        self._aliased = self._aliased or id(node) in self._seen
        self._seen.add(id(node))
        if self._nodes > (MAX_NODES if self._aliased else MAX_PLAIN_NODES) or depth > MAX_DEPTH:
            words = (
                f"The aliases expand to more than {MAX_NODES} nodes." if self._aliased else "There are too many nodes."
            )
            raise ConfigurationError(self.source, [Problem(*mark, "", words)])
        self.document.values[path] = mark
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, mark)
        standard = node.tag in (f"{_STANDARD}map", f"{_STANDARD}seq")
        if not standard:
            self._wrong(mark, path, f"The tag `{node.tag}` is not allowed.")
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[Any] = []
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(mark, path, "A key must be a plain word.")
                continue
            key = key_node.value
            if key == "<<" and key_node.style not in _QUOTED:
                merged.append(value_node)
                continue
            if key in result:
                first = self.document.keys[(*path, key)]
                self._wrong(mark, (*path, key), f"Duplicate key; it is given on line {first[0]} already.")
                continue
            self.document.keys[(*path, key)] = mark
            result[key] = self.build(value_node, (*path, key), depth + 1)
        for value_node in merged:
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in sources:
                if not isinstance(source, yaml.MappingNode):
                    mark = (source.start_mark.line + 1, source.start_mark.column + 1)
                    self._wrong(mark, path, "`<<` takes a mapping, or a list of them.")
                    continue
                extra = _Builder.build(self._shadow(), source, path, depth + 1)
                self._nodes, self._aliased = self._merging._nodes, self._merging._aliased
                for place, mark in self._merging.document.values.items():
                    self.document.values.setdefault(place, mark)
                for key, value in extra.items():
                    if key not in result:
                        result[key] = value
                        self.document.keys.setdefault(
                            (*path, key), self._merging.document.keys.get((*path, key), (1, 1))
                        )
        return result

    def _shadow(self) -> _Builder:
        """A builder for merged maps: counts on with us, marks for itself."""
        shadow = _Builder(self.source)
        shadow._nodes, shadow._seen, shadow._aliased = self._nodes, self._seen, self._aliased
        shadow.problems = self.problems
        self._merging = shadow
        return shadow

    def _scalar(self, node: Any, path: Path, mark: tuple[int, int]) -> Any:
        text = node.value
        if node.tag not in (f"{_STANDARD}{kind}" for kind in _SCALAR_TAGS):
            self._wrong(mark, path, f"The tag `{node.tag}` is not allowed.")
            return None
        if node.style in _QUOTED:
            return text
        value = scalar(text)
        if isinstance(value, str) and _INT.fullmatch(value):
            self._wrong(mark, path, f"A number of more than {MAX_DIGITS} digits is not allowed.")
        return value

    def _wrong(self, mark: tuple[int, int], path: Path, words: str) -> None:
        self.problems.append(Problem(*mark, dotted(path), words))


_QUOTED = ("'", '"', "|", ">")
_SCALAR_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")


def scalar(text: str) -> Any:
    """What a plain scalar means by YAML 1.2's core schema; numbers remember how they were written."""
    if text in _WORDS:
        return _WORDS[text]
    if text in _NULLS:
        return None
    if len(text) <= MAX_DIGITS:
        if _INT.fullmatch(text):
            number = Number(text)
            number.text = text
            return number
        if _FLOAT.fullmatch(text):
            decimal = Decimal(text)
            decimal.text = text
            return decimal
    return text


def _override_value(text: str) -> Any:
    try:
        return parse(b"value: " + text.encode() if "\n" not in text else text.encode(), "--set").tree["value"]
    except ConfigurationError as error:
        raise ValueError(error.problems[0].message) from error


def _absolute_paths(document: Document, folder: FilePath) -> None:
    """`./data:/app/data`, a relative `workdir` and the like count from the file's folder."""
    _absolute(document.tree.get("geoip"), "database", folder)
    for _, block in blocks(document.tree):
        _absolute(block.get("http"), "error_pages", folder)
        _absolute(block, "workdir", folder)
        volumes = block.get("volumes")
        if isinstance(volumes, list):
            block["volumes"] = [
                str(folder / volume) if isinstance(volume, str) and volume.startswith(("./", "../")) else volume
                for volume in volumes
            ]


def _absolute(block: Any, key: str, folder: FilePath) -> None:
    path = block.get(key) if isinstance(block, dict) else None
    if isinstance(path, str) and path and not path.startswith("/"):
        block[key] = str(folder / path)


_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*?)\s*")


def _env_files(document: Document, folder: FilePath) -> tuple[dict[Path, dict[str, str]], list[Problem]]:
    found: dict[Path, dict[str, str]] = {}
    problems: list[Problem] = []
    for at, block in blocks(document.tree):
        file = block.get("env_file")
        if isinstance(file, str):
            path = (*at, "env_file")
            try:
                found[path] = read_env_file(folder / file)
            except OSError as error:
                problems.append(document.problem(path, f"`{file}` cannot be read: {error.strerror}."))
            except ValueError as error:
                problems.append(document.problem(path, f"{file}:{error}"))
    return found, problems


def read_env_file(path: FilePath) -> dict[str, str]:
    """``OSError``, or ``ValueError`` with the line's number."""
    with path.open("rb") as file:
        return parse_env(file.read(MAX_BYTES + 1))


def parse_env(content: bytes) -> dict[str, str]:
    """``NAME=value`` lines; comments, quotes and `export` as in a shell. ``ValueError`` with the line's number."""
    if len(content) > MAX_BYTES:
        raise ValueError("1: The file is larger than 1 MiB.")
    values = {}
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{number}: Not a line like NAME=value.")
        name, value = match.groups()
        if value[:1] in ("'", '"'):
            end = value.find(value[0], 1)
            if end < 0 or (value[end + 1 :].strip() and not value[end + 1 :].strip().startswith("#")):
                raise ValueError(f"{number}: The quotes are not closed.")
            quote, value = value[0], value[1:end]
            if quote == '"':
                value = value.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        values[name] = value
    return values


def render(loaded: Loaded) -> str:
    """The effective configuration as YAML, secrets masked."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(below) for name, below in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, (Number, Decimal)):
            return int(value) if isinstance(value, Number) else float(value)
        return str(value) if isinstance(value, str) else value

    tree = mask_tree({"project": loaded.settings.project, **loaded.effective})
    tree["project"] = loaded.settings.project
    return yaml.safe_dump(plain(tree), sort_keys=False, allow_unicode=True, width=120)

"""A project's file as the client needs it: the text that is sent, the variables that it names, and the places in the
project's folder that it speaks of."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..adapters import yaml_file
from ..core.environments import Document, blocks, dotted, interpolated
from ..core.environments import Path as Keys
from ..core.git_urls import is_remote
from ..core.model import Settings
from ..core.settings import settings_of
from ..errors import ConfigurationError, Problem
from .failures import Invalid

_NAMED = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(:-)?)")

Kind = Literal["context", "folder", "file", "tree", "kept"]
"""A build context; a folder that a process on the host runs in; an env file; what must be there; what need not be,
because containers write to it."""


@dataclass(frozen=True)
class Place:
    """A path in the project's folder (``""``: the folder itself) that the key ``said`` names; of a build context also
    its Dockerfile, relative to it."""

    kind: Kind
    path: str
    said: str
    app: str
    dockerfile: str = ""


@dataclass(frozen=True)
class ProjectFile:
    """``variables`` are those that the file names and that are set here, ``unset`` those that are not and have no
    default: the server looks for secrets of that name."""

    path: Path
    folder: Path
    text: str
    environment: str
    settings: Settings
    variables: dict[str, str]
    unset: tuple[str, ...]
    places: tuple[Place, ...]
    warnings: tuple[str, ...]

    @property
    def project(self) -> str:
        return self.settings.project


class Names:
    """Where ``${NAME}`` comes from, as far as it is known here: the server has secrets besides."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def value(self, name: str) -> str | None:
        return self._variables.get(name)

    def secret(self, path: Keys, name: str) -> str | None:
        return name if name not in self._variables else None

    def unset(self, path: Keys, name: str) -> str:
        return f"The variable `{name}` is not set. (Secrets can be named in `env` only.)"


def read(path: Path, environment: str, variables: Mapping[str, str]) -> ProjectFile:
    """``Invalid`` with everything that is wrong."""
    try:
        return _read(path, environment, variables)
    except ConfigurationError as error:
        raise Invalid(error.lines()) from error


def _read(path: Path, environment: str, variables: Mapping[str, str]) -> ProjectFile:
    source, folder = str(path), path.resolve().parent
    content = read_bytes(path)
    document, problems, warnings = yaml_file.opened(content, source, environment, role="project")
    named = _names(document.tree)
    problems += interpolated(document, Names(variables), yaml_file.scalar)
    if problems:
        raise ConfigurationError(source, problems)
    places = tuple(_places(document, problems))
    env_files = _env_files(document, folder, problems)
    if problems:
        raise ConfigurationError(source, problems)
    name = re.sub(r"[^a-z0-9-]+", "-", folder.name.lower()).strip("-")[:40].strip("-") or "project"
    loaded = settings_of(
        document,
        source=source,
        environment=environment,
        role="project",
        folder_name=name,
        env_files=env_files,
        warnings=tuple(warnings),
    )
    return ProjectFile(
        path=path,
        folder=folder,
        text=content.decode("utf-8-sig"),
        environment=environment,
        settings=loaded.settings,
        variables={name: variables[name] for name in named if name in variables},
        unset=tuple(sorted(name for name, has_default in named.items() if name not in variables and not has_default)),
        places=places,
        warnings=loaded.warnings,
    )


def read_bytes(path: Path) -> bytes:
    """``ConfigurationError`` for what is no file, cannot be read, or is larger than 1 MiB."""

    def wrong(words: str) -> ConfigurationError:
        return ConfigurationError(str(path), [Problem(1, 1, "", words)])

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise wrong("This is no file.")
            content = file.read(yaml_file.MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise wrong("There is no such file; `nextdeploy init` writes one.") from error
    except OSError as error:
        raise wrong(f"It cannot be read: {error.strerror}.") from error
    if len(content) > yaml_file.MAX_BYTES:
        raise wrong("The file is larger than 1 MiB.")
    return content


def _names(value: Any) -> dict[str, bool]:
    """Variables that the values name, and whether all of their mentions have a default."""
    found: dict[str, bool] = {}
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            for match in _NAMED.finditer(one):
                if match[1]:
                    found[match[1]] = found.get(match[1], True) and bool(match[2])
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


# -- places ----------------------------------------------------------------------------------------


def _places(document: Document, problems: list[Problem]) -> Iterator[Place]:
    """Mistakes are added to ``problems``."""

    def place(kind: Kind, at: Keys, written: Any, dockerfile: str = "") -> Iterator[Place]:
        path = normal(written) if isinstance(written, str) and written else None
        if path is not None:
            yield Place(kind, path, dotted(at), str(at[1]), dockerfile)
        elif isinstance(written, str):
            problems.append(document.problem(at, f"`{written}` is not in the project's folder."))

    for at, block in blocks(document.tree):
        app = document.tree["apps"][at[1]]
        if len(at) == 2:
            yield from _context(document, at, block.get("build"), place, problems)
            http = block.get("http")
            pages = http.get("error_pages") if isinstance(http, dict) else None
            yield from place("tree", (*at, "http", "error_pages"), pages)
        yield from place("file", (*at, "env_file"), block.get("env_file"))
        volumes = block.get("volumes")
        for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
            if isinstance(volume, str) and volume.startswith(("./", "../")):
                source, _, rest = volume.partition(":")
                yield from place("tree" if rest.endswith(":ro") else "kept", (*at, "volumes", index), source)
        workdir = block.get("workdir")
        if not app.get("image") and not app.get("build") and not str(workdir or "").startswith("/"):
            if workdir or (len(at) == 2 and not app.get("processes")):
                yield from place("folder", (*at, "workdir"), workdir or ".")
            elif len(at) == 4 and not app.get("workdir"):
                yield from place("folder", at, ".")


def _context(document: Document, at: Keys, build: Any, place: Any, problems: list[Problem]) -> Iterator[Place]:
    if isinstance(build, str):
        build, here = {"context": build}, (*at, "build")
    elif isinstance(build, dict):
        here = (*at, "build", "context")
    else:
        return
    context = build.get("context") or "."
    if not isinstance(context, str) or is_remote(context):
        return
    dockerfile = normal(str(build.get("dockerfile") or "Dockerfile"))
    if not dockerfile:
        problems.append(document.problem((*at, "build", "dockerfile"), "It must be in the build context."))
    else:
        yield from place("context", here, context, dockerfile)


def _env_files(document: Document, folder: Path, problems: list[Problem]) -> dict[Keys, dict[str, str]]:
    found: dict[Keys, dict[str, str]] = {}
    for at, block in blocks(document.tree):
        name, path = block.get("env_file"), (*at, "env_file")
        if not isinstance(name, str) or normal(name) is None:
            continue
        try:
            found[path] = yaml_file.read_env_file(folder / name)
        except OSError as error:
            problems.append(document.problem(path, f"`{name}` cannot be read: {error.strerror}."))
        except ValueError as error:
            problems.append(document.problem(path, f"{name}:{error}"))
    return found


def normal(written: str) -> str | None:
    """A relative path in its shortest form; ``""`` is the folder itself, None is for one that leads out."""
    path = posixpath.normpath(written)
    if path.startswith("/") or path == ".." or path.startswith("../") or "\0" in path:
        return None
    return "" if path == "." else path


def keys_of_apps(path: Path, environment: str) -> tuple[str, ...]:
    """The names of its apps, whatever else is wrong with it."""
    source = str(path)
    try:
        document, problems, _ = yaml_file.opened(read_bytes(path), source, environment, role="project")
        if problems:
            raise ConfigurationError(source, problems)
    except ConfigurationError as error:
        raise Invalid(error.lines()) from error
    apps = document.tree.get("apps")
    return tuple(str(name) for name in apps) if isinstance(apps, dict) else ()

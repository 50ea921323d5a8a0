"""A project's file, understood as the stranger's that it is: variables of its client, secrets of its apps, and files that
came with it; nothing of this machine but what `allow:` gives."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import msgspec

from ..core import schema
from ..core.confining import Use, below, confined, inside, placed, written
from ..core.environments import Document, Path, blocks, interpolated
from ..core.model import Allow, App, Process
from ..core.settings import Loaded, settings_of
from ..errors import ConfigurationError, Invalid, Problem
from ..messages.projects import Bundle, BundleFile
from ..ports import BlobStore
from . import yaml_file
from .bundles import Bundles, Files
from .docker_create import SOCKETS
from .off_loop import Apply, run

SOURCE = "nextdeploy.yml"
"""What a project's file is called when a mistake in it is told."""
MAX_VARIABLES = 10_000
_DECLARED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z0-9_.-]+))?")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Located = tuple[Path, str]


class ProjectLoader:
    """``state`` is the daemon's folder, which no app may have; ``on_host`` says whether an app's commands would run on
    the host."""

    def __init__(
        self, state: FilePath, bundles: Bundles, blobs: BlobStore, apply: Apply, on_host: Callable[[App], bool]
    ) -> None:
        self._state = state
        self._bundles = bundles
        self._blobs = blobs
        self._apply = apply
        self._on_host = on_host

    def load(
        self,
        project: str,
        bundle: Bundle,
        folder: FilePath | None,
        secret_names: Callable[[str], set[str]],
        allow: Allow,
        seen: BlobStore | None = None,
    ) -> Loaded:
        """``folder`` is where ``Bundles.lay_out`` put the files; None: only to see what it would mean, so that nothing is
        made, and blobs need not be here. ``seen``: the blobs as who asks sees them (None: all). ``ConfigurationError`` with
        everything that is wrong; ``Invalid`` and ``TooLarge`` for files that cannot be. Build contexts are absolute with a folder, relative without one."""
        if not re.fullmatch(schema.NAME, project):
            raise Invalid(f"{project!r} is no valid project name; use a-z, 0-9 and -, at most 40 characters.")
        if len(bundle.variables) > MAX_VARIABLES:
            raise Invalid(f"There are more than {MAX_VARIABLES} variables.")
        files, document, problems, warnings = run(self._apply, lambda: _opened(bundle), self._state)
        secrets = {app: secret_names(app) for app in _apps(document)}
        names = Names(document, bundle.variables, secrets)
        problems += run(self._apply, lambda: interpolated(document, names, yaml_file.scalar), self._state)
        if problems:
            raise ConfigurationError(SOURCE, problems)
        env_files = _sent_env_files(document, files)
        absent = set((seen or self._blobs).missing([file.sha256 for file in env_files.values()]))
        loaded: Loaded = run(
            self._apply,
            lambda: self._checked(
                project, bundle, document, files, warnings, allow, self._env_files(document, env_files, absent)
            ),
            self._state,
        )
        places = Places(self._bundles, project, files, folder)
        on_host = {name: self._on_host(app) for name, app in loaded.settings.apps.items()}
        apps = run(
            self._apply,
            lambda: {
                name: placed(app, places, runs_on_host=on_host[name], built=name in bundle.images)
                for name, app in loaded.settings.apps.items()
            },
            self._state,
        )
        told = run(self._apply, places.lay_out, self._state) if folder is not None else []
        settings = msgspec.structs.replace(loaded.settings, apps=apps)
        return dataclasses.replace(loaded, settings=settings, warnings=(*loaded.warnings, *told))

    # -- off the event loop ------------------------------------------------------------------------

    def _checked(
        self,
        project: str,
        bundle: Bundle,
        document: Document,
        files: Files,
        warnings: list[Problem],
        allow: Allow,
        read: tuple[dict[Path, dict[str, str]], list[Problem], list[Problem]],
    ) -> Loaded:
        env_files, problems, later = read
        if problems:
            raise ConfigurationError(SOURCE, problems)
        loaded = settings_of(
            document,
            source=SOURCE,
            environment=bundle.environment,
            role="project",
            folder_name=project,
            env_files=env_files,
            warnings=(*warnings, *later),
        )
        wrong = confined(loaded.settings, allow, files, self._on_host, bundle.images)
        wrong += self._host_paths(loaded.settings.apps, allow)
        if loaded.settings.project != project:
            wrong.append((("project",), f"This is deployed as `{project}`."))
        places = dict.fromkeys((written(document.tree, path), words) for path, words in wrong)
        if places:
            raise ConfigurationError(SOURCE, [document.problem(path, words) for path, words in places])
        return loaded

    def _env_files(
        self, document: Document, sent: Mapping[Path, BundleFile], absent: Collection[str]
    ) -> tuple[dict[Path, dict[str, str]], list[Problem], list[Problem]]:
        """What they hold, what is wrong, and which are not here yet."""
        found: dict[Path, dict[str, str]] = {}
        problems: list[Problem] = []
        later: list[Problem] = []
        for path, file in sent.items():
            blob = self._blobs.path(file.sha256) if file.sha256 not in absent else None
            if blob is None:
                later.append(document.problem(path, f"`{file.path}` is not here yet: its variables are left out."))
                continue
            try:
                found[path] = yaml_file.read_env_file(blob)
            except ValueError as error:
                problems.append(document.problem(path, f"{file.path}:{error}"))
        return found, problems, later

    def _host_paths(self, apps: Mapping[str, App], allow: Allow) -> list[Located]:
        """Paths of the host that lead elsewhere than they say, or to what nobody may have."""
        roots = tuple(os.path.realpath(root) for root in allow.host_paths if root.startswith("/"))
        wrong: list[Located] = []
        for name, app in apps.items():
            for process in app.processes.values():
                for key, source in _host_sources(process, with_workdir=self._on_host(app)):
                    words = self._host_path(os.path.realpath(source), roots) if below(source, allow.host_paths) else ""
                    if words:
                        wrong.append((("apps", name, "processes", process.name, *key), words))
        return wrong

    def _host_path(self, real: str, roots: tuple[str, ...]) -> str:
        if not below(real, roots):
            return "A symbolic link leads out of what this server gives to projects."
        if any(below(os.path.realpath(socket), (real,)) for socket in SOCKETS):
            return "It is or holds the Engine's socket, which no app may have."
        state = os.path.realpath(self._state)
        if below(state, (real,)) or below(real, (state,)):
            return "It is or holds the daemon's own state, which no app may have."
        return ""


def _host_sources(process: Process, *, with_workdir: bool) -> Iterator[tuple[Path, str]]:
    for index, volume in enumerate(process.volumes):
        if volume.source.startswith("/"):
            yield ("volumes", index), volume.source
    if with_workdir and process.workdir is not None and process.workdir.startswith("/"):
        yield ("workdir",), process.workdir


def _opened(bundle: Bundle) -> tuple[Files, Document, list[Problem], list[Problem]]:
    files: Files = Files(bundle.files)
    try:
        content = bundle.text.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(SOURCE, [Problem(1, 1, "", "Not valid UTF-8.")]) from error
    if len(content) > yaml_file.MAX_BYTES:
        raise ConfigurationError(SOURCE, [Problem(1, 1, "", "The file is larger than 1 MiB.")])
    return files, *yaml_file.opened(content, SOURCE, bundle.environment, role="project")


def _sent_env_files(document: Document, files: Files) -> dict[Path, BundleFile]:
    """By the place that names them. One that was not sent is told of elsewhere."""
    found: dict[Path, BundleFile] = {}
    for path, block in blocks(document.tree):
        name = block.get("env_file")
        real = files.find(name) if isinstance(name, str) and inside(name) is not None else None
        entry = files.entry(real) if real is not None else None
        if entry is not None:
            found[(*path, "env_file")] = entry
    return found


def _apps(document: Document) -> list[str]:
    apps = document.tree.get("apps")
    return [name for name in apps if re.fullmatch(schema.NAME, name)] if isinstance(apps, dict) else []


class Names:
    """Where ``${NAME}`` comes from in a project's file: the app's secrets, then what the client has set. ``secrets`` are
    the stored names by app. A secret that the app lists is one before it is stored, unless the client has set it."""

    def __init__(self, document: Document, variables: Mapping[str, str], secrets: Mapping[str, set[str]]) -> None:
        self._variables = variables
        self._stored = secrets
        self._declared: dict[Path, dict[str, str]] = {}
        for path, block in blocks(document.tree):
            listed: Any = block.get("secrets")
            texts = listed if isinstance(listed, list) else []
            matches = [_DECLARED.fullmatch(text) for text in texts if isinstance(text, str)]
            self._declared[path] = {match[1]: match[2] or match[1] for match in matches if match}

    def value(self, name: str) -> str | None:
        return self._variables.get(name)

    def secret(self, path: Path, name: str) -> str | None:
        stored, listed = self._find(path, name)
        if stored is None or not _PLAIN.fullmatch(stored):
            return None
        return (
            stored if stored in self._stored.get(str(path[1]), ()) or (listed and name not in self._variables) else None
        )

    def unset(self, path: Path, name: str) -> str:
        stored, listed = self._find(path, name)
        if stored is None:
            return f"The variable `{name}` is not set where this is deployed from."
        if not listed and stored not in self._stored.get(str(path[1]), ()):
            return f"`{name}` is neither a secret of this app nor set where this is deployed from."
        if not _PLAIN.fullmatch(stored):
            return f"The secret `{name}` is stored as `{stored}`: a template takes names of letters, digits and _ only."
        return f"`{name}` is a secret of this app: only `env` can have it."

    def _find(self, path: Path, name: str) -> tuple[str | None, bool]:
        """The name that it is, or would be, stored under, and whether the app lists it. None outside of apps."""
        if path[:1] != ("apps",) or len(path) < 2:
            return None, False
        for block in (path[:4], path[:2]):
            stored = self._declared.get(block, {}).get(name)
            if stored is not None:
                return stored, True
        return name, False


class Places:
    """Where the paths of a project are on this machine. What has to be made for them is remembered, for ``lay_out``."""

    def __init__(self, bundles: Bundles, project: str, files: Files, folder: FilePath | None) -> None:
        self._bundles = bundles
        self._project = project
        self._files = files
        self._folder = folder
        self._trees: dict[FilePath, Files] = {}
        self._kept: dict[str, tuple[Files | None, bool]] = {}

    def __call__(self, use: Use, path: str) -> str:
        short = inside(path) or ""
        real = self._files.find(short)
        if use == "kept":
            seed = self._files.below(real) if real is not None else None
            self._kept[short] = seed, real is not None and self._files.entry(real) is not None
            return str(self._bundles.kept_path(self._project, short))
        assert real is not None
        if use == "context" and self._folder is None:
            return real or "."
        alone = self._files.below(real) if use == "tree" else None
        if alone is None:
            # also a folder with links that lead out of it: only among all files they mean what they say
            whole = self._folder or self._bundles.bundle_path(self._project, self._files)
            return str(whole / real)
        tree = self._bundles.tree_path(self._project, alone)
        self._trees[tree] = alone
        return str(tree / real.rpartition("/")[2]) if self._files.entry(real) is not None else str(tree)

    def lay_out(self) -> list[str]:
        """Make it; sentences for the user."""
        assert self._folder is not None
        for files in self._trees.values():
            self._bundles.lay_out_tree(self._project, files)
        self._bundles.note_trees(self._folder, self._trees)
        told = []
        for path, (seed, alone) in self._kept.items():
            if not self._bundles.lay_out_kept(self._project, path, seed, alone=alone):
                told.append(
                    f"`./{path}` is as the apps have left it: what the project has there now is not copied over it."
                )
        return told

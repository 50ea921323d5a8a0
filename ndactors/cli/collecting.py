"""The files that a project sends: those below the places that its file names, less what `.dockerignore` leaves out.
Together they are a true part of the project's folder: symbolic links stay links."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.dockerignore import NAME, IgnoreRules
from ..errors import NextDeployError
from ..messages.projects import MAX_FILES, MAX_PATH
from .failures import WRONG, Failure
from .project_file import Place, normal

ALWAYS_IGNORED = "**/.git"
"""Before the project's own rules, so that `!.git` brings it back: history is no part of a version."""
MAX_IGNORE_BYTES = 1024 * 1024
MAX_LINKS = 40
MAX_NAMED = 10


@dataclass(frozen=True)
class Found:
    """A file, or a symbolic link with its target in ``link``. ``stamp`` changes when the file does."""

    path: str
    size: int = 0
    executable: bool = False
    link: str | None = None
    stamp: tuple[int, int, int] = (0, 0, 0)
    """Time of its last change and of its node's, in ns; the node's number."""


class Wrong(Failure):
    """Files that cannot be sent, each with the reason."""

    exit_code = WRONG


def collect(folder: Path, places: Iterable[Place]) -> list[Found]:
    """Sorted by path. ``Wrong`` names what cannot be sent."""
    collector = _Collector(folder)
    for place in places:
        collector.add(place)
    if collector.wrong:
        lines = list(dict.fromkeys(collector.wrong))
        more = [f"and {len(lines) - MAX_NAMED} more"] if len(lines) > MAX_NAMED else []
        raise Wrong("this cannot be sent:", *lines[:MAX_NAMED], *more)
    return [collector.found[path] for path in sorted(collector.found)]


class _Collector:
    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self.found: dict[str, Found] = {}
        self.wrong: list[str] = []

    def add(self, place: Place) -> None:
        if place.kind == "kept" and not os.path.lexists(self._on_disk(place.path)):
            return  # the server makes a folder that containers write to
        path = self._resolved(place.path, place.said)
        if path is None:
            return
        if place.kind == "context":
            self._context(path, place)
        elif place.kind == "folder":
            self._ignoring(path, place, (NAME,), keep=())
        elif os.path.isdir(self._on_disk(path)):
            if place.kind == "file":
                self.wrong.append(f"{place.said}: `{place.path}` is a folder")
                return
            self._walk(path, IgnoreRules(ALWAYS_IGNORED))
        else:
            self._file(path)

    # -- build contexts ----------------------------------------------------------------------------

    def _context(self, path: str, place: Place) -> None:
        if not os.path.isdir(self._on_disk(path)):
            self.wrong.append(f"{place.said}: `{place.path}` is no folder")
            return
        dockerfile = self._resolved(
            posixpath.join(path, place.dockerfile), place.said, "; `nextdeploy init` writes one"
        )
        if dockerfile is None:
            return
        self._file(dockerfile)
        self._ignoring(path, place, (f"{place.dockerfile}{NAME}", NAME), keep=(place.dockerfile,))

    def _ignoring(self, path: str, place: Place, names: tuple[str, ...], keep: tuple[str, ...]) -> None:
        """A folder less what the first of ``names`` that is there leaves out; that file itself is sent."""
        name = next((name for name in names if os.path.lexists(self._on_disk(posixpath.join(path, name)))), None)
        if name is None:
            self._walk(path, IgnoreRules(ALWAYS_IGNORED))
            return
        real = self._resolved(posixpath.join(path, name), place.said)
        if real is None:
            return
        self._file(real)
        try:
            with open(self._on_disk(real), "rb") as file:
                text = file.read(MAX_IGNORE_BYTES).decode("utf-8", "replace")
            self._walk(path, IgnoreRules(f"{ALWAYS_IGNORED}\n{text.removeprefix(BOM)}", (name, *keep)))
        except OSError as error:
            self.wrong.append(f"{real}: {error.strerror}")
        except NextDeployError as error:
            self.wrong.append(f"{real}: {error}")

    # -- walking -----------------------------------------------------------------------------------

    def _walk(self, root: str, rules: IgnoreRules) -> None:
        """Everything below ``root`` that ``rules`` do not leave out; no link is followed."""
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self._on_disk(folder)) as entries:
                    rows = list(entries)
            except OSError as error:
                self.wrong.append(f"{folder or '.'}: {error.strerror}")
                continue
            for entry in rows:
                path = posixpath.join(folder, entry.name)
                inside = path[len(root) + 1 :] if root else path
                if entry.is_dir(follow_symlinks=False):
                    if not rules.may_skip_folder(inside):
                        waiting.append(path)
                elif not rules.ignored(inside):
                    self._file(path)
                    if len(self.found) > MAX_FILES:
                        raise Failure(
                            f"these are more than {MAX_FILES:,} files; leave some out with a {NAME}", code=WRONG
                        )

    def _file(self, path: str) -> None:
        """One that is no folder."""
        if path in self.found:
            return
        try:
            path.encode()
        except UnicodeEncodeError:
            self.wrong.append(f"{path.encode('utf-8', 'backslashreplace').decode()}: its name is not UTF-8")
            return
        if len(path) > MAX_PATH:
            self.wrong.append(f"{path[:60]}…: its path is longer than {MAX_PATH} characters")
            return
        try:
            status = os.lstat(self._on_disk(path))
            if stat.S_ISLNK(status.st_mode):
                self._link(path, os.readlink(self._on_disk(path)))
                return
        except OSError as error:
            self.wrong.append(f"{path}: {error.strerror}")
            return
        if not stat.S_ISREG(status.st_mode):
            self.wrong.append(f"{path}: it is {_kind(status.st_mode)}, not a file")
            return
        self.found[path] = Found(
            path,
            size=status.st_size,
            executable=bool(status.st_mode & 0o100),
            stamp=(status.st_mtime_ns, status.st_ctime_ns, status.st_ino),
        )

    def _link(self, path: str, target: str) -> None:
        if target.startswith("/") or normal(posixpath.join(posixpath.dirname(path), target)) is None:
            self.wrong.append(
                f"{path}: a symbolic link that leaves the project's folder ({target}); {NAME} can omit it"
            )
        elif len(target) > MAX_PATH or not _encodes(target):
            self.wrong.append(f"{path}: a symbolic link to something that is no name")
        else:
            self.found[path] = Found(path, link=target)

    def _resolved(self, path: str, said: str, hint: str = "") -> str | None:
        """``path`` with every link in it followed, as they are collected. None: it is not there, or leads outside."""
        steps = 0
        done = ""
        waiting = list(reversed(path.split("/"))) if path else []
        while waiting:
            here = normal(posixpath.join(done, waiting.pop()))
            if here is None:
                self.wrong.append(f"{said}: `{path}` leads out of the project's folder")
                return None
            try:
                is_link = here != "" and stat.S_ISLNK(os.lstat(self._on_disk(here)).st_mode)
            except OSError as error:
                words = "there is no" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
                self.wrong.append(f"{said}: {words} `{path}`{hint}")
                return None
            if not is_link:
                done = here
                continue
            steps += 1
            self._file(here)
            if steps > MAX_LINKS or here not in self.found:
                self.wrong.append(f"{said}: `{path}` is behind a symbolic link that leads nowhere")
                return None
            done = posixpath.dirname(here)
            waiting += reversed((self.found[here].link or "").split("/"))
        return done

    def _on_disk(self, path: str) -> str:
        return f"{self._folder}/{path}" if path else self._folder


BOM = "\ufeff"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(mode: int) -> str:
    kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "a folder")

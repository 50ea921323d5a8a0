"""The configuration file as a source that can be read again, and written; it remembers the last good reading. Nothing is
written that could not be loaded."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.model import Settings
from ..core.settings import Loaded
from ..errors import ConfigurationError, Conflict, Invalid, StateError, TooLarge
from . import channel_apprise, yaml_file
from .off_loop import Apply, run
from .trees import sync_folder, write_all

NEW_MODE = 0o600
"""Of a file that somebody removed: it may hold secrets."""
_HINTS = {
    errno.EROFS: "its file system is read-only (a systemd unit can allow it with ReadWritePaths=)",
    errno.EBUSY: "it is a mount of its own; mount its folder instead",
    errno.EACCES: "this daemon's user may not write to its folder",
    errno.EPERM: "this daemon's user may not write to its folder",
    errno.ENOENT: "its folder is gone",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
}


class ConfigFile:
    """``apply`` runs a call off the event loop: a large file takes a while to parse."""

    def __init__(
        self,
        path: Path,
        environment: str,
        overrides: Sequence[str],
        variables: Mapping[str, str],
        apply: Apply,
    ) -> None:
        self._path = path
        self._environment = environment
        self._overrides = tuple(overrides)
        self._variables = dict(variables)
        self._apply = apply
        self._loaded = self._load(path)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._loaded.warnings

    @property
    def path(self) -> Path:
        return self._path

    def render(self) -> str:
        """The effective configuration as YAML, secrets masked."""
        return yaml_file.render(self._loaded)

    def current(self) -> Settings:
        return self._loaded.settings

    def reload(self) -> tuple[Settings, tuple[str, ...]]:
        self._loaded = run(self._apply, lambda: self._load(self._path), self._path)
        return self._loaded.settings, self._loaded.warnings

    def text(self) -> str | None:
        """What is on disk, loaded or not; None if the file is gone. ``StateError`` for one that cannot be read."""
        content = run(self._apply, lambda: _content(self._path), self._path)
        return content.decode("utf-8", "replace") if content is not None else None

    def etag(self) -> str:
        """Changes with the text; empty while there is no file."""
        return etag(run(self._apply, lambda: _content(self._path), self._path))

    def write(self, text: str, if_match: Collection[str] = (), ready: Callable[[], None] = lambda: None) -> str:
        """Put ``text`` into the file; its etag. ``ready`` is called in the same thread once the text is known to be good
        and nothing but the last step is left; if it raises, nothing is written.

        ``ConfigurationError``, ``TooLarge`` and ``Invalid`` for the text, ``Conflict`` unless the file has one of the
        etags ``if_match`` (empty: any), ``StateError`` for a file that cannot be written. A link is followed; owner and
        mode stay."""
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise Invalid("This is no valid text.") from error
        if len(content) > yaml_file.MAX_BYTES:
            raise TooLarge("The file is larger than 1 MiB.")
        run(self._apply, lambda: self._write(content, if_match, ready), self._path)
        return etag(content)

    # -- in the thread pool ------------------------------------------------------------------------

    def _load(self, path: Path) -> Loaded:
        loaded = yaml_file.load(
            path, environment=self._environment, overrides=self._overrides, variables=self._variables
        )
        if loaded.settings.monitoring.alert.apprise and not channel_apprise.is_installed():
            words = f"{path}: monitoring.alert.apprise: {channel_apprise.MISSING}. Nobody is told by it until then."
            loaded = replace(loaded, warnings=(*loaded.warnings, words))
        return loaded

    def _write(self, content: bytes, if_match: Collection[str], ready: Callable[[], None]) -> None:
        target = Path(os.path.realpath(self._path))
        before = etag(_content(target))
        if if_match and before not in if_match:
            raise Conflict(f"{self._path} was changed meanwhile: read it again.")
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            _write_beside(target, temporary, content)
            # from beside the file, so that relative paths in it mean what they will mean
            self._check(temporary)
            if etag(_content(target)) != before:
                raise Conflict(f"{self._path} was changed at this very moment: read it again.")
            ready()
            os.rename(temporary, target)
            sync_folder(target.parent)
        except OSError as error:
            why = _HINTS.get(error.errno or 0) or error.strerror or str(error)
            raise StateError(f"{self._path} cannot be written: {why}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _check(self, temporary: Path) -> None:
        try:
            self._load(temporary)
        except ConfigurationError as error:
            raise ConfigurationError(str(self._path), error.problems) from error


def etag(content: bytes | None) -> str:
    return hashlib.sha256(content).hexdigest()[:32] if content is not None else ""


def _content(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StateError(f"{path} is no file")
        content = b""
        while len(content) <= yaml_file.MAX_BYTES and (piece := os.read(descriptor, yaml_file.MAX_BYTES + 1)):
            content += piece
    finally:
        os.close(descriptor)
    if len(content) > yaml_file.MAX_BYTES:
        raise StateError(f"{path} is larger than 1 MiB")
    return content


def _write_beside(target: Path, temporary: Path, content: bytes) -> None:
    try:
        status: os.stat_result | None = target.stat()
    except FileNotFoundError:
        status = None
    if status is not None and (not status.st_mode & 0o222 or not os.access(target, os.W_OK)):
        # the folder may be writable all the same, but whoever set this mode meant it
        raise StateError(f"{target} cannot be written: it is read-only (mode {stat.S_IMODE(status.st_mode):04o})")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, NEW_MODE)
    try:
        if status is not None:
            own = os.fstat(descriptor)
            if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
                try:
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                except PermissionError as error:
                    raise StateError(f"{target} cannot be written: it belongs to another user") from error
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

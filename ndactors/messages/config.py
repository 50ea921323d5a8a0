"""The server's own file, read and changed while it runs. Every text it ever had is a version."""

from __future__ import annotations

from .base import Message, Value


class GetConfig(Message, frozen=True, kw_only=True):
    """Answers ``ConfigView``."""


class ConfigView(Value, frozen=True, kw_only=True):
    """``text`` is the file as it is on disk, ``effective`` what is in force, as YAML with secrets masked. ``version`` is
    None for a text that somebody wrote into the file and that was not loaded yet. ``etag`` changes with the text."""

    version: int | None
    etag: str
    text: str
    effective: str

    def __repr__(self) -> str:
        return f"ConfigView(version={self.version!r}, etag={self.etag!r})"


class PutConfig(Message, frozen=True, kw_only=True):
    """Answers ``ConfigWritten``. ``ConfigurationError`` changes nothing. ``if_match``: only if the file has one of these
    etags, else ``Conflict``; empty: whatever it has. ``StateError`` for a file that cannot be written."""

    text: str
    by: str
    message: str | None = None
    if_match: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"PutConfig(by={self.by!r}, message={self.message!r}, if_match={self.if_match!r})"


class RollbackConfig(Message, frozen=True, kw_only=True):
    """Write version ``to`` again; that is a version of its own. The same answers; ``NotFound`` for no such version."""

    to: int
    by: str
    message: str | None = None


class ConfigWritten(Value, frozen=True, kw_only=True):
    version: int
    etag: str


class ConfigVersion(Value, frozen=True, kw_only=True):
    """``by``: ``file`` (somebody edited it) or ``api:<user>``. ``at`` is RFC 3339. ``diff`` is unified, against the
    version before, secrets masked."""

    version: int
    at: str
    by: str
    message: str | None = None
    diff: str = ""


class GetConfigHistory(Message, frozen=True, kw_only=True):
    """Answers ``ConfigHistory``, newest first. ``before`` is a cursor."""

    before: int | None = None
    limit: int = 100


class ConfigHistory(Value, frozen=True, kw_only=True):
    items: tuple[ConfigVersion, ...] = ()
    next: int | None = None

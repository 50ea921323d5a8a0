"""Variables and secrets of apps. Values of secrets go in; none comes out."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from .base import Message, Value


class ChangeSecrets(Message, frozen=True, kw_only=True):
    """Set some and remove some, all of it or nothing. Answers None. ``Invalid``, ``TooLarge``, ``NotFound`` for one to
    remove that is not there, ``SecretsUnreadable`` while the key is missing."""

    app: str
    set: dict[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ChangeSecrets(app={self.app!r}, set={sorted(self.set)!r}, unset={self.unset!r})"


class GetSecretNames(Message, frozen=True, kw_only=True):
    """Answers name → when it was set (RFC 3339), by name."""

    app: str


class RotateSecrets(Message, frozen=True, kw_only=True):
    """Encrypt everything with a new key; no container notices. Answers how many secrets there are."""


class EnvItem(Value, frozen=True, kw_only=True):
    """A variable of a process's containers. ``source``: ``file`` (or an `env_file`), ``live`` (changed while it ran),
    ``secret`` (then ``value`` is empty)."""

    name: str
    value: str = ""
    process: str
    source: Literal["file", "live", "secret"] = "file"


class EnvView(Value, frozen=True, kw_only=True):
    """``on_host``: the app runs as host processes, where to set a variable is as much as to run a command."""

    items: tuple[EnvItem, ...] = ()
    on_host: bool = False


class GetEnv(Message, frozen=True, kw_only=True):
    """Answers ``EnvView``, by process and name. ``NotFound`` for no such app."""

    app: str

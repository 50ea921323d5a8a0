"""API tokens: made, shown without their secret, revoked, verified by their digest."""

from __future__ import annotations

from typing import Literal

from .base import Message, Value

Role = Literal["viewer", "operator", "admin"]
Kind = Literal["api", "hook"]
PREFIXES: dict[str, str] = {"api": "ndt_", "hook": "ndh_"}
"""What a token begins with, so that it is recognised wherever it turns up."""


class TokenView(Value, frozen=True, kw_only=True):
    """``apps`` None: all of them. Times in seconds since 1970; ``used_at`` is exact to about an hour, None: never."""

    id: str
    name: str
    role: Role
    apps: tuple[str, ...] | None = None
    kind: Kind = "api"
    created_at: float
    created_by: str
    used_at: float | None = None


class CreateToken(Message, frozen=True, kw_only=True):
    """Answers ``CreatedToken``. ``Invalid`` for what makes no sense: a hook without exactly one app, an administrator
    who is limited to some apps. ``role`` of a hook does not matter: it deploys its app and nothing else."""

    name: str
    role: Role = "operator"
    apps: tuple[str, ...] | None = None
    kind: Kind = "api"
    by: str


class CreatedToken(Value, frozen=True, kw_only=True):
    """``secret`` is the token itself: told here and never again."""

    token: TokenView
    secret: str

    def __repr__(self) -> str:
        return f"CreatedToken(token={self.token!r})"


class RevokeToken(Message, frozen=True, kw_only=True):
    """Answers its ``TokenView``. ``NotFound``."""

    id: str


class GetTokens(Message, frozen=True, kw_only=True):
    """Answers ``tuple[TokenView, …]``, oldest first."""


class VerifyToken(Message, frozen=True, kw_only=True):
    """``digest`` is the token's SHA-256 in hex. Answers ``TokenIdentity``; ``NotFound`` if there is none of this kind."""

    digest: str
    kind: Kind = "api"


class TokenIdentity(Value, frozen=True, kw_only=True):
    """Whose request it is. ``apps`` None: no limit."""

    id: str
    name: str
    role: Role
    apps: tuple[str, ...] | None = None

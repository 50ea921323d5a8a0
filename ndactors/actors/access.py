"""AccessActor: API tokens. It keeps their digests only: a token itself is told once, when it is made."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import secrets
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from ..core.schema import NAME
from ..errors import Invalid, NotFound, StateError, TooLarge
from ..messages.access import (
    PREFIXES,
    CreatedToken,
    CreateToken,
    GetTokens,
    RevokeToken,
    TokenIdentity,
    TokenView,
    VerifyToken,
)
from ..messages.containers import RecordEvent
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref

log = logging.getLogger("ndactors.access")

RECORD = "tokens"
TOKEN_BYTES = 32
MAX_TOKENS = 1000
MAX_NAME = 100
MAX_APPS = 100
USED_SECONDS = 3600.0
"""How exact the time of last use is: not every request is written down."""


class Tokens(Struct, frozen=True, kw_only=True):
    """The record: by the token's SHA-256 in hex."""

    tokens: dict[str, TokenView] = field(default_factory=dict)


class AccessActor(Actor):
    """``now`` gives seconds since 1970."""

    def __init__(self, state: StateStore, events: Ref, now: Callable[[], float]) -> None:
        self._state = state
        self._events = events
        self._now = now
        self._tokens: dict[str, TokenView] = {}

    def on_start(self) -> None:
        record = self._state.load(RECORD, Tokens)
        self._tokens = dict(record.tokens) if record is not None else {}

    def receive(self, message: object) -> object:
        match message:
            case VerifyToken():
                return self._verify(message)
            case CreateToken():
                return self._create(message)
            case RevokeToken(id=id):
                return self._revoke(id)
            case GetTokens():
                return tuple(sorted(self._tokens.values(), key=lambda token: (token.created_at, token.id)))
            case _:
                return super().receive(message)

    def _verify(self, message: VerifyToken) -> TokenIdentity:
        # looked up by a digest: how long that takes tells nothing about the token
        token = self._tokens.get(message.digest)
        if token is None or token.kind != message.kind:
            raise NotFound("There is no such token.")
        now = self._now()
        if token.used_at is None or not 0 <= now - token.used_at < USED_SECONDS:
            used = replace(token, used_at=now)
            try:
                self._save({**self._tokens, message.digest: used})
            except StateError as error:
                # whoever has the token may go on, and this is not tried again at once
                log.warning("the use of a token cannot be written down: %s", error)
                self._tokens[message.digest] = used
        return TokenIdentity(id=token.id, name=token.name, role=token.role, apps=token.apps)

    def _create(self, message: CreateToken) -> CreatedToken | Later:
        apps = _checked(message)
        if len(self._tokens) >= MAX_TOKENS:
            raise TooLarge(f"There are {MAX_TOKENS} tokens already; revoke some.")
        random = base64.b32encode(secrets.token_bytes(TOKEN_BYTES)).decode().lower().rstrip("=")
        secret = PREFIXES[message.kind] + random
        token = TokenView(
            id=secrets.token_hex(6),
            name=message.name,
            role="operator" if message.kind == "hook" else message.role,
            apps=apps,
            kind=message.kind,
            created_at=self._now(),
            created_by=message.by,
        )
        failed = self._try({**self._tokens, hashlib.sha256(secret.encode()).hexdigest(): token})
        if failed is not None:
            return failed
        self._tell("token.created", token, message.by)
        return CreatedToken(token=token, secret=secret)

    def _revoke(self, id: str) -> TokenView | Later:
        found = next((digest for digest, token in self._tokens.items() if token.id == id), None)
        if found is None:
            raise NotFound("There is no such token.")
        token = self._tokens[found]
        failed = self._try({digest: other for digest, other in self._tokens.items() if digest != found})
        if failed is not None:
            return failed
        self._tell("token.revoked", token, "")
        return token

    def _try(self, tokens: dict[str, TokenView]) -> Later | None:
        """A disk that is full is an answer, not a crash."""
        try:
            self._save(tokens)
        except StateError as error:
            failed = Later()
            failed.fail(error)
            return failed
        return None

    def _save(self, tokens: dict[str, TokenView]) -> None:
        self._state.save(RECORD, Tokens(tokens=tokens))
        self._tokens = tokens

    def _tell(self, kind: str, token: TokenView, by: str) -> None:
        limit = f", for {', '.join(token.apps)}" if token.apps is not None else ""
        reason = f"{token.name} ({token.kind}, {token.role}{limit})" + (f" by {by}" if by else "")
        self._events.tell(RecordEvent(kind=kind, reason=reason, detail={"token": token.id}))


def _checked(message: CreateToken) -> tuple[str, ...] | None:
    """The apps, each once."""
    if not message.name.strip() or len(message.name) > MAX_NAME or not message.name.isprintable():
        raise Invalid(f"A token needs a name of at most {MAX_NAME} printable characters.")
    apps = None if message.apps is None else tuple(sorted(set(message.apps)))
    if message.kind == "hook" and (apps is None or len(apps) != 1):
        raise Invalid("A hook deploys exactly one app: name it in `apps`.")
    if apps is None:
        return None
    if not apps or len(apps) > MAX_APPS:
        raise Invalid(f"A token is for all apps (`apps` is null), or for 1 to {MAX_APPS} of them.")
    if wrong := [app for app in apps if re.fullmatch(NAME, app) is None]:
        raise Invalid(f"{wrong[0][:60]!r} cannot be the name of an app.")
    if message.role == "admin" and message.kind == "api":
        raise Invalid("An administrator can do anything: a token limited to some apps is viewer or operator.")
    return apps

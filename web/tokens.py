"""API tokens as the web meets them: verified by their digest at the AccessActor, remembered for a few seconds."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from ndactors.errors import NextDeployError, NotFound
from ndactors.messages.access import PREFIXES, Kind, TokenIdentity, VerifyToken

if TYPE_CHECKING:
    from . import Ref

REMEMBER_SECONDS = 5.0
"""A revoked token lives at most so long."""
REMEMBER_MANY = 1000
MAX_TOKEN = 100


def is_token(text: str) -> bool:
    """It looks like one of ours, of any kind."""
    return text.startswith(tuple(PREFIXES.values()))


class Tokens:
    """Only good ones are remembered, so a new one counts at once."""

    def __init__(self, access: Ref) -> None:
        self._access = access
        self._good: OrderedDict[tuple[str, str], tuple[TokenIdentity, float]] = OrderedDict()

    def remembered(self, token: str, kind: Kind) -> TokenIdentity | None:
        identity, until = self._good.get((kind, _digest(token)), (None, 0.0))
        return identity if time.monotonic() < until else None

    def verify(self, token: str, kind: Kind) -> TokenIdentity | None:
        """None for one that is not, or no longer, there."""
        if len(token) > MAX_TOKEN or not token.startswith(PREFIXES[kind]):
            return None
        digest = _digest(token)
        try:
            identity: TokenIdentity = self._access.ask(VerifyToken(digest=digest, kind=kind))
        except NotFound:
            self._good.pop((kind, digest), None)
            return None
        self._good[(kind, digest)] = (identity, time.monotonic() + REMEMBER_SECONDS)
        self._good.move_to_end((kind, digest))
        while len(self._good) > REMEMBER_MANY:
            self._good.popitem(last=False)
        return identity

    def still(self, token: str) -> bool:
        """Whether an API token that was good is good now; also as long as nobody can say."""
        try:
            return self.remembered(token, "api") is not None or self.verify(token, "api") is not None
        except NextDeployError:
            return True

    def forget(self) -> None:
        """One was revoked here: ask about all of them again."""
        self._good.clear()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

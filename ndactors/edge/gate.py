"""What may keep a request from its app: an address that is not allowed, a limit, a redirect, maintenance, a password."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from _thread import start_new_thread
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from gevent.hub import get_hub

from ..core.gcra import Limit
from ..core.redacting import address_key
from ..core.redirects import Redirect, compile_redirects, find_redirect
from ..core.routing import normal_host
from ..messages.edge import Service
from . import http1

if TYPE_CHECKING:
    from .shared import Shared

VERDICTS_REMEMBERED = 4096
CHECKS_WAITING = 256
"""More sign-ins than this at once are turned away: each costs a password hash."""


def response_fields(settings: Service) -> dict[bytes, bytes]:
    """The configured fields of every answer of an app, by name in lower case. They take the place of the app's own."""
    return {
        name.lower().encode("latin-1"): f"{name}: {value}\r\n".encode("latin-1")
        for name, value in settings.response_headers.items()
    }


class Gate:
    """One service's rules that are the same for every request; None (``of``) if there are none."""

    def __init__(self, settings: Service) -> None:
        self.app = settings.app
        self.maintenance = settings.maintenance
        self.redirects: tuple[Redirect, ...] = compile_redirects(settings.redirects)
        self.users = dict(settings.basic_auth)
        self.allow = [ipaddress.ip_network(cidr, strict=False) for cidr in settings.allow]

    @classmethod
    def of(cls, settings: Service) -> Gate | None:
        if settings.maintenance or settings.redirects or settings.basic_auth or settings.allow:
            return cls(settings)
        return None

    def lets_in(self, address: str) -> bool:
        if not self.allow:
            return True
        try:
            own = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(own in network for network in self.allow)

    def redirect(self, request: http1.Request) -> str | None:
        if not self.redirects:
            return None
        path, _, query = request.target.decode("latin-1").partition("?")
        host = normal_host(request.host).decode("latin-1")
        return find_redirect(self.redirects, host, path, query)


class RateLimits:
    """``per_app`` and ``per_ip`` of one service, and where they are counted."""

    __slots__ = ("name", "per_app", "per_ip", "place")

    def __init__(self, name: str, per_app: Limit | None, per_ip: Limit | None) -> None:
        self.name = name
        self.per_app = per_app
        self.per_ip = per_ip
        self.place: tuple[int, int] | None = None
        """The app's place and key, once known."""

    @classmethod
    def of(cls, name: str, settings: Service) -> RateLimits | None:
        def limit(which: str) -> Limit | None:
            rate = getattr(settings, which)
            return Limit.of(rate.count, rate.seconds, settings.burst) if rate is not None and rate.count else None

        per_app, per_ip = limit("per_app"), limit("per_ip")
        return cls(name, per_app, per_ip) if per_app is not None or per_ip is not None else None

    def admit(self, shared: Shared, places: Places, address: str, now: float) -> float:
        """0, or how long to wait, or negative how long to stay away. ``places`` is where the connection remembers its
        client's place."""
        wait, place = 0.0, -1
        per_ip = self.per_ip
        if per_ip is not None:
            found = places.get(self)
            if found is None or found[0] != address or shared.keys[found[1]] != found[2]:
                key = shared.key("address", self.name, address_key(address))
                found = places[self] = (address, shared.place_of_address(key), key)
            place = found[1]
            wait = shared.admit(place, per_ip, now)
            if wait < 0.0:
                return wait
        per_app = self.per_app
        if per_app is not None:
            own = self.place
            if own is None or shared.keys[own[0]] != own[1]:
                key = shared.key("app", self.name)
                own = self.place = (shared.place_of_app(key), key)
            longer = shared.admit(own[0], per_app, now)
            if longer < 0.0:
                if per_ip is not None:
                    shared.give_back(place, per_ip)
                return longer
            if longer > wait:
                return longer
        return wait


Places = dict[RateLimits, tuple[str, int, int]]
"""Address, place and key, for each service's limits that a client met."""


class Passwords:
    """Checks ``Authorization: Basic`` in a thread, one at a time, and remembers the verdicts for a while by a keyed
    hash: nobody's password is kept."""

    def __init__(self, soon: Callable[[Callable[[], None]], None]) -> None:
        self._soon = soon
        self._key = os.urandom(32)
        self._verdicts: OrderedDict[bytes, bool] = OrderedDict()
        self._waiting: dict[bytes, list[Callable[[], None]]] = {}
        self._busy = False
        self._queue: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    def verdict(self, gate: Gate, authorization: bytes) -> bool | None:
        """None: not known yet, ask ``check``."""
        if _basic(authorization) is None:
            return False
        return self._verdicts.get(self._digest(gate, authorization))

    def check(self, gate: Gate, authorization: bytes, then: Callable[[], None]) -> bool:
        """Call ``then`` once the verdict is known. False if too many wait already."""
        found = _basic(authorization)
        assert found is not None
        user, password = found
        digest = self._digest(gate, authorization)
        callers = self._waiting.get(digest)
        if callers is not None:
            if len(callers) >= CHECKS_WAITING:
                return False
            callers.append(then)
            return True
        if len(self._waiting) >= CHECKS_WAITING:
            return False
        self._waiting[digest] = [then]
        self._queue[digest] = (gate.users.get(user, ""), password)
        self._next()
        return True

    def _digest(self, gate: Gate, authorization: bytes) -> bytes:
        rules = "\0".join(f"{user}\0{hash}" for user, hash in sorted(gate.users.items()))
        return blake2b(authorization + b"\0" + rules.encode(), key=self._key, digest_size=32).digest()

    def _next(self) -> None:
        if self._busy or not self._queue:
            return
        digest, (hash, password) = next(iter(self._queue.items()))
        verdict: list[bool] = []
        bell = get_hub().loop.async_()

        def check() -> None:
            try:
                verdict.append(_verify(hash, password))
            finally:
                bell.send()

        def checked() -> None:
            bell.stop()
            bell.close()
            self._known(digest, verdict == [True])
            if not verdict:  # it failed, and was no check: those who waited are turned away, the next one is checked
                self._soon(lambda: self._forget(digest))

        bell.start(self._soon, checked)
        try:
            start_new_thread(check, ())  # gevent's pool would take 2 MB
        except RuntimeError:  # there may be no more of them: whoever asks next tries again
            bell.stop()
            bell.close()
            raise
        self._busy = True
        del self._queue[digest]

    def _forget(self, digest: bytes) -> None:
        self._verdicts.pop(digest, None)

    def _known(self, digest: bytes, good: bool) -> None:
        self._busy = False
        self._verdicts[digest] = good
        if len(self._verdicts) > VERDICTS_REMEMBERED:
            self._verdicts.popitem(last=False)
        for then in self._waiting.pop(digest, []):
            self._soon(then)
        self._next()


def _verify(hash: str, password: str) -> bool:
    from argon2 import PasswordHasher  # in this thread; most have no such rule
    from argon2.exceptions import Argon2Error, InvalidHashError

    hasher = PasswordHasher()
    if not hash:
        hasher.hash(password)  # somebody we do not know takes as long as a wrong password
        return False
    try:
        return hasher.verify(hash, password)
    except (Argon2Error, InvalidHashError):
        return False


def _basic(authorization: bytes) -> tuple[str, str] | None:
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None

"""Who asks, and what they may: basic auth, bearer tokens, the session cookie, the control socket."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import argon2
from flask import g, request, session
from werkzeug.security import check_password_hash

from ndactors.core.model import User
from ndactors.errors import Forbidden, NextDeployError, NotFound, Unauthorized
from ndactors.messages.access import Kind, TokenIdentity

from .problems import TooManyRequests
from .relay import IDENTITY
from .tokens import Tokens, is_token
from .upgrades import offered_token

if TYPE_CHECKING:
    from . import Ref

ROLES = {"viewer": 1, "operator": 2, "admin": 3}
TOKEN_SECONDS = 3600
REMEMBER_SECONDS = 300.0
REMEMBER_MANY = 1000
FREE_FAILURES = 5
FORGIVE_SECONDS = 900.0
LONGEST_BAN_SECONDS = 300.0
MAX_PASSWORD = 1024


class Identity(NamedTuple):
    """``apps``: all that somebody may see and touch; None: no limit."""

    name: str
    role: str
    apps: tuple[str, ...] | None = None


class Users:
    """Verifies passwords. A right one is remembered for a while (as a keyed digest), because a password hash is meant
    to be slow; an unknown user takes as long as a known one."""

    def __init__(self, users: tuple[User, ...]) -> None:
        self._users = {user.name: user for user in users}
        self._hasher = argon2.PasswordHasher()
        self._decoy = self._hasher.hash(secrets.token_hex(16))
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()

    def verify(self, name: str, password: str) -> Identity | None:
        if len(password) > MAX_PASSWORD:
            return None
        user = self._users.get(name)
        digest = hmac.digest(self._key, f"{len(name)}:{name}{password}".encode(), "sha256")
        if user is not None and self._right.get(digest, 0.0) > time.monotonic():
            return Identity(name, user.role)
        right = _off_loop(lambda: self._check(user.password_hash if user is not None else self._decoy, password))
        if not right or user is None:
            return None
        self._right[digest] = time.monotonic() + REMEMBER_SECONDS
        while len(self._right) > REMEMBER_MANY:
            self._right.popitem(last=False)
        return Identity(name, user.role)

    def role(self, name: str) -> str | None:
        user = self._users.get(name)
        return user.role if user is not None else None

    def stamp(self, name: str) -> str:
        """Changes with the password: what was signed in before is signed out."""
        user = self._users.get(name)
        return hashlib.sha256(user.password_hash.encode()).hexdigest()[:16] if user is not None else ""

    def _check(self, stored: str, password: str) -> bool:
        try:
            if stored.startswith("$argon2"):
                return self._hasher.verify(stored, password)
            return check_password_hash(stored, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, ValueError):
            return False


def _off_loop(call: Callable[[], bool]) -> bool:
    """In gevent's thread pool, where there is one: the hash takes long and must not stop the loop."""
    from gevent.hub import get_hub

    return bool(get_hub().threadpool.apply(call))


def _relayed() -> Identity | None:
    """Who asked the process that passed this on over the control socket: they have been judged there."""
    told = request.headers.get(IDENTITY)
    if told is None:
        return None
    try:
        fields = json.loads(told)
        identity = Identity(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        )
        if identity.role not in ROLES:
            raise ValueError(identity.role)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Unauthorized(f"{IDENTITY} is not as it should be.") from error
    return identity


_APP_IN_PATH = re.compile(r"/apps/<(?:\w+:)?(\w+)>")


def _app_in_path() -> str | None:
    """The app that the current route is about, if its path names one."""
    found = _APP_IN_PATH.search(request.url_rule.rule) if request.url_rule is not None else None
    return str((request.view_args or {})[found[1]]) if found is not None else None


class Failures:
    """Slows down who guesses: after ``FREE_FAILURES`` from one address, a wait that doubles. Bounded in memory."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, tuple[int, float, float]] = OrderedDict()

    def check(self, address: str) -> None:
        _, last, until = self._rows.get(address, (0, 0.0, 0.0))
        now = time.monotonic()
        if now - last > FORGIVE_SECONDS:
            self._rows.pop(address, None)
        elif now < until:
            raise TooManyRequests("Too many wrong passwords from this address.", until - now)

    def failed(self, address: str) -> None:
        count, _, _ = self._rows.pop(address, (0, 0.0, 0.0))
        count += 1
        now = time.monotonic()
        wait = min(LONGEST_BAN_SECONDS, 2.0 ** (count - FREE_FAILURES)) if count >= FREE_FAILURES else 0.0
        self._rows[address] = (count, now, now + wait)
        while len(self._rows) > 10_000:
            self._rows.popitem(last=False)

    def passed(self, address: str) -> None:
        self._rows.pop(address, None)


class Guard:
    """Says who the current request is from, and lets pass who may.

    A token that is limited to some apps gets nowhere by default: it passes where the path names one of them
    (``/apps/<app>``), and on routes that say ``limited=True``, which show no more than ``may`` allows."""

    def __init__(self, users: Users, key: bytes, access: Ref) -> None:
        self.users = users
        self.tokens = Tokens(access)
        self._key = hmac.digest(key, b"tokens", "sha256")
        self._failures = Failures()

    def needs(self, role: str, *, limited: bool = False) -> Callable[[Any], Any]:
        """A route for those with ``role`` or more. ``limited``: it looks after the limits of tokens itself."""

        def decorate(view: Any) -> Any:
            @wraps(view)
            def guarded(*args: Any, **kwargs: Any) -> Any:
                self.require(role, limited=limited)
                return view(*args, **kwargs)

            guarded.needs_role = role  # type: ignore[attr-defined]
            return guarded

        return decorate

    def require(self, role: str, *, limited: bool = False) -> Identity:
        identity = self.identify()
        if identity is None:
            raise Unauthorized("Sign in with a user and password, or send a token.")
        if ROLES[identity.role] < ROLES[role]:
            raise Forbidden(f"This takes the role {role}; {identity.name} is {identity.role}.")
        g.identity = identity
        if identity.apps is not None:
            named = _app_in_path()
            if named is not None:
                self.app(named)
            elif not limited:
                raise Forbidden(f"{identity.name} is limited to some apps; this is about the whole server.")
        return identity

    def may(self, app: str | None) -> bool:
        """Whether who asks may see ``app``. What belongs to no app is for those without limits."""
        apps = g.identity.apps
        return apps is None or app in apps

    def may_all(self, apps: Collection[str]) -> bool:
        """The same for what belongs to several apps."""
        return g.identity.apps is None or (len(apps) > 0 and all(self.may(app) for app in apps))

    def app(self, name: str) -> None:
        """``NotFound`` unless who asks may see the app called ``name``: whether there is one is not told."""
        if not self.may(name):
            raise NotFound(f"There is no app called {name}.")

    def wanted_app(self) -> str | None:
        """What the query's ``app`` asks for; ``NotFound`` for one that who asks may not see. None: no limit, or several."""
        wanted = request.args.get("app")
        if wanted is not None:
            self.app(wanted)
        elif g.identity.apps is not None and len(g.identity.apps) == 1:
            (wanted,) = g.identity.apps
        return wanted

    def hook(self, token: str) -> TokenIdentity:
        """Whose hook it is; its one app is in ``apps``. ``NotFound`` for a wrong token, ``TooManyRequests`` for guesses."""
        return self._token(token, "hook", NotFound("There is no such hook."))

    def identify(self) -> Identity | None:
        header = request.authorization
        if header is not None and header.type == "basic":
            return self.sign_in(header.username or "", header.password or "")
        if header is not None and header.type == "bearer":
            return self._bearer(header.token or "")
        if request.headers.get("Authorization"):
            raise Unauthorized("This Authorization header is neither Basic nor Bearer.")
        token = offered_token()
        if token is not None:
            return self._bearer(token)
        if request.environ.get("nextdeploy.local"):
            return _relayed() or Identity("local", "admin")
        name = session.get("user")
        if isinstance(name, str) and hmac.compare_digest(str(session.get("stamp", "")), self.users.stamp(name)):
            role = self.users.role(name)
            return Identity(name, role) if role is not None else None
        return None

    def standing(self) -> Callable[[], bool]:
        """Tells later, as often as it is asked, whether who asks now may go on with what they open: not with a token that
        was revoked. Passwords change with a restart, which ends what is open. It may wait."""
        header = request.authorization
        token = header.token if header is not None and header.type == "bearer" else offered_token()
        if (header is not None and header.type != "bearer") or not token or not is_token(token):
            return lambda: True
        return partial(self.tokens.still, token)

    def sign_in(self, name: str, password: str) -> Identity:
        """``Unauthorized`` if it is wrong, ``TooManyRequests`` if it was too often."""
        address = request.remote_addr or ""
        self._failures.check(address)
        identity = self.users.verify(name, password)
        if identity is None:
            self._failures.failed(address)
            raise Unauthorized("The user or the password is wrong.")
        self._failures.passed(address)
        return identity

    def token(self, identity: Identity) -> tuple[str, float]:
        """A signed token and when it ends, as Unix seconds."""
        expires = time.time() + TOKEN_SECONDS
        claims = {"sub": identity.name, "stamp": self.users.stamp(identity.name), "exp": int(expires)}
        import jwt  # with OpenSSL: 8 MB that only these tokens need

        return jwt.encode(claims, self._key, algorithm="HS256"), expires

    def _token(self, token: str, kind: Kind, refusal: NextDeployError) -> TokenIdentity:
        address = request.remote_addr or ""
        identity = self.tokens.remembered(token, kind)
        if identity is None:
            self._failures.check(address)
            identity = self.tokens.verify(token, kind)
            if identity is None:
                self._failures.failed(address)
                raise refusal
            self._failures.passed(address)
        return identity

    def _bearer(self, token: str) -> Identity:
        if is_token(token):
            found = self._token(token, "api", Unauthorized("The token is not valid."))
            return Identity(f"token:{found.name}", found.role, found.apps)
        import jwt

        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        except jwt.ExpiredSignatureError as error:
            raise Unauthorized("The token has expired.") from error
        except jwt.InvalidTokenError as error:
            raise Unauthorized("The token is not valid.") from error
        name = str(claims["sub"])
        if name == "local" and not claims.get("stamp"):
            return Identity("local", "admin")
        role = self.users.role(name)
        if role is None or not hmac.compare_digest(str(claims.get("stamp", "")), self.users.stamp(name)):
            raise Unauthorized("The token is not valid any more.")
        return Identity(name, role)

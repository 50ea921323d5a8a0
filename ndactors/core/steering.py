"""Which of a service's containers a request may go to where that depends on the request: its cookie keeps it with a
container (sticky) or with the revision that made its page (skew protection), and a canary gets its share.

The cookie says ``<revision>.<container>``, as marks: digests that mean nothing to anybody else. Either may be missing, and
one that is not known (any more) counts as missing, so a forged cookie can do no more than choose a container."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, Protocol, TypeVar

from .balancing import Group, Loaded, Share

CANARY, ASIDE = "canary", "aside"
MARK_BYTES = 5
_MARK = rb"[0-9a-f]{%d}" % (2 * MARK_BYTES)
_PATH = re.compile(rb"/[\w\-.~!$&'()*+,=:@%/]*", re.ASCII)
MAX_ACCEPT = 1024
"""So much of an Accept field is looked at."""


class Placed(Loaded, Protocol):
    mark: bytes
    """``mark`` of its id."""
    revision: int
    role: str


B = TypeVar("B", bound=Placed)


def mark(name: str) -> bytes:
    """The same in every worker and every edge, so that a cookie outlives them."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=MARK_BYTES).hexdigest().encode()


class Ties(NamedTuple):
    """What a request brings along. ``navigation``: somebody opens a page."""

    revision: bytes = b""
    container: bytes = b""
    navigation: bool = False

    @property
    def value(self) -> bytes:
        return b"%b.%b" % (self.revision, self.container)


class Steering(Generic[B]):
    """One service's containers as they are now. ``order`` gives them as a request tries them:

    - with ``sticky`` the container of its cookie, as long as it takes requests;
    - with ``skew`` the revision of its cookie, also when that is aside, unless it opens a page: pages come from the
      newest revision that is not a canary (or from the canary, by its share);
    - then the rest: the canary first if its share is due, else last. Those aside never.
    """

    def __init__(self, app: str, backends: Sequence[B], *, sticky: bool, skew: bool, canary_percent: float) -> None:
        self._app = app
        self._sticky = sticky
        self._skew = skew
        self._percent = canary_percent
        usual = [b for b in backends if b.role not in (CANARY, ASIDE)]
        canary = [b for b in backends if b.role == CANARY]
        newest = max((b.revision for b in usual), default=0)
        self._mixed = bool(usual and canary)
        everybody, latest, older, new = (
            Group(usual),
            Group([b for b in usual if b.revision == newest]),
            Group([b for b in usual if b.revision != newest]),
            Group(canary),
        )
        pages = (latest, older) if skew and older.members else (everybody,)
        self._free = {
            (navigation, first): _filled((new, *own) if first else (*own, new))
            for navigation, own in ((True, pages), (False, (everybody,)))
            for first in (True, False)
        }
        self._newest = newest
        self._containers = {b.mark: (b, Group([b])) for b in backends if skew or b.role != ASIDE}
        self._revisions: dict[bytes, Group[B]] = {}
        if skew:
            for revision in {b.revision for b in backends}:
                self._revisions[self._mark(revision)] = Group([b for b in backends if b.revision == revision])
        self._cookie = re.compile(
            rb"[ ;]" + re.escape(cookie_name(app)) + rb"=((?:%b)?)\.((?:%b)?)(?=[; \t\r])" % (_MARK, _MARK)
        )

    def _mark(self, revision: int) -> bytes:
        return mark(f"{self._app} {revision}")

    def read(self, fields: Sequence[bytes], method: bytes, accept: bytes) -> Ties:
        """``fields`` are whole lines as ``http1`` writes them: ``Name: value`` and a line end."""
        revision = container = b""
        mode: bytes | None = None
        for field in fields:
            first = field[0] | 0x20
            if first == 0x63 and not revision and not container and field[:8].lower() == b"cookie: ":
                found = self._cookie.search(field, 7)
                if found is not None:
                    revision, container = found.groups()
            elif first == 0x73 and mode is None and field[:16].lower() == b"sec-fetch-mode: ":
                mode = field[16:-2]
        navigation = mode == b"navigate" if mode is not None else method == b"GET" and prefers_html(accept)
        return Ties(revision, container, navigation)

    def order(self, ties: Ties, share: Share, drawn: bool | None) -> tuple[tuple[Group[B], ...], bool | None]:
        """The groups that a request tries one after the other. A request that nothing binds is part of the canary's
        share or is not: ``drawn`` says what was decided when it was asked before, and comes back decided."""
        opening = self._skew and ties.navigation
        own: list[Group[B]] = []
        kept = self._revisions.get(ties.revision) if ties.revision and not opening else None
        if self._sticky and ties.container:
            found = self._containers.get(ties.container)
            if found is not None and self._may_stay(found[0], kept, opening=opening):
                own.append(found[1])
        if kept is not None:
            own.append(kept)
        if own:
            drawn = own[0].members[0].role == CANARY
        elif drawn is None and self._mixed:
            drawn = share.take(self._percent)
        return (*own, *self._free[opening, bool(drawn)]), drawn

    def _may_stay(self, backend: B, kept: Group[B] | None, *, opening: bool) -> bool:
        if opening:
            return backend.role == CANARY or (backend.role != ASIDE and backend.revision == self._newest)
        if kept is not None:
            return backend.revision == kept.members[0].revision
        return True

    def renewed(self, ties: Ties, backend: B) -> Ties | None:
        """What the client should bring next time, now that ``backend`` takes its request; None: what it has."""
        revision = self._mark(backend.revision) if self._skew and ties.navigation else ties.revision
        container = backend.mark if self._sticky else ties.container
        if (revision, container) == (ties.revision, ties.container):
            return None
        return Ties(revision, container, ties.navigation)

    def set_cookie(self, ties: Ties, path: bytes) -> bytes:
        """The whole field, without a line end. ``path`` is the route's."""
        if _PATH.fullmatch(path) is None:
            path = b"/"
        return b"Set-Cookie: %b=%b; Path=%b; HttpOnly; SameSite=Lax" % (cookie_name(self._app), ties.value, path)


def cookie_name(app: str) -> bytes:
    return b"nd-" + app.encode("ascii", "replace")


def _filled(groups: Sequence[Group[B]]) -> tuple[Group[B], ...]:
    return tuple(group for group in groups if group.members)


def prefers_html(accept: bytes) -> bool:
    """True if ``text/html`` is named and nothing is wanted more: so browsers ask for pages, and for nothing else."""
    html = best = 0.0
    for part in accept[:MAX_ACCEPT].split(b","):
        kind, *parameters = part.lower().split(b";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.strip().partition(b"=")
            if name == b"q":
                weight = _weight(value)
        if kind.strip() == b"text/html":
            html = max(html, weight)
        best = max(best, weight)
    return 0.0 < html == best


_WEIGHT = re.compile(rb"[01](\.\d{0,3})?")


def _weight(value: bytes) -> float:
    """RFC 9110 12.4.2; 0 for what is none."""
    return min(1.0, float(value)) if _WEIGHT.fullmatch(value) else 0.0

"""``http.redirects``: from a host or a path pattern to a place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Redirect(NamedTuple):
    """``host`` empty: any. ``path`` with ``rest``: everything that begins so; else exactly that."""

    host: str
    path: str
    rest: bool
    to: str


def compile_redirects(wanted: Mapping[str, str]) -> tuple[Redirect, ...]:
    """``ValueError`` in words for one that cannot be meant. The more exact ones come first."""
    made = [_compile(source, to) for source, to in wanted.items()]
    return tuple(sorted(made, key=lambda r: (not r.host, r.rest, -len(r.path))))


def _compile(source: str, to: str) -> Redirect:
    host, slash, path = source.partition("/")
    if "://" in source or not source or source.count("*") > 1 or ("*" in source and not source.endswith("*")):
        raise ValueError(f"{source!r} is not a host, a path, or either with a * at its end")
    if not (to.startswith(("http://", "https://")) or (to.startswith("/") and not to.startswith("//"))):
        raise ValueError(f"{to!r} is neither a path nor an http(s) URL")
    if any(ord(letter) <= 0x20 or ord(letter) > 0x7E for letter in to):
        raise ValueError(f"{to!r} has a character that a URL cannot have")
    if not slash:
        return Redirect(host.lower(), "/", True, to)
    return Redirect(host.lower(), "/" + path.removesuffix("*"), path.endswith("*"), to)


def find_redirect(redirects: tuple[Redirect, ...], host: str, path: str, query: str) -> str | None:
    """Where a request to ``host`` and ``path`` should go instead. ``*`` in the target stands for what ``*`` matched; a
    target that is a host alone keeps the path; the query is kept unless the target has one."""
    for redirect in redirects:
        if redirect.host and redirect.host != host:
            continue
        if path != redirect.path and not (redirect.rest and path.startswith(redirect.path)):
            continue
        matched = path[len(redirect.path) :]
        to = redirect.to
        if "*" in to:
            to = to.replace("*", matched, 1)
        elif redirect.host and redirect.path == "/" and to.count("/") == 2:
            to += path
        if query and "?" not in to:
            to += "?" + query
        if to.startswith("//"):
            to = "/" + to.lstrip("/")
        if to == path + ("?" + query if query else "") and not redirect.host:
            continue  # to itself: no loop
        return to
    return None

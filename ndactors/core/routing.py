"""Which service a request belongs to: exact host, then wildcard host, then ``*``; among its routes the longest path."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Match(NamedTuple, Generic[T]):
    """``prefix`` is what ``strip_path`` takes off the path; empty if nothing. ``path`` is the route's."""

    target: T
    prefix: bytes
    path: bytes


class RoutingTable(Generic[T]):
    """Built once, never changed. A look-up costs as much as the host has labels and the path has segments, however
    many routes there are."""

    def __init__(self, routes: Iterable[tuple[str, str, bool, T]]) -> None:
        """``routes``: host, path, strip_path, target. Of two for the same place the first counts."""
        self._hosts: dict[bytes, dict[bytes, Match[T]]] = {}
        for host, path, strip, target in routes:
            prefix = ("/" + path.strip("/")).encode()
            own = self._hosts.setdefault(normal_host(host.encode("idna" if not host.isascii() else "ascii")), {})
            own.setdefault(prefix, Match(target, prefix if strip and prefix != b"/" else b"", prefix))

    def find(self, host: bytes, path: bytes) -> Match[T] | None:
        """``host`` as ``normal_host`` gives it; ``path`` without its query."""
        hosts = self._hosts
        paths = hosts.get(host)
        if paths is not None:
            found = _longest(paths, path)
            if found is not None:
                return found
        start = host.find(b".")
        while start >= 0:
            paths = hosts.get(b"*" + host[start:])
            if paths is not None:
                found = _longest(paths, path)
                if found is not None:
                    return found
            start = host.find(b".", start + 1)
        paths = hosts.get(b"*")
        return _longest(paths, path) if paths is not None else None


def _longest(paths: dict[bytes, Match[T]], path: bytes) -> Match[T] | None:
    if len(paths) == 1 and b"/" in paths:
        return paths[b"/"]
    end = len(path)
    while end > 0:
        found = paths.get(path[:end])
        if found is not None:
            return found
        end = path.rfind(b"/", 0, end)
    return paths.get(b"/")


@lru_cache(maxsize=1024)
def normal_host(host: bytes) -> bytes:
    """Lower case, without port and final dot. IPv6 addresses keep their brackets."""
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1].lower()
    host = host.partition(b":")[0].lower()
    return host[:-1] if host.endswith(b".") else host

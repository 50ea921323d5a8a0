"""Registries: which one an image's name stands for, and what their many ways to say no mean."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import EngineError, ImageNotFound
from .model import Registry

DOCKER_HUB = "docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_UNREACHABLE = re.compile(
    r"no such host|connection refused|connection reset|i/o timeout|network is unreachable|no route to host"
    r"|temporary failure|server misbehaving|handshake|deadline exceeded|request canceled|\bEOF\b|x509|HTTP response to HTTPS",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"unauthorized|no basic auth credentials|authentication required|incorrect username|\b40[13]\b|forbidden|denied",
    re.IGNORECASE,
)
_ABSENT = re.compile(r"manifest unknown|not found|no such manifest|name unknown|does not exist|\b404\b", re.IGNORECASE)


def registry_host(name: str) -> str:
    """The registry that an image's name stands for: its first part, if that can be a host's name; else Docker Hub."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return DOCKER_HUB if first in _HUB_NAMES else first
    return DOCKER_HUB


def credentials(registries: Mapping[str, Registry], host: str) -> Registry | None:
    """Those for ``host``; Docker Hub has several names, and keys may be written as URLs."""
    wanted = DOCKER_HUB if host in _HUB_NAMES else host
    for key, found in registries.items():
        known = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if (DOCKER_HUB if known in _HUB_NAMES else known) == wanted:
            return found
    return None


def refusal(name: str, words: str, *, what: str = "image") -> EngineError | None:
    """Why ``name`` could not be fetched, from what the Engine said; None if that was about something else."""
    host = registry_host(name)
    words = shown(words)
    # names of hosts and images, ports and digests may contain any word or figure that is looked for
    said = re.sub(r"\S*[/:]\S+/\S*", " ", words.replace(name, " "))
    # Docker Hub says the same about what it does not have and about what it does not show
    if "repository does not exist or may require" in said:
        return ImageNotFound(
            f"there is no {what} {name} here, and {host} does not have it, or wants a login (registries: in the server's file)"
        )
    if _ABSENT.search(said) and not _UNREACHABLE.search(said):
        return ImageNotFound(f"there is no {what} {name} here, and {host} does not have it: {words}")
    if _REFUSED.search(said):
        return EngineError(f"the {what} {name} is not here, and the registry {host} refused: {words}")
    if _UNREACHABLE.search(said):
        return ImageNotFound(f"there is no {what} {name} here, and no registry could be reached: {words}")
    return None


def shown(words: str) -> str:
    """The Engine's words in one line, without credentials that may stand in a URL."""
    return re.sub(r"//[^/@\s]*@", "//", " ".join(words.split()))[:500]

"""Images as values: what is built, under which name, and when the very same need not be built again."""

from __future__ import annotations

import hashlib
from pathlib import PurePath

import msgspec
from msgspec import Struct, field


class BuildRequest(Struct, frozen=True, kw_only=True):
    """``context`` is a folder on this machine, ``dockerfile`` a path in it. ``tree`` is the digest of everything in the
    context, so equal requests make equal images. ``secrets`` are values by name: they never become part of an image or
    of what is printed. Limits: CPUs, bytes, seconds."""

    project: str
    app: str
    context: str = ""
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = field(default_factory=dict)
    target: str | None = None
    platform: str | None = None
    secrets: dict[str, str] = field(default_factory=dict)
    tree: str = ""
    fresh: bool = False
    """Without any cache."""
    cpus: float | None = None
    memory: int | None = None
    timeout: float = 1800.0
    labels: dict[str, str] = field(default_factory=dict)


class BuildContext(Struct, frozen=True, kw_only=True):
    """``folder`` is on this machine, ``tree`` the digest of what a build of it sees. ``sha`` is the commit, if it came
    from git; ``fetched``: the folder is ours to remove."""

    folder: str
    dockerfile: str
    tree: str
    sha: str | None = None
    fetched: str | None = None


class ImageInfo(Struct, frozen=True, kw_only=True):
    """``id`` is the image's own digest (``sha256:…``), ``name`` what it is called. ``cached``: nothing had to be built
    or fetched for it."""

    id: str
    name: str
    size: int = 0
    cached: bool = False
    digest: str | None = None
    """Of the registry it came from."""


def repository(project: str, app: str) -> str:
    """The name that images of an app are built under; the tag says which one."""
    return f"nextdeploy/{project}/{app}"


def image_name(request: BuildRequest) -> str:
    return f"{repository(request.project, request.app)}:{build_key(request)}"


def build_key(request: BuildRequest) -> str:
    """Equal for requests that make the same image."""
    shape = {
        "tree": request.tree,
        "dockerfile": str(PurePath(request.dockerfile)),
        "args": request.args,
        "target": request.target,
        "platform": request.platform,
        "secrets": sorted(request.secrets),
    }
    return hashlib.sha256(msgspec.json.encode(shape, order="sorted")).hexdigest()[:16]

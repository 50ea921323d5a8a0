"""Images as values: what is built, under which name, and when the very same need not be built again."""

from __future__ import annotations

import hashlib
from pathlib import PurePath

import msgspec
from msgspec import Struct, field

from .containers import LABEL
from .model import Registry

# not those of containers: a container inherits its image's labels, so one that somebody else starts from an image of
# ours would look like one of ours
IMAGE_DAEMON, IMAGE_PROJECT, IMAGE_APP = LABEL + "image.daemon", LABEL + "image.project", LABEL + "image.app"
DEFAULT_CPUS_SHARE = 0.5
DEFAULT_MEMORY_SHARE = 0.5
LEAST_CPUS = 0.5


class BuildRequest(Struct, frozen=True, kw_only=True):
    """``context`` is a folder on this machine, ``dockerfile`` a path in it. ``tree`` is the digest of everything in the
    context, so equal requests make equal images. ``secrets`` are values by name: they never become part of an image or
    of what is printed. ``registries`` are for base images that are not here. Limits: CPUs, bytes, seconds; None: half of
    what the machine has."""

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
    registries: dict[str, Registry] = field(default_factory=dict)


class BuildContext(Struct, frozen=True, kw_only=True):
    """``folder`` is on this machine, ``tree`` the digest of what a build of it sees. ``sha`` is the commit, if it came
    from git; ``fetched``: the folder is ours to remove."""

    folder: str
    dockerfile: str
    tree: str
    sha: str | None = None
    fetched: str | None = None


class BuildLimits(Struct, frozen=True, kw_only=True):
    """What a build may take, so that it cannot starve what runs: CPUs (1.5 is one and a half), bytes."""

    cpus: float
    memory: int


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


def own_labels(request: BuildRequest, daemon: str) -> dict[str, str]:
    """What every image that we build carries, and what none may claim for itself."""
    return {**request.labels, IMAGE_DAEMON: daemon, IMAGE_PROJECT: request.project, IMAGE_APP: request.app}


def build_limits(request: BuildRequest, cores: int, memory: int) -> BuildLimits:
    """For a machine with ``cores`` and ``memory`` bytes. Nothing is given that the machine does not have."""
    wanted = request.cpus or max(LEAST_CPUS, cores * DEFAULT_CPUS_SHARE)
    return BuildLimits(
        cpus=min(wanted, float(cores)) if cores else wanted,
        memory=min(request.memory or int(memory * DEFAULT_MEMORY_SHARE), memory) if memory else request.memory or 0,
    )


def kept_tag(name: str, id: str) -> str:
    """The tag under which an image stays whose name went to a newer one."""
    return f"{name.rpartition(':')[2]}-{id.removeprefix('sha256:')[:12]}"

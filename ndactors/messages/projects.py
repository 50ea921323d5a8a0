"""A project as a client sends it: its file, and what the file names, as content-addressed blobs."""

from __future__ import annotations

from msgspec import field

from .base import Message, Value
from .operations import Difference, Git, Origin

MAX_FILES = 100_000
MAX_PATH = 1024
MAX_TEXT = 1024 * 1024


class BundleFile(Value, frozen=True, kw_only=True):
    """One file below the project's folder. ``path`` is relative, with ``/``. ``link``: it is a symbolic link to that
    (relative, staying inside); then it has no blob. ``sha256`` is in lower-case hex, ``size`` in bytes."""

    path: str
    sha256: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


class Bundle(Value, frozen=True, kw_only=True):
    """``text`` is the project file, ``environment`` the overlay, ``variables`` what ``${X}`` takes from the client's
    environment (only those that the file names). ``images``: blobs of ``docker save`` archives by app, for images that
    were built where the client is."""

    text: str
    environment: str = "dev"
    variables: dict[str, str] = field(default_factory=dict)
    files: tuple[BundleFile, ...] = ()
    images: dict[str, BundleFile] = field(default_factory=dict)


class DeployProject(Message, frozen=True, kw_only=True):
    """Answers ``ProjectAccepted``. ``Invalid`` (with ``ConfigurationError``'s lines), ``Conflict`` for apps of another
    project or ones that are being changed, ``MissingBlobs``. ``prune``: apps of this project that the file does not
    have go; without it they stay. ``only``: the asker may touch just these apps; None: all."""

    project: str
    bundle: Bundle
    prune: bool = False
    origin: Origin
    only: tuple[str, ...] | None = None


class ProjectAccepted(Value, frozen=True, kw_only=True):
    operation: str
    apps: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class PlanProject(Message, frozen=True, kw_only=True):
    """What ``DeployProject`` would do. Answers ``ProjectPlan``; the same errors. Blobs need not be there."""

    project: str
    bundle: Bundle
    prune: bool = False
    only: tuple[str, ...] | None = None


class AppPlan(Value, frozen=True, kw_only=True):
    """``action``: create, change, none, remove. ``changes`` against what the file said before; ``drift`` is how what
    runs differs from what the file said (changes made live)."""

    app: str
    action: str
    changes: tuple[Difference, ...] = ()
    drift: tuple[Difference, ...] = ()


class ProjectPlan(Value, frozen=True, kw_only=True):
    project: str
    apps: tuple[AppPlan, ...]
    missing_blobs: int = 0
    missing_bytes: int = 0
    warnings: tuple[str, ...] = ()


class RemoveApp(Message, frozen=True, kw_only=True):
    """An app of a project goes, with its containers; named volumes stay. ``Conflict`` for one of the server's file."""

    app: str
    by: str


class GetPlan(Message, frozen=True, kw_only=True):
    """Drift of the apps that are there, or of one. Answers ``tuple[AppPlan, …]``."""

    app: str | None = None


__all__ = [
    "AppPlan",
    "Bundle",
    "BundleFile",
    "DeployProject",
    "GetPlan",
    "Git",
    "PlanProject",
    "ProjectAccepted",
    "ProjectPlan",
    "RemoveApp",
]

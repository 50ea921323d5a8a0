"""What an engine is told and what it tells: containers as values, the same for every engine."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from .model import Resources, Rotate, Volume

LABEL = "nextdeploy."
PROJECT, APP, PROCESS, REVISION = LABEL + "project", LABEL + "app", LABEL + "process", LABEL + "revision"
ROLE, REPLICA, CONFIG, DAEMON = LABEL + "role", LABEL + "replica", LABEL + "config", LABEL + "daemon"
PORT = LABEL + "port"
"""The port an engine resolved for a container (the image's only EXPOSE, or a free one)."""

RunState = Literal["created", "running", "paused", "exited"]
"""An engine's finer states are folded: restarting is running; dead and removing are exited."""


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """Everything an engine needs to create one container. Equal specs make interchangeable containers.

    ``command`` None keeps the image's own. ``port`` None: the engine chooses (the image's only EXPOSE else 8080; the
    process engine a free one) and sets ``$PORT`` either way. ``network`` is the project's private network, on which
    ``aliases`` resolve; ``networks`` are joined besides.
    """

    name: str
    labels: dict[str, str]
    image: str | None = None
    command: str | tuple[str, ...] | None = None
    entrypoint: str | tuple[str, ...] | None = None
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    workdir: str | None = None
    port: int | None = None
    volumes: tuple[Volume, ...] = ()
    network: str | None = None
    networks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    resources: Resources = Resources()
    stop_signal: str = "SIGTERM"
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    rotate: Rotate = Rotate()


class ContainerStatus(Struct, frozen=True, kw_only=True):
    """One container as the engine sees it now. Times are Unix seconds.

    ``address`` and ``port`` are where the edge dials it, None while it has no address. ``exit_code`` is the last one,
    None while it never exited; a process ended by signal N has ``128 + N``. ``log_path`` is its json-file log on
    this host, None where it cannot be read.
    """

    id: str
    name: str
    labels: dict[str, str]
    state: RunState
    image: str | None = None
    pid: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    address: str | None = None
    port: int | None = None
    log_path: str | None = None


EventKind = Literal["started", "died", "oom", "paused", "unpaused", "removed"]


class EngineEvent(Struct, frozen=True, kw_only=True):
    """A hint that a container changed; the listing is the truth. ``ts`` is Unix seconds by the engine's clock."""

    ts: float
    kind: EventKind
    container: str
    exit_code: int | None = None
    labels: dict[str, str] = field(default_factory=dict)


class EngineInfo(Struct, frozen=True, kw_only=True):
    """``id`` tells one engine from another; ``live_restore`` says whether containers survive the engine's restart."""

    name: str
    version: str
    id: str = ""
    live_restore: bool = True
    rootless: bool = False


class ExecResult(Struct, frozen=True, kw_only=True):
    """``output`` is the start of what it printed on both streams, bounded."""

    exit_code: int
    output: str

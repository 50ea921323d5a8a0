"""From the settings to what an engine is told: one ``ContainerSpec`` for each replica of each process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

from . import containers as labels
from .containers import ContainerSpec, ContainerStatus
from .model import App, EngineChoice, Healthcheck, Process, Rotate


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose containers they are: ``daemon`` is the id kept in the state folder."""

    project: str
    daemon: str

    @property
    def network(self) -> str:
        """The project's private network. It carries the daemon's id, so that two daemons can share an engine."""
        return f"nd-{self.project}-{self.daemon[:6]}"


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What an app's secrets are at this moment, by name in the store. ``marks`` change with the values and tell nothing
    about them."""

    values: dict[str, str] = msgspec.field(default_factory=dict)
    marks: dict[str, str] = msgspec.field(default_factory=dict)


NO_SECRETS = Secrets()


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """Which container of an app it is: stable over restarts of everything, written on the container itself."""

    process: str
    revision: int
    replica: int

    @property
    def key(self) -> str:
        return f"{self.process}-{self.revision}-{self.replica}"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """What one ContainerActor looks after. ``existing`` is the container it adopts; without one it creates one.
    ``restarts`` and ``gave_up`` are what is remembered of its earlier life."""

    seat: Seat
    app: App
    process: Process
    spec: ContainerSpec
    config: str
    existing: ContainerStatus | None = None
    restarts: dict[str, int] = msgspec.field(default_factory=dict)
    gave_up: str | None = None


def seat_of(own: Mapping[str, str]) -> Seat:
    """Read from a container's labels; what is missing or no number counts as 1."""
    return Seat(
        process=own.get(labels.PROCESS, "web"),
        revision=_number(own.get(labels.REVISION, "")),
        replica=_number(own.get(labels.REPLICA, "")),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def new_placement(
    app: App,
    seat: Seat,
    *,
    owner: Owner,
    engine: str,
    rotate: Rotate,
    secrets: Secrets = NO_SECRETS,
    config: str | None = None,
) -> Placement:
    """``config`` is the hash that the version was accepted with; None: what it is now."""
    process = app.processes[seat.process]
    config = config if config is not None else config_hash(app, process, engine, rotate, secrets)
    spec = container_spec(
        app, process, seat=seat, owner=owner, engine=engine, rotate=rotate, secrets=secrets, config=config
    )
    return Placement(seat=seat, app=app, process=process, spec=spec, config=config)


def adopted_placement(
    app: App | None,
    status: ContainerStatus,
    *,
    owner: Owner,
    engine: str,
    rotate: Rotate,
    secrets: Secrets = NO_SECRETS,
) -> Placement:
    """For a container that is there already. ``app`` None, or without such a process: nobody's any more, so what is
    needed to stop it."""
    seat, config = seat_of(status.labels), status.labels.get(labels.CONFIG, "")
    if app is None or seat.process not in app.processes:
        alone = Process(name=seat.process, healthcheck=Healthcheck(kind="none"))
        app = App(name=status.labels.get(labels.APP, ""), processes={seat.process: alone})
    placement = new_placement(app, seat, owner=owner, engine=engine, rotate=rotate, secrets=secrets, config=config)
    return msgspec.structs.replace(placement, existing=status)


def config_hashes(app: App, engine: str, rotate: Rotate, secrets: Secrets = NO_SECRETS) -> dict[str, str]:
    """Of every process. Equal when no container of the app needs to be replaced."""
    return {name: config_hash(app, p, engine, rotate, secrets) for name, p in sorted(app.processes.items())}


def engine_for(app: App, choice: EngineChoice, *, docker_present: bool) -> str:
    """``docker`` or ``process``. On ``auto``: docker if there is one and the app has an image or a build."""
    if choice in ("docker", "process"):
        return choice
    if app.on_host:
        return "process"
    if not docker_present and any(process.command for process in app.processes.values()):
        return "process"
    return "docker"


def config_hash(app: App, process: Process, engine: str, rotate: Rotate, secrets: Secrets = NO_SECRETS) -> str:
    """What a running container depends on. Equal hash: the container may stay as it is. Secrets count by their marks."""
    marks = {name: secrets.marks.get(name, "") for name in sorted(secret_names(process))}
    whole = (_shape(app, process, engine, rotate), process.templates, marks, app.nonce)
    return hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()[:16]


_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


def secret_names(process: Process) -> set[str]:
    """Names in the store of all secrets that a process uses."""
    found = {reference.store_name for reference in process.secrets}
    for text in process.templates.values():
        found |= {match[1] for match in _REFERENCE.finditer(text) if match[1]}
    return found


def missing_secrets(app: App, known: Mapping[str, str]) -> list[str]:
    """Those that some process uses and that nobody has set."""
    return sorted({name for process in app.processes.values() for name in secret_names(process)} - known.keys())


def environment(process: Process, secrets: Secrets) -> dict[str, str]:
    """The variables of a container of ``process``, secrets filled in. One that is not set is left out."""
    values = secrets.values
    env = dict(process.env)
    for name, text in process.templates.items():
        env[name] = _REFERENCE.sub(lambda m: "$" if m[1] is None else values.get(m[1], m[2] or ""), text)
    for reference in process.secrets:
        if reference.store_name in values:
            env[reference.name] = values[reference.store_name]
    return env


def owned(owner: Owner, app: App) -> Owner:
    """The owner of an app's containers: its project's network and volumes are not another project's."""
    return msgspec.structs.replace(owner, project=app.project) if app.project else owner


def container_spec(
    app: App,
    process: Process,
    *,
    seat: Seat,
    owner: Owner,
    engine: str,
    rotate: Rotate,
    secrets: Secrets = NO_SECRETS,
    role: str = "primary",
    config: str | None = None,
) -> ContainerSpec:
    alias = app.name if process.name == "web" else f"{app.name}-{process.name}"
    own = owned(owner, app)
    return msgspec.structs.replace(
        _shape(app, process, engine, rotate),
        name=f"nd-{app.name}-{seat.key}",
        env=environment(process, secrets),
        labels={
            labels.PROJECT: own.project,
            labels.APP: app.name,
            labels.PROCESS: process.name,
            labels.REVISION: str(seat.revision),
            labels.ROLE: role,
            labels.REPLICA: str(seat.replica),
            labels.CONFIG: config if config is not None else config_hash(app, process, engine, rotate, secrets),
            labels.DAEMON: owner.daemon,
        },
        network=own.network,
        aliases=(alias,) if role == "primary" else (),
    )


def _shape(app: App, process: Process, engine: str, rotate: Rotate) -> ContainerSpec:
    return ContainerSpec(
        name="",
        labels={},
        image=(app.image_id or app.image) if engine == "docker" else None,
        command=process.command,
        entrypoint=process.entrypoint,
        env=process.env,
        user=process.user,
        workdir=process.workdir,
        port=process.port,
        volumes=process.volumes,
        networks=process.networks,
        resources=process.resources,
        stop_signal=process.stop_signal,
        cap_add=process.cap_add,
        cap_drop=process.cap_drop,
        rotate=rotate,
    )

"""THE TREE: every actor of the daemon, as data, and what they work with (``World``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .actors.admin import AdminActor, Server
from .actors.app import AppActor, AppSurroundings
from .actors.apps import AppsActor
from .actors.config import ConfigActor
from .actors.container import ContainerActor, Surroundings
from .actors.daemon import DaemonActor
from .actors.deploy import DeployActor
from .actors.deploy_work import Workshop
from .actors.deploying import DeploySurroundings
from .actors.event import EventActor
from .actors.inventory import InventoryActor
from .actors.operation import OperationsActor
from .actors.proxy import NewPool, ProxyActor
from .actors.record import RecordActor
from .actors.stats import StatsActor
from .adapters.config_file import ConfigFile
from .adapters.state_files import StateFiles
from .core.model import App
from .core.specs import Owner, Placement, Secrets, engine_for
from .messages.containers import RecordEvent
from .messages.operations import Origin
from .ports import (
    BlobStore,
    BuildContexts,
    ContainerEngine,
    EventStore,
    ImageStore,
    Lag,
    Ledger,
    Listeners,
    Prober,
    RecordStore,
    SecretStore,
)
from .runtime.ref import Ref
from .runtime.restarts import Intensity, Strategy
from .runtime.supervisor import ActorRestarted, Child, Supervisor, supervisor_ref

NEVER_GIVE_UP = Intensity(None)
EDGE_STOP_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside that the actors work with. It outlives every one of them."""

    config: ConfigFile
    owner: Owner
    epoch: int
    state: StateFiles
    event_store: EventStore
    engines: dict[str, ContainerEngine]
    images: dict[str, ImageStore]
    contexts: BuildContexts
    blobs: BlobStore
    secrets: SecretStore
    ledger: Ledger
    listeners: Listeners
    new_operation: Callable[[], str]
    moment: Callable[[float], str]
    docker_present: bool
    prober: Prober
    lag: Lag
    host: Any
    stamp: Callable[[], str]
    record_store: RecordStore
    new_pool: NewPool
    read_pages: Callable[[str], tuple[dict[str, str], str]]
    leave_edge: Callable[[], bool]
    rested: frozenset[str] = frozenset()
    answers: dict[type, Callable[[], object]]
    open_admin: Callable[[Refs], Server]
    open_control: Callable[[Refs], Server]
    snapshot_versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(frozen=True, kw_only=True)
class Refs:
    """The addresses that others need; made before anybody lives there."""

    root: Ref = field(default_factory=lambda: supervisor_ref("root"))
    events: Ref = field(default_factory=lambda: Ref("events"))
    records: Ref = field(default_factory=lambda: Ref("records"))
    daemon: Ref = field(default_factory=lambda: Ref("daemon"))
    host: Ref = field(default_factory=lambda: Ref("host"))
    edge: Ref = field(default_factory=lambda: Ref("proxy"))
    apps: Ref = field(default_factory=lambda: Ref("apps"))
    operations: Ref = field(default_factory=lambda: Ref("operations"))
    hooks: Ref = field(default_factory=lambda: Ref("hooks"))
    config: Ref = field(default_factory=lambda: Ref("config"))
    engines: dict[str, Ref] = field(default_factory=dict)


def tree(world: World, refs: Refs) -> Child:
    """Everyone, in the order in which they start; they stop in reverse."""
    current = world.config.current
    groups = supervisor_ref("app-groups")
    interval = current().monitoring.interval
    new_app = partial(_new_app, world, refs)
    return Child(
        refs.root,
        Supervisor,
        [
            Child(refs.events, EventActor, world.event_store, world.stamp),
            Child(refs.records, RecordActor, world.record_store),
            Child(refs.daemon, DaemonActor, world.answers),
            Child(refs.host, StatsActor, world.host, interval),
            Child(
                refs.operations,
                OperationsActor,
                lambda: current().apps,
                *(world.ledger, world.state, refs.apps, refs.events, world.new_operation, world.moment),
            ),
            Child(
                refs.edge,
                ProxyActor,
                *(current, world.epoch, world.snapshot_versions, world.new_pool, world.leave_edge),
                *(refs.apps, refs.events, refs.records, world.state, world.read_pages),
                stop_within=EDGE_STOP_SECONDS,
            ),
            Child(
                supervisor_ref("workload"),
                Supervisor,
                [
                    *(
                        Child(refs.engines[name], InventoryActor, engine, refs.events, refs.apps)
                        for name, engine in world.engines.items()
                    ),
                    Child(
                        supervisor_ref("applications"),
                        Supervisor,
                        [
                            Child(
                                refs.apps,
                                AppsActor,
                                *(current, groups, world.state, refs.operations, partial(_engine_of, world), new_app),
                            ),
                            Child(groups, Supervisor, [], Strategy.ONE_FOR_ONE, NEVER_GIVE_UP),
                        ],
                        Strategy.ONE_FOR_ALL,
                    ),
                ],
                # who loses the inventory must learn anew what there is; running containers do not notice
                Strategy.REST_FOR_ONE,
            ),
            Child(refs.config, ConfigActor, world.config, (refs.apps, refs.edge), refs.events),
            Child(Ref("control"), AdminActor, partial(world.open_control, refs)),
            Child(Ref("admin"), AdminActor, partial(world.open_admin, refs)),
        ],
        Strategy.ONE_FOR_ONE,
        NEVER_GIVE_UP,
        partial(_record_restart, refs.events),
    )


def _engine_of(world: World, app: App) -> str:
    return engine_for(app, world.config.current().engine, docker_present=world.docker_present)


def _new_app(world: World, refs: Refs, name: str, engine: str, apps: Ref) -> tuple[Ref, Child]:
    """One app's group: who decides its version, who runs it, its jobs, its containers. Each is lost without the others,
    so they restart together, and adopt what runs."""
    deploy, own, containers = Ref(f"deploy:{name}"), Ref(f"app:{name}"), supervisor_ref(f"containers:{name}")
    jobs = Ref(f"jobs:{name}")
    rotate = world.config.current().logs.rotate
    secrets = partial(_secrets, world, name)
    around = AppSurroundings(
        owner=world.owner,
        engine=engine,
        rotate=rotate,
        secrets=secrets,
        deploy=deploy,
        inventory=refs.engines[engine],
        containers=containers,
        proxy=refs.edge,
        events=refs.events,
        apps=apps,
        state=world.state,
        new_container=partial(_new_container, world, refs, world.engines[engine]),
    )
    deploying = DeploySurroundings(
        engine=engine,
        container_engine=world.engines[engine],
        rotate=rotate,
        wanted=lambda: _wanted(world, name, engine),
        secrets=secrets,
        workshop=Workshop(
            images=world.images.get(engine),
            contexts=world.contexts,
            blobs=world.blobs,
            registries=lambda: world.config.current().registries,
        ),
        listeners=world.listeners,
        traffic=world.record_store.traffic,
        ledger=world.ledger,
        state=world.state,
        app=own,
        jobs=jobs,
        operations=refs.operations,
        events=refs.events,
        hooks=refs.hooks,
        new_operation=world.new_operation,
        stamp=world.moment,
    )
    group = Child(
        supervisor_ref(f"group:{name}"),
        Supervisor,
        [
            Child(deploy, DeployActor, name, deploying),
            Child(own, AppActor, name, around),
            Child(containers, Supervisor, [], Strategy.ONE_FOR_ONE, NEVER_GIVE_UP),
        ],
        Strategy.ONE_FOR_ALL,
    )
    return deploy, group


def _secrets(world: World, app: str) -> Secrets:
    return Secrets(values=world.secrets.values(app), marks=world.secrets.marks(app))


def _wanted(world: World, name: str, engine: str) -> tuple[App, Origin] | None:
    app = world.config.current().apps.get(name)
    if app is None or _engine_of(world, app) != engine:
        return None
    return app, world.config.origins().get(name, Origin())


def _new_container(
    world: World, refs: Refs, engine: ContainerEngine, ref: Ref, place: Callable[[], Placement], owner: Ref
) -> Child:
    around = Surroundings(
        owner=owner, events=refs.events, engine=engine, prober=world.prober, lag=world.lag, rested=world.rested
    )
    return Child(ref, ContainerActor, place, around)


def _record_restart(events: Ref, restarted: ActorRestarted) -> None:
    events.tell(
        RecordEvent(
            kind="actor.restarted",
            reason=f"{restarted.name}: {restarted.error or 'ended'}",
            detail={"actor": restarted.name, "delay_seconds": restarted.delay, "escalated": restarted.gave_up},
        )
    )

"""THE TREE: every actor of the daemon, as data, and what they work with (``World``)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from .actors.access import AccessActor
from .actors.admin import AdminActor, Server
from .actors.alert import AlertActor, AlertSurroundings
from .actors.app import AppActor
from .actors.app_slots import AppSurroundings
from .actors.apps import AppsActor
from .actors.config import ConfigActor
from .actors.container import ContainerActor, Surroundings
from .actors.daemon import DaemonActor
from .actors.deploy import DeployActor
from .actors.deploy_work import Workshop
from .actors.deploying import DeploySurroundings
from .actors.event import EventActor
from .actors.hook import HookActor
from .actors.inventory import InventoryActor
from .actors.job import JobsActor, JobsSurroundings
from .actors.log import LogActor, OutputRows
from .actors.metric import MetricActor
from .actors.notify import NotifyActor
from .actors.operation import OperationsActor
from .actors.proxy import NewPool, ProxyActor
from .actors.record import RecordActor
from .actors.secret import SecretActor
from .actors.stats import StatsActor
from .adapters.configuration import Configuration
from .adapters.state_files import StateFiles
from .core.health import Checked
from .core.jobs import job_spec
from .core.masking import mask_text
from .core.model import App
from .core.samples import Sample
from .core.specs import NO_SECRETS, Owner, Placement, Secrets, engine_for
from .errors import NextDeployError
from .messages.containers import RecordEvent
from .messages.deployments import DeployRecord
from .messages.operations import Origin
from .ports import (
    AlertChannelSource,
    BlobStore,
    BuildContexts,
    ConfigTexts,
    ContainerEngine,
    EventStore,
    HookSender,
    HostReader,
    ImageStore,
    JobOutputs,
    Lag,
    Ledger,
    Listeners,
    LogService,
    MetricStore,
    Prober,
    RecordStore,
    SecretStore,
    SocketOwners,
    UsageReader,
)
from .runtime.ref import Ref
from .runtime.restarts import Intensity, Strategy
from .runtime.supervisor import ActorRestarted, Child, Supervisor, supervisor_ref

log = logging.getLogger("ndactors.tree")

NEVER_GIVE_UP = Intensity(None)
EDGE_STOP_SECONDS = 15.0
LOGS_STOP_SECONDS = 15.0
TRAFFIC_SECONDS = 30.0
"""So long a sum over request records may take; it waits for those that are on their way."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside that the actors work with. It outlives every one of them."""

    config: Configuration
    config_versions: ConfigTexts
    owner: Owner
    epoch: int
    state: StateFiles
    event_store: EventStore
    engines: dict[str, ContainerEngine]
    images: dict[str, ImageStore]
    contexts: BuildContexts
    blobs: BlobStore
    secrets: SecretStore
    hook_sender: HookSender
    alert_channels: AlertChannelSource
    ledger: Ledger
    listeners: Listeners
    logs: LogService
    output_rows: dict[str, OutputRows]
    monotonic: Callable[[], float]
    outputs: dict[str, JobOutputs]
    new_operation: Callable[[], str]
    now: Callable[[], float]
    moment: Callable[[float], str]
    docker_present: bool
    prober: Prober
    lag: Lag
    checked: Checked = field(default_factory=Checked)
    """Containers whose health is checked."""
    host: HostReader
    usage: UsageReader
    sockets: SocketOwners
    stamp: Callable[[], str]
    record_store: RecordStore
    new_pool: NewPool
    read_pages: Callable[[str], tuple[dict[str, str], str]]
    leave_edge: Callable[[], bool]
    rested: frozenset[str] = frozenset()
    answers: dict[type, Callable[[], object]]
    open_admin: Callable[[Refs], Server]
    open_control: Callable[[Refs], Server]
    metric_store: MetricStore
    own_samples: Callable[[], tuple[Sample, ...]]
    save: Callable[[str, object], None]
    """``state.save``, off the event loop."""
    snapshot_versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(frozen=True, kw_only=True)
class Refs:
    """The addresses that others need; made before anybody lives there."""

    root: Ref = field(default_factory=lambda: supervisor_ref("root"))
    events: Ref = field(default_factory=lambda: Ref("events"))
    records: Ref = field(default_factory=lambda: Ref("records"))
    daemon: Ref = field(default_factory=lambda: Ref("daemon"))
    host: Ref = field(default_factory=lambda: Ref("host"))
    logs: Ref = field(default_factory=lambda: Ref("logs"))
    edge: Ref = field(default_factory=lambda: Ref("proxy"))
    apps: Ref = field(default_factory=lambda: Ref("apps"))
    operations: Ref = field(default_factory=lambda: Ref("operations"))
    hooks: Ref = field(default_factory=lambda: Ref("hooks"))
    access: Ref = field(default_factory=lambda: Ref("access"))
    secrets: Ref = field(default_factory=lambda: Ref("secrets"))
    config: Ref = field(default_factory=lambda: Ref("config"))
    metrics: Ref = field(default_factory=lambda: Ref("metrics"))
    engines: dict[str, Ref] = field(default_factory=dict)
    alerts: Ref = field(default_factory=lambda: Ref("alerts"))
    notify: Ref = field(default_factory=lambda: Ref("notify"))


def tree(world: World, refs: Refs) -> Child:
    """Everyone, in the order in which they start; they stop in reverse."""
    current = world.config.current
    groups = supervisor_ref("app-groups")
    others = (refs.alerts,)
    """Who hears figures beside the history."""
    listeners = (refs.metrics, *others)
    new_app = partial(_new_app, world, refs)
    return Child(
        refs.root,
        Supervisor,
        [
            Child(refs.events, EventActor, world.event_store, world.stamp, (refs.alerts,)),
            Child(refs.records, RecordActor, world.record_store),
            Child(refs.daemon, DaemonActor, world.answers),
            Child(refs.metrics, MetricActor, world.metric_store, refs.events, world.now, world.own_samples, others),
            Child(
                refs.host,
                StatsActor,
                *(current, world.host, world.usage, world.sockets, world.state, refs.events),
                *(listeners, frozenset(world.engines), world.now, world.monotonic),
            ),
            Child(
                refs.logs,
                LogActor,
                *(current, world.logs, world.output_rows, refs.events, world.leave_edge, world.monotonic),
                *(world.state, world.save, listeners, world.now),
                stop_within=LOGS_STOP_SECONDS,
            ),
            Child(refs.access, AccessActor, world.state, refs.events, world.now),
            Child(refs.secrets, SecretActor, world.secrets, refs.events),
            Child(
                refs.hooks,
                HookActor,
                lambda: current().webhook,
                *(world.hook_sender, world.state, refs.events, world.new_operation, world.now),
            ),
            Child(
                refs.alerts,
                AlertActor,
                AlertSurroundings(
                    settings=current,
                    state=world.state,
                    events=refs.events,
                    notify=refs.notify,
                    now=world.now,
                    new_id=world.new_operation,
                    server=world.alert_channels.server,
                    epoch=world.epoch,
                ),
            ),
            Child(
                refs.notify,
                NotifyActor,
                *(current, world.alert_channels, world.state, refs.events, world.new_operation, world.now),
            ),
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
                *(world.save, listeners, world.now),
                stop_within=EDGE_STOP_SECONDS,
            ),
            Child(
                supervisor_ref("workload"),
                Supervisor,
                [
                    *(
                        Child(refs.engines[name], InventoryActor, engine, refs.events, refs.apps, refs.logs, refs.host)
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
                                *(listeners, world.now),
                            ),
                            Child(groups, Supervisor, [], Strategy.ONE_FOR_ONE, NEVER_GIVE_UP),
                        ],
                        Strategy.ONE_FOR_ALL,
                    ),
                ],
                # who loses the inventory must learn anew what there is; running containers do not notice
                Strategy.REST_FOR_ONE,
            ),
            Child(
                refs.config,
                ConfigActor,
                *(world.config, world.config_versions, (refs.apps, refs.edge, refs.logs, refs.host, refs.notify)),
                *(refs.events, refs.operations),
                partial(_deployed, world),
            ),
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
        traffic=lambda query: refs.records.ask(query, TRAFFIC_SECONDS),
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
    jobbing = JobsSurroundings(
        engine=world.engines[engine],
        inventory=refs.engines[engine],
        apps=apps,
        events=refs.events,
        state=world.state,
        outputs=world.outputs[engine],
        make_spec=lambda app, process, name, own: job_spec(
            app,
            process,
            name,
            own,
            owner=world.owner,
            engine=engine,
            rotate=world.config.current().logs.rotate,
            secrets=secrets(),
        ),
        mask=partial(_masked, world, name),
        now=world.now,
    )
    group = Child(
        supervisor_ref(f"group:{name}"),
        Supervisor,
        [
            Child(deploy, DeployActor, name, deploying),
            Child(own, AppActor, name, around),
            Child(jobs, JobsActor, name, jobbing),
            Child(containers, Supervisor, [], Strategy.ONE_FOR_ONE, NEVER_GIVE_UP),
        ],
        Strategy.ONE_FOR_ALL,
    )
    return deploy, group


def _secrets(world: World, app: str) -> Secrets:
    """Those that cannot be read count as not set: what needs them is refused, what runs stays."""
    try:
        return Secrets(values=world.secrets.values(app), marks=world.secrets.marks(app))
    except NextDeployError as error:
        log.error("%s", error)
        return NO_SECRETS


def _masked(world: World, app: str, text: str) -> str:
    return mask_text(text, _secrets(world, app).values.values())


def _deployed(world: World, app: str) -> DeployRecord | None:
    """What is on record of an app's deployment, on the engine where it belongs."""
    found = world.config.current().apps.get(app)
    return world.state.load(f"deploys/{app}@{_engine_of(world, found)}", DeployRecord) if found is not None else None


def _wanted(world: World, name: str, engine: str) -> tuple[App, Origin] | None:
    app = world.config.current().apps.get(name)
    if app is None or _engine_of(world, app) != engine:
        return None
    return app, world.config.origins().get(name, Origin())


def _new_container(
    world: World, refs: Refs, engine: ContainerEngine, ref: Ref, place: Callable[[], Placement], owner: Ref
) -> Child:
    around = Surroundings(
        owner=owner,
        events=refs.events,
        engine=engine,
        prober=world.prober,
        lag=world.lag,
        checked=world.checked,
        rested=world.rested,
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

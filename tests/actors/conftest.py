"""The actors of one daemon over a scripted engine: no files, no sockets, no other processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gevent
import msgspec
import pytest
from gevent.event import Event
from gevent.queue import Queue

from ndactors.actors.app import AppActor
from ndactors.actors.app_slots import AppSurroundings
from ndactors.actors.apps import AppsActor
from ndactors.actors.container import ContainerActor, Surroundings
from ndactors.actors.deploy import DeployActor
from ndactors.actors.deploy_work import Workshop
from ndactors.actors.deploying import DeploySurroundings
from ndactors.actors.inventory import InventoryActor
from ndactors.actors.operation import OperationsActor
from ndactors.adapters.memory_terminal import MemoryTerminal
from ndactors.core.containers import ContainerStatus, EngineEvent, EngineInfo, ExecResult
from ndactors.core.images import ImageInfo
from ndactors.core.model import App, Healthcheck, Process, Restart, Rotate, Settings
from ndactors.core.specs import Owner, Secrets
from ndactors.errors import Conflict, ContainerNotFound, EngineUnreachable, ImageNotFound
from ndactors.messages.containers import ApplySettings, BackendDrained, DrainBackend, RecordEvent
from ndactors.messages.edge import Service
from ndactors.messages.hooks import SendHooks
from ndactors.messages.jobs import CancelJob, JobEnded, JobSettings, RunJob
from ndactors.messages.operations import (
    BeginOperation,
    GetOperation,
    GetOperations,
    GetRevisions,
    Operation,
    OperationPage,
    Origin,
    Revision,
    RevisionPage,
)
from ndactors.messages.queries import AppView, ContainerView, GetApps, GetReadiness
from ndactors.messages.records import GetTraffic, TrafficSummary
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


class ScriptedEngine:
    """The port, in memory. Tests change ``containers_now`` through ``exits`` and the like."""

    name = "docker"

    def __init__(self) -> None:
        self.now: dict[str, ContainerStatus] = {}
        self.calls: list[tuple[str, str]] = []
        self.images = {"shop:1", "shop:2"}
        self.reachable = True
        self.start_error: Exception | None = None
        self.exits_at_once: set[str] = set()
        self.removals = 0
        self._streams: list[Queue] = []
        self._ids = itertools.count(1)

    def _check(self) -> None:
        if not self.reachable:
            raise EngineUnreachable("the engine does not answer")
        gevent.sleep(0)

    def _get(self, container: str) -> ContainerStatus:
        self._check()
        if container not in self.now:
            raise ContainerNotFound(container)
        return self.now[container]

    def _change(self, container: str, kind: str | None = None, **fields) -> ContainerStatus:
        status = self.now[container] = msgspec.structs.replace(self.now[container], **fields)
        if kind is not None:
            self._emit(EngineEvent(ts=time.time(), kind=kind, container=container, labels=status.labels))
        return status

    def _emit(self, event: EngineEvent) -> None:
        for stream in self._streams:
            stream.put(event)

    def info(self) -> EngineInfo:
        self._check()
        return EngineInfo(name="docker", version="1")

    def containers(self) -> list[ContainerStatus]:
        self._check()
        return list(self.now.values())

    def inspect(self, container: str) -> ContainerStatus:
        return self._get(container)

    def create(self, spec) -> ContainerStatus:
        self._check()
        if spec.image not in self.images:
            raise ImageNotFound(f"there is no image {spec.image}")
        if any(status.name == spec.name for status in self.now.values()):
            raise Conflict(f"the name {spec.name} is taken")
        number = next(self._ids)
        status = ContainerStatus(id=f"c{number}", name=spec.name, labels=spec.labels, state="created", image=spec.image)
        self.now[status.id] = status
        self.calls.append(("create", spec.name))
        return status

    def start(self, container: str) -> ContainerStatus:
        status = self._get(container)
        if self.start_error is not None:
            raise self.start_error
        if status.state == "running":
            return status
        self.calls.append(("start", status.name))
        number = int(container[1:])
        status = self._change(
            container,
            "started",
            state="running",
            started_at=time.time(),
            address=f"10.0.0.{number}",
            port=8080,
            pid=number,
        )
        if status.image in self.exits_at_once:
            self.exits(container, 1)
        return status

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        status = self._get(container)
        self.calls.append(("stop", status.name))
        if status.state == "running":
            self.exits(container, 143)
            gevent.sleep(0.005)

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        self.exits(container, 137)

    def remove(self, container: str) -> None:
        status = self._get(container)
        self.calls.append(("remove", status.name))
        del self.now[container]
        self._emit(EngineEvent(ts=time.time(), kind="removed", container=container, labels=status.labels))

    def execute(self, container: str, argv, timeout: float) -> ExecResult:
        return ExecResult(exit_code=0, output="")

    def terminal(self, container: str, argv, *, tty: bool, rows: int, columns: int) -> MemoryTerminal:
        self._get(container)
        return MemoryTerminal(tty=tty, rows=rows, columns=columns)

    def output(self, container: str, lines: int) -> list[str]:
        return []

    def events(self, since) -> Iterator[EngineEvent]:
        self._check()
        stream: Queue = Queue()
        self._streams.append(stream)
        while True:
            event = stream.get()
            if event is None:
                raise EngineUnreachable("the event stream ended")
            yield event

    def close(self) -> None: ...

    # what tests do to it

    def exits(self, container: str, code: int, **fields) -> None:
        self._change(
            container, "died", state="exited", exit_code=code, finished_at=time.time(), address=None, pid=None, **fields
        )

    def goes_away(self) -> None:
        self.reachable = False
        for stream in self._streams:
            stream.put(None)
        self._streams.clear()

    def comes_back(self) -> None:
        self.reachable = True

    def named(self, name: str) -> ContainerStatus:
        return next(status for status in self.now.values() if status.name == name)


class ScriptedProber:
    """Well, unless the container's address is in ``failing``."""

    def __init__(self) -> None:
        self.failing: dict[str, str] = {}

    def http(self, target, check, host):
        gevent.sleep(0)
        return self.failing.get(target[0])

    tcp = http


class NoLag:
    def __init__(self) -> None:
        self.seconds = 0.0

    def total(self) -> float:
        return self.seconds


class MemoryState:
    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.ledger = MemoryLedger()

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        self.records[name] = msgspec.json.encode(value)

    def delete(self, name):
        self.records.pop(name, None)

    def names(self, folder):
        return [name for name in self.records if name.startswith(f"{folder}/")]


class MemoryLedger:
    def __init__(self) -> None:
        self.all: dict[str, Operation] = {}
        self.numbers: dict[tuple[str, int], Revision] = {}

    def save_operation(self, operation):
        self.all[operation.id] = operation

    def operation(self, id):
        return self.all.get(id)

    def operations(self, query):
        rows = [o for o in reversed(self.all.values()) if query.state in (None, o.state)]
        return OperationPage(items=tuple(rows[: query.limit]))

    def save_revision(self, revision):
        self.numbers[revision.app, revision.number] = revision

    def revision(self, app, number):
        return self.numbers.get((app, number))

    def revisions(self, query):
        rows = sorted((r for r in self.numbers.values() if r.app == query.app), key=lambda r: -r.number)
        return RevisionPage(items=tuple(rows[: query.limit]))


class ScriptedImages:
    """Every image that the engine has; an image's id is its name."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine
        self.pulled: list[str] = []
        self.pruned: list[tuple[str, list[str]]] = []
        self.registry: set[str] = set()
        self.found: list[str] = []
        self.prunes = Event()
        self.prunes.set()

    def find(self, name):
        self._engine._check()
        self.found.append(name)
        return ImageInfo(id=name, name=name) if name in self._engine.images else None

    def pull(self, name, registries, progress):
        if name not in self.registry:
            raise ImageNotFound(f"there is no image {name}, and no registry has it")
        self.pulled.append(name)
        self._engine.images.add(name)
        return ImageInfo(id=name, name=name)

    def prune(self, project, app, keep):
        self.pruned.append((app, sorted(keep)))
        self.prunes.wait()
        return []


class ScriptedJobs(Actor):
    """Every job ends at once, with the code that ``codes`` has for its process."""

    def __init__(self, codes: dict[str, int], ran: list[RunJob]) -> None:
        self._codes = codes
        self._ran = ran

    def receive(self, message):
        match message:
            case RunJob(key=key, reply_to=reply_to, process=process):
                self._ran.append(message)
                code = self._codes.get(process.name, 0)
                if code is not None:
                    reply_to.tell(JobEnded(key=key, exit_code=code, reason=f"exited {code}", seconds=0.1))
            case JobSettings() | CancelJob():
                return


class Nobody(Actor):
    def __init__(self, heard: list) -> None:
        self._heard = heard

    def receive(self, message):
        self._heard.append(message)


class EventList(Actor):
    def __init__(self, seen: list[RecordEvent]) -> None:
        self._seen = seen

    def receive(self, message):
        self._seen.append(message)


class ScriptedProxy(Actor):
    """Keeps the services; drains at once."""

    def __init__(self, services: dict[str, Service], history: list[Service]) -> None:
        self._services = services
        self._history = history

    def receive(self, message):
        match message:
            case Service(app=app):
                self._services[app] = message
                self._history.append(message)
            case DrainBackend(key=key, reply_to=reply_to):
                reply_to.tell(BackendDrained(key=key, in_time=True))


QUICK = Restart(max_restarts=3, within=600, backoff=0.001, backoff_max=0.002)
CHECK = Healthcheck(interval=0.01, timeout=1.0, retries=2, restart_after=0.05, start_period=0.3)


def app(image: str = "shop:1", replicas: int = 2, **kwargs) -> App:
    process = {"healthcheck": CHECK, "restart": QUICK, "replicas": replicas, **kwargs.pop("process", {})}
    worker = kwargs.pop("worker", None)
    processes = {"web": Process(name="web", **process)}
    if worker:
        processes["worker"] = Process(name="worker", healthcheck=Healthcheck(kind="none"), restart=QUICK, **worker)
    return App(name=kwargs.pop("name", "shop"), image=image, domains=("shop.test",), processes=processes, **kwargs)


class Daemon:
    """Start, stop, crash, look."""

    def __init__(
        self, engine: ScriptedEngine, state: MemoryState, *apps: App, codes: dict[str, int] | None = None
    ) -> None:
        self.engine, self.state = engine, state
        self.killed = False
        self.settings = Settings(project="test", apps={a.name: a for a in apps})
        self.origins: dict[str, Origin] = {}
        self.images, self.ledger = ScriptedImages(engine), state.ledger
        self.secrets: dict[str, str] = {}
        self.codes: dict[str, int] = dict(codes or {})
        self.jobs: list[RunJob] = []
        self.hooks: list[SendHooks] = []
        self.traffic: Callable[[GetTraffic], TrafficSummary] = lambda query: TrafficSummary()
        self.listening: list[tuple[str, int]] | None = None
        self._numbers = itertools.count(1)
        self.prober, self.lag = ScriptedProber(), NoLag()
        self.events: list[RecordEvent] = []
        self.services: dict[str, Service] = {}
        self.history: list[Service] = []
        self.refs = SimpleNamespace(
            events=Ref("events"),
            proxy=Ref("proxy"),
            inventory=Ref("engine:docker"),
            apps=Ref("apps"),
            operations=Ref("operations"),
            hooks=Ref("hooks"),
            metrics=Ref("metrics"),
        )
        groups = supervisor_ref("groups")
        quick = {"backoff": lambda: Backoff(0.001, 0.01)}
        self.root = Root(
            Child(
                supervisor_ref("root"),
                Supervisor,
                [
                    Child(self.refs.events, EventList, self.events),
                    Child(self.refs.proxy, ScriptedProxy, self.services, self.history),
                    Child(self.refs.hooks, Nobody, self.hooks),
                    Child(
                        self.refs.operations,
                        OperationsActor,
                        lambda: self.settings.apps,
                        self.ledger,
                        state,
                        self.refs.apps,
                        self.refs.events,
                        self._new_operation,
                        str,
                        **quick,
                    ),
                    Child(
                        self.refs.inventory,
                        InventoryActor,
                        *(engine, self.refs.events, self.refs.apps, Ref("logs")),
                        **quick,
                    ),
                    Child(
                        self.refs.apps,
                        AppsActor,
                        lambda: self.settings,
                        groups,
                        state,
                        self.refs.operations,
                        lambda app: "docker",
                        self._new_app,
                        (self.refs.metrics,),
                        lambda: 1000.0,
                        **quick,
                    ),
                    Child(groups, Supervisor, [], Strategy.ONE_FOR_ONE, Intensity(None)),
                ],
                Strategy.REST_FOR_ONE,
                Intensity(None),
            )
        )
        assert self.root.wait_started(5)

    def _new_app(self, name: str, engine: str, apps: Ref):
        own, containers = Ref(f"app:{name}"), supervisor_ref(f"containers:{name}")
        deploy, jobs = Ref(f"deploy:{name}"), Ref(f"jobs:{name}")
        deploying = DeploySurroundings(
            engine=engine,
            container_engine=self.engine,
            rotate=Rotate(),
            wanted=lambda: self._wanted(name),
            secrets=self._secrets,
            workshop=Workshop(images=self.images, contexts=None, blobs=None, registries=dict),
            listeners=self,
            traffic=lambda query: self.traffic(query),
            ledger=self.ledger,
            state=self.state,
            app=own,
            jobs=jobs,
            operations=self.refs.operations,
            events=self.refs.events,
            hooks=self.refs.hooks,
            new_operation=self._new_operation,
            stamp=str,
        )
        around = AppSurroundings(
            owner=Owner(project="test", daemon="d1"),
            engine=engine,
            rotate=Rotate(),
            secrets=self._secrets,
            deploy=deploy,
            inventory=self.refs.inventory,
            containers=containers,
            proxy=self.refs.proxy,
            events=self.refs.events,
            apps=apps,
            state=self.state,
            new_container=self._new_container,
        )
        quick = {"backoff": lambda: Backoff(0.001, 0.01)}
        children = [
            Child(deploy, DeployActor, name, deploying, **quick),
            Child(own, AppActor, name, around, **quick),
            Child(jobs, ScriptedJobs, self.codes, self.jobs, **quick),
            Child(containers, Supervisor, [], Strategy.ONE_FOR_ONE, Intensity(None)),
        ]
        return deploy, Child(supervisor_ref(f"group:{name}"), Supervisor, children, Strategy.ONE_FOR_ALL, **quick)

    def _new_container(self, ref: Ref, place, owner: Ref) -> Child:
        around = Surroundings(
            owner=owner, events=self.refs.events, engine=self.engine, prober=self.prober, lag=self.lag
        )
        return Child(ref, ContainerActor, place, around, backoff=lambda: Backoff(0.001, 0.01))

    def _wanted(self, name: str):
        found = self.settings.apps.get(name)
        return (found, self.origins.get(name, Origin())) if found is not None else None

    def _new_operation(self) -> str:
        return f"op{next(self._numbers)}-{id(self)}"

    def _secrets(self) -> Secrets:
        return Secrets(values=self.secrets, marks={name: f"mark of {value}" for name, value in self.secrets.items()})

    def of(self, pid):
        return self.listening

    def begin(self, change, app: str = "shop", by: str = "api:test") -> str:
        return self.refs.operations.ask(BeginOperation(app=app, change=change, origin=Origin(by=by)))

    def operation(self, id: str) -> Operation:
        return self.refs.operations.ask(GetOperation(id=id))

    def operations(self) -> tuple[Operation, ...]:
        return self.refs.operations.ask(GetOperations()).items

    def revisions(self, app: str = "shop") -> tuple[Revision, ...]:
        return self.refs.operations.ask(GetRevisions(app=app)).items

    # -- looking -----------------------------------------------------------------------------------

    def app(self, name: str = "shop") -> AppView | None:
        return next((view for view in self.refs.apps.ask(GetApps()) if view.name == name), None)

    def containers(self) -> dict[str, ContainerView]:
        view = self.app()
        return {c.name: c for c in view.containers} if view else {}

    def states(self) -> dict[str, str]:
        return {name: c.state for name, c in self.containers().items()}

    def ready(self) -> bool:
        return self.refs.apps.ask(GetReadiness()).ready

    def backends(self, name: str = "shop") -> set[str]:
        return {backend.id for backend in self.services[name].backends} if name in self.services else set()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def apply(self, *apps: App, operation: str = "") -> None:
        """``operation``: a client sent them with it."""
        self.settings = Settings(project="test", apps={a.name: a for a in apps})
        self.origins = {a.name: Origin(by="api:test", operation=operation) for a in apps} if operation else {}
        self.refs.apps.tell(ApplySettings(settings=self.settings, origins=self.origins))

    def node(self, name: str, node=None):
        """The node of the tree with that name."""
        node = node or self.root._child.ref.node()
        if node.name == name:
            return node
        return next((found for child in node.children if (found := self.node(name, child)) is not None), None)

    def crash(self, name: str) -> None:
        """Make the actor of that name crash."""
        self._ref(name).tell(object())

    def _ref(self, name: str):
        def search(actor):
            for slot in actor._slots:
                if slot.child.ref.name == name:
                    return slot.child.ref
                if slot.life is not None and isinstance(slot.life.actor, Supervisor):
                    found = search(slot.life.actor)
                    if found is not None:
                        return found
            return None

        return search(self.root._life.actor)

    def stop(self) -> None:
        assert self.root.stop(10)

    def kill(self) -> None:
        """As SIGKILL would: nobody gets a last word."""

        def ends(actor) -> None:
            for slot in actor._slots:
                if slot.life is not None:
                    if isinstance(slot.life.actor, Supervisor):
                        ends(slot.life.actor)
                    slot.life.supervisor = None
                    slot.life.kill()

        self.root._stopped = True
        ends(self.root._life.actor)
        self.root._life.kill()
        self.killed = True


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            gevent.sleep(0.001)

    return wait


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Times that people wait for, shorter."""
    for module, name, seconds in (
        ("app", "STEADY_SECONDS", 0.02),
        ("app", "TICK_SECONDS", 0.01),
        ("deploy_end", "AFTER_SECONDS", 0.01),
        ("deploy_end", "SETTLE_SECONDS", 0.01),
        ("deploy_switch", "LOOK_SECONDS", 0.01),
        ("deploy", "ENGINE_RETRY_SECONDS", 0.01),
    ):
        monkeypatch.setattr(f"ndactors.actors.{module}.{name}", seconds)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def daemon(engine):
    made: list[Daemon] = []
    state = MemoryState()

    def start(*apps: App, settled: bool = True, codes: dict[str, int] | None = None) -> Daemon:
        made.append(Daemon(engine, state, *apps, codes=codes))
        if settled:
            deadline = time.monotonic() + 5
            while not made[-1].ready():
                assert time.monotonic() < deadline, made[-1].app()
                gevent.sleep(0.001)
        return made[-1]

    start.state = state
    yield start
    for each in made:
        if not each.killed:
            each.root.stop(10)


@pytest.fixture
def make_app():
    return app

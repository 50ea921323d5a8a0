"""The actors of one daemon over a scripted engine: no files, no sockets, no other processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gevent
import msgspec
import pytest
from gevent.queue import Queue

from ndactors.actors.app import AppActor, AppSurroundings
from ndactors.actors.apps import AppsActor
from ndactors.actors.container import ContainerActor, Surroundings
from ndactors.actors.inventory import InventoryActor
from ndactors.core.containers import ContainerStatus, EngineEvent, EngineInfo, ExecResult
from ndactors.core.model import App, Healthcheck, Process, Restart, Rotate, Settings
from ndactors.core.specs import Owner
from ndactors.errors import Conflict, ContainerNotFound, EngineUnreachable, ImageNotFound
from ndactors.messages.containers import ApplySettings, BackendDrained, DrainBackend, RecordEvent
from ndactors.messages.edge import Service
from ndactors.messages.queries import AppView, ContainerView, GetApps, GetReadiness
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

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        self.records[name] = msgspec.json.encode(value)

    def delete(self, name):
        self.records.pop(name, None)

    def names(self, folder):
        return [name for name in self.records if name.startswith(f"{folder}/")]


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

    def __init__(self, engine: ScriptedEngine, state: MemoryState, *apps: App) -> None:
        self.engine, self.state = engine, state
        self.settings = Settings(project="test", apps={a.name: a for a in apps})
        self.prober, self.lag = ScriptedProber(), NoLag()
        self.events: list[RecordEvent] = []
        self.services: dict[str, Service] = {}
        self.history: list[Service] = []
        self.refs = SimpleNamespace(
            events=Ref("events"), proxy=Ref("proxy"), inventory=Ref("engine:docker"), apps=Ref("apps")
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
                    Child(self.refs.inventory, InventoryActor, engine, self.refs.events, self.refs.apps, **quick),
                    Child(
                        self.refs.apps,
                        AppsActor,
                        lambda: self.settings,
                        groups,
                        state,
                        lambda app: "docker",
                        self._new_app,
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
        around = AppSurroundings(
            owner=Owner(project="test", daemon="d1"),
            engine=engine,
            rotate=Rotate(),
            wanted=lambda: self.settings.apps.get(name),
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
            Child(own, AppActor, name, around, **quick),
            Child(containers, Supervisor, [], Strategy.ONE_FOR_ONE, Intensity(None)),
        ]
        return own, Child(supervisor_ref(f"group:{name}"), Supervisor, children, Strategy.ONE_FOR_ALL, **quick)

    def _new_container(self, ref: Ref, place, owner: Ref) -> Child:
        around = Surroundings(
            owner=owner, events=self.refs.events, engine=self.engine, prober=self.prober, lag=self.lag
        )
        return Child(ref, ContainerActor, place, around, backoff=lambda: Backoff(0.001, 0.01))

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

    def apply(self, *apps: App) -> None:
        self.settings = Settings(project="test", apps={a.name: a for a in apps})
        self.refs.apps.tell(ApplySettings(settings=self.settings))

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


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            gevent.sleep(0.001)

    return wait


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def daemon(engine):
    made: list[Daemon] = []
    state = MemoryState()

    def start(*apps: App, settled: bool = True) -> Daemon:
        made.append(Daemon(engine, state, *apps))
        if settled:
            deadline = time.monotonic() + 5
            while not made[-1].ready():
                assert time.monotonic() < deadline, made[-1].app()
                gevent.sleep(0.001)
        return made[-1]

    start.state = state
    yield start
    for each in made:
        each.root.stop(10)


@pytest.fixture
def make_app():
    return app

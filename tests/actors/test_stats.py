"""When figures are read, who is told of them, and what is an event."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from msgspec.structs import replace

from ndactors.actors import stats
from ndactors.actors.stats import StatsActor
from ndactors.core.containers import ContainerStatus
from ndactors.core.listening import BoundSocket, Owner, SeenSockets, Told
from ndactors.core.model import App, Monitoring, Process, Settings
from ndactors.core.processes import Zombie, ZombieNews
from ndactors.errors import StateError
from ndactors.messages.containers import ApplySettings, ContainersSeen
from ndactors.messages.queries import GetHost, HostView
from ndactors.messages.stats import ContainerUsage, GetPorts, GetUsage
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

SETTINGS = Settings(
    project="test",
    environment="dev",
    monitoring=Monitoring(interval=0.02),
    apps={"shop": App(name="shop", processes={"web": Process(name="web")})},
)
VIEW = HostView(cpu_percent=5.0, load=(1, 1, 1), memory_used=1, memory_total=2, swap_used=0, swap_total=0)
USAGE = ContainerUsage(container="c1", name="nd-1", app="shop", process="web", source="cgroup", at=1.0, cpu_seconds=2.0)


class Machine:
    """Host, containers and sockets, as a test says; each reading may be held up."""

    def __init__(self) -> None:
        self.view = VIEW
        self.zombies: tuple[ZombieNews, ...] = ()
        self.error: Exception | None = None
        self.sockets: tuple[BoundSocket, ...] | None = ()
        self.seen: list[dict] = []
        self.counts = {"host": 0, "containers": 0, "ports": 0, "disk": 0}
        self.running = dict.fromkeys(self.counts, 0)
        self.most = dict.fromkeys(self.counts, 0)
        self.gates = {name: Event() for name in self.counts}
        for gate in self.gates.values():
            gate.set()

    def step(self, what: str) -> None:
        self.running[what] += 1
        self.most[what] = max(self.most[what], self.running[what])
        self.gates[what].wait()
        self.running[what] -= 1
        self.counts[what] += 1

    def measure(self, containers, settings) -> None:
        self.step("disk")

    def look(self):
        self.step("ports")
        return SeenSockets(sockets=self.sockets) if self.sockets is not None else None


class Host:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def read(self):
        self.machine.step("host")
        if self.machine.error is not None:
            raise self.machine.error
        news, self.machine.zombies = self.machine.zombies, ()
        return self.machine.view, news


class Usage:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.measure = machine.measure

    def read(self, containers):
        self.machine.step("containers")
        self.machine.seen.append(dict(containers))
        return tuple(USAGE for rows in containers.values() for _ in rows)


class State:
    def __init__(self) -> None:
        self.records: dict[str, object] = {}
        self.full = False

    def load(self, name, kind):
        return self.records.get(name)

    def save(self, name, value):
        if self.full:
            raise StateError("the disk is full")
        self.records[name] = value


class World:
    def __init__(
        self, state: State | None = None, engines=frozenset({"docker"}), settings: Settings = SETTINGS
    ) -> None:
        self.machine, self.state = Machine(), state or State()
        self.events, self.listener, self.ref = Ref("events"), Ref("history"), Ref("host")
        self.engines, self.settings = engines, settings

    def start(self) -> World:
        actor = (lambda: self.settings, Host(self.machine), Usage(self.machine), self.machine, self.state)
        more = (self.events, (self.listener,), self.engines, lambda: 77.0)
        child = Child(self.ref, StatsActor, *actor, *more, backoff=lambda: Backoff(0.001, 0.01))
        self.root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(None)))
        assert self.root.wait_started(5)
        return self

    def list(self, *containers: ContainerStatus, engine: str = "docker", **more) -> None:
        self.ref.tell(ContainersSeen(engine=engine, containers=containers, **{"complete": True, **more}))

    def told(self, kind: str) -> list:
        return [event for event in self.events.mailbox.items if event.kind == kind]

    def samples(self, source: str) -> list:
        return [message for message in self.listener.mailbox.items if message.source == source]


def until(condition, seconds: float = 5.0):
    deadline = gevent.get_hub().loop.now() + seconds
    while not condition():
        assert gevent.get_hub().loop.now() < deadline, "the condition never came true"
        gevent.sleep(0.002)


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(stats, "CONFIRM_SECONDS", 0.005)
    monkeypatch.setattr(stats, "FIRST_DISK_SECONDS", 0.01)
    monkeypatch.setattr(stats, "SHORTEST_SECONDS", 0.01)
    made: list[World] = []

    def start(*args, **kwargs) -> World:
        made.append(World(*args, **kwargs))
        return made[-1]

    yield start
    for world in made:
        for gate in world.machine.gates.values():
            gate.set()
        assert world.root.stop(5)


@pytest.fixture
def world(make):
    return make().start()


def status(id: str = "c1", pid: int = 50, state="running", port: int | None = 9000) -> ContainerStatus:
    labels = {"nextdeploy.app": "shop", "nextdeploy.process": "web"}
    return ContainerStatus(id=id, name=f"nd-{id}", labels=labels, state=state, pid=pid, port=port)


def stranger(port: int = 9100, name: str = "ruby") -> BoundSocket:
    return BoundSocket(protocol="tcp", address="0.0.0.0", port=port, owner=Owner(pid=12, name=name, lineage=(12, 1)))


# -- reading -----------------------------------------------------------------------------------------


def test_every_reading_is_told_to_who_listens(world):
    world.list(status())
    until(lambda: world.samples("host") and world.samples("containers") and world.samples("containers")[-1].samples)
    host, containers = world.samples("host")[-1], world.samples("containers")[-1]
    assert host.at == containers.at == 77.0
    assert {sample.name for sample in host.samples} >= {"nextdeploy_host_cpu_percent", "nextdeploy_host_load1"}
    (sample,) = containers.samples
    assert (sample.name, sample.kind, sample.value) == ("nextdeploy_container_cpu_seconds_total", "counter", 2.0)
    assert sample.labels == {"app": "shop", "process": "web", "container": "nd-1"}


def test_who_asks_before_the_first_reading_waits_for_it(make):
    world = make()
    world.machine.gates["host"].clear()
    world.start()
    asked = gevent.spawn(world.ref.ask, GetHost())
    gevent.sleep(0.05)
    assert not asked.ready()
    assert world.ref.ask(GetUsage()) == ()
    world.machine.gates["host"].set()
    assert asked.get(timeout=5) == VIEW


@pytest.mark.parametrize("what", ["host", "containers", "ports"])
def test_a_reading_that_hangs_holds_up_nothing_else_and_is_not_begun_again(world, what):
    world.list(status())
    until(lambda: min(world.machine.counts[each] for each in ("host", "containers", "ports")) > 1)
    world.machine.gates[what].clear()
    until(lambda: world.machine.running[what] == 1)
    before = dict(world.machine.counts)
    others = {"host", "containers", "ports"} - {what}
    until(lambda: all(world.machine.counts[each] > before[each] + 2 for each in others))
    assert world.machine.counts[what] == before[what]
    assert world.ref.ask(GetHost()) == VIEW
    assert world.ref.ask(GetUsage()) == (USAGE,)
    assert world.ref.ask(GetPorts()) == ()
    world.machine.gates[what].set()
    until(lambda: world.machine.counts[what] > before[what] + 1)
    assert world.machine.most == {**dict.fromkeys(world.machine.most, 1), "disk": world.machine.most["disk"]}


def test_disk_sizes_that_take_long_hold_up_nothing(world):
    world.machine.gates["disk"].clear()
    until(lambda: world.machine.running["disk"] == 1)
    before = world.machine.counts["containers"]
    until(lambda: world.machine.counts["containers"] > before + 3)


def test_a_reading_that_fails_with_a_bug_crashes_and_begins_again(world):
    until(lambda: world.machine.counts["host"] > 0)
    world.machine.error = ZeroDivisionError("a bug")
    until(lambda: world.ref.restarts > 0)
    world.machine.error = None
    assert world.ref.ask(GetHost()) == VIEW


def test_a_reading_that_is_refused_leaves_the_last_one(world):
    assert world.ref.ask(GetHost()) == VIEW
    world.machine.error = StateError("no")
    before = world.machine.counts["host"]
    until(lambda: world.machine.counts["host"] > before + 2)
    assert world.ref.ask(GetHost()) == VIEW
    assert world.ref.restarts == 0


def test_the_interval_follows_the_configuration(make):
    world = make(settings=replace(SETTINGS, monitoring=Monitoring(interval=3600.0)), engines=frozenset()).start()
    until(lambda: world.machine.counts["host"] == 1)
    gevent.sleep(0.1)
    assert world.machine.counts["host"] == 1
    world.ref.tell(ApplySettings(settings=SETTINGS))
    until(lambda: world.machine.counts["host"] > 3)


def test_containers_are_those_of_the_last_listing_and_what_was_seen_since(world):
    world.list(status("c1"))
    world.list(status("c2"), complete=False)
    world.list(status("c3"), complete=False, announced=True)
    until(lambda: world.machine.seen and {s.id for s in world.machine.seen[-1].get("docker", ())} == {"c1", "c2"})
    world.list(status("c4"))
    world.list(status("p1"), engine="process")
    until(
        lambda: (
            {name: [s.id for s in rows] for name, rows in world.machine.seen[-1].items()}
            == {"docker": ["c4"], "process": ["p1"]}
        )
    )


# -- events ------------------------------------------------------------------------------------------


def test_an_unexplained_port_is_told_once_and_so_is_its_end(world):
    world.machine.sockets = (stranger(),)
    world.list()
    until(lambda: world.told("port.opened"))
    (event,) = world.told("port.opened")
    assert event.reason == (
        "0.0.0.0:9100 (tcp) is open to other machines: ruby (pid 12), which nothing in the configuration explains"
    )
    assert event.detail == {"protocol": "tcp", "address": "0.0.0.0", "port": 9100, "process": "ruby", "pid": 12}
    (port,) = world.ref.ask(GetPorts())
    assert (port.reachable, port.process, port.reason) == (True, "ruby", "")
    before = world.machine.counts["ports"]
    until(lambda: world.machine.counts["ports"] > before + 2)
    assert len(world.told("port.opened")) == 1
    world.machine.sockets = ()
    until(lambda: world.told("port.closed"))
    assert world.told("port.closed")[0].detail["port"] == 9100


def test_the_next_daemon_does_not_tell_again_but_tells_what_closed_meanwhile(make):
    first = make()
    first.machine.sockets = (stranger(), stranger(9200))
    first.start()
    first.list()
    until(lambda: len(first.told("port.opened")) == 2)
    second = make(first.state)
    second.machine.sockets = (stranger(), stranger(9300))
    second.start()
    second.list()
    until(lambda: second.told("port.opened") and second.told("port.closed"))
    assert [event.detail["port"] for event in second.told("port.opened")] == [9300]
    assert [event.detail["port"] for event in second.told("port.closed")] == [9200]


def test_ports_are_looked_at_when_every_engine_has_told_what_it_has(make):
    world = make(engines=frozenset({"docker", "process"}))
    world.machine.sockets = (
        BoundSocket(protocol="tcp", address="0.0.0.0", port=9000, owner=Owner(pid=51, name="web", lineage=(51, 50, 1))),
    )
    world.start()
    world.list()
    until(lambda: world.machine.counts["host"] > 3)
    assert world.machine.counts["ports"] == 0
    world.list(status("p1", 50), engine="process")
    until(lambda: world.machine.counts["ports"] > 3)
    assert world.told("port.opened") == []
    (port,) = world.ref.ask(GetPorts())
    assert (port.reason, port.container) == ("app shop (web)", "nd-p1")


def test_an_engine_that_never_answers_hides_no_ports(make, monkeypatch):
    monkeypatch.setattr(stats, "LISTING_SECONDS", 0.05)
    world = make()
    world.machine.sockets = (stranger(),)
    world.start()
    until(lambda: world.told("port.opened"))


def test_sockets_that_cannot_be_seen_have_not_closed(make):
    world = make()
    world.state.records["ports"] = Told(ports=(("tcp", "0.0.0.0", 9100, "ruby"),))
    world.machine.sockets = None
    world.start()
    world.list()
    until(lambda: world.machine.counts["ports"] > 2)
    assert world.told("port.closed") == []


def test_a_full_disk_stops_no_event(make):
    world = make()
    world.state.full = True
    world.machine.sockets = (stranger(),)
    world.start()
    world.list()
    until(lambda: world.told("port.opened"))
    assert world.ref.restarts == 0


def test_zombies_are_an_event_with_their_parent(world):
    zombie = Zombie(6, "child", 5, "nurse", 1)
    world.machine.zombies = (ZombieNews("a reason", (zombie,), 1),)
    until(lambda: world.told("host.zombies"))
    (event,) = world.told("host.zombies")
    assert event.reason == "a reason"
    assert event.detail == {
        "count": 1,
        "zombies": [{"pid": 6, "name": "child", "parent": 5, "parent_name": "nurse"}],
    }

"""What the AlertActor makes of figures and events, and whom it tells."""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from ndactors.actors import alert as actor
from ndactors.actors.alert import AlertActor, AlertSurroundings
from ndactors.core.model import Alert, Monitoring, Settings
from ndactors.errors import Conflict, Invalid, NotFound, StateError
from ndactors.messages.alerts import (
    AcknowledgeAlert,
    AddSilence,
    EndSilence,
    GetAlerts,
    GetSilences,
    Notify,
    ResolveAlert,
)
from ndactors.messages.containers import RecordEvent
from ndactors.messages.metrics import Sample, Sampled
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

DAY = 86_400.0


class State:
    """The port, in memory."""

    def __init__(self) -> None:
        self.saved: dict[str, object] = {}
        self.full = False

    def load(self, name, kind):
        return self.saved.get(name)

    def save(self, name, value):
        if self.full:
            raise StateError("no room")
        self.saved[name] = value


class World:
    def __init__(self) -> None:
        self.settings = Settings(project="shopping", environment="prod")
        self.state = State()
        self.events, self.notify, self.ref = Ref("events"), Ref("notify"), Ref("alerts")
        self.clock = 1_800_000_000.0
        self.ids = (f"n{number}" for number in itertools.count(1))
        self.root = None
        self.epoch = 1
        self.start()

    def start(self) -> None:
        around = AlertSurroundings(
            settings=lambda: self.settings,
            state=self.state,
            events=self.events,
            notify=self.notify,
            now=lambda: self.clock,
            new_id=lambda: next(self.ids),
            server="vps1",
            epoch=self.epoch,
        )
        child = Child(self.ref, AlertActor, around)
        self.root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        assert self.root.wait_started(5)

    def restart(self) -> None:
        """As another daemon."""
        assert self.root.stop(5)
        self.epoch += 1
        self.ref = Ref("alerts")
        self.start()

    def hear(self, kind: str, **more) -> None:
        self.ref.tell(RecordEvent(kind=kind, **more))

    def host(self, seconds: float, **figures: float) -> None:
        """Every 10 s for so long."""
        end = self.clock + seconds
        while self.clock < end:
            self.clock += 10.0
            samples = tuple(Sample(name=f"nextdeploy_host_{n}", kind="gauge", value=v) for n, v in figures.items())
            self.ref.tell(Sampled(source="host", at=self.clock, samples=samples))
        self.alerts()

    def wait(self, seconds: float) -> None:
        """Time passes, and nothing comes."""
        end = self.clock + seconds
        while self.clock < end:
            self.clock += 10.0
            self.ref.tell(actor.TickDue())
            self.alerts()

    def alerts(self, **query):
        return self.ref.ask(GetAlerts(**query))

    @property
    def told(self):
        return [message.notification for message in self.notify.mailbox.items if isinstance(message, Notify)]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.mailbox.items]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(actor, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(actor, "GROUP_SECONDS", 0.1)
    monkeypatch.setattr(actor, "SAVE_SECONDS", 0.02)
    monkeypatch.setattr(actor, "SOURCES", ())
    made = World()
    yield made
    made.root.stop(5)


def test_a_figure_beyond_its_threshold_for_long_enough_fires_and_is_told(world, until):
    world.host(600, cpu_percent=97.0)
    (alert,) = world.alerts()
    assert (alert.kind, alert.rule, alert.state, alert.value, alert.threshold) == (
        "high_cpu",
        "host.cpu",
        "firing",
        97.0,
        90.0,
    )
    until(lambda: world.told)
    (message,) = world.told
    assert (message.state, message.server, message.project, message.environment) == (
        "firing",
        "vps1",
        "shopping",
        "prod",
    )
    assert message.title == "The CPU of this machine is 97 % busy" and message.alerts[0].id == alert.id
    world.host(600, cpu_percent=10.0)
    until(lambda: len(world.told) == 2)
    assert world.told[1].state == "resolved" and world.alerts()[0].state == "resolved"
    assert world.kinds == ["alert.fired", "alert.resolved"]
    assert world.events.mailbox.items[0].detail["value"] == 97.0


def test_what_happens_together_is_told_together_the_worst_first(world, until):
    world.hear("container.died", app="shop", process="web", reason="exited 1")
    world.hear("container.gave_up", app="shop", process="web", reason="exited 1 five times")
    world.hear("container.oom", app="blog", process="web")
    until(lambda: world.told)
    (message,) = world.told
    assert message.title == "shop/web is not started again: exited 1 five times, and 2 more"
    assert [alert.kind for alert in message.alerts] == ["crash", "crash", "oom"]


def test_kinds_that_are_not_wanted_are_shown_and_not_told(world, until):
    world.settings = replace(world.settings, monitoring=Monitoring(alert=Alert(notify_on=("oom",))))
    world.hear("container.died", app="shop", process="web")
    world.hear("container.oom", app="shop", process="web")
    until(lambda: world.told)
    assert [alert.kind for alert in world.told[0].alerts] == ["oom"]
    assert {alert.kind for alert in world.alerts()} == {"oom", "crash"}


def test_its_own_events_are_no_reason_for_more(world):
    world.hear("alert.fired", app="shop")
    world.hear("notify.failed", app="shop")
    assert world.alerts() == ()


def test_alerts_can_be_asked_for_by_state_and_app(world):
    world.hear("container.oom", app="blog", process="web")
    world.hear("deploy.failed", app="shop", reason="no")
    world.hear("deploy.succeeded", app="shop")
    world.hear("engine.lost", reason="gone")
    found = [(alert.app, alert.state) for alert in world.alerts()]
    assert found == [("blog", "firing"), (None, "firing"), ("shop", "resolved")]
    assert [alert.app for alert in world.alerts(state="resolved")] == ["shop"]
    assert [alert.app for alert in world.alerts(app="blog")] == ["blog"]
    assert {alert.app for alert in world.alerts(apps=("shop", "blog"))} == {"shop", "blog"}


def test_acknowledging(world, until):
    world.hear("container.oom", app="blog", process="web")
    (alert,) = world.alerts()
    with pytest.raises(NotFound):
        world.ref.ask(AcknowledgeAlert(id="nothing", by="ana"))
    with pytest.raises(NotFound):
        world.ref.ask(AcknowledgeAlert(id=alert.id, by="ana", apps=("shop",)))
    for _ in range(2):
        found = world.ref.ask(AcknowledgeAlert(id=alert.id, by="ana", apps=("blog",)))
        assert (found.state, found.acknowledged_by, found.acknowledged_at) == ("acknowledged", "ana", world.clock)
    assert world.kinds.count("alert.acknowledged") == 1
    world.wait(3600)
    assert world.alerts()[0].state == "resolved"
    with pytest.raises(Conflict):
        world.ref.ask(AcknowledgeAlert(id=alert.id, by="ana"))


def test_ending_what_happened(world, until):
    world.hear("deploy.failed", app="shop", reason="no")
    (alert,) = world.alerts()
    until(lambda: world.told)
    with pytest.raises(NotFound):
        world.ref.ask(ResolveAlert(id=alert.id, by="ana", apps=("blog",)))
    over = world.ref.ask(ResolveAlert(id=alert.id, by="ana", apps=("shop",)))
    assert (over.state, over.summary) == ("resolved", "A deploy of shop failed: no (ended by ana)")
    until(lambda: len(world.told) == 2)
    assert world.events.mailbox.items[-1].detail["by"] == "ana"
    with pytest.raises(Conflict):
        world.ref.ask(ResolveAlert(id=alert.id, by="ana"))
    world.hear("deploy.failed", app="shop", reason="again")
    assert [alert.state for alert in world.alerts()] == ["firing", "resolved"]


def test_what_figures_tell_of_is_not_ended_by_hand(world):
    world.host(600, cpu_percent=97.0)
    with pytest.raises(Conflict, match="figures"):
        world.ref.ask(ResolveAlert(id=world.alerts()[0].id, by="ana"))


def test_a_part_of_an_id_that_only_one_has_will_do(world):
    world.ids = (f"20260131-{number}abc" for number in itertools.count(1))
    world.hear("deploy.failed", app="shop")
    world.hear("deploy.failed", app="blog")
    assert len(world.alerts()) == 2
    assert world.ref.ask(AcknowledgeAlert(id="1abc", by="ana")).app == "shop"
    for id in ("abc", "2026", "x2abc", ""):
        with pytest.raises(NotFound):
            world.ref.ask(AcknowledgeAlert(id=id, by="ana"))
    assert world.ref.ask(AcknowledgeAlert(id="2026", by="ana", apps=("blog",))).app == "blog"


def test_a_silence_for_maintenance(world, until):
    silence = world.ref.ask(AddSilence(seconds=3600.0, app="shop", reason="moving", by="ana"))
    assert world.ref.ask(GetSilences()) == (silence,)
    world.hear("deploy.failed", app="shop", reason="no")
    world.hear("deploy.failed", app="blog", reason="no")
    until(lambda: world.told)
    assert [alert.app for alert in world.told[0].alerts] == ["blog"]
    assert {alert.app: alert.silenced for alert in world.alerts()} == {"shop": True, "blog": False}
    world.clock += 3601
    until(lambda: len(world.told) == 2)
    assert [alert.app for alert in world.told[1].alerts] == ["shop"]
    assert world.ref.ask(GetSilences()) == ()
    assert "alert.silenced" in world.kinds


def test_a_silence_that_is_ended_early(world, until):
    silence = world.ref.ask(AddSilence(seconds=3600.0, kind="deploy", by="ana"))
    world.hear("deploy.failed", app="shop", reason="no")
    assert world.alerts()[0].silenced
    world.ref.ask(EndSilence(id=silence.id))
    until(lambda: world.told)
    with pytest.raises(NotFound):
        world.ref.ask(EndSilence(id=silence.id))


@pytest.mark.parametrize("seconds, begins", [(0.0, None), (-5.0, None), (400 * DAY, None), (60.0, 5.0), (60.0, 1e12)])
def test_silences_that_cannot_be(world, seconds, begins):
    with pytest.raises(Invalid):
        world.ref.ask(AddSilence(seconds=seconds, begins=begins))
    assert world.ref.restarts == 0


def test_a_daemon_that_is_killed_tells_what_it_had_not_told(world, until, monkeypatch):
    monkeypatch.setattr(actor, "GROUP_SECONDS", 60.0)
    world.hear("container.oom", app="shop", process="web")
    until(lambda: "alerts" in world.state.saved and world.state.saved["alerts"].alerts)
    saved = dict(world.state.saved)
    world.restart()
    world.state.saved = saved  # as it was on the disk when it was killed
    monkeypatch.setattr(actor, "GROUP_SECONDS", 0.05)
    world.restart()
    until(lambda: world.told)
    assert len(world.told[0].alerts) == 1


def test_after_a_restart_nothing_is_told_again_and_what_is_over_is(world, until):
    world.host(600, cpu_percent=97.0)
    world.hear("failover.switched", app="shop", reason="hangs")
    until(lambda: sum(len(message.alerts) for message in world.told) == 2)
    world.restart()
    world.host(60, cpu_percent=97.0)
    assert len(world.alerts()) == 2
    world.host(600, cpu_percent=10.0)
    world.hear("failover.returned", app="shop")
    until(
        lambda: (
            {alert.rule for message in world.told if message.state == "resolved" for alert in message.alerts}
            == {"host.cpu", "failover"}
        )
    )
    firing = {message.id: message for message in world.told if message.state == "firing"}
    assert sum(len(message.alerts) for message in firing.values()) == 2


def test_a_state_folder_that_is_full_stops_no_alert(world, until):
    world.state.full = True
    world.hear("container.oom", app="shop", process="web")
    until(lambda: world.told)
    assert world.ref.restarts == 0
    world.state.full = False
    world.hear("container.oom", app="blog", process="web")
    until(lambda: "alerts" in world.state.saved)


def test_what_was_usual_is_kept(world):
    world.host(2 * 3600, cpu_percent=20.0)
    world.restart()
    kept = world.state.saved["alert-seasons"]
    assert kept.window == 86_400.0 and list(kept.seasons) == ["anomaly.host.cpu"]
    world.restart()
    assert world.state.saved["alert-seasons"].seasons.keys() == kept.seasons.keys()


def test_a_daemon_that_is_killed_between_writing_and_telling_tells_it_again_by_the_same_id(world, until):
    world.hear("container.oom", app="shop", process="web")
    until(lambda: world.told)
    (written,) = world.state.saved["alerts"].outgoing
    assert written == world.told[0]
    world.restart()
    until(lambda: len(world.told) == 2)
    assert world.told[0] == world.told[1]
    world.clock += 31.0
    until(lambda: not world.state.saved["alerts"].outgoing)
    world.restart()
    world.alerts()
    assert len(world.told) == 2


def test_a_crash_of_the_actor_alone_ends_nothing_that_nobody_will_tell_again(world, until):
    world.hear("engine.lost", reason="gone", detail={"engine": "docker"})
    until(lambda: world.told)
    world.ref.tell(RecordEvent(kind=None))  # which crashes it
    until(lambda: world.ref.restarts == 1)
    world.wait(900)
    assert [alert.state for alert in world.alerts()] == ["firing"]


def test_a_new_daemon_that_does_not_find_it_again_ends_it_even_if_the_actor_crashes_meanwhile(world, until):
    world.hear("engine.lost", reason="gone", detail={"engine": "docker"})
    until(lambda: world.told)
    world.restart()
    world.hear("container.oom", app="shop", process="web")
    until(lambda: world.state.saved["alerts"].unrenewed == ("engine engine=docker",))
    until(lambda: world.state.saved["alerts"].epoch == 2)
    world.ref.tell(RecordEvent(kind=None))
    until(lambda: world.ref.restarts == 1)
    world.wait(660)
    assert {alert.rule: alert.state for alert in world.alerts()}["engine"] == "resolved"


def test_what_happens_again_is_written_down(world, until):
    for _ in range(3):
        world.hear("container.oom", app="shop", process="web")
        world.clock += 30.0
        world.alerts()
    until(lambda: "alerts" in world.state.saved and world.state.saved["alerts"].alerts[0].count == 3)
    (alert,) = world.state.saved["alerts"].alerts
    assert alert.last_at == alert.fired_at + 60.0


def test_a_kind_that_is_asked_for_later_is_told_of_what_fires(world, until):
    world.settings = replace(world.settings, monitoring=Monitoring(alert=Alert(notify_on=("oom",))))
    world.hear("deploy.failed", app="shop")
    world.alerts()
    assert world.told == []
    world.settings = replace(world.settings, monitoring=Monitoring(alert=Alert(notify_on=("oom", "deploy"))))
    until(lambda: world.told)
    assert [alert.kind for alert in world.told[0].alerts] == ["deploy"]


def test_figures_that_never_come_are_missed(world, monkeypatch):
    monkeypatch.setattr(actor, "SOURCES", ("host", "edge"))
    world.restart()
    world.wait(80)
    assert {alert.subject["source"] for alert in world.alerts()} == {"host", "edge"}

"""Messages of alerts: each channel gets all of them in order, whatever other channels and daemons do."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import gevent
import msgspec
import pytest
from gevent.event import Event

from ndactors.actors.alert import AlertActor, AlertSurroundings
from ndactors.actors.notify import NotifyActor
from ndactors.core.alerts import AlertView
from ndactors.core.model import Settings
from ndactors.core.notice_queue import HOUR, HOURLY, ChannelRecord
from ndactors.core.notices import plain, subject
from ndactors.core.notifications import Notification
from ndactors.core.webhooks import HookAnswer
from ndactors.errors import Conflict, StateError
from ndactors.messages.alerts import ChannelResult, GetChannels, GetSigningKey, Notify, TestChannels
from ndactors.messages.containers import ApplySettings, RecordEvent
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

GOOD = HookAnswer(good=True, words="answered 200")
LATER = HookAnswer(good=False, words="answered 500", again=True)
NEVER = HookAnswer(good=False, words="answered 404")


class Channel:
    """Answers what ``script`` has, then well; "hang" waits for ``gate``, an exception is raised."""

    def __init__(self, name: str) -> None:
        self.name, self.key = name, f"secret-of-{name}"
        self.script: list = []
        self.heard: list[Notification] = []
        self.gate = Event()

    def send(self, notification: Notification) -> HookAnswer:
        gevent.sleep(0)
        self.heard.append(notification)
        answer = self.script.pop(0) if self.script else GOOD
        if answer == "hang":
            self.gate.wait()
            return GOOD
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.heard]


class Heard(Actor):
    def __init__(self, heard: list) -> None:
        self._heard = heard

    def receive(self, message):
        self._heard.append(message)


class World:
    """Also the state store and the source of channels. Records survive ``kill``."""

    server = "web1"

    def __init__(self) -> None:
        self.a, self.b = Channel("a"), Channel("b")
        self.channels = [self.a, self.b]
        self.events, self.records, self.saves = [], {}, 0
        self.clock = 1_000_000.0
        self.disk_full = False
        self.key: str | None = "whsec_x"
        self.ids = itertools.count(1)
        self.roots: list[Root] = []

    def current(self):
        return self.channels

    def own_key(self):
        return self.key

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        if self.disk_full:
            raise StateError("the disk is full")
        self.saves += 1
        self.records[name] = msgspec.json.encode(value)

    def delete(self, name):
        if self.disk_full:
            raise StateError("it cannot be written")
        self.records.pop(name, None)

    def names(self, folder):
        return sorted(name for name in self.records if name.startswith(f"{folder}/"))

    def start(self) -> Ref:
        notify, events = Ref("notify"), Ref("events")
        args = (lambda: Settings(project="acme"), self, self, events, lambda: f"t{next(self.ids)}", lambda: self.clock)
        self.roots.append(
            Root(
                Child(
                    supervisor_ref("root"),
                    Supervisor,
                    [
                        Child(events, Heard, self.events),
                        Child(notify, NotifyActor, *args, backoff=lambda: Backoff(0.001, 0.01)),
                    ],
                    Strategy.ONE_FOR_ONE,
                    Intensity(None),
                )
            )
        )
        assert self.roots[-1].wait_started(5)
        return notify

    def kill(self) -> None:
        root = self.roots.pop()
        for slot in root._life.actor._slots:
            slot.life.supervisor = None
            slot.life.kill()
        root._stopped = True
        root._life.kill()

    def saved(self) -> list[ChannelRecord]:
        return [
            msgspec.json.decode(each, type=ChannelRecord)
            for name, each in self.records.items()
            if name.startswith("notify/")
        ]

    def waiting(self) -> int:
        return sum(len(record.waiting) for record in self.saved())

    def told(self, kind: str) -> list[str]:
        return [event.reason for event in self.events if event.kind == kind]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("ndactors.core.notice_queue.DELAYS", (0.01, 0.01, 0.01))
    made = World()
    yield made
    for root in made.roots:
        root.stop(10)


def note(number=1, *, severity="warning", state="firing", at=1_000_000.0) -> Notification:
    alert = AlertView(
        id=f"a{number}", kind="error", rule="r", severity=severity, app="shop", summary=f"trouble {number}"
    )
    return Notification(id=f"n{number}", at=at, state=state, title=f"trouble {number}", alerts=(alert,))


def tell(notify, *numbers, **more) -> None:
    for number in numbers:
        notify.tell(Notify(notification=note(number, **more)))


def test_everybody_is_told_once_and_in_order(world, until):
    tell(world.start(), 1, 2, 3)
    until(lambda: len(world.told("notify.delivered")) == 6)
    assert world.a.ids == world.b.ids == ["n1", "n2", "n3"]
    assert "a: answered 200: trouble 1" in world.told("notify.delivered")
    assert world.waiting() == 0
    assert "secret-of" not in repr(world.events) + repr(world.records)


def test_it_is_on_record_before_the_first_try(world, until):
    seen = []
    world.channels = [world.a]
    send = world.a.send
    world.a.send = lambda notification: seen.append(world.waiting()) or send(notification)
    tell(world.start(), 1)
    until(lambda: world.told("notify.delivered"))
    assert seen == [1]


def test_one_that_hangs_delays_nobody_else_and_gets_all_in_order_later(world, until):
    world.a.script = ["hang"]
    tell(world.start(), 1, 2, 3)
    until(lambda: world.b.ids == ["n1", "n2", "n3"])
    assert world.a.ids == ["n1"]
    world.a.gate.set()
    until(lambda: world.a.ids == ["n1", "n2", "n3"])
    until(lambda: world.waiting() == 0)


def test_it_tries_again_and_keeps_the_order(world, until):
    world.a.script = [LATER, LATER, GOOD]
    tell(world.start(), 1, 2)

    def over():
        world.clock += 0.01
        return len(world.told("notify.delivered")) == 4

    until(over)
    assert world.a.ids == ["n1", "n1", "n1", "n2"]
    assert world.a.heard[0] == world.a.heard[2], "the very same message"
    assert "a: answered 500 (3 tries)" not in world.told("notify.delivered")
    assert "a: answered 200 (3 tries): trouble 1" in world.told("notify.delivered")


def test_what_is_given_up_is_a_dead_letter(world, until):
    world.a.script = [LATER] * 4
    notify = world.start()
    tell(notify, 1, 2)

    def over():
        world.clock += 0.01
        return world.a.ids[-1:] == ["n2"] and world.waiting() == 0

    until(over)
    assert world.told("notify.failed") == ["a: answered 500 (4 tries): trouble 1"]
    view = notify.ask(GetChannels())
    assert [(letter.id, letter.channel, letter.tries) for letter in view.dead_letters] == [("n1", "a", 4)]
    assert [(each.channel, each.delivered, each.failed) for each in view.channels] == [("a", 1, 1), ("b", 2, 0)]


def test_what_is_refused_for_good_is_not_tried_again(world, until):
    world.a.script = [NEVER]
    tell(world.start(), 1)
    until(lambda: world.told("notify.failed") and world.told("notify.delivered"))
    assert world.a.ids == ["n1"]


def test_a_fault_of_a_channel_is_told_and_holds_up_nothing(world, until):
    world.a.script = [RuntimeError("with a S3CRET in it")]
    notify = world.start()
    tell(notify, 1, 2)
    until(lambda: world.a.ids == ["n1", "n2"] and world.told("notify.failed"))
    assert world.told("notify.failed") == ["a: a fault of nextdeploy: RuntimeError: trouble 1"]
    assert notify.restarts == 0


def test_what_waits_survives_the_daemon_and_only_the_try_under_way_is_twice(world, until):
    world.channels = [world.a]
    world.a.script = [GOOD, "hang"]
    tell(world.start(), 1, 2, 3)
    until(lambda: world.a.ids == ["n1", "n2"] and world.waiting() == 2)
    world.kill()
    world.start()
    until(lambda: world.waiting() == 0)
    assert world.a.ids == ["n1", "n2", "n2", "n3"]
    assert world.a.heard[1] == world.a.heard[2], "whoever got it twice can tell"


def test_the_tries_go_on_counting_after_a_restart(world, until, monkeypatch):
    monkeypatch.setattr("ndactors.core.notice_queue.DELAYS", (50.0,))
    world.channels = [world.a]
    world.a.script = [LATER, LATER]
    tell(world.start(), 1)
    until(lambda: world.saved() and world.saved()[0].waiting and world.saved()[0].waiting[0].tries == 1)
    world.kill()
    notify = world.start()
    assert notify.ask(GetChannels()).channels[0].waiting == 1
    assert world.a.ids == ["n1"], "its wait is not over"
    world.clock += 51
    world.kill()
    world.start()
    until(lambda: world.told("notify.failed"))
    assert world.a.ids == ["n1", "n1"]


def test_a_message_that_is_told_twice_is_sent_once(world, until):
    world.channels = [world.a]
    notify = world.start()
    tell(notify, 1, 1, 2)
    until(lambda: world.a.ids[-1:] == ["n2"])
    assert world.a.ids == ["n1", "n2"]


def test_a_crash_of_the_actor_loses_nothing(world, until):
    world.channels = [world.a]
    world.a.script = ["hang"]
    notify = world.start()
    tell(notify, 1, 2)
    until(lambda: world.a.ids == ["n1"] and world.waiting() == 2)
    notify.tell(Notify(notification=None))
    until(lambda: notify.restarts == 1 and world.waiting() == 0)
    assert world.a.ids == ["n1", "n1", "n2"]


def test_a_channel_that_is_gone_leaves_dead_letters(world, until):
    world.a.script = ["hang"]
    notify = world.start()
    tell(notify, 1, 2, 3)
    until(lambda: world.b.ids == ["n1", "n2", "n3"] and world.a.ids == ["n1"])
    world.channels = [world.b]
    notify.tell(ApplySettings(settings=Settings(project="acme")))
    until(lambda: len(world.told("notify.failed")) == 2)
    assert world.told("notify.failed")[0] == "a: its channel is not configured any more: trouble 2"
    world.a.gate.set()
    until(lambda: len(world.told("notify.delivered")) == 4)
    view = notify.ask(GetChannels())
    assert [each.channel for each in view.channels] == ["b"]
    assert sorted(letter.id for letter in view.dead_letters) == ["n2", "n3"]
    assert world.waiting() == 0


def test_one_that_fails_and_is_gone_meanwhile_is_given_up(world, until):
    world.channels = [world.a]

    def send(notification):
        world.a.heard.append(notification)
        world.a.gate.wait()
        return LATER

    world.a.send = send
    notify = world.start()
    tell(notify, 1)
    until(lambda: world.a.ids == ["n1"])
    world.channels = []
    notify.tell(ApplySettings(settings=Settings(project="acme")))
    world.a.gate.set()
    until(lambda: world.told("notify.failed"))
    assert world.told("notify.failed") == ["a: answered 500; its channel is not configured any more: trouble 1"]
    assert world.a.ids == ["n1"]


def test_what_waited_for_a_channel_that_went_while_the_daemon_was_away(world, until):
    world.a.script = ["hang"]
    world.channels = [world.a]
    tell(world.start(), 1, 2)
    until(lambda: world.waiting() == 2 and world.a.ids)
    world.kill()
    world.channels = [world.b]
    notify = world.start()
    until(lambda: len(world.told("notify.failed")) == 2)
    assert notify.ask(GetChannels()).channels[0].channel == "b"
    assert world.b.ids == []


def test_records_of_channels_that_are_gone_go_when_they_hold_nothing(world, until):
    notify = world.start()
    tell(notify, 1)
    until(lambda: len(world.told("notify.delivered")) == 2)
    assert len(world.records) == 2
    world.channels = [world.b]
    notify.ask(GetChannels())
    assert len(world.records) == 1


def test_a_new_channel_gets_what_comes_from_then_on(world, until):
    world.channels = [world.a]
    notify = world.start()
    tell(notify, 1)
    until(lambda: world.a.ids == ["n1"])
    world.channels = [world.a, world.b]
    tell(notify, 2)
    until(lambda: world.b.ids == ["n2"])


def test_beyond_the_hours_messages_there_is_one_digest(world, until):
    world.channels = [world.a]
    notify = world.start()
    tell(notify, *range(HOURLY + 17))
    until(lambda: len(world.a.ids) == HOURLY and notify.ask(GetChannels()).channels[0].waiting == 1)
    assert notify.ask(GetChannels()).channels[0].held == 17
    tell(notify, 900, severity="critical")
    until(lambda: world.a.ids[-1] == "n900")
    world.kill()
    world.clock += HOUR
    world.start()
    until(lambda: len(world.a.ids) == HOURLY + 2)
    assert world.a.heard[-1].title.startswith("17 more alerts: ")
    until(lambda: world.waiting() == 0)


def test_a_digest_wakes_up_by_itself(world, until):
    world.channels = [world.a]
    notify = world.start()
    tell(notify, *range(HOURLY))
    until(lambda: len(world.a.ids) == HOURLY)
    world.clock += HOUR - 0.05
    tell(notify, 500)
    until(lambda: notify.ask(GetChannels()).channels[0].held == 1)
    world.clock += 0.06
    until(lambda: world.a.ids[-1] == "n500")


def test_a_full_disk_is_told_and_messages_go_all_the_same(world, until):
    world.disk_full = True
    tell(world.start(), 1)
    until(lambda: len(world.told("notify.delivered")) == 2)
    assert world.told("notify.record_failed")[0] == "the disk is full"


def test_texts_that_nobody_could_write_down_are_mended(world, until):
    alert = AlertView(id="a1", kind="error", rule="r", summary="\ud800 bad \x00", value=float("nan"))
    notify = world.start()
    notify.tell(
        Notify(notification=Notification(id="n1", at=1.0, state="firing", title="t\r\nBcc: x", alerts=(alert,)))
    )
    until(lambda: world.a.heard)
    assert (world.a.heard[0].title, world.a.heard[0].alerts[0].summary) == ("t Bcc: x", "bad")


# -- tests of channels -----------------------------------------------------------------------------


def test_a_test_tries_every_channel_at_the_same_time_and_says_how_each_went(world):
    world.b.script = [NEVER]
    results = world.start().ask(TestChannels(by="api:ana"))
    assert results == (
        ChannelResult(channel="a", good=True, words="answered 200"),
        ChannelResult(channel="b", good=False, words="answered 404"),
    )
    sent = world.a.heard[0]
    assert (sent.state, sent.title, sent.server, sent.project) == ("test", "a test by api:ana", "web1", "acme")
    assert world.waiting() == 0, "it is not tried again"


def test_a_test_with_no_channels_is_an_empty_answer(world):
    world.channels = []
    assert world.start().ask(TestChannels(by="x")) == ()


def test_a_test_waits_for_nobody_in_the_queue_and_holds_up_nothing(world, until):
    world.a.script = ["hang"]
    notify = world.start()
    tell(notify, 1)
    until(lambda: world.a.ids == ["n1"])
    assert all(result.good for result in notify.ask(TestChannels(by="x")))
    assert world.a.heard[-1].state == "test"


def test_two_tests_at_once_are_one_too_many(world, until):
    world.a.script = ["hang"]
    notify = world.start()
    first = gevent.spawn(notify.ask, TestChannels(by="x"), 10)
    until(lambda: world.a.heard)
    with pytest.raises(Conflict):
        notify.ask(TestChannels(by="y"))
    world.a.gate.set()
    assert len(first.get(timeout=10)) == 2
    assert len(notify.ask(TestChannels(by="y"))) == 2


def test_the_key_is_told_unless_the_configuration_has_it(world):
    notify = world.start()
    assert notify.ask(GetSigningKey()) == "whsec_x"
    world.key = None
    with pytest.raises(Conflict, match="webhook_secret"):
        notify.ask(GetSigningKey())


def test_a_state_folder_that_cannot_be_written_stops_nothing(world, until):
    notify = world.start()
    notify.tell(Notify(notification=note(1)))
    until(lambda: len(world.saved()) == 2 and world.waiting() == 0)
    world.kill()
    world.channels, world.disk_full = [world.a], True
    notify = world.start()
    assert [view.channel for view in notify.ask(GetChannels()).channels] == ["a"]
    assert notify.restarts == 0
    assert "it cannot be written" in world.told("notify.record_failed")


# -- with the actor that knows what is wrong -------------------------------------------------------


def test_what_is_wrong_is_told_in_words(world, until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.alert.GROUP_SECONDS", 0.01)
    world.channels = [world.a]
    notify, alerts = world.start(), Ref("alerts")
    around = AlertSurroundings(
        settings=lambda: Settings(project="acme", environment="prod"),
        state=world,
        events=Ref("nobody"),
        notify=notify,
        now=lambda: world.clock,
        new_id=lambda: f"w{next(world.ids)}",
        server="web1",
        epoch=1,
    )
    world.roots.append(Root(Child(supervisor_ref("more"), Supervisor, [Child(alerts, AlertActor, around)])))
    alerts.tell(
        RecordEvent(kind="container.oom", app="shop", process="web", container="nd-shop-web-1", reason="exited 137")
    )
    until(lambda: world.a.heard)
    (alert,) = world.a.heard[0].alerts
    lines = plain(world.a.heard[0]).splitlines()
    assert lines[0] == "Warning: shop/web ran out of memory: exited 137"
    assert "  Where: app shop, process web, host web1" in lines
    assert "  Since: 1970-01-12 13:46:40 UTC (0 s so far)" in lines
    assert any(line.startswith("  To do: ") for line in lines)
    assert lines[-1] == f"To say that you look after it: nextdeploy alerts ack {alert.id}"
    assert subject(world.a.heard[0]) == f"[web1] {lines[0]}"
    until(lambda: world.waiting() == 0)


# -- for real --------------------------------------------------------------------------------------


def test_real_channels_that_misbehave_delay_nobody():
    script = Path(__file__).parent / "notify_for_real.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["well"] == ["n1", "n2", "n3"] and told["well_seconds"] < 2.0
    assert told["flaky"] == ["n1", "n1", "n1", "n2", "n3"]
    assert told["mail"] == 3
    for name in ("hang", "drip", "slow mail", "mail without end"):
        assert told["failed"][name] == 3, told
    assert told["lag"] < 1.0
    assert told["tested"] == {"webhooks": [True, True, False, False], "mails": [True, False, False], "apprise": False}

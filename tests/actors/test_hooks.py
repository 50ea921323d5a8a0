"""Webhooks: each receiver hears of every deploy, in order, whatever other receivers and daemons do."""

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

from ndactors.actors import hook as hook_module
from ndactors.actors.hook import HookActor
from ndactors.core.model import Webhook
from ndactors.core.webhooks import MAX_BODY, HookAnswer
from ndactors.errors import StateError
from ndactors.messages.hooks import SendHooks
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

GOOD = HookAnswer(good=True, words="answered 200")
LATER = HookAnswer(good=False, words="answered 500", again=True)
NEVER = HookAnswer(good=False, words="answered 404")
A, B = "https://a.test/S3CRET", "https://b.test/S3CRET"


class Sender:
    """Answers what ``script`` has for a receiver, then well; what hangs waits for ``gate``."""

    def __init__(self) -> None:
        self.script: dict[object, list] = {}
        self.heard: list[tuple[object, str, dict]] = []
        self.gate = Event()

    def _answer(self, target, body, more):
        gevent.sleep(0)
        self.heard.append((target, json.loads(body)["operation"], dict(more)))
        answers = self.script.get(target) or [GOOD]
        answer = answers.pop(0) if len(answers) > 1 or target in self.script else answers[0]
        if answer == "hang":
            self.gate.wait()
            return GOOD
        return answer

    def post(self, url, body, headers):
        return self._answer(url, body, headers)

    def run(self, argv, body, variables):
        return self._answer(tuple(argv), body, variables)

    def of(self, target) -> list[str]:
        return [operation for heard, operation, _ in self.heard if heard == target]


class Heard(Actor):
    def __init__(self, heard: list) -> None:
        self._heard = heard

    def receive(self, message):
        self._heard.append(message)


class World:
    def __init__(self) -> None:
        self.sender, self.events, self.records = Sender(), [], {}
        self.webhook = Webhook(on_success=(A, B), on_failure=(A,))
        self.clock = 1000.0
        self.disk_full = False
        self.ids = itertools.count(1)
        self.roots: list[Root] = []

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        if self.disk_full:
            raise StateError("the disk is full")
        self.records[name] = msgspec.json.encode(value)

    def start(self) -> Ref:
        hooks, events = Ref("hooks"), Ref("events")
        args = (lambda: self.webhook, self.sender, self, events, lambda: f"d{next(self.ids)}", lambda: self.clock)
        self.roots.append(
            Root(
                Child(
                    supervisor_ref("root"),
                    Supervisor,
                    [
                        Child(events, Heard, self.events),
                        Child(hooks, HookActor, *args, backoff=lambda: Backoff(0.001, 0.01)),
                    ],
                    Strategy.ONE_FOR_ONE,
                    Intensity(None),
                )
            )
        )
        assert self.roots[-1].wait_started(5)
        return hooks

    def kill(self) -> None:
        root = self.roots.pop()
        for slot in root._life.actor._slots:
            slot.life.supervisor = None
            slot.life.kill()
        root._stopped = True
        root._life.kill()

    def waiting(self) -> int:
        return len(json.loads(self.records["webhooks"])["deliveries"]) if "webhooks" in self.records else 0

    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.reason) for event in self.events]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("ndactors.core.webhooks.DELAYS", (0.01, 0.01, 0.01, 0.01))
    made = World()
    yield made
    for root in made.roots:
        root.stop(10)


def send(hooks, operation: str = "op1", event: str = "deploy.succeeded", **payload) -> None:
    hooks.tell(SendHooks(event=event, app="shop", payload={"operation": operation, "revision": 3, **payload}))


def test_everybody_is_told_once(world, until):
    send(world.start())
    until(lambda: len(world.events) == 2)
    assert sorted(target for target, _, _ in world.sender.heard) == [A, B]
    headers = [more for _, _, more in world.sender.heard]
    assert {more["X-NextDeploy-Event"] for more in headers} == {"deploy.succeeded"}
    assert len({more["X-NextDeploy-Delivery"] for more in headers}) == 2
    assert ("webhook.delivered", "https://a.test/********: answered 200") in world.told()
    assert world.waiting() == 0
    assert "S3CRET" not in repr(world.events)


def test_failures_go_to_their_own_list(world, until):
    send(world.start(), event="deploy.failed")
    until(lambda: world.events)
    assert [target for target, _, _ in world.sender.heard] == [A]


def test_it_tries_again_with_the_same_id(world, until):
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = [LATER, LATER, GOOD]
    hooks = world.start()
    send(hooks)
    for _ in range(3):
        tries = len(world.sender.heard)
        until(lambda tries=tries: len(world.sender.heard) > tries or world.events)
        gevent.sleep(0.01)
        world.clock += 1
    until(lambda: world.events)
    assert len({more["X-NextDeploy-Delivery"] for _, _, more in world.sender.heard}) == 1
    assert world.told() == [("webhook.delivered", "https://a.test/********: answered 200 (3 tries)")]


def test_after_five_tries_it_is_given_up_and_told(world, until):
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = [LATER] * 9
    send(world.start())

    def over():
        world.clock += 0.01
        return world.events

    until(over)
    assert len(world.sender.heard) == 5
    assert world.told() == [("webhook.failed", "https://a.test/********: answered 500 (5 tries)")]
    assert world.waiting() == 0


def test_a_refusal_is_not_tried_again(world, until):
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = [NEVER]
    send(world.start())
    until(lambda: world.events)
    assert world.told() == [("webhook.failed", "https://a.test/********: answered 404")]
    assert len(world.sender.heard) == 1


def test_one_that_hangs_delays_nobody_else_and_gets_all_in_order_later(world, until):
    world.sender.script[A] = ["hang", GOOD, GOOD]
    hooks = world.start()
    for operation in ("op1", "op2", "op3"):
        send(hooks, operation)
    until(lambda: world.sender.of(B) == ["op1", "op2", "op3"])
    assert world.sender.of(A) == ["op1"]
    world.sender.gate.set()
    until(lambda: world.sender.of(A) == ["op1", "op2", "op3"])
    until(lambda: world.waiting() == 0)


def test_what_waits_survives_the_daemon(world, until):
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = ["hang", GOOD, GOOD]
    hooks = world.start()
    send(hooks, "op1")
    send(hooks, "op2")
    until(lambda: world.sender.heard and world.waiting() == 2)
    world.kill()
    world.start()
    until(lambda: world.waiting() == 0)
    assert world.sender.of(A) == ["op1", "op1", "op2"]
    ids = [more["X-NextDeploy-Delivery"] for _, _, more in world.sender.heard]
    assert ids[0] == ids[1], "whoever got it twice can tell"


def test_a_wait_goes_on_after_a_restart(world, until, monkeypatch):
    monkeypatch.setattr("ndactors.core.webhooks.DELAYS", (60.0,))
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = [LATER]
    hooks = world.start()
    send(hooks)
    until(lambda: b'"tries":1' in world.records.get("webhooks", b""))
    world.kill()
    world.start()
    gevent.sleep(0.02)
    assert len(world.sender.heard) == 1
    world.kill()
    world.clock += 61
    world.start()
    until(lambda: world.waiting() == 0)
    assert len(world.sender.heard) == 2


def test_a_clock_that_was_wrong_holds_nothing_up(world, until, monkeypatch):
    monkeypatch.setattr("ndactors.core.webhooks.DELAYS", (60.0,))
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = [LATER]
    world.clock = 1e9
    hooks = world.start()
    send(hooks)
    until(lambda: b'"tries":1' in world.records.get("webhooks", b""))
    world.kill()
    world.clock = 1000.0
    world.start()
    until(lambda: world.waiting() == 0)


def test_a_command_is_never_run_twice(world, until):
    argv = ("/usr/bin/notify", "--token", "S3CRET")
    world.webhook = Webhook(on_success=(argv,))
    world.sender.script[argv] = ["hang"]
    send(world.start(), reason="why")
    until(lambda: world.sender.heard)
    _, _, variables = world.sender.heard[0]
    assert variables["NEXTDEPLOY_EVENT"] == "deploy.succeeded"
    assert variables["NEXTDEPLOY_REASON"] == "why"
    assert variables["NEXTDEPLOY_DELIVERY"]
    world.kill()
    world.start()
    until(lambda: world.events)
    assert world.told() == [("webhook.failed", "notify: the daemon ended while it ran")]
    assert len(world.sender.heard) == 1
    assert world.waiting() == 0


def test_the_output_of_a_command_is_in_the_event(world, until):
    world.webhook = Webhook(on_success=(("notify",),))
    world.sender.script[("notify",)] = [HookAnswer(good=False, words="exited 3", output=("no such room",))]
    send(world.start())
    until(lambda: world.events)
    assert world.events[0].kind == "webhook.failed"
    assert world.events[0].detail["output"] == ["no such room"]


def test_only_so_many_wait(world, until, monkeypatch):
    monkeypatch.setattr(hook_module, "MAX_WAITING", 3)
    world.webhook = Webhook(on_success=(A,))
    world.sender.script[A] = ["hang", GOOD, GOOD]
    hooks = world.start()
    for number in range(5):
        send(hooks, f"op{number}")
    until(lambda: len(world.events) == 2)
    assert world.told() == [("webhook.failed", "https://a.test/********: more than 3 wait")] * 2
    world.sender.gate.set()
    until(lambda: world.waiting() == 0)
    assert world.sender.of(A) == ["op0", "op3", "op4"]


def test_a_disk_that_is_full_stops_nothing(world, until):
    world.disk_full = True
    send(world.start())
    until(lambda: sum(kind == "webhook.delivered" for kind, _ in world.told()) == 2)
    assert "webhook.record_failed" in dict(world.told())


def test_a_payload_that_is_too_long_still_says_what_happened(world, until):
    heard = []
    world.sender.post = lambda url, body, headers: (heard.append(json.loads(body)), GOOD)[1]
    send(world.start(), reason="x" * MAX_BODY)
    until(lambda: len(heard) == 2)
    assert heard[0] == {"event": "deploy.succeeded", "app": "shop", "reason": "too long to be sent"}


def test_nobody_to_tell(world):
    world.webhook = Webhook()
    send(world.start())
    gevent.sleep(0.01)
    assert world.records == {}


def test_with_real_servers_in_a_patched_process(tmp_path):
    """The actor over the real client, as in the daemon: one hangs, one drips, one fails twice, one is well."""
    script = Path(__file__).parent / "hooks_for_real.py"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "told")],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["well"] == ["op1", "op2", "op3"]
    assert result["well_seconds"] < 1.0, "nobody waits for the one that hangs"
    assert result["flaky"] == ["op1", "op1", "op1", "op2", "op3"]
    assert result["lag"] < 0.5
    failed = sorted(reason for kind, reason in result["events"] if kind == "webhook.failed")
    assert [reason.partition("/********: ")[2] for reason in failed] == ["no answer within 1 s (3 tries)"] * 2
    assert len([kind for kind, _ in result["events"] if kind == "webhook.delivered"]) == 9
    assert result["command"] == "deploy.succeeded"

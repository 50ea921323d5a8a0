"""One actor: messages in order, asks, crashes, timers, tasks."""

from __future__ import annotations

import time

import gevent
import pytest

from ndactors.errors import ActorCrashed, ActorStopped, AskTimeout, MailboxFull, NotFound
from ndactors.runtime.actor import Actor
from ndactors.runtime.mailbox import Overflow
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Restart
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, StartChild, StopChild, Supervisor, supervisor_ref
from ndactors.runtime.tree import GetTree


class Recorder(Actor):
    def __init__(self, seen: list) -> None:
        self.seen = seen

    def receive(self, message):
        self.seen.append(message)
        match message:
            case "boom":
                raise ValueError("boom")
            case "missing":
                raise NotFound("no such thing")
            case "count":
                return len(self.seen)
            case ("block", event):
                event.wait()
            case ("after", seconds, text):
                self.after(seconds, text)
            case ("every", seconds, text):
                self.timer = self.every(seconds, text)
            case "cancel":
                self.timer.cancel()
            case ("task", call):
                self.run(call, lambda result, error: ("ended", result, error))
            case "stop":
                self.stop()


def quick() -> Backoff:
    return Backoff(first=0.001, longest=0.002)


def recorder(trees, **kwargs):
    seen: list = []
    ref = Ref("recorder", **kwargs)
    trees.start(Child(ref, Recorder, seen, backoff=quick))
    return ref, seen


def test_messages_arrive_in_order(trees):
    ref, seen = recorder(trees)
    for n in range(1000):
        ref.tell(n)
    ref.ask("count")
    assert seen == [*range(1000), "count"]


def test_ask_returns_what_receive_returns(trees):
    ref, _ = recorder(trees)
    assert ref.ask("count") == 1
    assert ref.ask("other") is None


def test_ask_times_out_and_a_late_answer_is_dropped(trees, until):
    ref, seen = recorder(trees)
    event = gevent.event.Event()
    ref.tell(("block", event))
    with pytest.raises(AskTimeout, match=r"recorder did not answer str within 0\.01 s"):
        ref.ask("count", timeout=0.01)
    event.set()
    until(lambda: "count" in seen)
    assert ref.ask("count") == 3


def test_a_crash_fails_its_ask_and_the_message_is_not_redelivered(trees, until):
    ref, seen = recorder(trees)
    with pytest.raises(ActorCrashed, match="ValueError: boom"):
        ref.ask("boom")
    assert ref.ask("count") == 2
    assert seen == ["boom", "count"]
    assert ref.restarts == 1
    assert ref.last_error.type == "ValueError"
    assert ref.last_error.during == "str"
    assert "test_actor.py" in ref.last_error.traceback


def test_what_waits_in_the_mailbox_survives_a_crash(trees):
    ref, seen = recorder(trees)
    for message in ("a", "boom", "b", "boom", "c"):
        ref.tell(message)
    ref.ask("count")
    assert seen == ["a", "boom", "b", "boom", "c", "count"]
    assert ref.restarts == 2


def test_an_expected_refusal_answers_the_ask_and_is_no_crash(trees):
    ref, _ = recorder(trees)
    with pytest.raises(NotFound):
        ref.ask("missing")
    assert ref.restarts == 0


def test_a_crash_outside_an_ask_is_recorded_for_a_refusal_too(trees, until):
    ref, _ = recorder(trees)
    ref.tell("missing")
    until(lambda: ref.restarts == 1)


class FailsAtFirst(Actor):
    failures = 0

    def __init__(self, where: str, times: list) -> None:
        self.where, self.times = where, times
        if where == "__init__":
            self.fail()

    def fail(self):
        if self.times:
            self.times.pop()
            raise RuntimeError(self.where)

    def on_start(self):
        if self.where == "on_start":
            self.fail()

    def receive(self, message):
        return "alive"


@pytest.mark.parametrize("where", ["__init__", "on_start"])
def test_a_failing_constructor_or_on_start_is_a_crash_that_is_retried(trees, where):
    ref = Ref("late")
    trees.start(Child(ref, FailsAtFirst, where, [1, 2, 3], backoff=quick))
    assert ref.ask("hello") == "alive"
    assert ref.restarts == 3
    assert ref.last_error.during == where


def test_timer_fires_once_and_every_fires_until_cancelled(trees, until):
    ref, seen = recorder(trees)
    ref.tell(("after", 0.001, "once"))
    ref.tell(("every", 0.001, "again"))
    until(lambda: seen.count("again") >= 3)
    ref.ask("cancel")
    fired = seen.count("again")
    gevent.sleep(0.02)
    assert seen.count("again") == fired
    assert seen.count("once") == 1


def test_a_timer_of_a_dead_incarnation_does_nothing(trees, until):
    ref, seen = recorder(trees)
    ref.tell(("after", 0.02, "stale"))
    ref.tell("boom")
    until(lambda: ref.restarts == 1)
    gevent.sleep(0.05)
    assert "stale" not in seen


def test_a_timer_that_fired_into_the_mailbox_before_the_crash_is_stale_too(trees, until):
    ref, seen = recorder(trees)
    event = gevent.event.Event()
    ref.tell(("after", 0.001, "stale"))
    ref.tell(("block", event))
    ref.tell("boom")
    gevent.sleep(0.02)  # the timer's message is behind "boom" now
    event.set()
    until(lambda: ref.restarts == 1)
    ref.ask("count")
    assert "stale" not in seen


def test_a_task_brings_its_result_or_its_error(trees, until):
    ref, seen = recorder(trees)
    error = OSError("no")

    def fail():
        raise error

    ref.tell(("task", lambda: 42))
    ref.tell(("task", fail))
    until(lambda: ("ended", 42, None) in seen and ("ended", None, error) in seen)


def test_a_task_of_a_dead_incarnation_is_ended_and_unheard(trees, until):
    ref, seen = recorder(trees)
    event, started, over = gevent.event.Event(), [], []

    def wait():
        started.append(True)
        try:
            event.wait()
        finally:
            over.append(True)

    ref.tell(("task", wait))
    until(lambda: started)
    ref.tell("boom")
    until(lambda: over)
    event.set()
    ref.ask("count")
    assert not [m for m in seen if m[0] == "ended"]


def test_drop_oldest_counts_and_fails_a_dropped_ask(trees, until):
    ref, seen = recorder(trees, capacity=2)
    event = gevent.event.Event()
    ref.tell(("block", event))
    gevent.sleep(0)
    asking = gevent.spawn(ref.ask, "lost")
    gevent.sleep(0)
    for n in range(3):
        ref.tell(n)
    with pytest.raises(ActorStopped, match="too many"):
        asking.get(timeout=1)
    assert ref.mailbox.dropped == 2
    event.set()
    until(lambda: not ref.mailbox.items)
    assert [m for m in seen if isinstance(m, int)] == [1, 2]


def test_a_timers_message_is_not_what_a_full_mailbox_drops(trees):
    ref, seen = recorder(trees, capacity=2)
    event = gevent.event.Event()
    ref.tell(("after", 0.001, "tick"))
    ref.tell(("block", event))
    gevent.sleep(0.02)
    for n in range(5):
        ref.tell(n)
    event.set()
    ref.ask("count")
    assert "tick" in seen


def test_reject_refuses_and_block_waits(trees):
    ref, _ = recorder(trees, capacity=1, overflow=Overflow.REJECT)
    event = gevent.event.Event()
    ref.tell(("block", event))
    gevent.sleep(0)
    ref.tell(1)
    with pytest.raises(MailboxFull):
        ref.tell(2)
    event.set()

    blocking, seen = recorder(trees, capacity=1, overflow=Overflow.BLOCK)
    event = gevent.event.Event()
    blocking.tell(("block", event))
    gevent.sleep(0)
    blocking.tell(1)
    waiting = gevent.spawn(blocking.tell, 2)
    gevent.sleep(0.01)
    assert not waiting.ready()
    event.set()
    waiting.get(timeout=1)
    assert blocking.ask("count") >= 3
    assert 2 in seen


def test_stop_ends_a_life_not_its_successor(trees, until):
    seen: list = []
    ref = Ref("stopper")
    trees.start(Child(ref, Recorder, seen, backoff=quick))
    ref.tell("stop")
    until(lambda: ref.restarts == 1)
    assert ref.ask("count") == 2


def test_asks_that_wait_fail_at_once_when_the_actor_is_stopped_for_good(trees):
    seen: list = []
    ref = Ref("waiting")
    root = trees.start(Child(ref, Recorder, seen))
    event = gevent.event.Event()
    ref.tell(("block", event))
    asking = gevent.spawn(ref.ask, "count", 60)
    gevent.sleep(0)
    root.tell(StopChild(ref=ref))
    gevent.sleep(0)
    event.set()
    with pytest.raises(ActorStopped):
        asking.get(timeout=2)
    with pytest.raises(ActorStopped, match="is not running"):
        ref.ask("count")
    ref.tell("nobody hears")
    assert ref.mailbox.dropped == 2
    root.tell(StartChild(child=Child(ref, Recorder, seen)))
    gevent.sleep(0.01)
    assert ref.ask("count") == len(seen)


def test_a_transient_actor_restarts_after_a_crash_only(trees, until):
    seen: list = []
    ref = Ref("transient")
    trees.start(Child(ref, Recorder, seen, restart=Restart.TRANSIENT, backoff=quick))
    ref.tell("boom")
    until(lambda: ref.restarts == 1)
    ref.tell("stop")
    until(lambda: ref.state == "stopped")
    with pytest.raises(ActorStopped):
        ref.ask("count")


def test_a_temporary_actor_is_never_restarted(trees, until):
    ref = Ref("temporary")
    root = trees.start(Child(ref, Recorder, [], restart=Restart.TEMPORARY))
    ref.tell("boom")
    until(lambda: ref.state == "failed")
    assert ref.restarts == 0
    assert root.node().children == ()


def test_an_unknown_message_is_a_crash_with_a_plain_reason(trees, until):
    class Deaf(Actor):
        pass

    ref = Ref("deaf")
    trees.start(Child(ref, Deaf, backoff=quick))
    ref.tell(object())
    until(lambda: ref.restarts == 1)
    assert ref.last_error.message == "Deaf does not understand object"


def test_a_busy_actor_lets_others_run(trees, until):
    class Busy(Actor):
        def receive(self, message):
            self.ref.tell(message)

    busy, (other, _) = Ref("busy"), recorder(trees)
    trees.start(Child(busy, Busy))
    busy.tell("on and on")
    assert other.ask("count", timeout=2) == 1


def test_the_time_that_an_actor_takes_is_counted():
    class Slow(Actor):
        def receive(self, message):
            end = time.perf_counter() + message
            while time.perf_counter() < end:
                pass

    ref, above = Ref("slow"), supervisor_ref("root")
    root = Root(Child(above, Supervisor, [Child(ref, Slow)]))
    assert root.wait_started(5)
    for _ in range(4):
        ref.ask(0.01)
    ref.ask(0.0)
    (node,) = above.ask(GetTree()).children
    assert 0.04 <= node.busy_seconds < 2.0
    root.stop(5)

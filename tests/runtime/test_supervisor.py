"""Groups: who restarts with whom, in which order, how often, and who decides when it was too often."""

from __future__ import annotations

import gevent
import pytest

from ndactors.errors import ActorCrashed, ActorStopped, NotFound
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.supervisor import ActorRestarted, Child, StartChild, StopChild, Supervisor, supervisor_ref
from ndactors.runtime.tree import GetTree, RestartActor


def quick() -> Backoff:
    return Backoff(first=0.001, longest=0.001)


class Member(Actor):
    """Writes down its starts and stops."""

    def __init__(self, diary: list) -> None:
        self.diary = diary

    def on_start(self):
        self.diary.append(("start", self.ref.name))

    def on_stop(self):
        self.diary.append(("stop", self.ref.name))

    def receive(self, message):
        if message == "boom":
            raise ValueError("boom")
        if isinstance(message, gevent.event.Event):
            message.wait()
        if message == "die":
            raise SystemExit(3)
        self.diary.append((message, self.ref.name))
        return "pong"


def members(diary: list, names: str = "abc"):
    refs = [Ref(name) for name in names]
    return refs, [Child(ref, Member, diary, backoff=quick) for ref in refs]


def test_starts_in_order_and_stops_in_reverse(trees):
    diary: list = []
    _, children = members(diary)
    trees.start(*children)
    assert trees.roots[-1].stop(5)
    assert diary == [(what, name) for what, names in (("start", "abc"), ("stop", "cba")) for name in names]


def test_one_for_one_restarts_only_the_one(trees, until):
    diary: list = []
    (a, b, c), children = members(diary)
    trees.start(*children)
    b.tell("boom")
    until(lambda: b.restarts == 1 and b.state == "running")
    assert diary[3:] == [("start", "b")]
    assert (a.restarts, c.restarts) == (0, 0)


def test_one_for_all_stops_all_in_reverse_and_starts_all_in_order(trees, until):
    diary: list = []
    (a, b, c), children = members(diary)
    trees.start(*children, strategy=Strategy.ONE_FOR_ALL)
    b.tell("boom")
    until(lambda: c.restarts == 1 and c.state == "running")
    assert diary[3:] == [("stop", "c"), ("stop", "a"), ("start", "a"), ("start", "b"), ("start", "c")]


def test_rest_for_one_restarts_later_siblings_and_clears_their_mailboxes(trees, until):
    diary: list = []
    (a, b, c), children = members(diary)
    trees.start(*children, strategy=Strategy.REST_FOR_ONE)
    hold = gevent.event.Event()
    for ref in (a, c):
        ref.tell(hold)
    gevent.sleep(0)
    a.tell("kept")
    c.tell("lost")
    asking = gevent.spawn(c.ask, "lost too", 60)
    gevent.sleep(0)
    b.tell("boom")
    b.tell("lost as well")
    gevent.spawn_later(0.01, hold.set)
    with pytest.raises(ActorStopped):
        asking.get(timeout=5)
    until(lambda: c.restarts == 1 and c.state == "running")
    a.ask("end")
    b.ask("end")
    c.ask("end")
    assert ("kept", "a") in diary
    assert not [entry for entry in diary if str(entry[0]).startswith("lost")]
    assert (a.restarts, b.restarts, c.restarts) == (0, 1, 1)
    assert [e for e in diary if e[0] in ("start", "stop")][3:] == [("stop", "c"), ("start", "b"), ("start", "c")]


def test_a_second_failure_among_waiting_siblings_keeps_the_order(trees, until):
    diary: list = []
    (a, b, c), children = members(diary)
    slow = [Child(child.ref, Member, diary, backoff=lambda: Backoff(first=0.05, longest=0.05)) for child in children]
    trees.start(*slow, strategy=Strategy.REST_FOR_ONE)
    c.tell("boom")
    until(lambda: c.state == "waiting")
    a.tell("boom")
    until(lambda: a.restarts == 1 and c.restarts == 1 and c.state == "running")
    assert [e for e in diary if e[0] == "start"][3:] == [("start", "a"), ("start", "b"), ("start", "c")]
    gevent.sleep(0.1)
    assert (a.restarts, b.restarts, c.restarts) == (1, 1, 1)


def test_exactly_max_restarts_survive_and_the_next_escalates(trees, until):
    diary: list = []
    (a,), children = members(diary, "a")
    group = supervisor_ref("group")
    trees.start(Child(group, Supervisor, children, Strategy.ONE_FOR_ONE, Intensity(3, 60.0), backoff=quick))
    for n in range(3):
        a.tell("boom")
        until(lambda n=n: a.restarts == n + 1 and a.state == "running")
    assert group.restarts == 0
    a.tell("boom")
    until(lambda: group.restarts == 1 and a.state == "running")
    assert group.last_error.type == "RestartIntensityExceeded"
    assert a.ask("hello") == "pong"
    gave_up = [r for r in trees.reports if isinstance(r, ActorRestarted) and r.gave_up]
    assert [(r.name, r.error) for r in gave_up] == [("a", "ValueError: boom")]


def test_the_window_forgets(trees, until):
    diary: list = []
    (a,), children = members(diary, "a")
    group = supervisor_ref("group")
    trees.start(Child(group, Supervisor, children, Strategy.ONE_FOR_ONE, Intensity(1, 0.05), backoff=quick))
    for n in range(4):
        a.tell("boom")
        until(lambda n=n: a.restarts == n + 1 and a.state == "running")
        gevent.sleep(0.08)
    assert group.restarts == 0


def test_an_escalating_supervisor_stops_its_children_in_reverse(trees, until):
    diary: list = []
    (a, b, c), children = members(diary)
    group = supervisor_ref("group")
    trees.start(Child(group, Supervisor, children, Strategy.ONE_FOR_ONE, Intensity(0, 60.0), backoff=quick))
    b.tell("boom")
    until(lambda: group.restarts == 1 and c.state == "running")
    assert diary[3:] == [("stop", "c"), ("stop", "a"), ("start", "a"), ("start", "b"), ("start", "c")]


def test_the_root_itself_is_started_again(trees, until):
    diary: list = []
    (a,), children = members(diary, "a")
    root = trees.start(*children, intensity=Intensity(0, 60.0))
    a.tell("boom")
    until(lambda: root.restarts == 1 and a.state == "running")
    assert a.ask("hello") == "pong"


def test_even_system_exit_in_an_actor_is_a_restart(trees, until):
    diary: list = []
    (a,), children = members(diary, "a")
    trees.start(*children)
    with pytest.raises(ActorCrashed):
        a.ask("die")
    until(lambda: a.restarts == 1 and a.state == "running")


def test_one_that_does_not_stop_in_time_is_killed(trees):
    diary: list = []
    stubborn = Ref("stubborn")
    trees.start(Child(stubborn, Member, diary, stop_within=0.05))
    stubborn.tell(gevent.event.Event())
    gevent.sleep(0)
    assert trees.roots[-1].stop(5)
    assert stubborn.state == "stopped"


def test_killing_a_supervisor_leaves_no_orphans(trees, until):
    class Stuck(Supervisor):
        def receive(self, message):
            if isinstance(message, gevent.event.Event):
                message.wait()
            return super().receive(message)

    diary: list = []
    (a,), children = members(diary, "a")
    group = supervisor_ref("group")
    root = trees.start(Child(group, Stuck, children, stop_within=0.05))
    group.tell(gevent.event.Event())
    gevent.sleep(0)
    root.tell(StopChild(ref=group))
    until(lambda: a.state == "stopped")


def test_children_can_be_added_replaced_and_removed(trees, until):
    diary: list = []
    root = trees.start()
    (a,), (child,) = members(diary, "a")
    root.tell(StartChild(child=child))
    assert a.ask("hello") == "pong"
    root.tell(StartChild(child=child))
    until(lambda: diary.count(("start", "a")) == 2)
    assert diary == [("start", "a"), ("hello", "a"), ("stop", "a"), ("start", "a")]
    root.tell(StopChild(ref=a))
    until(lambda: a.state == "stopped")
    assert root.node().children == ()


def test_the_tree_shows_everyone(trees):
    diary: list = []
    (a, b, _), children = members(diary)
    group = supervisor_ref("group")
    root = trees.start(Child(group, Supervisor, children))
    a.ask("hello")
    tree = root.ask(GetTree())
    assert (tree.name, tree.cls, tree.state) == ("root", "Supervisor", "running")
    (inner,) = tree.children
    assert [child.name for child in inner.children] == ["a", "b", "c"]
    assert inner.children[0].handled == 1
    assert inner.children[0].started_at is not None


def test_restart_by_name_finds_it_at_any_depth(trees, until):
    diary: list = []
    (a, *_), children = members(diary)
    root = trees.start(Child(supervisor_ref("group"), Supervisor, children))
    root.ask(RestartActor(name="a"))
    until(lambda: a.restarts == 1 and a.state == "running")
    assert diary[3:] == [("stop", "a"), ("start", "a")]
    with pytest.raises(NotFound):
        root.ask(RestartActor(name="nobody"))


def test_hooks_hear_of_every_restart_at_any_depth(trees, until):
    diary: list = []
    (a,), children = members(diary, "a")
    trees.start(Child(supervisor_ref("group"), Supervisor, children))
    a.tell("boom")
    until(lambda: trees.reports)
    report = trees.reports[0]
    assert (report.name, report.error, report.gave_up) == ("a", "ValueError: boom", False)

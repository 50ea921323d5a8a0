"""From what runs to the next steps. The property tests play whole deployments with the plan as the only mover."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.core.reconciling import Create, Replica, Retire, Target, plan

NEW, OLD = "new", "old"


def target(replicas: int = 2, **kwargs) -> Target:
    return Target(process="web", config=NEW, replicas=replicas, **kwargs)


def replica(number: int = 1, config: str = NEW, **kwargs) -> Replica:
    kwargs.setdefault("up", True)
    return Replica(key=f"{config}-{number}", process="web", config=config, replica=number, **kwargs)


@pytest.mark.parametrize(
    ("name", "targets", "replicas", "phase", "steps"),
    [
        ("nothing there", [target()], [], "moving", [Create("web", 1), Create("web", 2)]),
        ("as it should be", [target()], [replica(1), replica(2)], "settled", []),
        ("still starting", [target(1)], [replica(1, up=False)], "moving", []),
        ("failed and shown", [target(1)], [replica(1, up=False, failed=True)], "settled", []),
        ("one missing", [target()], [replica(2)], "moving", [Create("web", 1)]),
        ("one too many", [target(1)], [replica(1), replica(2)], "settled", [Retire("new-2")]),
        ("an app that is gone", [], [replica(1)], "settled", [Retire("new-1")]),
        ("gone and leaving", [], [replica(1, leaving=True)], "settled", []),
        ("rolling starts one", [target()], [replica(1, OLD), replica(2, OLD)], "moving", [Create("web", 1)]),
        (
            "rolling waits for it",
            [target()],
            [replica(1, OLD), replica(2, OLD), replica(1, up=False)],
            "moving",
            [],
        ),
        (
            "rolling goes on: the next starts, one old goes",
            [target()],
            [replica(1, OLD), replica(2, OLD), replica(1)],
            "moving",
            [Create("web", 2), Retire("old-2")],
        ),
        (
            "what does not serve goes first",
            [target()],
            [replica(1, OLD, up=False), replica(2, OLD), replica(1), replica(2, up=False)],
            "moving",
            [Retire("old-1")],
        ),
        (
            "a new version that fails is refused",
            [target()],
            [replica(1, OLD), replica(2, OLD), replica(1, up=False, failed=True)],
            "refused",
            [],
        ),
        ("in place: old ones first", [target(1, in_place=True)], [replica(1, OLD)], "moving", [Retire("old-1")]),
        (
            "in place: wait until it is gone",
            [target(1, in_place=True)],
            [replica(1, OLD, leaving=True)],
            "moving",
            [],
        ),
        (
            "two for one number: the better one stays",
            [target(1)],
            [replace(replica(1, up=False), key="worse"), replica(1)],
            "settled",
            [Retire("worse")],
        ),
    ],
)
def test_plan(name, targets, replicas, phase, steps):
    decision = plan(targets, replicas)
    assert decision.phase == phase
    assert list(decision.steps) == steps


def play(world: dict[str, Replica], goal: Target, moves: list[int], *, new_comes_up: bool = True) -> list[int]:
    """Carry out plans until nothing moves; ``moves`` decides which pending thing happens next. Returns how many
    were up after each move."""
    up_counts = []
    for move in range(200):
        decision = plan([goal], list(world.values()))
        for step in decision.steps:
            if isinstance(step, Create):
                made = replica(step.replica, goal.config, up=False)
                assert made.key not in world, "created twice"
                world[made.key] = made
            else:
                world[step.key] = replace(world[step.key], leaving=True, up=False)
        up_counts.append(sum(r.up for r in world.values()))
        pending = [k for k, r in world.items() if r.leaving or (not r.up and not r.failed)]
        if not pending:
            if decision.phase == "settled" and not decision.steps:
                return up_counts
            if decision.phase == "refused":
                return up_counts
            continue
        key = pending[moves[move % len(moves)] % len(pending)] if moves else pending[0]
        if world[key].leaving:
            del world[key]
        elif new_comes_up:
            world[key] = replace(world[key], up=True)
        else:
            world[key] = replace(world[key], failed=True)
    raise AssertionError("it never settled")


@settings(max_examples=300)
@given(
    st.integers(0, 6),
    st.integers(0, 6),
    st.lists(st.integers(0, 100), max_size=30),
)
def test_a_rolling_change_gets_there_and_never_below_what_it_can_keep(before, after, moves):
    world = {r.key: r for r in (replica(n, OLD) for n in range(1, before + 1))}
    counts = play(world, target(after), moves)
    assert {(r.config, r.replica) for r in world.values()} == {(NEW, n) for n in range(1, after + 1)}
    assert min(counts) >= min(before, after)


@given(st.integers(1, 6), st.integers(1, 6), st.lists(st.integers(0, 100), max_size=30))
def test_a_version_that_never_comes_up_takes_no_old_one_down_but_what_scaling_takes(before, after, moves):
    world = {r.key: r for r in (replica(n, OLD) for n in range(1, before + 1))}
    counts = play(world, target(after), moves, new_comes_up=False)
    assert min(counts) >= min(before, after)
    assert plan([target(after)], list(world.values())).phase == "refused"


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.integers(0, 100), max_size=30))
def test_in_place_never_runs_two_versions(before, after, moves):
    world = {r.key: r for r in (replica(n, OLD) for n in range(1, before + 1))}
    goal = target(after, in_place=True)
    for move in range(100):
        decision = plan([goal], list(world.values()))
        for step in decision.steps:
            if isinstance(step, Create):
                world[f"new-{step.replica}"] = replica(step.replica, up=False)
            else:
                world[step.key] = replace(world[step.key], leaving=True)
        assert len({r.config for r in world.values()}) <= 1
        pending = [k for k, r in world.items() if r.leaving or not r.up]
        if not pending:
            break
        key = pending[moves[move % len(moves)] % len(pending)] if moves else pending[0]
        if world[key].leaving:
            del world[key]
        else:
            world[key] = replace(world[key], up=True)
    assert {(r.config, r.replica) for r in world.values()} == {(NEW, n) for n in range(1, after + 1)}

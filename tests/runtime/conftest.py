"""A place to run actors in: trees that are stopped at the end, and waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import gevent
import pytest

from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            gevent.sleep(0.001)

    return wait


class Trees:
    def __init__(self) -> None:
        self.roots: list[Root] = []
        self.reports: list[object] = []

    def start(
        self,
        *children: Child,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
    ) -> Ref:
        """A root supervisor over ``children``; returns its ref. What it reports is kept in ``reports``."""
        ref = supervisor_ref("root")
        intensity = intensity or Intensity(1000, 60.0)
        root = Root(Child(ref, Supervisor, list(children), strategy, intensity, self.reports.append))
        self.roots.append(root)
        assert root.wait_started(5.0)
        return ref


@pytest.fixture
def trees() -> Iterator[Trees]:
    made = Trees()
    yield made
    for root in made.roots:
        assert root.stop(10.0)

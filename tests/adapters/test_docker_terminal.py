"""Which process a terminal's is, while it is about to begin."""

from __future__ import annotations

import itertools

import pytest

from ndactors.adapters import docker_terminal
from ndactors.adapters.docker_terminal import DockerTerminal

MARK = "NEXTDEPLOY_TERMINAL=test:1"
ABOUT_TO = {"Pid": 0, "Running": False, "ExitCode": None}
RUNS = {"Pid": 77, "Running": True, "ExitCode": None}
ENDED = {"Pid": 77, "Running": False, "ExitCode": 0}


@pytest.fixture
def pid(monkeypatch):
    """``pid(answers, marks)``: what is made of the Engine's answers; from that many looks at its environment on, the process
    has its mark. The last answer stays."""

    def found(answers: list[dict], marks: int) -> int:
        told = itertools.chain(answers, itertools.repeat(answers[-1]))
        looks = itertools.count()
        monkeypatch.setattr(DockerTerminal, "_inspect", lambda self: next(told))
        monkeypatch.setattr(
            docker_terminal, "_environment", lambda pid: [MARK.encode()] if next(looks) >= marks else []
        )
        return DockerTerminal.__new__(DockerTerminal)._pid(MARK)

    return found


def test_one_that_has_not_become_its_program_yet_is_waited_for(pid):
    assert pid([ABOUT_TO, ABOUT_TO, RUNS], 3) == 77


def test_one_that_ends_before_it_is_known_is_nobody(pid):
    assert pid([ABOUT_TO, RUNS, RUNS, ENDED], 1000) == 0


def test_one_that_never_has_its_mark_is_not_waited_for_for_ever(pid, monkeypatch):
    monkeypatch.setattr(docker_terminal, "START_SECONDS", 0.05)
    assert pid([RUNS], 1_000_000) == 77  # who ends it looks at the mark again

from __future__ import annotations

import pytest

from ndactors.core.model import Restart
from ndactors.core.restarting import GiveUp, RestartHistory, RestartIn, ending


def test_backoff_doubles_up_to_its_cap_and_then_gives_up():
    history = RestartHistory(Restart(max_restarts=10, within=600.0, backoff=0.5, backoff_max=60.0))
    decisions = [history.after_end("exited 1", 1, 0.1, float(n)) for n in range(11)]
    waits = [d.seconds for d in decisions if isinstance(d, RestartIn)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert decisions[-1] == GiveUp("exited 1; 10 restarts in 600 s did not help", failed=True)


def test_one_that_ran_long_starts_with_a_short_wait_again():
    history = RestartHistory(Restart(backoff=0.5))
    history.after_end("exited 1", 1, 1.0, 0.0)
    history.after_end("exited 1", 1, 1.0, 1.0)
    assert history.after_end("exited 1", 1, 3600.0, 5000.0) == RestartIn(0.5)


def test_restarts_long_ago_are_forgiven():
    history = RestartHistory(Restart(max_restarts=1, within=10.0))
    assert isinstance(history.after_end("x", 1, 0.0, 0.0), RestartIn)
    assert isinstance(history.after_end("x", 1, 0.0, 10.0), RestartIn)
    assert isinstance(history.after_end("x", 1, 0.0, 19.0), GiveUp)


@pytest.mark.parametrize(
    ("policy", "exit_code", "expected"),
    [
        ("always", 0, "restart"),
        ("always", 1, "restart"),
        ("unless-stopped", 0, "restart"),
        ("on-failure", 1, "restart"),
        ("on-failure", None, "restart"),
        ("on-failure", 0, "stopped"),
        ("no", 0, "stopped"),
        ("no", 1, "failed"),
    ],
)
def test_policies(policy, exit_code, expected):
    decision = RestartHistory(Restart(policy=policy)).after_end("ended", exit_code, 1.0, 0.0)
    if isinstance(decision, RestartIn):
        assert expected == "restart"
    else:
        assert expected == ("failed" if decision.failed else "stopped")
        assert decision.reason == f"ended; restart: {policy}"


@pytest.mark.parametrize(
    ("exit_code", "oom", "words"),
    [
        (0, False, "exited 0"),
        (7, False, "exited 7"),
        (137, False, "exited 137 (SIGKILL)"),
        (143, False, "exited 143 (SIGTERM)"),
        (137, True, "exited 137 (out of memory)"),
        (127, False, "exited 127 (command not found)"),
        (170, False, "exited 170 (signal 42)"),
        (None, False, "ended (exit code unknown)"),
        (None, True, "out of memory"),
    ],
)
def test_endings_in_words(exit_code, oom, words):
    assert ending(exit_code, oom=oom) == words

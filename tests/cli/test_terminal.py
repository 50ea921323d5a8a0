"""On a terminal: progress in place, Ctrl-C, pipes that close."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

STEPS = [{"name": "build", "state": "running", "seconds": 1.5, "detail": ""}]


class Screen:
    """What a person would see: a terminal of the few sequences that the client uses."""

    def __init__(self) -> None:
        self.rows = [""]

    def feed(self, text: str) -> list[str]:
        for part in re.findall(r"\x1b\[\d*[A-Z]|\r?\n|[^\x1b\r\n]+|\r", text):
            up = re.fullmatch(r"\x1b\[(\d+)F", part)
            if up is not None:
                self.at = len(self.rows) - 1 - int(up[1])
            elif part == "\x1b[J":
                self.rows = [*self.rows[: self.at], ""]
            elif part.endswith("\n"):
                self.rows.append("")
            elif part != "\r":
                self.rows[-1] += part
        return [row for row in self.rows if row]


@pytest.fixture
def following(double, local):
    double.operation(
        "op1",
        {"steps": STEPS, "log": "Step 1\n"},
        {"steps": STEPS, "log": "Step 1\nStep 2\n"},
        {
            "state": "succeeded",
            "steps": [{**STEPS[0], "state": "succeeded", "seconds": 2.5}],
            "log": "Step 1\nStep 2\n",
        },
    )
    return double


def test_steps_change_in_place_and_the_log_goes(following, terminal):
    term = terminal("operations", "op1", "--follow")
    text = term.rest()
    assert term.process.returncode == 0
    assert "Step 2" in text
    assert Screen().feed(text) == ["  ✓ build           2.5 s"]


def test_a_failure_leaves_the_last_lines(following, terminal):
    following.operation(
        "op1",
        {"steps": STEPS, "log": "Step 1\n"},
        {"state": "failed", "reason": "exit 1", "steps": [{**STEPS[0], "state": "failed"}], "log": "Step 1\nboom\n"},
    )
    term = terminal("operations", "op1", "--follow")
    rows = Screen().feed(term.rest())
    assert term.process.returncode == 1
    assert rows == ["  ✗ build           1.5 s", "  Step 1", "  boom", "nextdeploy: deploy of shop failed: exit 1"]


def test_long_lines_and_wide_logs_stay_within_the_terminal(following, terminal):
    following.operation("op1", {"steps": STEPS, "log": "x" * 500 + "\n" + "\x1b[2Jy\n" * 50})
    term = terminal("operations", "op1", "--follow")
    text = term.read_until("[2Jy")
    assert "\x1b[2J" not in text
    assert all(len(row) < 100 for row in re.split(r"[\r\n]+", re.sub(r"\x1b\[\d*[FJ]", "", text)))
    term.process.kill()


def test_ctrl_c_says_how_to_go_on(following, terminal):
    following.operation("op1", {"steps": STEPS, "log": "Step 1\n"})
    term = terminal("operations", "op1", "--follow")
    term.read_until("Step 1")
    term.write("\x03")
    text = term.rest()
    assert term.process.returncode == 130
    assert "Operation op1 goes on." in text
    assert "nextdeploy operations op1 --follow" in text and "nextdeploy operations op1 --cancel" in text
    assert "Traceback" not in text


def test_a_reader_that_goes_away_is_no_traceback(double, local, variables, project):
    log = "".join(f"line {n}\n" for n in range(20_000))
    double.operation("op1", {"state": "succeeded", "log": log})
    client = subprocess.Popen(
        [sys.executable, "-m", "ndactors.cli", "operations", "op1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables,
        cwd=project,
    )
    assert client.stdout is not None and client.stderr is not None
    client.stdout.readline()
    client.stdout.close()
    assert client.stderr.read() == b""
    assert client.wait(20) == 1


def test_a_terminal_that_can_do_nothing_gets_plain_lines(following, terminal):
    term = terminal("operations", "op1", "--follow", TERM="dumb")
    text = term.rest()
    assert "\x1b" not in text and "build: running" in text

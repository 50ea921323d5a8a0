"""What ended more than ``SETTLE_SECONDS`` ago is counted: from real workers, by the real actor and store, under load."""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ndactors.messages.records import SETTLE_SECONDS

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("NEXTDEPLOY_TEST_SETTLING_SECONDS", "5"))


class Process:
    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, str(HERE / "counting.py"), *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def tell(self, line: object = "") -> None:
        self.popen.stdin.write(f"{line}\n")
        self.popen.stdin.flush()

    def hear(self):
        line = self.popen.stdout.readline()
        assert line, "it ended"
        return json.loads(line)

    def end(self) -> None:
        self.popen.stdin.close()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise
        finally:
            self.popen.stdout.close()


@pytest.fixture
def processes(tmp_path):
    """The load, and who counts it."""
    load = Process("load")
    upstream = load.hear()
    counting = Process("count", tmp_path, upstream)
    load.tell(counting.hear())
    yield load, counting
    counting.end()
    load.end()


def test_what_ended_a_moment_ago_is_counted(processes):
    load, counting = processes
    found = []
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
        counting.tell()
        found.append(counting.hear())
    load.tell()
    notes = load.hear()
    time.sleep(SETTLE_SECONDS)
    counting.tell()
    _, last, complete = counting.hear()
    total = notes[-1][1]
    assert (last, complete) == (total, True), "to the last one"
    assert total > 2000 * SECONDS, "this was no load"
    moments = [moment for moment, _ in notes]
    lags = []
    for asked, counted, complete in found:
        assert complete
        before = notes[max(0, bisect.bisect_right(moments, asked - SETTLE_SECONDS) - 1)]
        assert counted >= before[1], f"{before[1] - counted} of {before[1]} were missing"
        seen = bisect.bisect_right([answers for _, answers in notes], counted)
        lags.append(asked - moments[min(seen, len(moments) - 1)])
    print(f"{total / SECONDS:,.0f} requests/s; the counts were at most {max(lags):.3f} s behind")

"""The outlets' process from outside: it runs while there is an outlet, and ends with whoever started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outlets_ground import ROOT, Shelf, state_of, wait_for

from ndactors.core.model import Bucket, Forward
from ndactors.logs.outlet_process import OutletProcess, OutletState, _rough
from ndactors.messages.logs import KeepLogs, LogsReport

NOWHERE = Forward(syslog="udp://127.0.0.1:9")


def keep(*forward: Forward, days: float = 7, archive: Bucket | None = None) -> KeepLogs:
    return KeepLogs(days=days, bytes=1 << 30, forward=forward, archive=archive)


def children() -> list[int]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended just now
            found += [child.pid] if "--role=log-outlets" in child.cmdline() else []
    return found


@pytest.fixture
def process(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.add("a")
    notes: list[str] = []
    process = OutletProcess(tmp_path, notes.append)
    process.notes = notes
    yield process
    process.stop()
    shelf.close()


def looked(process: OutletProcess, condition) -> bool:
    process.look(time.monotonic())
    return condition()


def test_it_runs_while_there_is_an_outlet(process, tmp_path):
    assert process.may_go(1)
    process.configure(keep())
    process.look(time.monotonic())
    assert (process.wanted, children()) == (False, [])
    process.configure(keep(NOWHERE))
    process.look(time.monotonic())
    wait_for(lambda: len(children()) == 1, "the first")
    (first,) = children()
    wait_for(lambda: looked(process, lambda: process.state.cursors), "its state is read")
    process.configure(keep(NOWHERE, days=3))
    process.look(time.monotonic())
    assert children() == [first], "how long logs are kept here is nothing to it"
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: looked(process, lambda: children() not in ([first], [])), "it is started again")
    assert process.notes == ["the outlets' process ended (-9)"]
    process.configure(keep())
    wait_for(lambda: looked(process, lambda: children() == []), "it is stopped")
    wait_for(lambda: looked(process, lambda: not (tmp_path / "logs" / "outlets.json").exists()), "and forgotten")
    assert len(process.notes) == 1, "nothing is wrong with that"


def test_another_configuration_is_another_process(process):
    process.configure(keep(NOWHERE))
    process.look(time.monotonic())
    wait_for(lambda: len(children()) == 1, "the first")  # its command line is there a moment after it began
    (first,) = children()
    other = Forward(syslog="udp://127.0.0.1:10")
    process.configure(keep(other))
    wait_for(lambda: looked(process, lambda: list(process.state.cursors) == ["syslog udp://127.0.0.1:10"]), "it runs")
    assert first not in children()


def test_it_ends_with_whoever_started_it(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from ndactors.logs.outlet_process import OutletProcess;"
        "from ndactors.core.model import Forward; from ndactors.messages.logs import KeepLogs;"
        "p = OutletProcess(Path(sys.argv[1]), print);"
        "p.configure(KeepLogs(days=1, bytes=1, forward=(Forward(syslog='udp://127.0.0.1:9'),)));"
        "p.look(time.monotonic()); print(p._process.pid, flush=True); time.sleep(60)"
    )
    (tmp_path / "logs").mkdir()
    command = [sys.executable, "-c", script, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        wait_for(lambda: state_of(tmp_path).cursors, "it runs")
        parent.kill()
        parent.wait()
        wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "it ends")
    finally:
        for process in (parent, child):
            with contextlib.suppress(psutil.Error):
                process.kill()


def test_what_it_cannot_understand_ends_it(tmp_path):
    command = [sys.executable, "-m", "ndactors", "--role=log-outlets", f"--state-dir={tmp_path}"]
    done = subprocess.run(command, input=b"?", capture_output=True, cwd=ROOT, timeout=20, check=False)
    assert done.returncode == 2
    assert b"cannot be understood" in done.stderr


def test_troubles_that_come_and_go_are_no_new_ones_each_time(process):
    process.configure(keep(NOWHERE))

    def notes() -> tuple[str, ...]:
        return process.added_to(LogsReport(pid=1, notes=("own",)), "").notes

    assert notes() == ("own",)
    process.state = OutletState(errors={"a": "it answers 500"}, skipped={"a": 1999}, lost=57)
    told = (
        "own",
        "a: at least 1,000 records were gone before it had them, or too long for it",
        "a: it answers 500",
        "archive: at least 50 segments were gone before they were there",
    )
    assert notes() == told
    process.state = OutletState(skipped={"a": 1000}, lost=50)
    assert notes() == told
    assert process.added_to(LogsReport(pid=1), "no space").notes[-1] == "nothing can be stored: no space"


@given(st.integers(1, 10**12))
def test_numbers_are_told_in_large_steps(count):
    told = _rough(count)
    assert told <= count < 2.5 * told
    assert str(told).rstrip("0") in ("1", "2", "5")

"""When the log process wakes and reports while little happens, and when much does."""

from __future__ import annotations

import time

import pytest
from process import source

from ndactors.core.logrecords import Columns, Gap
from ndactors.logs.figures import FEW_LINES
from ndactors.logs.intake import BLOCK_SECONDS
from ndactors.logs.outlet_process import OutletProcess
from ndactors.logs.process import LogProcess
from ndactors.logs.readers import Readers
from ndactors.logs.watch import Watch
from ndactors.messages.logs import QUIET_REPORT_SECONDS, REPORT_SECONDS

INFO, ERROR = 1, 3
LINE = b'{"log":"x\\n","stream":"stdout","time":"2026-01-01T00:00:00.000000001Z"}\n'


def columns(count: int, level: int = INFO) -> Columns:
    return Columns(text="x\n" * count, times="", levels=bytes([level] * count), streams=bytes(count))


@pytest.fixture
def process(tmp_path, monkeypatch):
    monkeypatch.setattr(Watch, "runs", True)
    made = LogProcess(tmp_path / "state")
    made._segments.open()
    yield made
    made._finish()


def told(process: LogProcess) -> None:
    process._figures.told()
    process._told_full = process._full


def test_it_rests_when_there_is_nothing_to_tell(process):
    assert process._pause() == QUIET_REPORT_SECONDS
    process._figures.stored(source(), columns(FEW_LINES), None)
    assert process._pause() == QUIET_REPORT_SECONDS


@pytest.mark.parametrize(
    "happens",
    [
        lambda process: process._figures.stored(source(), columns(FEW_LINES + 1), None),
        lambda process: process._figures.stored(source(), columns(1, ERROR), None),
        lambda process: process._figures.stored(source(), columns(1), Gap(bytes=9, at_least=True, reason="r")),
        lambda process: process._figures.lost(source(), Gap(bytes=9, lines=2, at_least=False, reason="r")),
        lambda process: process._fault("something went wrong"),
    ],
    ids=["many lines", "an error", "a gap", "lost lines", "a note"],
)
def test_news_is_told_soon_and_then_it_rests_again(process, happens):
    happens(process)
    assert process._pause() == REPORT_SECONDS
    told(process)
    assert process._pause() == QUIET_REPORT_SECONDS


def test_a_disk_that_is_full_and_its_end_are_told_soon(process):
    process._full = "No space left on device"
    assert process._pause() == REPORT_SECONDS
    told(process)
    process._full = ""
    assert process._pause() == REPORT_SECONDS
    told(process)
    assert process._pause() == QUIET_REPORT_SECONDS


@pytest.mark.parametrize(
    ("which", "name", "value"),
    [(Watch, "runs", False), (Readers, "runs", True), (OutletProcess, "runs", True), (OutletProcess, "wanted", True)],
)
def test_what_runs_beside_it_is_looked_at_every_second(process, monkeypatch, which, name, value):
    monkeypatch.setattr(which, name, value)
    assert process._pause() == REPORT_SECONDS


def test_a_container_that_the_engine_is_asked_about_is_asked_every_second(process):
    process._follow(source(""))
    assert process._pause() == REPORT_SECONDS


@pytest.fixture
def intake(process, tmp_path):
    """A container with one line that is there to be read."""
    path = tmp_path / "c-json.log"
    path.write_bytes(LINE)
    process._follow(source(path))
    (found,) = process._intakes.values()
    found.rotated = True
    return found


def test_it_wakes_to_store_what_waits(process, intake):
    now = time.monotonic()
    process._read(now)
    intake.due = now + 100.0
    assert intake.waits
    process._reported = now + 3.0
    assert 0 < process._patience(now) <= BLOCK_SECONDS
    later = now + process._patience(now)
    process._store(later, False)
    assert not intake.waits


def test_a_full_disk_is_tried_by_the_report_alone(process, intake):
    now = time.monotonic()
    process._read(now)
    assert intake.waits
    process._full, process._reported = "full", now
    assert process._patience(now + BLOCK_SECONDS / 10) == pytest.approx(REPORT_SECONDS - BLOCK_SECONDS / 10)
    process._full = ""

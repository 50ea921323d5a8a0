"""A store that takes nothing: what waits is held for as long as it may be, what is dropped is counted, and it goes on."""

from __future__ import annotations

import errno

import pytest
from process import lines, source
from test_process import C, Writer

from ndactors.logs import process
from ndactors.logs.process import LogProcess


class Disk:
    """Takes nothing while ``full``."""

    def __init__(self, segments) -> None:
        self.full = False
        self._append = segments.append
        segments.append = self.append

    def append(self, *block) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._append(*block)


class World:
    def __init__(self, state, path) -> None:
        self.state = state
        self.process = LogProcess(state)
        self.process._segments.open()
        self.process._follow(source(path))
        self.intake = self.process._intakes[C]
        self.disk = Disk(self.process._segments)
        self.now = 1000.0
        self.writer = Writer(path)

    def turn(self, seconds: float = 10.0) -> None:
        """As the loop does, until everything is read that may be."""
        for _ in range(20):
            self.now += seconds
            self.intake.due = 0.0
            self.intake.rotated = True
            self.process._read(self.now)
            self.process._store(self.now, True)

    def report(self):
        p = self.process
        report = p._figures.report(p._segments, p._intakes.values(), 0)
        return p._outlets.added_to(report, p._full)

    def end(self) -> list[str]:
        self.process._finish()
        return lines(self.state, C)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state", tmp_path / "c-json.log")


def test_what_fits_is_held_and_stored_later(world):
    world.writer.write(100)
    world.turn()
    world.disk.full = True
    for _ in range(5):
        world.writer.write(1000)
        world.turn()
        world.writer.rotate()
    assert world.report().full
    assert "No space left" in world.report().notes[-1]
    assert world.report().held > 0
    world.disk.full = False
    world.writer.write(10)
    world.turn()
    assert not world.report().full
    assert world.report().held == 0
    assert world.end() == [str(n) for n in range(1, 5111)]


@pytest.mark.parametrize("budget", ["HELD_BYTES", "HELD_WHEN_FULL"])
def test_what_does_not_fit_is_dropped_and_counted(world, monkeypatch, budget):
    monkeypatch.setattr(process, budget, 200_000)
    monkeypatch.setattr(process, "_scarce", lambda folder: budget == "HELD_WHEN_FULL")
    world.writer.write(100)
    world.turn()
    world.disk.full = True
    for _ in range(10):
        world.writer.write(1000)
        world.turn()
        world.writer.rotate()
    world.turn()
    assert world.report().held <= 200_000
    dropped = world.report().dropped["shop"]
    assert dropped > 5000
    world.disk.full = False
    world.writer.write(10)
    world.turn()
    report = world.report()
    assert report.dropped == {"shop": dropped}
    assert report.gaps == 1
    found = world.end()
    (gap,) = [line for line in found if line.startswith("[gap")]
    assert f"({dropped:,} lines)" in gap
    assert "at least" not in gap
    place = found.index(gap)
    numbers = [int(line) for line in found if line != gap]
    assert len(numbers) == world.writer.written - dropped
    assert numbers == sorted(numbers)
    assert numbers[:place] == list(range(1, place + 1))
    assert numbers[place] == place + 1 + dropped


def test_a_full_disk_at_the_start(tmp_path):
    path = tmp_path / "c-json.log"
    world = World(tmp_path / "state", path)
    world.disk.full = True
    world.writer.write(10)
    world.turn()
    assert lines(world.state, C) == []
    world.disk.full = False
    world.turn()
    assert world.end() == [str(n) for n in range(1, 11)]

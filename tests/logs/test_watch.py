"""News of log files: new ones are opened at once, resting ones are told of when somebody writes."""

from __future__ import annotations

import pytest
from process import source, until

from ndactors.logs.intake import REST_SECONDS, Intake
from ndactors.logs.watch import Watch


class World:
    def __init__(self, tmp_path) -> None:
        self.path = tmp_path / "container" / "c-json.log"
        self.notes: list[str] = []
        self.wakes = 0
        self.watch = Watch(self.notes.append, self.wake)
        self.watch.start()
        self.intake = Intake(source(self.path), None, lambda *_: None, lambda: "")

    def wake(self) -> None:
        self.wakes += 1

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        self.path.rename(f"{self.path}.1")
        self.path.touch()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_folder_that_is_not_there_yet(world):
    world.watch.add(world.intake)
    assert world.watch.missing(world.intake)
    world.path.parent.mkdir()
    world.watch.add(world.intake)
    assert not world.watch.missing(world.intake)


def test_each_new_file_is_open_before_the_next_rotation_deletes_it(world):
    world.path.parent.mkdir()
    world.watch.add(world.intake)
    for n in range(1, 20):
        world.write(f"file {n}\n")
        until(lambda n=n: world.intake.tail.files == n, what="the open file")
        world.path.rename(f"{world.path}.1")
    assert world.intake.tail.gaps == []
    assert world.wakes
    assert world.intake.woken


def test_a_resting_container_is_woken_by_what_is_written(world):
    world.path.parent.mkdir()
    world.path.touch()
    world.watch.add(world.intake)
    assert world.intake.rests(REST_SECONDS)
    for _ in range(3):
        world.intake.woken = False
        assert world.watch.arm(world.intake)
        world.intake.armed = True
        world.write("x\n")
        until(lambda: world.intake.woken, what="the news")
        assert not world.intake.armed


def test_a_container_that_is_removed_is_told_of(world):
    world.path.parent.mkdir()
    world.path.touch()
    world.watch.add(world.intake)
    until(lambda: world.intake.tail.files)
    world.intake.woken = False
    world.path.unlink()
    world.path.parent.rmdir()
    until(lambda: world.intake.woken, what="the news")


def test_what_cannot_be_watched_is_looked_at_by_the_clock(world):
    assert not world.watch.arm(world.intake)
    asked = Intake(source(""), None, lambda *_: None, lambda: "")
    world.watch.add(asked)
    world.watch.remove(asked)
    assert not world.watch.arm(asked)

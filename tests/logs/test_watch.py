"""News of log files: new ones are opened at once, resting ones are told of when somebody writes."""

from __future__ import annotations

import select
import time

import pytest
from process import source, until

from ndactors.logs.intake import REST_SECONDS, Intake
from ndactors.logs.watch import Watch
from ndactors.runtime.peers import Peers


class World:
    def __init__(self, tmp_path) -> None:
        self.path = tmp_path / "container" / "c-json.log"
        self.notes: list[str] = []
        self.peers = Peers(self.notes.append)
        self.watch = Watch(tmp_path / "state", self.peers, self.notes.append)
        self.watch.start()
        self.intake = Intake(source(self.path), None, lambda *_: None, lambda: "")

    def until(self, condition, what: str = "the condition") -> None:
        def turned() -> bool:
            self.peers.turn(0.02)
            return bool(condition())

        until(turned, what=what)

    def follow(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.watch.add(self.intake)
        self.until(lambda: not self.watch.missing(self.intake), "the watch")

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        self.path.replace(f"{self.path}.1")
        self.path.touch()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.watch.stop()


def text_of(tail) -> str:
    """Everything that it has open, read to the end."""
    found = b""
    while data := tail.read(final=True):
        tail.took(len(data))
        found += data
    return found.decode()


def test_a_folder_that_is_not_there_yet(world):
    world.watch.add(world.intake)
    world.path.parent.mkdir()
    world.watch.add(world.intake)
    world.until(lambda: not world.watch.missing(world.intake), "the watch")


def test_files_that_were_rotated_away_before_we_looked(world):
    """Several rotations while nobody turns to what the opener tells."""
    world.follow()
    for n in range(1, 8):
        world.write(f"file {n}\n")
        world.rotate()
        select.select([world.watch._sock], [], [], 10)
        time.sleep(0.02)
    world.until(lambda: world.intake.tail.files >= 8, "all of them")
    assert text_of(world.intake.tail) == "".join(f"file {n}\n" for n in range(1, 8))
    assert world.intake.tail.gaps == []
    assert world.intake.woken


def test_files_that_were_read_and_closed_are_not_read_again(world):
    world.follow()
    found = ""
    for n in range(1, 30):
        world.write(f"file {n}\n")
        if n % 3 == 0:
            found += text_of(world.intake.tail)
        if n % 10 == 0:
            world.watch._process.kill()
            world.until(lambda: world.watch._sock is None, "the loss")
            world.intake.tail.look()
            world.until(lambda: world.watch.look_after(time.monotonic()) or world.watch._sock is not None, "another")
            world.until(lambda: not world.watch.missing(world.intake), "the watch")
        world.rotate()
        world.until(lambda: world.intake.tail.files and not world.intake.tail.moved(), "the news")
        world.intake.woken = False
    found += text_of(world.intake.tail)
    assert found == "".join(f"file {n}\n" for n in range(1, 30))
    assert world.intake.tail.gaps == []


def test_more_than_it_may_hold_is_told_of(world):
    world.follow()
    for n in range(1, 400):
        world.write(f"file {n}\n")
        world.rotate()
    numbers: list[int] = []

    def complete() -> bool:
        numbers.extend(int(line.split()[1]) for line in text_of(world.intake.tail).splitlines())
        return numbers[-1:] == [399]

    world.until(complete, "the last file")
    assert numbers == sorted(set(numbers))
    if len(numbers) < 399:
        assert world.intake.tail.gaps
        told = sum(int(word) for gap in world.intake.tail.gaps for word in gap.reason.split()[:1])
        assert told == 399 - len(numbers)


def test_a_resting_container_is_woken_by_what_is_written(world):
    world.path.parent.mkdir()
    world.path.touch()
    world.follow()
    assert world.intake.rests(REST_SECONDS)
    for _ in range(3):
        world.intake.woken = False
        world.intake.arm(world.watch.arm(world.intake), 0.0)
        assert world.intake.armed
        world.watch.settle(5.0)  # it is watched by now
        assert not world.intake.woken
        world.write("x\n")
        world.until(lambda: world.intake.woken, "the news")
        assert not world.intake.armed
        world.intake.step(time.monotonic())


def test_what_was_written_before_it_rested_is_seen(world):
    world.path.parent.mkdir()
    world.path.touch()
    world.follow()
    world.write("x\n")
    world.intake.woken = False
    assert world.watch.arm(world.intake)
    world.until(lambda: world.intake.woken, "the second look")


def test_a_container_that_is_removed_is_told_of(world):
    world.path.parent.mkdir()
    world.path.touch()
    world.follow()
    world.intake.woken = False
    world.path.unlink()
    world.path.parent.rmdir()
    world.until(lambda: world.intake.woken, "the news")


def test_what_cannot_be_watched_is_looked_at_by_the_clock(world):
    assert not world.watch.arm(world.intake)
    asked = Intake(source(""), None, lambda *_: None, lambda: "")
    world.watch.add(asked)
    world.watch.remove(asked)
    assert not world.watch.arm(asked)


def test_an_opener_that_is_killed_is_followed_by_another(world):
    world.follow()
    world.write("one\n")
    world.watch._process.kill()
    world.until(lambda: world.watch._sock is None, "the loss")
    world.rotate()
    world.until(lambda: world.watch.look_after(time.monotonic()) or world.watch._sock is not None, "another")
    world.until(lambda: not world.watch.missing(world.intake), "the watch")
    world.write("two\n")
    assert text_of(world.intake.tail) == "one\ntwo\n"
    assert world.intake.tail.gaps == []

import os
import re

import pytest

from ndactors.runtime import notes
from ndactors.runtime.notes import Notes


class World:
    def __init__(self, path):
        self.path = path
        self.now = 100.0
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.note = Notes("logs", lambda: self.now, self.file)

    @property
    def lines(self):
        return self.path.read_text().splitlines()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "logs.log")
    yield made
    os.close(made.file)


def test_a_line_says_when_who_and_what(world):
    world.note("the disk is full \udcff")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z logs the disk is full \\udcff", world.lines[0])


def test_the_same_is_counted_and_told_once_a_minute(world):
    for _ in range(5):
        world.note("again")
        world.now += 1
    world.note("something else")
    assert [line.split(" ", 2)[2] for line in world.lines] == ["again", "something else"]
    world.now += 60
    world.note("again")
    assert world.lines[-1].endswith("again (4 more times in the last 65 s)")


def test_different_words_without_end_are_not_remembered_without_end(world, monkeypatch):
    monkeypatch.setattr(notes, "MOST_KNOWN", 3)
    for number in range(10):
        world.note(f"fault {number}")
    assert len(world.lines) == 10 and len(world.note._known) == 3
    world.note("fault 9")
    world.note("fault 0")
    assert world.lines[-1].endswith("fault 0") and len(world.lines) == 11


def test_the_file_stays_short(world, monkeypatch):
    monkeypatch.setattr(notes, "MAX_BYTES", 1000)
    for number in range(100):
        world.note(f"fault {number}")
        assert world.path.stat().st_size < 1100
    assert world.lines[-1].endswith("fault 99")


def test_a_disk_that_takes_nothing_is_let_go(tmp_path):
    with open("/dev/full", "wb") as file:
        Notes("logs", file=file.fileno())("lost")
    Notes("logs", file=99999)("lost")

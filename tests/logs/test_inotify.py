import os
import select

import pytest

from ndactors.logs import inotify
from ndactors.logs.inotify import Inotify


@pytest.fixture
def watcher():
    made = Inotify()
    yield made
    made.close()


def test_what_happens_in_a_folder_is_told_in_order(watcher, tmp_path):
    number = watcher.watch(str(tmp_path), inotify.CREATE | inotify.MOVED_TO | inotify.DELETE | inotify.ONLYDIR)
    assert watcher.events() == []
    (tmp_path / "größe").touch()
    (tmp_path / "größe").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    assert select.select([watcher.file], [], [], 5)[0]
    assert watcher.events() == [
        (number, inotify.CREATE, "größe"),
        (number, inotify.MOVED_TO, "b"),
        (number, inotify.DELETE, "b"),
    ]


def test_names_that_are_no_text(watcher, tmp_path):
    number = watcher.watch(str(tmp_path), inotify.CREATE)
    name = b"\xff\xfe"
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT))
    assert watcher.events() == [(number, inotify.CREATE, os.fsdecode(name))]


def test_a_watch_of_one_event_is_gone_after_it(watcher, tmp_path):
    path = tmp_path / "file"
    path.touch()
    number = watcher.watch(str(path), inotify.MODIFY | inotify.ONESHOT)
    for _ in range(2):
        with path.open("a") as file:
            file.write("x")
    assert watcher.events() == [(number, inotify.MODIFY, ""), (number, inotify.IGNORED, "")]
    with pytest.raises(OSError):
        watcher.unwatch(number)


def test_more_events_than_are_read_at_once(watcher, tmp_path):
    watcher.watch(str(tmp_path), inotify.CREATE)
    for number in range(3000):
        (tmp_path / f"{number:0100}").touch()
    assert [int(name) for _, _, name in watcher.events()] == list(range(3000))


def test_what_cannot_be_watched(watcher, tmp_path):
    with pytest.raises(FileNotFoundError):
        watcher.watch(str(tmp_path / "nothing"), inotify.CREATE)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        watcher.watch(str(tmp_path / "file"), inotify.CREATE | inotify.ONLYDIR)


def test_what_is_watched_no_more(watcher, tmp_path):
    number = watcher.watch(str(tmp_path), inotify.CREATE)
    watcher.unwatch(number)
    (tmp_path / "file").touch()
    assert watcher.events() == [(number, inotify.IGNORED, "")]

"""What the outlets have done is known to whoever comes after them, also after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from outlets_ground import state_of

from ndactors.core.model import Bucket
from ndactors.logs.outlet_process import archive_place
from ndactors.logs.progress import Progress
from ndactors.logs.walk import Cursor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


def test_a_cursor_is_kept_at_once(folder):
    progress = Progress(folder, ["a", "b"], "")
    assert progress.cursor("a") is None
    progress.moved("a", Cursor(1, 10))
    progress.save()
    progress.moved("a", Cursor(1, 20, 3))
    after_a_kill = Progress(folder, ["a", "b"], "")
    assert after_a_kill.cursor("a") == Cursor(1, 20, 3)
    assert after_a_kill.cursor("b") is None
    after_a_kill.save()
    assert state_of(folder.parent).cursors == {"a": (1, 20)}
    assert state_of(folder.parent).within == {"a": 3}


def test_a_note_that_is_torn_does_not_count(folder):
    progress = Progress(folder, ["a"], "")
    progress.moved("a", Cursor(1, 10))
    progress.save()
    progress.moved("a", Cursor(1, 20))
    (file,) = (folder / "outlets").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert Progress(folder, ["a"], "").cursor("a") == Cursor(1, 10)


def test_an_outlet_that_is_taken_away_and_given_again_is_new(folder):
    progress = Progress(folder, ["a", "b"], "")
    progress.moved("a", Cursor(1, 10))
    progress.moved("b", Cursor(1, 10))
    progress.missed("b", 5)
    progress.failed("b", "broken")
    progress.save()
    Progress(folder, ["a"], "").save()
    again = Progress(folder, ["a", "b"], "")
    assert again.cursor("a") == Cursor(1, 10)
    assert again.cursor("b") is None
    again.save()
    assert (state_of(folder.parent).skipped, state_of(folder.parent).errors) == ({}, {})


def test_another_archive_begins_anew(folder):
    one = archive_place(Bucket(endpoint="https://key:secret@s3.test/", bucket="b", prefix="/p/"))
    assert one == "s3.test/b/p"
    progress = Progress(folder, [], one)
    progress.owned("me")
    progress.kept(5, segments=3, lost=1)
    progress.save()
    same = Progress(folder, [], one)
    assert (same.archived, same.owner) == (5, "me")
    other = Progress(folder, [], archive_place(Bucket(bucket="b")))
    assert (other.archived, other.owner) == (0, "")
    other.save()
    assert state_of(folder.parent).segments == 3, "counted all the same"
    assert state_of(folder.parent).lost == 0


def test_it_is_written_when_something_is_new_and_only_then(folder):
    progress = Progress(folder, ["a"], "")
    progress.save()
    before = os.stat(folder / "outlets.json").st_ino
    progress.fine("a")
    progress.save()
    assert os.stat(folder / "outlets.json").st_ino == before
    progress.failed("a", "broken" * 1000)
    progress.save()
    assert os.stat(folder / "outlets.json").st_ino != before
    assert len(state_of(folder.parent).errors["a"]) <= 300
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["outlets.json"]


def test_a_damaged_record_is_set_aside(folder):
    (folder / "outlets.json").write_text("{")
    progress = Progress(folder, ["a"], "")
    assert progress.damaged
    assert (folder / "outlets.damaged").read_text() == "{"
    progress.save()
    assert not Progress(folder, ["a"], "").damaged

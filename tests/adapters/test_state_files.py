"""Records on disk: what is saved is read again, whatever happened to the file in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ndactors.adapters.state_files import StateFiles, StateLock, replace_file, saved
from ndactors.errors import StateError, StateLocked


class Thing(msgspec.Struct):
    number: int
    words: dict[str, str] = msgspec.field(default_factory=dict)


@pytest.fixture
def reports():
    return []


@pytest.fixture
def files(tmp_path, reports):
    return StateFiles(tmp_path / "state", lambda kind, words: reports.append((kind, words)))


def test_what_is_saved_is_loaded(files):
    assert files.load("apps/shop", Thing) is None
    files.save("apps/shop", Thing(1, {"ü": "✓"}))
    assert files.load("apps/shop", Thing) == Thing(1, {"ü": "✓"})
    assert files.names("apps") == ["apps/shop"]
    files.delete("apps/shop")
    assert files.load("apps/shop", Thing) is None
    assert files.names("apps") == []


def test_only_the_owner_can_read_it(files, tmp_path):
    files.save("secret", Thing(1))
    path = tmp_path / "state" / "secret.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_truncation_and_every_flipped_byte_is_noticed_and_the_last_good_one_is_used(files, tmp_path, reports):
    files.save("x", Thing(1))
    files.save("x", Thing(2))
    path = tmp_path / "state" / "x.json"
    good, before = path.read_bytes(), path.with_name("x.last.json").read_bytes()
    damaged = [good[:n] for n in range(len(good))]
    damaged += [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(len(good))]
    for content in damaged:
        path.write_bytes(content)
        path.with_name("x.last.json").write_bytes(before)
        reports.clear()
        loaded = files.load("x", Thing)
        if reports:
            assert loaded == Thing(1)
            (kind, words) = reports[0]
            assert kind == "state.corrupt"
            assert "damaged" in words
        else:
            assert loaded == Thing(2)  # a flip within a key's insignificant part: never a wrong value
    assert list(path.parent.glob("x.json.damaged-*"))


def test_both_copies_damaged_is_reported_twice_and_nothing_is_deleted(files, tmp_path, reports):
    files.save("x", Thing(1))
    files.save("x", Thing(2))
    folder = tmp_path / "state"
    (folder / "x.json").write_bytes(b"\x00\xff")
    (folder / "x.last.json").write_bytes(b"[" * 100_000)
    assert files.load("x", Thing) is None
    assert len(reports) == 2
    assert len(list(folder.glob("*damaged*"))) == 2


def test_a_record_of_another_shape_is_damage_too(files, reports):
    files.save("x", {"number": "seven"})
    assert files.load("x", Thing) is None
    assert "number" in reports[0][1]


def test_a_write_that_fails_leaves_the_old_one(files, tmp_path, monkeypatch):
    files.save("x", Thing(1))

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateError, match="Input/output error"):
        files.save("x", Thing(2))
    monkeypatch.undo()
    assert files.load("x", Thing) == Thing(1)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["x.json"]


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    """A child saves in a loop and is killed; whatever is there then must be whole."""
    script = (
        "import sys; from pathlib import Path; from ndactors.adapters.state_files import StateFiles\n"
        "files = StateFiles(Path(sys.argv[1]), print)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; files.save('x', {'number': n, 'words': {str(i): 'y' * 50 for i in range(200)}})\n"
        "    print(n, flush=True)\n"
    )
    reports: list = []
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(20):
            child.stdout.readline()
        child.kill()
        child.wait()
        child.stdout.close()
        loaded = StateFiles(tmp_path, lambda *report: reports.append(report)).load("x", Thing)
        assert loaded.number >= 20
        assert len(loaded.words) == 200
    assert reports == []


def test_saved_makes_it_once(files):
    assert saved(files, "id", Thing, lambda: Thing(7)) == Thing(7)
    assert saved(files, "id", Thing, lambda: Thing(8)) == Thing(7)


def test_one_daemon_on_one_folder(tmp_path):
    lock = StateLock(tmp_path)
    lock.acquire()
    with pytest.raises(StateLocked, match=rf"another daemon \(pid {os.getpid()}\) runs on"):
        StateLock(tmp_path).acquire()
    lock.release()
    StateLock(tmp_path).acquire()


def test_the_lock_of_a_killed_daemon_is_free(tmp_path):
    script = (
        "import sys; from pathlib import Path; from ndactors.adapters.state_files import StateLock\n"
        "StateLock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(StateLocked):
        StateLock(tmp_path).acquire()
    child.kill()
    child.wait()
    StateLock(tmp_path).acquire()


def test_replace_file_keeps_what_was_there(tmp_path):
    path, keep = tmp_path / "a", tmp_path / "b"
    replace_file(path, b"1", keep)
    assert not keep.exists()
    replace_file(path, b"2", keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"2", b"1")


def test_what_cannot_be_removed_is_told_as_everything_else(files, monkeypatch):
    files.save("a/b", 1)

    def refuse(self, missing_ok=False):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StateError, match="cannot be removed: Read-only"):
        files.delete("a/b")

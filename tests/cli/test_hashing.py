"""Digests and their memory: quick the second time, and never wrong."""

from __future__ import annotations

import hashlib
import os
import stat
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ndactors.cli import hashing
from ndactors.cli.collecting import Place, collect
from ndactors.cli.failures import Failure
from ndactors.cli.hashing import digests, memory_path

LATER = 10**10


def later():
    return time.time_ns() + LATER


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def variables(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def hashed(monkeypatch):
    """The paths that were really read."""
    seen = []
    real = hashing._hashed
    monkeypatch.setattr(hashing, "_hashed", lambda folder, found: seen.append(found.path) or real(folder, found))
    return seen


def next_tick(path):
    """A change from now on has another time than the last change of ``path``."""
    probe = path.parent.parent / "probe"
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_mtime_ns != path.stat().st_ctime_ns:
            return


def found(folder):
    return collect(folder, (Place("tree", "", "x", "a"),))


def test_digests_are_right(folder, variables):
    contents = {"a": b"", "b": os.urandom(3_000_000), "c/d": b"x"}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    expected = {name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in contents.items()}
    for _ in range(2):
        assert digests(folder, found(folder), variables, now_ns=later) == expected


def test_the_second_time_nothing_is_read(folder, variables, hashed):
    (folder / "a").write_text("a")
    digests(folder, found(folder), variables, now_ns=later)
    digests(folder, found(folder), variables, now_ns=later)
    assert hashed == ["a"]


def test_what_changed_just_now_is_not_remembered(folder, variables, hashed):
    (folder / "a").write_text("a")
    digests(folder, found(folder), variables)
    digests(folder, found(folder), variables)
    assert hashed == ["a", "a"]


@pytest.mark.parametrize("change", ["content", "size", "times put back", "replaced", "replaced, times put back"])
def test_a_change_is_noticed_whatever_it_does_to_the_times(folder, variables, change):
    path = folder / "a"
    path.write_text("old")
    before = path.stat()
    digests(folder, found(folder), variables, now_ns=later)
    text = "newer" if change == "size" else "new"
    next_tick(path)
    if change.startswith("replaced"):
        (folder / "b").write_text(text)
        os.replace(folder / "b", path)
    else:
        path.write_text(text)
    if change.endswith("put back"):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    new = digests(folder, found(folder), variables, now_ns=later)
    assert new["a"] == (hashlib.sha256(text.encode()).hexdigest(), len(text))


def test_files_that_went_are_forgotten(folder, variables, hashed):
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    digests(folder, found(folder), variables, now_ns=later)
    size = memory_path(folder, variables).stat().st_size
    (folder / "b").unlink()
    digests(folder, found(folder), variables, now_ns=later)
    assert memory_path(folder, variables).stat().st_size < size


@pytest.mark.parametrize("damage", [b"", b"\x00" * 50, b"{}", os.urandom(500)])
def test_a_damaged_memory_is_as_none(folder, variables, damage):
    (folder / "a").write_text("a")
    expected = digests(folder, found(folder), variables, now_ns=later)
    memory_path(folder, variables).write_bytes(damage)
    assert digests(folder, found(folder), variables, now_ns=later) == expected


def test_a_memory_that_cannot_be_kept_stops_nobody(folder, tmp_path):
    (folder / "a").write_text("a")
    (tmp_path / "file").write_text("no folder")
    assert "a" in digests(folder, found(folder), {"XDG_CACHE_HOME": str(tmp_path / "file")}, now_ns=later)


def test_the_memory_is_private(folder, variables):
    (folder / "a").write_text("a")
    digests(folder, found(folder), variables, now_ns=later)
    assert stat.S_IMODE(memory_path(folder, variables).stat().st_mode) == 0o600


def test_a_file_that_became_a_link_is_not_followed(folder, variables, tmp_path):
    (folder / "a").write_text("a")
    listed = found(folder)
    (folder / "a").unlink()
    (tmp_path / "secret").write_text("s")
    (folder / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(Failure, match="a: "):
        digests(folder, listed, variables)


def test_all_files_that_cannot_be_read_are_named(folder, variables):
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    listed = found(folder)
    (folder / "a").unlink()
    (folder / "b").unlink()
    with pytest.raises(Failure, match=r"(?s)a: No such file.*b: No such file"):
        digests(folder, listed, variables)


class Folders(RuleBasedStateMachine):
    """Whatever is done to a folder in whatever order, digests are those of what is in it."""

    @initialize(place=st.just(None))
    def make(self, place):
        import tempfile
        from pathlib import Path

        self.patch = pytest.MonkeyPatch()
        # settled after a few ticks of the clock, so that both cases come up
        self.patch.setattr(hashing, "SETTLED_NS", 20 * 10**6)
        self.base = tempfile.TemporaryDirectory()
        self.folder = Path(self.base.name) / "tree"
        self.folder.mkdir()
        self.variables = {"XDG_CACHE_HOME": f"{self.base.name}/cache"}

    names = st.sampled_from(["a", "b", "c"])

    @rule(name=names, content=st.binary(max_size=4))
    def write(self, name, content):
        (self.folder / name).write_bytes(content)

    @rule(name=names, other=names)
    def rename(self, name, other):
        if (self.folder / name).exists():
            os.replace(self.folder / name, self.folder / other)

    @rule(name=names, other=names)
    def same_times(self, name, other):
        if (self.folder / name).exists() and (self.folder / other).exists():
            times = (self.folder / other).stat()
            os.utime(self.folder / name, ns=(times.st_atime_ns, times.st_mtime_ns))

    @rule()
    def let_time_pass(self):
        newest = max((path.stat().st_ctime_ns for path in self.folder.iterdir()), default=0)
        while time.time_ns() <= newest + 2 * hashing.SETTLED_NS:
            time.sleep(0.001)

    @rule()
    def forget(self):
        memory_path(self.folder, self.variables).unlink(missing_ok=True)

    @invariant()
    def right(self):
        if not hasattr(self, "folder"):
            return
        got = digests(self.folder, found(self.folder), self.variables)
        assert got == {
            path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
            for path in self.folder.iterdir()
        }

    def teardown(self):
        if hasattr(self, "base"):
            self.base.cleanup()
            self.patch.undo()


TestFolders = Folders.TestCase
TestFolders.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)

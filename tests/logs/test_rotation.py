"""Which files there are under a path whose writer rotates them, also while they are looked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.logs import rotation


class Writer:
    """Rotates as Docker does, a step at a time. Each file's content is its number."""

    def __init__(self, path: Path, kept: int) -> None:
        self.path, self.kept = path, kept
        self.written = 0
        self._steps: Iterator[None] | None = None
        self.create()

    def create(self) -> None:
        self.written += 1
        self.path.write_text(str(self.written))

    def step(self) -> None:
        if self._steps is None:
            self._steps = self._rotation()
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None

    def rotate(self) -> None:
        self.step()
        while self._steps is not None:
            self.step()

    def _rotation(self) -> Iterator[None]:
        for number in range(self.kept - 1, 0, -1):
            older = rotation.name(str(self.path), number - 1)
            if os.path.exists(older):
                os.replace(older, rotation.name(str(self.path), number))
                yield
        self.create()

    def there(self) -> list[int]:
        """The oldest first."""
        files = (Path(rotation.name(str(self.path), number)) for number in range(self.kept))
        return sorted(int(file.read_text()) for file in files if file.exists())


def newer(path: Path, *known: int) -> tuple[list[int], list[bool]]:
    """Their numbers, and which of them follow."""
    found = rotation.newer(str(path), {rotation.key(file) for file in known})
    try:
        return [int(os.pread(file, 20, 0)) for file, _ in found], [follows for _, follows in found]
    finally:
        for file, _ in found:
            os.close(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def test_all_of_them_the_oldest_first(path):
    writer = Writer(path, 4)
    for _ in range(6):
        writer.rotate()
    assert newer(path) == ([4, 5, 6, 7], [False, True, True, True])


def test_no_more_than_those_that_are_newer(path):
    writer = Writer(path, 4)
    old = os.open(path, os.O_RDONLY)
    for _ in range(2):
        writer.rotate()
    assert newer(path, old) == ([2, 3], [True, True])
    for _ in range(4):
        writer.rotate()
    assert newer(path, old) == ([4, 5, 6, 7], [False, True, True, True])
    os.close(old)


def test_none(path):
    assert newer(path) == ([], [])


@pytest.mark.parametrize("steps", range(1, 5))
def test_in_the_midst_of_a_rotation(path, steps):
    writer = Writer(path, 4)
    for _ in range(5):
        writer.rotate()
    for _ in range(steps):
        writer.step()
    assert newer(path)[0] == writer.there()


def test_what_cannot_be_opened_is_an_error_and_leaves_nothing_open(path, monkeypatch):
    writer, real = Writer(path, 4), os.open
    for _ in range(3):
        writer.rotate()
    before = os.listdir("/proc/self/fd")

    def full(file, *rest):
        if str(file).endswith(".2"):
            raise OSError(24, "Too many open files")
        return real(file, *rest)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many"):
        rotation.newer(str(path), ())
    assert os.listdir("/proc/self/fd") == before


def test_a_link_is_not_followed(path, tmp_path):
    (tmp_path / "other").write_text("1")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        rotation.newer(str(path), ())


@settings(max_examples=400, deadline=None)
@given(
    kept=st.integers(2, 5),
    before=st.integers(0, 6),
    known=st.integers(0, 6),
    steps=st.lists(st.integers(0, 14), max_size=12),
)
def test_rotations_at_any_moment_put_nothing_out_of_order(tmp_path_factory, kept, before, known, steps):
    """Before each look at a name the writer goes on by some steps; then it rests."""
    path = tmp_path_factory.mktemp("logs") / "c-json.log"
    writer = Writer(path, kept)
    for _ in range(before):
        writer.rotate()
    newest = os.open(path, os.O_RDONLY)
    was = writer.written
    for _ in range(known):
        writer.rotate()
    real, left = {"open": os.open, "stat": os.stat}, list(steps)

    def meanwhile(call):
        def moved(file, *rest, **options):
            if str(file).startswith(str(path)) and left:
                count = left.pop(0)
                with pytest.MonkeyPatch.context() as quiet:
                    quiet.setattr(os, "open", real["open"])
                    quiet.setattr(os, "stat", real["stat"])
                    for _ in range(count):
                        writer.step()
            return real[call](file, *rest, **options)

        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", meanwhile("open"))
        patch.setattr(os, "stat", meanwhile("stat"))
        found, follows = newer(path, newest)
    os.close(newest)
    assert found == sorted(set(found))
    assert all(number > was for number in found)
    if not left:
        assert set(found) >= {number for number in writer.there() if number > was}
    for number, before, seen in zip(found, [was, *found], follows, strict=False):
        assert not seen or number == before + 1

"""Bundles on disk: complete or not there, and never a byte outside their folder, whatever their manifest says."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ndactors.adapters import trees
from ndactors.adapters.blob_store import BlobFiles
from ndactors.adapters.bundles import Bundles
from ndactors.core.manifests import Manifest
from ndactors.core.model import App, Build, Process, Volume
from ndactors.errors import Invalid, MissingBlobs, NextDeployError, StateError, TooLarge
from ndactors.messages.projects import Bundle, BundleFile


def at_once(call):
    return call()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Ground:
    """A state folder with things around it that must stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.state.mkdir(parents=True)
        self.blobs = BlobFiles(self.state / "blobs", at_once)
        self.bundles = Bundles(self.state / "projects", self.blobs, at_once)
        (folder / "outside").mkdir()
        (folder / "outside" / "precious").write_text("precious")
        (self.state / "secrets").write_text("secret")
        (self.state / "projects" / "other" / "bundles" / "x").mkdir(parents=True)
        (self.state / "projects" / "other" / "bundles" / "x" / "f").write_text("other's")

    def file(self, path: str, content: bytes = b"x", **more) -> BundleFile:
        self.blobs.add([(sha(content), content)])
        return BundleFile(path=path, sha256=sha(content), size=len(content), **more)

    def bundle(self, *files: BundleFile, **more) -> Bundle:
        return Bundle(text="", files=tuple(files), **more)

    def lay_out(self, *files: BundleFile) -> Path:
        return self.bundles.lay_out("shop", self.bundle(*files))

    def around(self) -> dict[str, object]:
        """Everything but the project's own folder and the blobs."""
        own = self.state / "projects" / "shop"
        return {
            str(path): (
                path.lstat().st_mode,
                os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes(),
            )
            for path in sorted(self.folder.rglob("*"))
            if own not in (path, *path.parents) and self.state / "blobs" not in (path, *path.parents)
        }


@pytest.fixture
def ground(tmp_path):
    return Ground(tmp_path / "g")


def listing(folder: Path) -> dict[str, object]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_symlink() or p.is_file()
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_bundle_is_its_files(ground):
    old = os.umask(0o077)
    try:
        folder = ground.lay_out(
            ground.file("nextdeploy.yml", b"apps: {}"),
            ground.file("run.sh", b"#!/bin/sh", executable=True),
            ground.file("a/b/c/empty", b""),
            ground.file("a/b/twin", b"#!/bin/sh"),
            ground.file("a/z", os.urandom(3_000_000)),
            BundleFile(path="a/link", link="../run.sh"),
            BundleFile(path="dangling", link="no/where"),
        )
    finally:
        os.umask(old)
    assert folder.parent == ground.state / "projects" / "shop" / "bundles"
    found = listing(folder)
    assert len(found) == 7
    assert (found["a/link"], found["a/b/c/empty"], found["a/b/twin"]) == ("../run.sh", b"", b"#!/bin/sh")
    assert (mode(folder / "run.sh"), mode(folder / "a/b/twin"), mode(folder / "a/b")) == (0o755, 0o644, 0o755)
    # containers that run as anybody get to see it; nobody else comes so far
    assert (mode(folder), mode(folder.parent), mode(folder.parent.parent)) == (0o755, 0o700, 0o700)
    assert list((folder.parent.parent / "partial").iterdir()) == []


def test_files_are_copies(ground):
    folder = ground.lay_out(ground.file("a", b"original"))
    (folder / "a").write_bytes(b"changed!")
    assert ground.blobs.path(sha(b"original")).read_bytes() == b"original"
    assert (
        ground.bundles.lay_out("more", ground.bundle(ground.file("a", b"original"))).joinpath("a").read_bytes()
        == b"original"
    )


def test_the_same_files_are_laid_out_once(ground):
    first = ground.lay_out(ground.file("a"), ground.file("b"))
    inode = first.stat().st_ino
    assert ground.lay_out(ground.file("b"), ground.file("a")).stat().st_ino == inode
    assert ground.lay_out(ground.file("a")) != first
    assert ground.lay_out() != first


def test_missing_blobs_are_told_all_at_once(ground):
    files = [BundleFile(path=f"f{n}", sha256=sha(b"%d" % n), size=1) for n in range(5)]
    image = BundleFile(path="image.tar", sha256=sha(b"image"), size=5)
    with pytest.raises(MissingBlobs) as caught:
        ground.bundles.lay_out("shop", ground.bundle(*files, ground.file("there"), images={"shop": image}))
    assert set(caught.value.digests) == {file.sha256 for file in (*files, image)}
    assert not (ground.state / "projects" / "shop").exists()


def test_a_size_that_is_a_lie(ground):
    for size in (0, 2, 10):
        with pytest.raises(Invalid, match="size"):
            ground.lay_out(ground.file("good"), replace(ground.file("a", b"abc"), size=size))
    assert list((ground.state / "projects/shop/partial").iterdir()) == []
    assert list((ground.state / "projects/shop/bundles").iterdir()) == []


@pytest.mark.parametrize("project", ["", "..", "../other", "a/b", "A", "/etc", "x" * 41, "a\0"])
def test_what_is_no_project(ground, project):
    before = ground.around()
    for call in (
        lambda: ground.bundles.lay_out(project, ground.bundle(ground.file("a"))),
        lambda: ground.bundles.clean(project, []),
    ):
        with pytest.raises(Invalid):
            call()
    assert ground.around() == before


HOSTILE = [
    [("../x", None)],
    [("/etc/x", None)],
    [("a/../../x", None)],
    [("l", "/etc")],
    [("l", "../../../../outside")],
    [("l", ".."), ("l/x", None)],
    [("l", "d"), ("l/x", None)],
    [("a", "b"), ("b", "c"), ("c", "../..")],
    [("d/up", ".."), ("e", "d/up/../..")],
    [("d/up", ".."), ("e", "d/up/../../outside/precious")],
    [("a", "a")],
    [("a", None), ("a/b", None)],
    [("a", None), ("a", "b")],
]


@pytest.mark.parametrize("rows", HOSTILE)
def test_hostile_manifests(ground, rows):
    before = ground.around()
    files = [BundleFile(path=p, link=to) if to is not None else ground.file(p, b"evil") for p, to in rows]
    for order in (files, files[::-1]):
        with pytest.raises(Invalid):
            ground.lay_out(*order)
    assert ground.around() == before
    assert not list((ground.state / "projects").glob("shop/bundles/*"))


def test_bombs(ground):
    one = ground.file("a", b"x" * 1000)
    began = time.monotonic()
    for files in (
        [replace(one, path=f"f{n}", size=10**9) for n in range(20_000)],
        [replace(one, path=f"f{n}") for n in range(100_001)],
        [replace(one, path=f"{n}/" + "d/" * 60 + "f") for n in range(3000)],
    ):
        with pytest.raises(TooLarge):
            ground.lay_out(*files)
    assert time.monotonic() - began < 20
    assert not (ground.state / "projects" / "shop").exists()


def test_a_disk_without_room(ground, monkeypatch):
    disk = os.statvfs("/")
    small = os.statvfs_result((*disk[:1], 1, *disk[2:4], 100, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    file = replace(BundleFile(path="a"), sha256=sha(b"x" * 51), size=51)
    ground.blobs.path = lambda digest: Path("/")
    ground.blobs.missing = lambda digests: []
    with pytest.raises(TooLarge):
        ground.lay_out(file)


@pytest.mark.parametrize("name", ["write_tree", "sync"])
def test_what_fails_half_way_leaves_nothing(ground, monkeypatch, name):
    real = getattr(trees, name)

    def full(*args, **kwargs):
        real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    file = ground.file("a")
    with monkeypatch.context() as patched:
        patched.setattr(trees, name, full)
        with pytest.raises(StateError, match="full"):
            ground.lay_out(file)
    assert list((ground.state / "projects/shop").rglob("a")) == []
    assert list((ground.state / "projects/shop/partial").iterdir()) == []
    ground.lay_out(file)


def test_a_folder_that_a_stranger_turned_into_a_link_is_not_entered(ground, tmp_path):
    """Also who can write into the half-made tree cannot lead it elsewhere."""
    victim = tmp_path / "victim"
    victim.mkdir()

    class Files(list):
        def __iter__(self):
            yield BundleFile(path="a/first", sha256=sha(b"x"), size=1)
            made = next((ground.state / "projects/shop/partial").iterdir())
            (made / "b").symlink_to(victim)
            (made / "a" / "c").symlink_to(victim / "new")
            yield BundleFile(path="a/c", sha256=sha(b"x"), size=1)

    ground.file("x")
    with ground.bundles._beside("shop") as made, pytest.raises(Invalid):
        trees.write_tree(made, Files(), ground.bundles._fill)
    with ground.bundles._beside("shop") as made:
        (made / "b").symlink_to(victim)
        with pytest.raises(Invalid):
            trees.write_tree(made, [BundleFile(path="b/x", sha256=sha(b"x"), size=1)], ground.bundles._fill)
    assert list(victim.iterdir()) == []


def test_races(ground):
    files = [ground.file(f"d{n % 7}/f{n}", b"%d" % (n % 50)) for n in range(300)]
    folders = []

    def make():
        folders.append(Bundles(ground.state / "projects", ground.blobs, at_once).lay_out("shop", ground.bundle(*files)))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 6 and len(set(folders)) == 1
    assert len(listing(folders[0])) == 300
    assert list((ground.state / "projects/shop/partial").iterdir()) == []


def test_names_of_other_alphabets(ground):
    names = ["\u00e9", "e\u0301", "\u202egnp.exe", "\u0130", "K\u212a", "\ufeff", "\U0001f600" * 60, " ", "..."]
    folder = ground.lay_out(*(ground.file(f"{name}/{name}", name.encode()) for name in names))
    assert {name: (folder / name / name).read_bytes() for name in names} == {n: n.encode() for n in names}


# -- what containers see ---------------------------------------------------------------------------


def manifest(*files: BundleFile) -> Manifest:
    return Manifest(files)


def test_what_containers_write_is_begun_once(ground):
    seed = manifest(ground.file("a", b"1"), ground.file("d/run", b"2", executable=True))
    assert ground.bundles.lay_out_kept("shop", "data", seed, alone=False)
    place = ground.bundles.kept_path("shop", "data")
    assert listing(place) == {"a": b"1", "d/run": b"2"}
    assert (mode(place), mode(place / "d"), mode(place / "a"), mode(place / "d/run")) == (0o777, 0o777, 0o666, 0o777)
    (place / "a").write_text("theirs")
    (place / "new").write_text("theirs")
    assert ground.bundles.lay_out_kept("shop", "data", seed, alone=False)
    assert not ground.bundles.lay_out_kept("shop", "data", manifest(ground.file("a", b"3")), alone=False)
    assert (place / "a").read_text() == (place / "new").read_text() == "theirs"


def test_an_empty_folder_and_a_single_file(ground):
    assert ground.bundles.lay_out_kept("shop", "new/data", None, alone=False)
    empty = ground.bundles.kept_path("shop", "new/data")
    assert empty.is_dir() and mode(empty) == 0o777 and list(empty.iterdir()) == []
    assert ground.bundles.lay_out_kept("shop", "db.json", manifest(ground.file("db.json", b"{}")), alone=True)
    file = ground.bundles.kept_path("shop", "db.json")
    assert file.read_bytes() == b"{}" and mode(file) == 0o666


def test_no_container_can_lead_another_ones_folder_elsewhere(ground):
    """`a` is mounted writable: a link that is planted in it must not be on the way to `a/b`."""
    paths = ["a", "a/b", "a/b/c", "..x", "b", "", "/".join("x" * 200 for _ in range(5)), "%", "é" * 100]
    places = [ground.bundles.kept_path("shop", path) for path in paths]
    assert len(set(places)) == len(places)
    assert {place.parent for place in places} == {ground.state / "projects/shop/kept"}
    for place in places:
        assert place.name.isascii() and place.name not in (".", "..") and len(place.name) < 100


def test_begun_at_once_by_two_deploys(ground):
    seeds = [manifest(*(ground.file(f"{n}/{m}", b"%d" % m) for m in range(50))) for n in range(6)]
    threads = [
        threading.Thread(target=ground.bundles.lay_out_kept, args=("shop", "data", seed), kwargs={"alone": False})
        for seed in seeds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listing(ground.bundles.kept_path("shop", "data"))) == 50


# -- cleaning --------------------------------------------------------------------------------------


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 2 * 86_400,) * 2, follow_symlinks=False)


def test_only_what_is_named_stays(ground):
    bundles = [ground.lay_out(ground.file("a", b"%d" % n)) for n in range(4)]
    made = [ground.bundles.lay_out_tree("shop", manifest(ground.file("t", b"%d" % n))) for n in range(4)]
    ground.bundles.note_trees(bundles[0], made[:1])
    ground.bundles.note_trees(bundles[1], made[1:2])
    ground.bundles.lay_out_kept("shop", "data", None, alone=False)
    half = ground.state / "projects/shop/partial/half"
    half.mkdir()
    app = App(
        name="shop",
        build=Build(context=f"{bundles[2]}/web"),
        processes={"web": Process(name="web", volumes=(Volume(source=f"{made[2]}/t", target="/t", read_only=True),))},
    )
    ground.bundles.clean("shop", [str(bundles[0])], [app])
    assert all(path.exists() for path in (*bundles, *made, half)), "what is young may be of a deploy under way"
    age(*bundles, *made, half, *(path.with_name(path.name + ".trees") for path in bundles[:2]))
    ground.bundles.clean("shop", [str(bundles[0])], [app])
    assert [path.exists() for path in bundles] == [True, False, True, False]
    assert [path.exists() for path in made] == [True, False, True, False]
    assert not half.exists()
    assert ground.bundles.kept_path("shop", "data").exists()
    assert sorted(p.name for p in bundles[0].parent.glob("*.trees")) == [f"{bundles[0].name}.trees"]
    ground.bundles.clean("shop", [str(bundles[1])])
    assert not (bundles[2].exists() or made[2].exists())


def test_cleaning_follows_no_links(ground):
    folder = ground.lay_out(ground.file("a"), BundleFile(path="l", link="a"))
    (folder / "out").symlink_to(ground.folder / "outside")
    link = folder.parent / ("0" * 64)
    link.symlink_to(ground.folder / "outside")
    age(folder, link)
    ground.bundles.clean("shop", [])
    assert not folder.exists() and not link.is_symlink()
    assert (ground.folder / "outside" / "precious").read_text() == "precious"
    ground.bundles.clean("never", [])


# -- whatever comes --------------------------------------------------------------------------------

good = st.sampled_from(["a", "b", "c", "d", "shop", "x" * 255, "é", "e\u0301"])
odd = st.sampled_from(["..", ".", "", "outside", "a\n"])
path = st.lists(st.one_of(*[good] * 60, odd), min_size=1, max_size=4).map("/".join)
up = st.integers(0, 3).flatmap(lambda n: path.map(lambda p: "../" * n + p))
content = st.sampled_from([b"", b"1", b"22"])


@st.composite
def rows(draw):
    target = st.one_of(*[st.none()] * 4, path, path, path, up, st.just("/etc") | st.text(max_size=8))
    lie = st.sampled_from([*[None] * 60, 0, 5, -1])
    return draw(st.lists(st.tuples(path, target, content, lie), max_size=8, unique_by=lambda row: row[0]))


@settings(deadline=None, max_examples=300)
@given(rows())
def test_nothing_outside_is_ever_touched(rows):
    folder = Path(tempfile.mkdtemp())
    try:
        ground = Ground(folder / "g")
        before = ground.around()
        files = []
        for name, to, data, lie in rows:
            if to is not None:
                files.append(BundleFile(path=name, link=to))
            else:
                file = ground.file("x", data)
                files.append(replace(file, path=name, size=file.size if lie is None else lie))
        try:
            made = ground.lay_out(*files)
        except NextDeployError:
            made = None
        assert ground.around() == before
        assert not list(ground.state.glob("projects/shop/partial/*"))
        if made is not None:
            root = os.path.realpath(made)
            for found in made.rglob("*"):
                real = os.path.realpath(found)
                assert real == root or real.startswith(root + "/"), (found, real)
    finally:
        shutil.rmtree(folder)

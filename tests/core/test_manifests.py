"""What may be in a tree that a stranger sends, before anything is written."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.manifests import MAX_DEPTH, Manifest
from ndactors.errors import Invalid, TooLarge
from ndactors.messages.projects import BundleFile


def file(path: str, content: bytes = b"x", **more) -> BundleFile:
    return BundleFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **more)


def link(path: str, to: str) -> BundleFile:
    return BundleFile(path=path, link=to)


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/passwd", "../x", "a/../../x", "a/..", "..", ".", "./a", "a//b", "a/", "/", "", "//a", "a/./b"),
        *("a\0b", "a\nb", "\x1b[31m", "a\x7f", "\ud800", "a/" * MAX_DEPTH + "b", "é" * 600, "x" * 256),
    ],
)
def test_paths_that_are_refused(path):
    with pytest.raises(Invalid):
        Manifest([file(path)])
    with pytest.raises(Invalid):
        Manifest([link(path, "x")])


@pytest.mark.parametrize(
    "path", ["a", "..a", "a..", "...", "a/..b/c", ".env", "-rf", "CON", "a b", "é", "a\\..\\b", "~", "$HOME", "*"]
)
def test_odd_names_are_names(path):
    assert [entry.path for entry in Manifest([file(path)])] == [path]


@pytest.mark.parametrize(
    "links",
    [
        {"a": "/etc"},
        {"a": ".."},
        {"a": "../x"},
        {"a/b": "../../x"},
        {"a/b": "c/../../../x"},
        {"a": "b", "b": "../x"},
        {"d/a": "b", "d/b": "e/c", "d/e/c": "../../../x"},
        # `up` is d's parent, so `up/..` is above the root
        {"d/up": "..", "a": "d/up/.."},
        {"a": "a"},
        {"a": "b", "b": "a"},
        {"a": "a/x"},
        {"a": ""},
        {"a": "x\0y"},
        {"a": "x\ny"},
        {"a": "\ud800"},
        {"a": "x/" * 600},
        {"a": "x/" * 65 + "y"},
        {f"l{n}": f"l{n + 1}" for n in range(60)},
    ],
)
def test_links_that_lead_astray_are_refused(links):
    with pytest.raises(Invalid):
        Manifest([link(path, to) for path, to in links.items()])


def test_links_inside_are_followed():
    tree = Manifest(
        [
            file("common/conf/app.ini"),
            link("web/conf", "../common/conf"),
            link("latest", "web"),
            link("gone", "not/there"),
            link("here", "."),
        ]
    )
    assert tree.find("latest/conf/app.ini") == "common/conf/app.ini"
    assert tree.find("here/latest/./conf/../conf") == "common/conf"
    assert tree.find("") == tree.find("web/..") == ""
    assert tree.find("gone") is tree.find("../x") is tree.find("nothing") is None


@pytest.mark.parametrize(
    "files",
    [
        [file("a"), file("a")],
        [file("a"), link("a", "b")],
        [file("a"), file("a/b")],
        [link("a", "b"), file("a/x")],
        [file("a/b/c"), file("a/b")],
        [file("a/b/c"), link("a", "x")],
        [BundleFile(path="a", sha256="0" * 63, size=1)],
        [BundleFile(path="a", sha256="A" * 64, size=1)],
        [BundleFile(path="a", sha256="../" * 21 + "x", size=1)],
        [BundleFile(path="a", sha256="0" * 64, size=-1)],
        [BundleFile(path="a", sha256="0" * 64, size=1), BundleFile(path="b", sha256="0" * 64, size=2)],
        [BundleFile(path="a", sha256="0" * 64, link="b")],
        [BundleFile(path="a", link="b", executable=True)],
    ],
)
def test_trees_that_contradict_themselves(files):
    for order in (files, files[::-1]):
        with pytest.raises(Invalid):
            Manifest(order)


def test_bombs_are_refused_quickly():
    began = time.process_time()
    big = BundleFile(path="a", sha256="0" * 64, size=1024**3)
    with pytest.raises(TooLarge):  # one blob of 1 GiB, named again and again
        Manifest(BundleFile(path=f"f{n}", sha256=big.sha256, size=big.size) for n in range(1_000_000))
    with pytest.raises(TooLarge):
        Manifest([BundleFile(path="a", sha256="0" * 64, size=2**70)])
    with pytest.raises(TooLarge):
        Manifest(file(f"f{n}", b"") for n in range(1_000_000))
    with pytest.raises(TooLarge):  # few files, each in a deep branch of its own
        Manifest([file(f"{n}/" + "d/" * (MAX_DEPTH - 2) + "f", b"") for n in range(4000)])
    with pytest.raises((TooLarge, Invalid)):  # links that make each other long
        steps = "/".join(["d", ".."] * 250)
        Manifest([file("d/x"), *(link(f"l{n}", steps) for n in range(20_000))])
    assert time.process_time() - began < 20


def test_chains_of_links_cost_no_more_than_their_length():
    began = time.process_time()
    doubling = [link(f"l{n}", f"l{n + 1}/../l{n + 1}") for n in range(38)]
    with pytest.raises(Invalid):  # 2**38 links to follow, for who follows each anew
        Manifest([*doubling, file("l38/x")])
    assert time.process_time() - began < 2


def test_a_mistake_cannot_write_on_the_terminal_or_without_end():
    with pytest.raises(Invalid) as caught:
        Manifest([file(f"{n}\x1b[2J\n" + "x" * 900) for n in range(50)])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 11
    assert len(str(caught.value)) < 4000


def test_the_digest_is_of_everything_and_of_no_order():
    files = [file("a"), file("b/c", b"y"), link("l", "a")]
    digest = Manifest(files).digest
    assert Manifest(files[::-1]).digest == digest
    for other in (
        [file("a"), file("b/c", b"z"), link("l", "a")],
        [file("a"), file("b/c", b"y"), link("l", "b")],
        [file("a"), file("b/c", b"y", executable=True), link("l", "a")],
        [file("a"), file("b/d", b"y"), link("l", "a")],
        [file("a"), file("b/c", b"y")],
    ):
        assert Manifest(other).digest != digest


def test_a_folder_is_a_tree_of_its_own_unless_a_link_leads_out_of_it():
    tree = Manifest([file("a/b/c"), link("a/l", "b/c"), file("d/x"), link("d/out", "../a"), file("top")])
    below = tree.below("a")
    assert [(e.path, e.link) for e in below] == [("b/c", None), ("l", "b/c")]
    assert below.digest == Manifest([file("b/c"), link("l", "b/c")]).digest
    assert tree.below("d") is None
    assert [e.path for e in tree.below("a/b/c")] == ["c"]
    assert tree.below("") is tree


def test_unicode_spellings_are_different_names():
    assert len(Manifest([file("\u00e9"), file("e\u0301"), file("E\u0301")])) == 3


parts = st.sampled_from(["a", "b", "..", ".", "", "c" * 255, "\u00e9", "x\0", "/"])
paths = st.lists(parts, min_size=1, max_size=5).map("/".join)
entries = st.builds(link, paths, paths) | st.builds(file, paths)


@given(st.lists(entries, max_size=8))
def test_what_passes_stays_inside(files):
    try:
        tree = Manifest(files)
    except (Invalid, TooLarge):
        return
    for entry in tree:
        assert ".." not in entry.path.split("/") and not entry.path.startswith("/")
        at = tree.find(entry.path)
        assert at is None or not at.startswith(("/", ".."))

"""Recorded trees of control groups, of both versions, whole and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ndactors.adapters.cgroups import Cgroups

TREES = Path(__file__).parent / "cgroup_trees"
ID = "3f" * 32
HOST = 8 << 30


@pytest.mark.parametrize(("tree", "limit"), [("v2-systemd", 256 << 20), ("v2-cgroupfs", None), ("v2-namespaced", None)])
def test_the_figures_of_version_2(tree, limit):
    figures = Cgroups(str(TREES / tree), host_memory=HOST).read(ID, 100)
    assert figures.cpu_seconds == 12.345678
    assert figures.memory == 118489088 - 52428800
    assert figures.memory_limit == limit
    assert figures.oom_kills == 3
    assert figures.pids == 7


def test_the_figures_of_version_1():
    figures = Cgroups(str(TREES / "v1"), host_memory=HOST).read(ID, 100)
    assert figures.cpu_seconds == pytest.approx(98.765432109)
    assert figures.memory == 104857600 - 31457280
    assert figures.memory_limit == 128 << 20, "the lowest of all that it is in"
    assert figures.oom_kills == 1
    assert figures.pids == 4


def test_a_process_of_an_init_system_inside_stands_for_the_whole_container():
    assert Cgroups(str(TREES / "v2-systemd")).read(ID, 101).pids == 7


def test_the_network_is_that_of_all_its_interfaces_but_loopback():
    groups = Cgroups(str(TREES / "v2-systemd"))
    assert groups.read(ID, 100) is not None
    assert groups.network(ID, 100, has_address=False) == {"eth0": (5150724, 918322), "eth1": (1000, 500)}


def test_where_namespaces_cannot_be_seen_only_a_container_with_an_address_has_a_network():
    groups = Cgroups(str(TREES / "v2-systemd"))
    assert groups.read(ID, 101) is not None
    assert groups.network(ID, 101, has_address=False) is None
    assert groups.network(ID, 101, has_address=True) == {"eth0": (5150724, 918322), "eth1": (1000, 500)}


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(TREES / "v2-systemd", tmp_path / "tree", symlinks=True)
    return tmp_path / "tree"


def folder(tree: Path) -> Path:
    return tree / f"sys/fs/cgroup/system.slice/docker-{ID}.scope"


def test_on_the_hosts_network_nothing_is_its_own(tree):
    link = tree / "proc/100/ns/net"
    link.unlink()
    link.symlink_to((tree / "proc/self/ns/net").readlink())
    groups = Cgroups(str(tree))
    assert groups.read(ID, 100) is not None
    assert groups.network(ID, 100, has_address=True) is None


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("cpu.stat", "cpu_seconds"),
        ("memory.current", "memory"),
        ("memory.stat", "memory"),
        ("memory.events", "oom_kills"),
        ("pids.current", "pids"),
    ],
)
@pytest.mark.parametrize("damage", [b"", b"\xff\x00nonsense", b"usage_usec\ninactive_file -3\noom_kill\n", None])
def test_a_damaged_file_takes_its_own_figure_only(tree, file, field, damage):
    groups = Cgroups(str(tree), host_memory=HOST)
    assert groups.read(ID, 100) is not None
    if damage is None:
        (folder(tree) / file).unlink()
    else:
        (folder(tree) / file).write_bytes(damage)
    figures = groups.read(ID, 100)
    assert getattr(figures, field) is None
    others = {"cpu_seconds", "memory", "oom_kills", "pids"} - {field}
    assert all(getattr(figures, other) is not None for other in others)


def test_a_group_that_moved_is_found_again(tree):
    groups = Cgroups(str(tree))
    assert groups.read(ID, 100) is not None
    moved = tree / f"sys/fs/cgroup/other.slice/docker-{ID}.scope"
    moved.parent.mkdir()
    folder(tree).rename(moved)
    (tree / "proc/100/cgroup").write_text(f"0::/other.slice/docker-{ID}.scope\n")
    assert groups.read(ID, 100).pids == 7


def test_a_container_that_is_gone_has_no_figures(tree):
    groups = Cgroups(str(tree))
    assert groups.read(ID, 100) is not None
    shutil.rmtree(tree / "proc/100")
    shutil.rmtree(folder(tree))
    assert groups.read(ID, 100) is None


def test_a_number_that_another_process_got_is_not_the_container(tree):
    (tree / "proc/100/cgroup").write_text("0::/user.slice/session-1.scope\n")
    assert Cgroups(str(tree)).read(ID, 100) is None
    assert Cgroups(str(tree)).read("aa" * 32, 101) is None


def test_a_machine_without_proc_has_no_figures(tmp_path):
    assert Cgroups(str(tmp_path)).read(ID, 100) is None

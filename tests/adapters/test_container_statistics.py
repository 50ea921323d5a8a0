"""What containers use, from recorded trees, from host processes, and from an Engine that answers or not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from ndactors.adapters import container_statistics, disk_sizes, host_statistics
from ndactors.adapters.cgroups import Cgroups
from ndactors.adapters.container_statistics import TICKS, ContainerStatistics
from ndactors.adapters.disk_sizes import DiskSizes, folder_size
from ndactors.adapters.host_statistics import HostStatistics
from ndactors.adapters.process_table import ProcessTable
from ndactors.core.containers import ContainerStatus
from ndactors.core.model import App, Process, Settings, Volume
from ndactors.core.processes import ProcessStat
from ndactors.errors import ContainerNotFound, EngineUnreachable

TREES = Path(__file__).parent / "cgroup_trees"
ID = "3f" * 32


def status(id: str = ID, pid: int | None = 100, state="running", **more) -> ContainerStatus:
    labels = {"nextdeploy.app": "shop", "nextdeploy.process": "web", "nextdeploy.project": "test"}
    return ContainerStatus(id=id, name=f"nd-{id[:4]}", labels=labels, state=state, pid=pid, **more)


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Engine:
    """Answers each question with what ``answer`` says."""

    daemon = "d1"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = {"cpu_stats": {"cpu_usage": {"total_usage": 2_000_000_000}}, "memory_stats": {"usage": 50}}

    def ask(self, call):
        if isinstance(self.answer, Exception):
            self.asked.append("")
            raise self.answer
        return call(self)

    def _url(self, path, *parts):
        self.asked.append(parts[0] if parts else path)
        return path

    def _get(self, url, **more):
        return None

    def _result(self, response, json):
        return self.answer


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tree(tmp_path):
    shutil.copytree(TREES / "v2-systemd", tmp_path / "tree", symlinks=True)
    return tmp_path / "tree"


def reader(root, clock, engine=None, **more) -> ContainerStatistics:
    return ContainerStatistics(
        Cgroups(str(root)), ProcessTable(str(root / "proc")), engine=engine, monotonic=clock, **more
    )


def spend(tree, usec: int) -> None:
    (tree / f"sys/fs/cgroup/system.slice/docker-{ID}.scope/cpu.stat").write_text(f"usage_usec {usec}\n")


def test_cpu_is_what_was_used_between_two_readings(tree, clock):
    statistics, listed = reader(tree, clock), {"docker": [status()]}
    (first,) = statistics.read(listed)
    assert (first.source, first.cpu_percent, first.cpu_seconds) == ("cgroup", None, 12.345678)
    assert (first.app, first.process, first.name) == ("shop", "web", "nd-3f3f")
    assert (first.network_receive, first.oom_kills, first.disk) == (5151724, 3, None)
    spend(tree, 14_845_678)
    clock.at += 5
    assert statistics.read(listed)[0].cpu_percent == 50.0
    spend(tree, 10)
    clock.at += 5
    (fresh,) = statistics.read(listed)
    assert fresh.cpu_percent is None, "a container that began anew has not used less than nothing"


def test_a_network_that_is_disconnected_takes_no_bytes_with_it(tree, clock):
    statistics, listed = reader(tree, clock), {"docker": [status()]}
    dev = tree / "proc/100/net/dev"
    one = "".join(line for line in dev.read_text().splitlines(keepends=True) if "eth1" not in line)
    dev.write_text(one + "  eth1: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n")
    (first,) = statistics.read(listed)
    dev.write_text(one)
    (after,) = statistics.read(listed)
    assert first.network_receive == after.network_receive == 5151724
    assert first.network_transmit == after.network_transmit == 918322 + 2000


def test_the_hosts_bytes_are_those_of_its_hardware(tmp_path, monkeypatch):
    head = b"Inter-|   Receive |  Transmit\n face |bytes |bytes\n"

    def dev(**rows: int) -> bytes:
        return head + b"".join(b"%s: %d 0 0 0 0 0 0 0 %d 0 0 0 0 0 0 0\n" % (n.encode(), v, v) for n, v in rows.items())

    for name in ("eth0", "eth1", "bond0"):
        (tmp_path / name).mkdir()
    for name in ("eth0", "eth1"):
        (tmp_path / name / "device").mkdir()
        (tmp_path / name / "master").symlink_to("../bond0")
    monkeypatch.setattr(host_statistics, "INTERFACES", str(tmp_path))
    statistics, shown = HostStatistics(), []
    for rows in (
        dev(bond0=15, eth0=10, eth1=5),
        dev(bond0=17, eth0=12),
        dev(bond0=18, eth0=13),
        head + b" eth0: broken\n",
    ):
        monkeypatch.setattr(
            host_statistics, "read_rows", lambda path, *most, rows=rows: rows if path.endswith("/net/dev") else b""
        )
        shown.append(statistics.read()[0].network_receive)
    assert shown == [15, 17, 18, 18]


def test_only_what_runs_is_told(tree, clock):
    statistics = reader(tree, clock)
    assert statistics.read({"docker": [status(state="exited")]}) == ()
    assert statistics.read({"docker": [status(pid=None)]}) == ()
    assert statistics.read({}) == ()


def test_an_engine_is_asked_where_files_cannot_be_read_and_for_some_at_a_time(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(container_statistics, "ASKED_AT_ONCE", 2)
    engine = Engine()
    statistics = reader(tmp_path, clock, engine)
    listed = {"docker": [status(f"{n}" * 64) for n in range(5)]}
    for expected in (2, 4, 5, 5):
        found = statistics.read(listed)
        assert len(found) == expected
        assert all(usage.source == "engine" and usage.cpu_seconds == 2.0 for usage in found)
        clock.at += 5
    assert [asked[0] for asked in engine.asked] == ["0", "1", "2", "3", "4", "0", "1", "2"]


def test_an_engine_that_is_away_is_asked_once_and_its_last_figures_stand_for_a_while(tmp_path, clock):
    engine = Engine()
    statistics, listed = reader(tmp_path, clock, engine), {"docker": [status("1" * 64), status("2" * 64)]}
    assert len(statistics.read(listed)) == 2
    engine.answer, engine.asked = EngineUnreachable("away"), []
    clock.at += 5
    assert len(statistics.read(listed)) == 2
    assert len(engine.asked) == 1
    clock.at += 200
    assert statistics.read(listed) == ()


def test_a_container_that_ended_meanwhile_is_left_out(tmp_path, clock):
    engine = Engine()
    engine.answer = ContainerNotFound("gone")
    assert reader(tmp_path, clock, engine).read({"docker": [status()]}) == ()


def test_an_engine_that_answers_nonsense_is_left_out(tmp_path, clock):
    engine = Engine()
    engine.answer = ["what"]
    assert reader(tmp_path, clock, engine).read({"docker": [status()]}) == ()


# -- host processes ----------------------------------------------------------------------------------


class Table:
    def __init__(self, *rows: ProcessStat) -> None:
        self.rows = rows

    def look(self):
        return {row.pid: row for row in self.rows}


def test_a_group_of_processes_is_added_up_and_its_cpu_never_falls(tmp_path, clock):
    leader = ProcessStat(50, "web", "S", 1, 50, 100, 0, 1, 10)
    child = ProcessStat(51, "child", "S", 50, 50, 300, 0, 2, 20)
    table = Table(leader, child, ProcessStat(60, "other", "S", 1, 60, 999, 0, 3, 99))
    statistics = ContainerStatistics(Cgroups(str(tmp_path)), table, monotonic=clock)
    listed = {"process": [status("ab" * 16, 50)]}
    (first,) = statistics.read(listed)
    assert (first.source, first.pids, first.cpu_seconds) == ("process", 2, 400 / TICKS)
    assert first.memory == 30 * os.sysconf("SC_PAGE_SIZE")
    assert (first.network_receive, first.oom_kills) == (None, None)
    table.rows = (leader._replace(ticks=110),)
    clock.at += 10
    (second,) = statistics.read(listed)
    assert second.cpu_seconds == 400 / TICKS, "what the child had used is not lost with it"
    table.rows = (leader._replace(ticks=160),)
    clock.at += 10
    (third,) = statistics.read(listed)
    assert third.cpu_seconds == 450 / TICKS
    assert third.cpu_percent == 50 / TICKS * 10


def test_real_processes_are_added_up_with_their_children(clock):
    code = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0); c.wait()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        statistics = ContainerStatistics(Cgroups("/nowhere"), ProcessTable(), monotonic=clock)
        deadline = time.monotonic() + 10
        found = ()
        while not found or found[0].pids < 2:
            found = statistics.read({"process": [status("ab" * 16, process.pid)]})
            assert time.monotonic() < deadline
        assert found[0].memory > 1_000_000
        process.stdin.close()


def test_a_host_process_with_a_control_group_is_counted_by_it_whatever_daemon_asks(tree, clock):
    table, listed = Table(ProcessStat(100, "web", "S", 1, 100, 100, 0, 10, 1)), {"process": [status()]}

    def fresh() -> ContainerStatistics:
        return ContainerStatistics(Cgroups(str(tree)), table, monotonic=clock)

    before = fresh()
    assert before.read(listed)[0].cpu_seconds == 12.345678
    assert fresh().read(listed)[0].cpu_seconds == 12.345678
    (tree / f"sys/fs/cgroup/system.slice/docker-{ID}.scope/cpu.stat").write_text("nonsense\n")
    (after,) = before.read(listed)
    assert after.cpu_seconds is None, "the sum of its processes is another count"


# -- disk --------------------------------------------------------------------------------------------


def test_a_folder_is_counted_as_du_does(tmp_path):
    folder = tmp_path / "volume"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x" * 100_000)
    os.link(folder / "deep" / "file", folder / "again")
    (folder / "away").symlink_to("/usr")
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 30)
    told = int(subprocess.run(["du", "-s", "-B1", str(folder)], capture_output=True, check=True).stdout.split()[0])
    assert folder_size(str(folder))[0] == told
    assert 100_000 <= told < 200_000


def test_a_walk_is_bounded_and_then_tells_nothing(tmp_path):
    for number in range(20):
        (tmp_path / str(number)).touch()
    assert folder_size(str(tmp_path), most=10) == (None, 11)
    assert folder_size(str(tmp_path), most=20)[0] is not None
    for number in range(20, 300):
        (tmp_path / str(number)).touch()
    assert folder_size(str(tmp_path), deadline=0.0)[0] is None
    assert folder_size(str(tmp_path / "none")) == (0, 0)


def test_what_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refused(path):
        if path.endswith("closed"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert folder_size(str(tmp_path))[1] == 1


SETTINGS = Settings(
    project="test",
    apps={
        "shop": App(
            name="shop", processes={"web": Process(name="web", volumes=(Volume(source="data", target="/data"),))}
        )
    },
)


def test_layer_and_volumes_together_are_told_at_the_next_reading(tree, clock, tmp_path):
    data = tmp_path / "volumes" / "test" / "data"
    data.mkdir(parents=True)
    (data / "file").write_bytes(b"x" * 50_000)
    engine = Engine()
    engine.answer = [{"Id": ID, "SizeRw": 1000}]
    statistics = reader(tree, clock, disk=DiskSizes(tmp_path, engine, monotonic=clock))
    listed = {"docker": [status()]}
    assert statistics.read(listed)[0].disk is None
    statistics.measure(listed, SETTINGS)
    assert statistics.read(listed)[0].disk == 1000 + folder_size(str(data))[0]
    engine.answer = EngineUnreachable("away")
    statistics.measure(listed, SETTINGS)
    assert statistics.read(listed)[0].disk is None, "half of it would be wrong"


def test_volumes_are_walked_seldom_but_new_ones_at_once(clock, tmp_path):
    data = tmp_path / "volumes" / "test" / "data"
    data.mkdir(parents=True)
    disk, listed = DiskSizes(tmp_path, None, monotonic=clock), {"process": [status("ab" * 16, 50)]}
    disk.measure(listed, SETTINGS)
    before = disk.sizes["ab" * 16]
    (data / "file").write_bytes(b"x" * 50_000)
    clock.at += 300
    disk.measure(listed, SETTINGS)
    assert disk.sizes["ab" * 16] == before
    clock.at += 400
    disk.measure(listed, SETTINGS)
    assert disk.sizes["ab" * 16] > before


# -- the host ----------------------------------------------------------------------------------------


def test_the_host_has_figures():
    host = HostStatistics()
    with contextlib.suppress(ZeroDivisionError):
        deadline = time.process_time() + 0.05
        while time.process_time() < deadline:
            pass
    view, news = host.read()
    assert 0 < view.cpu_percent <= 100
    assert view.memory_total > view.memory_used > 0
    assert view.disks.keys() >= view.inodes.keys()
    assert all(0 <= used <= total for used, total in [*view.disks.values(), *view.inodes.values()])
    assert view.cpus == os.cpu_count()
    assert abs(view.boot_time + view.uptime - time.time()) < 2
    assert view.processes > 1
    assert news == ()


PSUTIL = host_statistics.Memory(1000, 400, 50, 20)


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ({"MemTotal": 9, "MemAvailable": 5, "SwapTotal": 4, "SwapFree": 1}, (9216, 5120, 4096, 3072)),
        ({"MemTotal": 9, "MemAvailable": 9, "SwapTotal": 0, "SwapFree": 0}, (9216, 9216, 0, 0)),
        ({"MemTotal": 9, "MemAvailable": 5, "SwapTotal": 1, "SwapFree": 2}, (9216, 5120, 1024, 0)),
        ({"MemTotal": 9, "MemAvailable": 0, "SwapTotal": 4, "SwapFree": 1}, PSUTIL),  # some old kernels
        ({"MemTotal": 9, "MemAvailable": 50, "SwapTotal": 4, "SwapFree": 1}, PSUTIL),  # some containers
        ({"MemTotal": 9, "SwapTotal": 4, "SwapFree": 1}, PSUTIL),
        ({}, PSUTIL),
        (None, PSUTIL),
    ],
)
def test_memory_of_the_host(monkeypatch, rows, wanted):
    text = None if rows is None else "".join(f"{name}:   {value} kB\n" for name, value in rows.items()).encode()
    monkeypatch.setattr(host_statistics, "read_rows", lambda path: text)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=400))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=50, used=20))
    assert host_statistics._memory() == wanted


def test_memory_is_as_others_count_it():
    ours, theirs = host_statistics._memory(), psutil.virtual_memory()
    assert ours.total == theirs.total
    assert near(ours.available, theirs.available)
    assert ours.swap_total == psutil.swap_memory().total


def near(one: float, other: float) -> bool:
    return abs(one - other) <= 0.1 * max(one, other)


def test_the_start_of_the_host_stays_where_it_is_until_the_clock_is_set(monkeypatch):
    host, now = HostStatistics(), [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(host_statistics, "_uptime", lambda: 1000.0)
    began = host.read()[0].boot_time
    now[0] += 0.7
    assert host.read()[0].boot_time == began == 1_799_999_000.0
    now[0] += 100.0
    assert host.read()[0].boot_time == began + 100.7


def test_a_child_that_is_not_reaped_is_a_zombie():
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    try:
        found = []
        while not found:
            assert time.monotonic() < deadline
            view, _ = HostStatistics(ProcessTable()).read()
            found = [zombie for zombie in view.zombies if zombie.pid == process.pid]
        assert found[0].parent == os.getpid()
        assert view.zombie_count >= 1
    finally:
        process.wait()


def volumes(tmp_path, **files: int) -> list[str]:
    for name, count in files.items():
        (tmp_path / name).mkdir()
        for n in range(count):
            (tmp_path / name / str(n)).touch()
    return [str(tmp_path / name) for name in files]


def test_a_large_volume_does_not_silence_those_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_sizes, "MAX_FILES", 100)
    large, *small = volumes(tmp_path, a=150, b=2, c=1)
    found = disk_sizes._walk_all([large, *small])
    assert found[large] is None
    assert None not in [found[each] for each in small]
    assert disk_sizes._walk_all([large])[large] is None
    monkeypatch.setattr(disk_sizes, "MAX_FILES", 150)
    assert disk_sizes._walk_all([large])[large] is not None, "one alone has everything"


def test_each_volume_has_its_turn_to_be_first(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(disk_sizes, "MAX_FILES", 100)
    paths = volumes(tmp_path, a=60, b=45, c=45, d=45)
    disk, first = DiskSizes(tmp_path, None, monotonic=clock), []
    for _ in range(4):
        order = sorted(paths, key=lambda folder: (disk._turns.get(folder, float("-inf")), folder))
        first.append(order[0][-1])
        disk._found(order, disk_sizes._walk_all(order))
        clock.at += 600
    assert first == ["a", "b", "c", "d"]
    known = {path[-1] for path, size in disk._folders.items() if size is not None}
    assert known == {"b", "c", "d"}, "what was found stands for an hour"
    clock.at += 3600
    disk._found(paths, dict.fromkeys(paths))
    assert set(disk._folders.values()) == {None}

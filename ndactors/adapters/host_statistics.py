"""Figures about the host: psutil, where the kernel's own files do not do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import psutil
from gevent.monkey import get_original

from ..core import cgroups, processes
from ..core.pressure import pressure
from ..core.traffic import Rows, Traffic, outside
from ..messages.queries import HostView
from ..messages.stats import ZombieView
from .kernel_files import read_rows, read_value
from .process_table import ProcessTable

REAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "overlay", "apfs", "ntfs")
INTERFACES = "/sys/class/net"
_Lock = get_original("threading", "Lock")
MAX_DISKS = 64
MAX_ZOMBIES = 50
OF_ONE_PARENT = 5
MAX_MOUNTS_BYTES = 1024 * 1024


class HostStatistics:
    """``apply`` runs a call off the event loop: a disk that hangs holds up one thread and nobody else."""

    def __init__(
        self, table: ProcessTable | None = None, apply: Callable[[Callable[[], Any]], Any] = lambda call: call()
    ) -> None:
        self._table = table or ProcessTable()
        self._apply = apply
        self._cpu = _cpu_times()
        self._watch = processes.ZombieWatch()
        self._traffic = Traffic()
        self._boot_time = 0.0
        self._sums = (0, 0)
        # whoever asked may be gone while its work goes on in a thread
        self._working = _Lock()

    def read(self) -> tuple[HostView, tuple[processes.ZombieNews, ...]]:
        """The figures, and what is to be told of zombies now."""

        def guarded() -> tuple[HostView, tuple[processes.ZombieNews, ...]]:
            with self._working:
                return self._read()

        return self._apply(guarded)  # type: ignore[no-any-return]

    def _read(self) -> tuple[HostView, tuple[processes.ZombieNews, ...]]:
        memory = _memory()
        rows = _interfaces()
        if rows is not None:
            self._sums = self._traffic.total(outside(rows, _devices(rows)))
        received, sent = self._sums
        disks, inodes = _disks()
        table = self._table.look()
        zombies = processes.zombies(table)
        news = self._watch.look(zombies, time.monotonic())
        before, self._cpu = self._cpu, _cpu_times()
        spent = self._cpu[1] - before[1]
        busy = (self._cpu[0] - before[0]) / spent * 100 if spent > 0 else 0.0
        uptime = _uptime()
        if abs(time.time() - uptime - self._boot_time) > 1.0:  # else it would be another one each time
            self._boot_time = round(time.time() - uptime, 2)
        view = HostView(
            cpu_percent=round(min(100.0, max(0.0, busy)), 2),
            load=os.getloadavg(),
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            swap_used=memory.swap_used,
            swap_total=memory.swap_total,
            disks=disks,
            network_receive=received,
            network_transmit=sent,
            inodes=inodes,
            pressure=_pressures(),
            boot_time=self._boot_time,
            uptime=uptime,
            cpus=os.cpu_count() or 1,
            processes=len(table),
            zombies=tuple(
                ZombieView(pid=row.pid, name=row.name, parent=row.parent, parent_name=row.parent_name)
                for row in processes.some_of(zombies, MAX_ZOMBIES, OF_ONE_PARENT)
            ),
            zombie_count=len(zombies),
        )
        return view, tuple(news)


class Memory(NamedTuple):
    """Bytes."""

    total: int
    available: int
    swap_total: int
    swap_used: int


def _memory() -> Memory:
    """From /proc/meminfo by one read, where psutil takes three."""
    rows = {row[0]: row[1] for line in (read_rows("/proc/meminfo") or b"").splitlines() if len(row := line.split()) > 1}
    try:
        total, available, swap, free = (
            int(rows[name]) * 1024 for name in (b"MemTotal:", b"MemAvailable:", b"SwapTotal:", b"SwapFree:")
        )
    except (KeyError, ValueError):
        total = available = swap = free = 0
    if not 0 < available <= total:  # old kernels and containers: it knows what to do then
        memory, swapped = psutil.virtual_memory(), psutil.swap_memory()
        return Memory(memory.total, memory.available, swapped.total, swapped.used)
    return Memory(total, available, swap, max(0, swap - free))


def _uptime() -> float:
    """Seconds, those in which the machine slept included."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return max(0.0, time.time() - psutil.boot_time())


def host_memory() -> int:
    return int(psutil.virtual_memory().total)


def _cpu_times() -> tuple[float, float]:
    """Busy seconds, and all."""
    times = psutil.cpu_times()
    # time of guests is in that of user and nice already
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - times.idle - getattr(times, "iowait", 0.0), every


def _pressures() -> dict[str, tuple[float, float | None]]:
    found = {name: pressure(read_value(f"/proc/pressure/{name}")) for name in ("cpu", "memory", "io")}
    return {name: row for name, row in found.items() if row is not None}


def _interfaces() -> Rows | None:
    """None if they cannot be read now."""
    data = read_rows("/proc/self/net/dev")
    if data is not None:
        return cgroups.network(data)
    every = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: (row.bytes_recv, row.bytes_sent) for name, row in every.items()}


def _devices(names: Iterable[str]) -> dict[str, str | None]:
    """Interfaces with hardware, each with the one that it is a part of."""
    return {name: _master(name) for name in names if os.path.exists(f"{INTERFACES}/{name}/device")}


def _master(name: str) -> str | None:
    try:
        return os.path.basename(os.readlink(f"{INTERFACES}/{name}/master"))
    except OSError:
        return None


def _disks() -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """Bytes and inodes by mount, each as used and total; every device once."""
    disks: dict[str, tuple[int, int]] = {}
    inodes: dict[str, tuple[int, int]] = {}
    seen = set()
    for device, mount, kind in _mounted():
        if kind not in REAL or device in seen or len(disks) >= MAX_DISKS:
            continue
        if mount.startswith(("/var/lib/docker/", "/snap/")) or "/overlay2/" in mount:
            continue
        try:
            facts = os.statvfs(mount)
        except OSError:
            continue  # unmounted meanwhile, or not ours to see
        if not facts.f_blocks:
            continue
        seen.add(device)
        # as df counts: what only root may fill is neither used nor there for anybody else
        used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
        shown = mount.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        disks[shown] = (used, facts.f_blocks * facts.f_frsize)
        if facts.f_files:
            inodes[shown] = (facts.f_files - facts.f_ffree, facts.f_files)
    return disks, inodes


def _mounted() -> list[tuple[str, str, str]]:
    """Device, mount point and kind of file system."""
    data = read_rows("/proc/self/mounts", MAX_MOUNTS_BYTES)
    if data is None:
        return [(part.device, part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    found = []
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(" ")
        if len(fields) > 2 and fields[2] in REAL:
            found.append((fields[0], fields[1].replace("\\040", " ").replace("\\011", "\t"), fields[2]))
    return found

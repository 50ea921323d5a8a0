"""Figures about the host, from psutil."""

from __future__ import annotations

import os

import psutil

from ..messages.queries import HostView

REAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "overlay", "apfs", "ntfs")


class HostStatistics:
    def __init__(self) -> None:
        psutil.cpu_percent(None)  # the first call only marks the time

    def read(self) -> HostView:
        memory, swap, network = psutil.virtual_memory(), psutil.swap_memory(), psutil.net_io_counters()
        disks: dict[str, tuple[int, int]] = {}
        seen = set()
        for part in psutil.disk_partitions(all=True):
            if (
                part.fstype not in REAL
                or part.mountpoint.startswith(("/var/lib/docker/", "/snap/"))
                or part.device in seen
            ):
                continue
            try:
                usage = psutil.disk_usage(part.mountpoint)
            except OSError:
                continue  # unmounted meanwhile, or not ours to see
            seen.add(part.device)
            disks[part.mountpoint] = (usage.used, usage.total)
        return HostView(
            cpu_percent=psutil.cpu_percent(None),
            load=os.getloadavg(),
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            swap_used=swap.used,
            swap_total=swap.total,
            disks=disks,
            network_receive=network.bytes_recv if network else 0,
            network_transmit=network.bytes_sent if network else 0,
        )

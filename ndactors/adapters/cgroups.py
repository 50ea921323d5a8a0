"""What a container uses, by the files of its control groups. Where they are is found once for each container."""

from __future__ import annotations

import os

from msgspec import Struct

from ..core import cgroups
from ..core.cgroups import V2, GroupFigures
from .kernel_files import read_rows, read_value

MAX_KNOWN = 10_000


class Places(Struct, frozen=True, kw_only=True):
    """The folders of one container's groups, each with its version; None: it has none that we can read."""

    cpu: tuple[str, bool] | None = None
    memory: tuple[str, bool] | None = None
    pids: tuple[str, bool] | None = None
    own_network: bool | None = None
    """None: it may not be looked at."""

    @property
    def any(self) -> bool:
        return self.cpu is not None or self.memory is not None or self.pids is not None


PROBES = {
    "cpuacct": ("cpuacct.usage", "cpu.stat"),
    "memory": ("memory.usage_in_bytes", "memory.current"),
    "pids": ("pids.current", "pids.current"),
}
"""Of each controller a file that only a group with that controller has: in version 1 and in version 2."""


class Cgroups:
    """``root`` has ``proc`` and, below it, whatever is mounted: recorded trees can be read as well. ``host_memory`` in
    bytes. To be used by one thread at a time."""

    def __init__(self, root: str = "/", *, host_memory: int = 0) -> None:
        self._root = root.rstrip("/")
        self._host_memory = host_memory
        self._places: dict[tuple[str, int], Places] = {}

    def read(self, mark: str, pid: int) -> GroupFigures | None:
        """``mark``: what only this container's groups have in their names. None: there are none that we can read."""
        for attempt in range(2):
            places = self._places.get((mark, pid)) if not attempt else None
            if places is None:
                places = self._find(mark, pid)
            if places is None:
                return None
            found = self._figures(places)
            # a file that is gone may mean another place: look once more
            if found is not None:
                return found
            self._places.pop((mark, pid), None)
        return None

    def network(self, mark: str, pid: int, *, has_address: bool) -> dict[str, tuple[int, int]] | None:
        """Bytes received and sent, by interface; None where it has the host's network. ``has_address``: what to believe where that
        cannot be seen. Only after ``read`` found it: then ``pid`` is surely its own."""
        places = self._places.get((mark, pid))
        own = has_address if places is None or places.own_network is None else places.own_network
        return cgroups.network(read_rows(f"{self._root}/proc/{pid}/net/dev")) if own else None

    def forget_all_but(self, containers: set[tuple[str, int]]) -> None:
        self._places = {key: places for key, places in self._places.items() if key in containers}

    # -- reading -----------------------------------------------------------------------------------

    def _figures(self, places: Places) -> GroupFigures | None:
        cpu = memory = limit = kills = None
        seen = False
        if places.cpu is not None:
            folder, old = places.cpu
            data = read_value(f"{folder}/cpuacct.usage" if old else f"{folder}/cpu.stat")
            cpu, seen = (cgroups.cpu_v1 if old else cgroups.cpu_v2)(data), data is not None
        if places.memory is not None:
            folder, old = places.memory
            used = read_value(f"{folder}/memory.usage_in_bytes" if old else f"{folder}/memory.current")
            stat = read_value(f"{folder}/memory.stat")
            seen = seen or used is not None
            memory = cgroups.working_set(used, stat, b"total_inactive_file" if old else b"inactive_file")
            if old:
                # the lowest of its own and of all that it is in
                most = cgroups.keyed(stat, b"hierarchical_memory_limit")
                kills = cgroups.keyed(read_value(f"{folder}/memory.oom_control"), b"oom_kill")
            else:
                most = cgroups.number(read_value(f"{folder}/memory.max"))
                kills = cgroups.keyed(read_value(f"{folder}/memory.events"), b"oom_kill")
            limit = cgroups.limit_of(most, self._host_memory)
        pids = None
        if places.pids is not None:
            data = read_value(f"{places.pids[0]}/pids.current")
            pids, seen = cgroups.number(data), seen or data is not None
        if not seen:
            return None
        return GroupFigures(cpu_seconds=cpu, memory=memory, memory_limit=limit, oom_kills=kills, pids=pids)

    # -- finding -----------------------------------------------------------------------------------

    def _find(self, mark: str, pid: int) -> Places | None:
        groups = cgroups.membership(read_value(f"{self._root}/proc/{pid}/cgroup") or b"")
        if not groups:
            return None
        mounted = cgroups.mounts(read_rows(f"{self._root}/proc/self/mountinfo") or b"")
        found: dict[str, tuple[str, bool] | None] = {}
        for controller, probes in PROBES.items():
            version = cgroups.version_of(controller, groups, mounted)
            old = version != V2
            places = cgroups.folders(groups.get(version, ""), mounted.get(version, ()), mark)
            probe = probes[0] if old else probes[1]
            found[controller] = next(
                (
                    (f"{self._root}{place}", old)
                    for place in places
                    if read_value(f"{self._root}{place}/{probe}") is not None
                ),
                None,
            )
        places = Places(
            cpu=found["cpuacct"], memory=found["memory"], pids=found["pids"], own_network=self._own_network(pid)
        )
        if not places.any:
            return None
        if len(self._places) >= MAX_KNOWN:
            self._places.clear()
        self._places[mark, pid] = places
        return places

    def _own_network(self, pid: int) -> bool | None:
        try:
            return os.readlink(f"{self._root}/proc/{pid}/ns/net") != os.readlink(f"{self._root}/proc/self/ns/net")
        except OSError:
            return None

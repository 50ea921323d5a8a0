"""What containers use: by the kernel's control groups, by the Engine's own figures where those cannot be read, by adding up
processes for apps on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent.monkey import get_original
from msgspec.structs import replace

from ..core import containers as labels
from ..core.containers import ContainerStatus
from ..core.model import Settings
from ..core.processes import ProcessStat, groups
from ..core.traffic import Traffic
from ..core.usage import Engine, cpu_percent, of_engine
from ..errors import EngineError, EngineUnreachable, NextDeployError
from ..messages.stats import ContainerUsage
from .cgroups import Cgroups
from .disk_sizes import DiskSizes
from .process_table import ProcessTable

if TYPE_CHECKING:
    from .docker_engine import DockerEngine

ASKED_AT_ONCE = 20
"""So many containers are asked of the Engine at one reading; the others have their turn at the next."""
ASK_SECONDS = 5.0
ASKING_SECONDS = 10.0
KEPT_SECONDS = 120.0
"""So long an Engine's figure stands when it could not be asked again."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_Lock = get_original("threading", "Lock")
Apply = Callable[[Callable[[], Any]], Any]


class Reading(NamedTuple):
    """``counted``: the monotonic moment of ``usage.cpu_seconds``."""

    usage: ContainerUsage
    counted: float


class ContainerStatistics:
    """``ndactors.ports.UsageReader``. ``apply`` runs a call off the event loop; questions to the Engine are asked on
    it."""

    def __init__(
        self,
        cgroups: Cgroups,
        table: ProcessTable,
        *,
        engine: DockerEngine | None = None,
        disk: DiskSizes | None = None,
        host_memory: int = 0,
        apply: Apply = lambda call: call(),
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cgroups = cgroups
        self._table = table
        self._engine = engine
        self._disk = disk
        self._host_memory = host_memory
        self._apply = apply
        self._monotonic = monotonic
        self._now = now
        self._last: dict[str, Reading] = {}
        self._lost_ticks: dict[str, tuple[int, int]] = {}
        """Of each host process: the ticks of what it left behind, and its last sum."""
        self._grouped: set[str] = set()
        """Host processes with a control group that counts their CPU."""
        self._traffic: dict[str, Traffic] = {}
        self._asked: dict[str, float] = {}
        # whoever asked may be gone while its work goes on in a thread
        self._working = _Lock()

    def read(self, containers: Mapping[str, Sequence[ContainerStatus]]) -> tuple[ContainerUsage, ...]:
        """``containers``: by the name of their engine. Of each that runs."""
        running = {name: [c for c in rows if c.state in ("running", "paused")] for name, rows in containers.items()}
        found: dict[str, Reading] = self._apply(lambda: self._read_files(running))
        missing = [status for status in running.get("docker", ()) if status.id not in found]
        if missing and self._engine is not None:
            found.update(self._ask(missing))
        every = {status.id for rows in running.values() for status in rows}
        self._last = {container: reading for container, reading in found.items() if container in every}
        self._lost_ticks = {each: row for each, row in self._lost_ticks.items() if each in every}
        self._grouped &= every
        self._traffic = {each: row for each, row in self._traffic.items() if each in every}
        self._asked = {each: at for each, at in self._asked.items() if each in every}
        sizes = self._disk.sizes if self._disk is not None else {}
        return tuple(
            replace(reading.usage, disk=sizes.get(container))
            for container, reading in sorted(self._last.items(), key=lambda row: row[1].usage.name)
        )

    def measure(self, containers: Mapping[str, Sequence[ContainerStatus]], settings: Settings) -> None:
        if self._disk is not None:
            self._disk.measure(containers, settings)

    # -- files -------------------------------------------------------------------------------------

    def _read_files(self, running: Mapping[str, Sequence[ContainerStatus]]) -> dict[str, Reading]:
        with self._working:
            return self._read_all(running)

    def _read_all(self, running: Mapping[str, Sequence[ContainerStatus]]) -> dict[str, Reading]:
        found: dict[str, Reading] = {}
        for name, rows in running.items():
            if name == "process":
                found.update(self._read_processes(rows))
                continue
            for status in rows:
                reading = self._read_groups(status)
                if reading is not None:
                    found[status.id] = reading
        self._cgroups.forget_all_but(
            {(mark, s.pid) for name, rows in running.items() for s in rows if s.pid for mark in (_mark(name, s),)}
        )
        return found

    def _read_groups(self, status: ContainerStatus) -> Reading | None:
        if status.pid is None:
            return None
        at = self._monotonic()
        figures = self._cgroups.read(status.id, status.pid)
        if figures is None or figures.cpu_seconds is None:
            return None
        rows = self._cgroups.network(status.id, status.pid, has_address=status.address is not None)
        # a network that it is disconnected from takes nothing with it
        network = self._traffic.setdefault(status.id, Traffic()).total(rows) if rows is not None else None
        engine = Engine(
            cpu_seconds=figures.cpu_seconds,
            memory=figures.memory,
            memory_limit=figures.memory_limit,
            pids=figures.pids,
            network=network,
        )
        usage = self._usage(status, engine, "cgroup", at)
        return Reading(replace(usage, oom_kills=figures.oom_kills), at)

    def _read_processes(self, rows: Sequence[ContainerStatus]) -> dict[str, Reading]:
        leaders = {status.pid: status for status in rows if status.pid}
        if not leaders:
            return {}
        table, at = self._table.look(), self._monotonic()
        found: dict[str, Reading] = {}
        for pid, members in groups(table, leaders).items():
            status = leaders[pid]
            own = self._cgroups.read(_mark("process", status), pid)
            memory = sum(process.pages for process in members) * PAGE
            engine = Engine(
                cpu_seconds=self._seconds(status.id, own.cpu_seconds if own is not None else None, members),
                memory=memory if own is None or own.memory is None else own.memory,
                memory_limit=own.memory_limit if own is not None else None,
                pids=len(members),
            )
            usage = self._usage(status, engine, "process", at)
            found[status.id] = Reading(replace(usage, oom_kills=own.oom_kills if own is not None else None), at)
        return found

    def _seconds(self, container: str, grouped: float | None, members: Sequence[ProcessStat]) -> float | None:
        """By its control group, where it has one: that forgets nothing. One that cannot be read for once is not made up
        for by another count."""
        if grouped is not None:
            self._grouped.add(container)
        if container in self._grouped:
            return grouped
        return self._ticks(container, members) / TICKS

    def _ticks(self, container: str, members: Sequence[ProcessStat]) -> int:
        """Never falling: what a child had used is not lost when somebody else reaps it."""
        total = sum(process.ticks + process.reaped_ticks for process in members)
        lost, before = self._lost_ticks.get(container, (0, 0))
        if total < before:
            lost += before - total
        self._lost_ticks[container] = (lost, total)
        return lost + total

    # -- the Engine --------------------------------------------------------------------------------

    def _ask(self, missing: Sequence[ContainerStatus]) -> dict[str, Reading]:
        """Who was asked longest ago comes first; for the rest their last figures stand."""
        engine = self._engine
        assert engine is not None
        found: dict[str, Reading] = {}
        began = self._monotonic()
        for status in missing:
            last = self._last.get(status.id)
            if last is not None and last.usage.source == "engine" and began - last.counted < KEPT_SECONDS:
                found[status.id] = last
        order = sorted(missing, key=lambda status: self._asked.get(status.id, float("-inf")))
        for status in order[:ASKED_AT_ONCE]:
            if self._monotonic() - began > ASKING_SECONDS:
                break
            at = self._asked[status.id] = self._monotonic()
            try:
                facts = engine.ask(lambda api, status=status: _one_shot(api, status.id))
            except EngineUnreachable:
                break
            except (EngineError, NextDeployError):
                continue  # it ended meanwhile
            figures = of_engine(facts, self._host_memory)
            if figures.cpu_seconds is not None:
                found[status.id] = Reading(self._usage(status, figures, "engine", at), at)
        return found

    # -- one container -----------------------------------------------------------------------------

    def _usage(self, status: ContainerStatus, engine: Engine, source: Any, at: float) -> ContainerUsage:
        last = self._last.get(status.id)
        before = (
            (last.usage.cpu_seconds, last.counted)
            if last is not None and last.usage.cpu_seconds is not None and last.usage.source == source
            else None
        )
        seconds = engine.cpu_seconds
        return ContainerUsage(
            container=status.id,
            name=status.name,
            app=status.labels.get(labels.APP, ""),
            process=status.labels.get(labels.PROCESS, "web"),
            source=source,
            at=self._now(),
            cpu_seconds=seconds,
            cpu_percent=cpu_percent(before, seconds, at) if seconds is not None else None,
            memory=engine.memory,
            memory_limit=engine.memory_limit,
            pids=engine.pids,
            network_receive=engine.network[0] if engine.network is not None else None,
            network_transmit=engine.network[1] if engine.network is not None else None,
        )


def _mark(engine: str, status: ContainerStatus) -> str:
    """What is in the names of its control groups: its whole id; the keeper gives them the first half."""
    return status.id[:16] if engine == "process" else status.id


def _one_shot(api: Any, container: str) -> Any:
    # without one-shot the Engine waits a second or two for another figure to compare with
    asked = {"stream": "false", "one-shot": "true"}
    response = api._get(api._url("/containers/{0}/stats", container), params=asked, timeout=ASK_SECONDS)
    return api._result(response, json=True)

"""All processes of this machine, by one pass over /proc. Several who ask within a moment share a pass."""

from __future__ import annotations

import os
import time

from gevent.monkey import get_original

from ..core.processes import ProcessStat, parse_stat
from .kernel_files import read_value

FRESH_SECONDS = 0.5
MAX_PROCESSES = 50_000
KERNEL_PASSES = 12
"""Threads of the kernel, most of the processes of a small machine, are looked at every so many passes."""
_Lock = get_original("threading", "Lock")


class ProcessTable:
    """``look`` is for threads. Empty where there is no /proc."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        # a real lock: those who wait are threads of the pool
        self._lock = _Lock()
        self._table: dict[int, ProcessStat] = {}
        self._passes = 0
        self._at = float("-inf")

    def look(self, fresh: float = FRESH_SECONDS) -> dict[int, ProcessStat]:
        """Not older than ``fresh`` seconds. Not to be changed by who gets it."""
        with self._lock:
            if time.monotonic() - self._at > fresh:
                self._table = self._pass()
                self._at = time.monotonic()
            return self._table

    def _pass(self) -> dict[int, ProcessStat]:
        table: dict[int, ProcessStat] = {}
        known = self._table if self._passes % KERNEL_PASSES else {}
        self._passes += 1
        try:
            names = os.listdir(self._proc)
        except OSError:
            return table
        for name in names:
            if not name.isdecimal() or len(table) >= MAX_PROCESSES:
                continue
            before = known.get(int(name))
            if before is not None and before.kernel:
                table[before.pid] = before
                continue
            data = read_value(f"{self._proc}/{name}/stat")
            process = parse_stat(data) if data is not None else None
            if process is not None:
                table[process.pid] = process
        return table

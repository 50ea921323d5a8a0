"""All processes of this machine, by one pass over /proc. Several who ask within a moment share a pass."""

from __future__ import annotations

import os
import time

from gevent.monkey import get_original

from ..core.processes import ProcessStat, parse_stat
from .kernel_files import read_value

FRESH_SECONDS = 0.5
MAX_PROCESSES = 50_000
_Lock = get_original("threading", "Lock")


class ProcessTable:
    """``look`` is for threads. Empty where there is no /proc."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        # a real lock: those who wait are threads of the pool
        self._lock = _Lock()
        self._table: dict[int, ProcessStat] = {}
        self._kernel: dict[int, tuple[int, ProcessStat]] = {}
        """Threads of the kernel, most of what runs on a small machine, with the inodes of their folders: with the same one
        it is the same thread, and of those nothing is asked that changes."""
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
        try:
            with os.scandir(self._proc) as entries:
                listed = [(entry.name, entry.inode()) for entry in entries if entry.name.isdecimal()]
        except OSError:
            return table
        before, self._kernel = self._kernel, {}
        for name, inode in listed[:MAX_PROCESSES]:
            known = before.get(int(name))
            if known is not None and known[0] == inode:
                table[int(name)] = known[1]
                self._kernel[int(name)] = known
                continue
            data = read_value(f"{self._proc}/{name}/stat")
            process = parse_stat(data) if data is not None else None
            if process is not None:
                table[process.pid] = process
                if process.kernel:
                    self._kernel[process.pid] = inode, process
        return table

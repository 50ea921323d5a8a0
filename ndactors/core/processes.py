"""Processes as the kernel lists them: who belongs to whom, what a group of them uses, and who ended without being reaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

ZOMBIE_SECONDS = 60.0
"""So long a process may wait to be reaped before anybody is told."""
MANY_ZOMBIES = 50
FEW_ZOMBIES = 40
"""Below this they are not many any more."""
MAX_DEPTH = 64
KERNEL_THREAD = 0x00200000
"""PF_KTHREAD of the kernel's include/linux/sched.h."""


class ProcessStat(NamedTuple):
    """One process (proc(5), ``/proc/PID/stat``). ``ticks`` of CPU are its own, ``reaped_ticks`` those of the children that
    it reaped; ``started`` is in ticks since boot and tells it from a later one with the same number; ``pages`` are in
    memory."""

    pid: int
    name: str
    state: str
    parent: int
    session: int
    ticks: int
    reaped_ticks: int
    started: int
    pages: int
    kernel: bool = False
    """A thread of the kernel."""


Table = Mapping[int, ProcessStat]


def parse_stat(data: bytes) -> ProcessStat | None:
    """None for what is not such a file. A name may hold anything, brackets and line ends included."""
    front, bracket, back = data.rpartition(b")")
    number, opening, name = front.partition(b"(")
    fields = back.split()
    if not bracket or not opening or len(fields) < 22 or len(data) > 4096:
        return None
    try:
        return ProcessStat(
            int(number),
            printable(name.decode("utf-8", "replace")),
            fields[0].decode("ascii", "replace"),
            int(fields[1]),
            int(fields[3]),
            int(fields[11]) + int(fields[12]),
            int(fields[13]) + int(fields[14]),
            int(fields[19]),
            int(fields[21]),
            bool(int(fields[6]) & KERNEL_THREAD),
        )
    except ValueError:
        return None


def printable(name: str) -> str:
    """A process may call itself anything: what would be control characters on a terminal is a question mark."""
    return name if name.isprintable() else "".join(c if c.isprintable() else "?" for c in name)


def lineage(table: Table, pid: int) -> tuple[int, ...]:
    """The process, its session's leader, and all that it comes from, next first."""
    found: list[int] = []
    at = table.get(pid)
    if at is not None:
        found += [pid, at.session]
    while at is not None and at.parent > 0 and len(found) < MAX_DEPTH:
        found.append(at.parent)
        at = table.get(at.parent)
    return tuple(dict.fromkeys(found))


def groups(table: Table, leaders: Iterable[int]) -> dict[int, list[ProcessStat]]:
    """The processes of each leader: its session's, and all that come from it, in whatever session."""
    wanted = {leader for leader in leaders if leader in table}
    found: dict[int, list[ProcessStat]] = {leader: [] for leader in wanted}
    if not wanted:
        return found
    owner: dict[int, int] = {leader: leader for leader in wanted}
    for pid, process in table.items():
        path: list[int] = []
        at, whose = pid, 0
        while len(path) < MAX_DEPTH:
            known = owner.get(at)
            if known is not None:
                whose = known
                break
            path.append(at)
            row = table.get(at)
            if row is None:
                break
            if row.session in wanted:
                whose = row.session
                break
            at = row.parent
        for each in path:
            owner[each] = whose
        if whose:
            found[whose].append(process)
    return found


# -- zombies -----------------------------------------------------------------------------------------


class Zombie(NamedTuple):
    pid: int
    name: str
    parent: int
    parent_name: str
    started: int


class ZombieNews(NamedTuple):
    reason: str
    zombies: tuple[Zombie, ...]
    together: int


def zombies(table: Table) -> list[Zombie]:
    """By parent, so that those that one process neglects stand together."""
    found = []
    for process in table.values():
        if process.state == "Z":
            parent = table.get(process.parent)
            name = parent.name if parent is not None else ""
            found.append(Zombie(process.pid, process.name, process.parent, name, process.started))
    return sorted(found, key=lambda zombie: (zombie.parent, zombie.pid))


def some_of(found: Iterable[Zombie], most: int, of_each: int) -> list[Zombie]:
    """At most ``most``, and no more than ``of_each`` of one parent, so that one hides no other."""
    counts: dict[int, int] = {}
    kept: list[Zombie] = []
    for zombie in found:
        counts[zombie.parent] = counts.get(zombie.parent, 0) + 1
        if counts[zombie.parent] <= of_each and len(kept) < most:
            kept.append(zombie)
    return kept


class ZombieWatch:
    """Decides when to tell of zombies: once for each parent that leaves one for longer than a minute, until it has none
    any more, and once when there are many."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}
        self._told: set[int] = set()
        self._many = False

    def look(self, found: list[Zombie], now: float) -> list[ZombieNews]:
        self._since = {
            (zombie.pid, zombie.started): self._since.get((zombie.pid, zombie.started), now) for zombie in found
        }
        late: dict[int, list[Zombie]] = {}
        for zombie in found:
            if now - self._since[zombie.pid, zombie.started] > ZOMBIE_SECONDS:
                late.setdefault(zombie.parent, []).append(zombie)
        self._told &= {zombie.parent for zombie in found}
        news = []
        for parent, rows in late.items():
            if parent not in self._told:
                self._told.add(parent)
                news.append(ZombieNews(_late_words(rows), tuple(some_of(rows, 10, 10)), len(found)))
        if len(found) > MANY_ZOMBIES and not self._many:
            self._many = True
            if not news:
                news.append(ZombieNews(_many_words(found), tuple(some_of(found, 10, 3)), len(found)))
        elif len(found) < FEW_ZOMBIES:
            self._many = False
        return news[:10]


def _late_words(rows: list[Zombie]) -> str:
    first = rows[0]
    what = f"{first.name} (pid {first.pid}) has" if len(rows) == 1 else f"{len(rows)} processes have"
    whose, kind = ("its", "a zombie") if len(rows) == 1 else ("their", "zombies")
    return f"{what} been {kind} for longer than a minute: {whose} parent {_parent(first)} does not reap"


def _many_words(found: list[Zombie]) -> str:
    counts: dict[int, int] = {}
    for zombie in found:
        counts[zombie.parent] = counts.get(zombie.parent, 0) + 1
    worst = max(counts, key=lambda parent: counts[parent])
    first = next(zombie for zombie in found if zombie.parent == worst)
    return f"{len(found)} zombie processes; {counts[worst]} of them are children of {_parent(first)}, which does not reap them"


def _parent(zombie: Zombie) -> str:
    return f"{zombie.parent_name or 'an unknown process'} (pid {zombie.parent})"

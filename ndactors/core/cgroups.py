"""What the kernel's files say of a control group (v1 and v2) and of a network's interfaces. Whatever is damaged gives None
for that figure only; nothing raises."""

from __future__ import annotations

import re

from msgspec import Struct

V2 = ""
"""The name of version 2 among the controllers of version 1."""
LARGEST = 2**64 - 1
MAX_ROWS = 4096
_NUMBER = re.compile(rb"\s*(\d{1,20})\s*")
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


class GroupFigures(Struct, frozen=True, kw_only=True):
    """Seconds and bytes. None: it cannot be told."""

    cpu_seconds: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    oom_kills: int | None = None
    pids: int | None = None


def membership(data: bytes) -> dict[str, str]:
    """``/proc/PID/cgroup``: each controller of version 1 and the path of its group; that of version 2 under ``V2``."""
    found: dict[str, str] = {}
    for line in data.split(b"\n", MAX_ROWS)[:MAX_ROWS]:
        number, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not number.isdigit() or not colon or not path.startswith(b"/"):
            continue
        for name in controllers.split(b",") if controllers else (b"",):
            found[_text(name)] = _text(path)
    return found


def mounts(data: bytes) -> dict[str, tuple[tuple[str, str], ...]]:
    """``/proc/self/mountinfo``: for each controller (``V2``: version 2) which part of its tree is mounted where."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in data.split(b"\n"):
        front, dash, back = line.partition(b" - ")
        fields, kind = front.split(b" "), back.split(b" ")
        if not dash or len(fields) < 5 or kind[0] not in (b"cgroup", b"cgroup2"):
            continue
        root, point = _unescaped(fields[3]), _unescaped(fields[4])
        names = [V2] if kind[0] == b"cgroup2" else [_text(name) for name in kind[-1].split(b",")]
        for name in names:
            if len(found.get(name, ())) < 16:
                found[name] = (*found.get(name, ()), (root, point))
    return found


def version_of(controller: str, groups: dict[str, str], mounted: dict[str, tuple[tuple[str, str], ...]]) -> str:
    """``controller`` if version 1 has it here, else ``V2``: on a hybrid system each controller is in one of them."""
    return controller if controller in groups and controller in mounted else V2


def folders(path: str, mounted: tuple[tuple[str, str], ...], mark: str) -> list[str]:
    """Where the group of the container may be found: the outermost part of ``path`` that has ``mark`` (its id) in its name.
    Nothing if no part has: then the process is somebody else's. Where only another part of the tree is mounted, as in a
    container of our own, the places where Docker puts its groups are tried too."""
    parts = [part for part in path.split("/") if part]
    depth = next((n for n, part in enumerate(parts) if mark and mark in part), None)
    if depth is None:
        return []
    own = parts[: depth + 1]
    found: list[str] = []
    for root, point in mounted:
        base = [part for part in root.split("/") if part]
        if own[: len(base)] == base and ".." not in own[len(base) :]:
            found.append("/".join([point.rstrip("/"), *own[len(base) :]]))
    for _, point in mounted:
        for usual in (f"docker/{own[-1]}", f"system.slice/{own[-1]}"):
            found.append(f"{point.rstrip('/')}/{usual}")
    return list(dict.fromkeys(found))


def cpu_v1(usage: bytes | None) -> float | None:
    """``cpuacct.usage``, in nanoseconds."""
    count = number(usage)
    return None if count is None else count / 1e9


def cpu_v2(stat: bytes | None) -> float | None:
    """``cpu.stat``."""
    count = keyed(stat, b"usage_usec")
    return None if count is None else count / 1e6


def working_set(usage: bytes | None, stat: bytes | None, key: bytes) -> int | None:
    """What `docker stats` shows: memory in use but for pages of files that nobody used lately. ``key`` names those in
    ``memory.stat`` (v1 ``total_inactive_file``, v2 ``inactive_file``)."""
    used, idle = number(usage), keyed(stat, key)
    return None if used is None or idle is None else max(0, used - idle)


def limit_of(count: int | None, host_memory: int) -> int | None:
    """None without a limit: more than the host has is none (v1 says so by a huge number). ``host_memory`` 0: not known."""
    ceiling = host_memory or 2**60
    return None if count is None or count >= ceiling else count


def network(data: bytes | None) -> dict[str, tuple[int, int]] | None:
    """``/proc/PID/net/dev``: bytes received and sent, by interface, loopback left out."""
    found = {}
    if data is None or data.count(b"|") < 4:
        return None
    for line in data.split(b"\n"):
        name, colon, rest = line.partition(b":")
        if not colon:
            continue
        figures = rest.split()
        if len(figures) < 9 or not (figures[0].isdigit() and figures[8].isdigit()) or len(rest) > 1000:
            return None
        if name.strip() != b"lo":
            row = int(figures[0]), int(figures[8])
            if max(row) > LARGEST:
                return None
            found[name.strip().decode("ascii", "replace")] = row
    return found


def number(data: bytes | None) -> int | None:
    """A file that is one number. Version 2 writes ``max`` for no limit: None."""
    match = _NUMBER.fullmatch(data) if data is not None and len(data) < 64 else None
    found = int(match[1]) if match is not None else None
    return found if found is None or found <= LARGEST else None


def keyed(data: bytes | None, key: bytes) -> int | None:
    """The number after ``key`` at the beginning of a line."""
    if data is None:
        return None
    start = 0 if data.startswith(key + b" ") else data.find(b"\n" + key + b" ") + 1
    if start == 0 and not data.startswith(key + b" "):
        return None
    start += len(key) + 1
    end = data.find(b"\n", start, start + 64)
    return number(data[start : end if end >= 0 else start + 64])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _unescaped(data: bytes) -> str:
    """proc(5): blanks and the like are written as three octal digits."""
    return _text(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), data))

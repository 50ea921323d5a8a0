"""Everything that listens in the host's network (TCP), or is bound to a fixed port (UDP), and whose it is (proc(5):
/proc/net/tcp and the like, /proc/PID/fd)."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gevent.monkey import get_original

from ..core.listening import BoundSocket, Owner, Protocol, SeenSockets
from ..core.processes import lineage, parse_stat
from .kernel_files import read_rows, read_value
from .listeners import LISTEN, address_of, plain
from .process_table import ProcessTable
from .sock_diag import listening

UNCONNECTED = "07"
MAX_SOCKETS = 4096
MAX_DESCRIPTORS = 500_000
RETRY_SECONDS = 60.0
"""A socket that is nobody's that we can see is looked for again after so long."""
TRIES = 3
"""Looks in a row before that."""
MAX_BYTES = 4 * 1024 * 1024
_Lock = get_original("threading", "Lock")
_CONTAINER = re.compile(rb"[0-9a-f]{64}")
_SSH_PORT = re.compile(rb"^[ \t]*Port[ \t=]+(\d{1,5})[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)
SSH_FILES = Path("/etc/ssh")


class Row(NamedTuple):
    protocol: Protocol
    address: str
    port: int
    inode: int


class Known(NamedTuple):
    owner: Owner
    started: int


class BoundSockets:
    """``ndactors.ports.SocketOwners``. Descriptors are looked through for sockets that are new only."""

    def __init__(
        self,
        state_dir: Path,
        table: ProcessTable,
        apply: Callable[[Callable[[], Any]], Any] = lambda call: call(),
        proc: str = "/proc",
    ) -> None:
        self._state_dir = os.fsencode(state_dir)
        self._table = table
        self._apply = apply
        self._proc = proc
        self._known: dict[int, Known] = {}
        self._missed: dict[int, tuple[int, float]] = {}
        """Sockets without an owner: how often they were looked for, and when last."""

        # whoever asked may be gone while its work goes on in a thread
        self._working = _Lock()

    def look(self) -> SeenSockets | None:
        def guarded() -> SeenSockets | None:
            with self._working:
                return self._look()

        return self._apply(guarded)  # type: ignore[no-any-return]

    def _look(self) -> SeenSockets | None:
        rows = self._rows()
        if rows is None:
            return None
        table, now = self._table.look(), time.monotonic()
        inodes = {row.inode for row in rows}
        self._known = {
            inode: known
            for inode, known in self._known.items()
            if inode in inodes and (row := table.get(known.owner.pid)) is not None and row.started == known.started
        }
        self._missed = {inode: missed for inode, missed in self._missed.items() if inode in inodes}
        wanted = {inode for inode in inodes - self._known.keys() if self._is_due(inode, now)}
        if wanted:
            self._known.update(self._owners(wanted))
            for inode in wanted:
                if inode not in self._known:
                    self._missed[inode] = (self._missed.get(inode, (0, 0.0))[0] + 1, now)
                else:
                    self._missed.pop(inode, None)
        found = []
        for row in rows:
            known = self._known.get(row.inode)
            # the process may have been about to give it away, or to end: then the next look knows more
            if known is not None or row.inode == 0 or self._missed.get(row.inode, (2, 0.0))[0] > 1:
                owner = known.owner if known is not None else None
                found.append(BoundSocket(protocol=row.protocol, address=row.address, port=row.port, owner=owner))
        has_ssh = any(each.owner is not None and each.owner.name == "sshd" for each in found)
        return SeenSockets(sockets=tuple(found), ssh_ports=ssh_ports() if has_ssh else ())

    def _is_due(self, inode: int, now: float) -> bool:
        tries, last = self._missed.get(inode, (0, 0.0))
        return inode != 0 and (tries < TRIES or now - last > RETRY_SECONDS)

    # -- sockets -----------------------------------------------------------------------------------

    def _rows(self) -> list[Row] | None:
        found: list[Row] = []
        seen = False
        first, last = self._ephemeral()
        for name in ("tcp", "tcp6", "udp", "udp6"):
            protocol: Protocol = "tcp" if name.startswith("tcp") else "udp"
            asked = self._asked(name)
            if asked is not None:
                seen = True
                found += asked
                continue
            path = f"{self._proc}/net/{name}"
            data = _listening_part(path) if protocol == "tcp" else read_rows(path, MAX_BYTES)
            if data is None:
                continue
            seen = True
            wanted = LISTEN if protocol == "tcp" else UNCONNECTED
            for address, port, inode in _parsed(data, wanted):
                if protocol == "udp" and (port == 0 or first <= port <= last):
                    continue  # chosen by the kernel for somebody who asks, not serves
                found.append(Row(protocol, address, port, inode))
        return found[:MAX_SOCKETS] if seen else None

    def _asked(self, name: str) -> list[Row] | None:
        """Those that listen, as the kernel answers when it is asked for them alone."""
        if self._proc != "/proc" or not name.startswith("tcp"):
            return None
        rows = listening(socket.AF_INET6 if name == "tcp6" else socket.AF_INET)
        return None if rows is None else [Row("tcp", plain(address), port, inode) for address, port, inode in rows]

    def _ephemeral(self) -> tuple[int, int]:
        words = (read_value(f"{self._proc}/sys/net/ipv4/ip_local_port_range") or b"").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            return int(words[0]), int(words[1])
        return 32768, 60999

    # -- owners ------------------------------------------------------------------------------------

    def _owners(self, wanted: set[int]) -> dict[int, Known]:
        """By one pass over all descriptors that we may see. Of several processes that share a socket the oldest has it;
        process 1, which may hold it for others, last."""
        names = {os.fsencode(f"socket:[{inode}]"): inode for inode in wanted}
        found: dict[int, Known] = {}
        left = MAX_DESCRIPTORS
        try:
            pids = sorted(int(name) for name in os.listdir(self._proc) if name.isdecimal())
        except OSError:
            return found
        for pid in [*(pid for pid in pids if pid != 1), 1]:
            folder = f"{self._proc}/{pid}/fd".encode()
            try:
                descriptors = os.listdir(folder)
            except OSError:
                continue  # gone, or not ours to see
            left -= len(descriptors)
            if left < 0:
                break
            for descriptor in descriptors:
                try:
                    inode = names.get(os.readlink(folder + b"/" + descriptor))
                except OSError:
                    continue
                if inode is not None and inode not in found:
                    known = self._owner(pid)
                    if known is not None:
                        found[inode] = known
            if len(found) == len(wanted):
                break
        return found

    def _owner(self, pid: int) -> Known | None:
        process = parse_stat(read_value(f"{self._proc}/{pid}/stat") or b"")
        if process is None:
            return None
        table = {**self._table.look(), pid: process}
        parent = table.get(process.parent)
        container = _CONTAINER.search(read_value(f"{self._proc}/{pid}/cgroup") or b"")
        owner = Owner(
            pid=pid,
            name=process.name,
            parent_name=parent.name if parent is not None else "",
            lineage=lineage(table, pid),
            container=container[0].decode() if container is not None else None,
            role=self._role(pid, process.parent),
        )
        return Known(owner, process.started)

    def _role(self, pid: int, parent: int) -> str:
        """Which of our own processes it is. A command line can be claimed by anybody, so its user has to be ours too, or
        its parent one of ours (edge workers are another user's)."""
        if pid == os.getpid():
            return "daemon"
        role = self._claimed_role(pid)
        if role and (self._is_ours(pid) or (self._claimed_role(parent) and self._is_ours(parent))):
            return role
        return ""

    def _claimed_role(self, pid: int) -> str:
        words = (read_value(f"{self._proc}/{pid}/cmdline") or b"").split(b"\0")
        if b"--state-dir=" + self._state_dir not in words:
            return ""
        role = next((word for word in words if word.startswith(b"--role=")), b"")
        return role.removeprefix(b"--role=").decode("ascii", "replace")[:40]

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.stat(f"{self._proc}/{pid}").st_uid == os.geteuid()
        except OSError:
            return False


def _listening_part(path: str) -> bytes | None:
    """The kernel lists those that listen first: what comes after the first other one may be very many, and is left."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while piece := os.read(descriptor, 65536):
            data += piece
            if len(data) > MAX_BYTES or not _all_listen(piece):
                break
        return data
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _all_listen(piece: bytes) -> bool:
    rows = (line.split(None, 4) for line in piece.split(b"\n"))
    return all(row[3] in (b"0A", b"st") for row in rows if len(row) > 3)


def _parsed(data: bytes, wanted: str) -> Iterator[tuple[str, int, int]]:
    for line in data.decode("ascii", "replace").split("\n"):
        fields = line.split(None, 10)
        if len(fields) < 10 or fields[3] != wanted or ":" not in fields[1]:
            continue
        address, _, port = fields[1].partition(":")
        try:
            yield address_of(address), int(port, 16), int(fields[9])
        except ValueError:
            continue


def ssh_ports(folder: Path = SSH_FILES) -> tuple[int, ...]:
    """The ports in the SSH server's own file; none if it cannot be read."""
    found: set[int] = set()
    try:
        files = [folder / "sshd_config", *sorted((folder / "sshd_config.d").glob("*.conf"))[:100]]
    except OSError:
        files = [folder / "sshd_config"]
    for file in files:
        found.update(int(port) for port in _SSH_PORT.findall(read_value(str(file)) or b""))
    return tuple(sorted(port for port in found if 0 < port < 65536))

"""Sockets that listen on the host: which other machines can reach, which part of the configuration wants each, and what is
to be told of those that nothing explains."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from . import containers as labels
from .containers import ContainerStatus
from .model import Settings

Protocol = Literal["tcp", "udp"]
MAX_TOLD = 2000
MAX_NEWS = 20
"""Of one look; what is more is told at the next ones."""

USUAL: tuple[tuple[str, Protocol, tuple[int, ...]], ...] = (
    ("sshd", "tcp", (22,)),
    ("systemd", "tcp", (22,)),  # ssh.socket: sshd is started when somebody comes
    ("systemd-resolve", "tcp", (53, 5355)),
    ("systemd-resolve", "udp", (53, 5353, 5355)),
    ("systemd-network", "udp", (68, 546)),
    ("NetworkManager", "udp", (68, 546)),
    ("dhclient", "udp", (68, 546)),
    ("dhcpcd", "udp", (68, 546)),
    ("chronyd", "udp", (123, 323)),
    ("ntpd", "udp", (123,)),
    ("systemd-timesyn", "udp", (123,)),
)
"""What a server has anyway: process (its first 15 characters, as the kernel keeps them), protocol, ports."""
SWARM: tuple[tuple[str, Protocol, tuple[int, ...]], ...] = (
    ("dockerd", "tcp", (2377, 7946)),
    ("dockerd", "udp", (7946,)),
)
OVERLAY_PORT = 4789
"""VXLAN of a swarm: a socket of the kernel itself, so it has no process."""


class Owner(Struct, frozen=True, kw_only=True):
    """The process that has a socket. ``lineage``: itself, its session's leader and all that it comes from. ``container``:
    the id of the container it is in. ``role``: of a process of ours (``daemon``, ``edge``, …), else empty."""

    pid: int
    name: str
    parent_name: str = ""
    lineage: tuple[int, ...] = ()
    container: str | None = None
    role: str = ""


class BoundSocket(Struct, frozen=True, kw_only=True):
    """``owner`` None: we may not see it, or the kernel itself has it."""

    protocol: Protocol
    address: str
    port: int
    owner: Owner | None = None


class SeenSockets(Struct, frozen=True, kw_only=True):
    """``ssh_ports``: those that the SSH server's own file names."""

    sockets: tuple[BoundSocket, ...]
    ssh_ports: tuple[int, ...] = ()


class Running(Struct, frozen=True, kw_only=True):
    """A container of ours that runs, as far as its ports go. ``ports``: those that the configuration or the engine gave
    it. ``pid``: of a host process, whose children count too."""

    id: str
    name: str
    app: str
    process: str
    ports: tuple[int, ...] = ()
    pid: int | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """What the configuration explains. ``addresses``: (what for, port)."""

    addresses: tuple[tuple[str, int], ...] = ()
    containers: tuple[Running, ...] = ()
    ssh_ports: tuple[int, ...] = ()
    swarm: bool = False


Key = tuple[str, str, int, str]


class Told(Struct, frozen=True, kw_only=True):
    """Ports that were told of as open and not yet as closed: protocol, address, port, process (empty: unknown)."""

    ports: tuple[Key, ...] = ()


class PortNews(Struct, frozen=True, kw_only=True):
    opened: bool
    socket: BoundSocket | None
    key: Key


def addresses_of(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Where the configuration says that we listen ourselves."""
    found = []
    for what, address in (
        ("edge.http", settings.edge.http),
        ("edge.https", settings.edge.https),
        ("admin.listen", settings.admin.listen),
    ):
        port = address.rpartition(":")[2]
        if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            found.append((what, int(port)))
    return tuple(found)


def is_reachable(address: str) -> bool:
    """From other machines, by the address alone: everything but loopback."""
    try:
        return not ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True


def reason_for(socket: BoundSocket, wanted: Wanted) -> str:
    """Which part of the configuration wants it, in words; empty if nothing does. A name or a port alone is no reason:
    whoever listens where something of ours should is a stranger."""
    owner = socket.owner
    if owner is None:
        return _without_owner(socket, wanted)
    if owner.role:
        named = next((what for what, port in wanted.addresses if port == socket.port), "")
        return f"NextDeploy's {owner.role}" + (f" ({named})" if named else "")
    mine = container_of(owner, wanted.containers)
    if mine is not None:
        return f"app {mine.app} ({mine.process})" if socket.port in mine.ports else ""
    if owner.name == "docker-proxy" and owner.parent_name == "dockerd":
        return "published by a container"
    if owner.container is not None:
        return ""  # what is usual on a host is not in a container
    usual = USUAL + (SWARM if wanted.swarm else ())
    if owner.name == "sshd" and socket.protocol == "tcp" and socket.port in wanted.ssh_ports:
        return "usual on a server: sshd"
    for name, protocol, ports in usual:
        if (owner.name, socket.protocol) == (name, protocol) and socket.port in ports:
            return f"usual on a server: {name}"
    return ""


def running(rows: Iterable[ContainerStatus], settings: Settings, *, on_host: bool) -> tuple[Running, ...]:
    """Those of ``rows`` that run and that are of an app of the configuration. ``on_host``: they are host processes."""
    found = []
    for status in rows:
        app = settings.apps.get(status.labels.get(labels.APP, ""))
        name = status.labels.get(labels.PROCESS, "web")
        if app is None or name not in app.processes or status.state not in ("running", "paused"):
            continue
        ports = {status.port, app.processes[name].port}
        found.append(
            Running(
                id=status.id,
                name=status.name,
                app=app.name,
                process=name,
                ports=tuple(sorted(port for port in ports if port is not None)),
                pid=status.pid if on_host else None,
            )
        )
    return tuple(found)


def container_of(owner: Owner, containers: Iterable[Running]) -> Running | None:
    """The container of ours that a process belongs to."""
    for each in containers:
        if owner.container == each.id or (each.pid is not None and each.pid in owner.lineage):
            return each
    return None


def news(
    sockets: Sequence[BoundSocket], reasons: Mapping[BoundSocket, str], told: Told, suspects: Collection[Key]
) -> tuple[tuple[PortNews, ...], Told, frozenset[Key]]:
    """What is to be told now, what was told after that, and what nothing explains yet. Only what was among these
    ``suspects`` before is told: what is ours may listen a moment before we hear of it. Ports that were told of and that
    something explains now (the configuration changed) are forgotten without a word: nothing closed."""
    open_now: dict[Key, BoundSocket] = {}
    explained: set[Key] = set()
    for socket in sockets:
        if not is_reachable(socket.address):
            continue
        key = key_of(socket)
        if reasons.get(socket):
            explained.add(key)
        else:
            open_now.setdefault(key, socket)
    before = dict.fromkeys(told.ports)
    found: list[PortNews] = []
    for key in list(before):
        if key in open_now:
            continue
        if key in explained:
            del before[key]
        elif len(found) < MAX_NEWS:
            found.append(PortNews(opened=False, socket=None, key=key))
            del before[key]
    for key, socket in open_now.items():
        if key in suspects and key not in before and len(found) < 2 * MAX_NEWS and len(before) < MAX_TOLD:
            found.append(PortNews(opened=True, socket=socket, key=key))
            before[key] = None
    return tuple(found), Told(ports=tuple(before)), frozenset(open_now.keys() - before.keys())


def key_of(socket: BoundSocket) -> Key:
    return socket.protocol, socket.address, socket.port, socket.owner.name if socket.owner is not None else ""


def words(each: PortNews) -> str:
    protocol, address, port, process = each.key
    where = f"{place(address, port)} ({protocol})"
    if not each.opened:
        return f"{where} is not open any more" + (f": it was {process}" if process else "")
    owner = each.socket.owner if each.socket is not None else None
    if owner is None:
        return f"{where} is open to other machines: a process that cannot be seen, which nothing in the configuration explains"
    inside = f" in container {owner.container[:12]}" if owner.container is not None else ""
    return (
        f"{where} is open to other machines: {owner.name} (pid {owner.pid}){inside}, "
        "which nothing in the configuration explains"
    )


def place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _without_owner(socket: BoundSocket, wanted: Wanted) -> str:
    if wanted.swarm and (socket.protocol, socket.port) == ("udp", OVERLAY_PORT):
        return "usual on a server: the network of a swarm"
    for what, port in wanted.addresses:
        if socket.protocol == "tcp" and port == socket.port:
            return what
    return ""

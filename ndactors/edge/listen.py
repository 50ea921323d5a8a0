"""Listening sockets from ``host:port`` and ``:port``."""

from __future__ import annotations

import socket
from typing import NamedTuple

BACKLOG = 4096


class Listener(NamedTuple):
    """``name`` is the address really bound, as ``host:port``."""

    sock: socket.socket
    name: str


def open_listeners(address: str) -> list[Listener]:
    """``:port`` listens on IPv4 and IPv6 (one socket for both, where there is IPv6); port 0 takes a free one; an empty
    address opens nothing. ``OSError`` when it cannot be had, ``ValueError`` when it is none."""
    if not address:
        return []
    host, _, port = address.rpartition(":")
    number = int(port)
    host = host.strip("[]")
    if host in ("", "*"):
        try:
            return [_listen(socket.AF_INET6, "::", number, both=True)]
        except OSError as error:
            if error.errno not in (97, 99):  # EAFNOSUPPORT, EADDRNOTAVAIL: this machine has no IPv6
                raise
            return [_listen(socket.AF_INET, "0.0.0.0", number)]
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [_listen(family, where, number) for family, where in sorted({(row[0], str(row[4][0])) for row in found})]


def _listen(family: socket.AddressFamily, host: str, port: int, *, both: bool = False) -> Listener:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    bound = sock.getsockname()[1]
    return Listener(sock, f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}")


def inherited(descriptors: list[int]) -> list[Listener]:
    """Sockets that somebody opened for us."""
    found = []
    for descriptor in descriptors:
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        host, port = sock.getsockname()[:2]
        found.append(Listener(sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    return found

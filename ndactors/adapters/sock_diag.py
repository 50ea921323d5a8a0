"""TCP sockets that listen, asked of the kernel over netlink (sock_diag(7)). /proc/net/tcp has them too, but to write it the
kernel looks through its whole table of connections, which is large on a large machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from gevent.monkey import get_original

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
LISTEN = 10
SECONDS = 5.0
MAX_MESSAGES = 20_000
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48x")
_ANSWER = struct.Struct("!4xH2x16s")
"""Of an ``inet_diag_msg``: port and address."""
INODE_OFFSET = 68
_socket = get_original("socket", "socket")


def listening(family: int) -> list[tuple[bytes, int, int]] | None:
    """Address (4 or 16 bytes), port and inode of each; None if the kernel does not answer. For threads."""
    try:
        with _socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as asked:
            asked.settimeout(SECONDS)
            body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << LISTEN)
            size = _HEADER.size + len(body)
            asked.send(_HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body)
            found: list[tuple[bytes, int, int]] = []
            while len(found) < MAX_MESSAGES:
                for kind, data in _messages(asked.recv(65536)):
                    if kind == NLMSG_DONE:
                        return found
                    if kind == NLMSG_ERROR:
                        return None
                    if kind == SOCK_DIAG_BY_FAMILY and len(data) >= INODE_OFFSET + 4:
                        port, address = _ANSWER.unpack_from(data)
                        (inode,) = struct.unpack_from("=I", data, INODE_OFFSET)
                        found.append((address[: 4 if family == socket.AF_INET else 16], port, inode))
            return found
    except (OSError, AttributeError):
        return None  # no such kernel


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3

"""A process that answers queries, so that they hold up nobody: it is asked over its standard input (a socket), one query
after the other, and may be killed at any time."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from pathlib import Path

from ..errors import Invalid, LinkError
from ..messages.logs import LogsFound, QueryLogs
from ..runtime.link import FrameReader, encode
from ..runtime.roles import Arguments
from .query import Store, page

NICE = 10
MEMORY_BYTES = 2 * 1024**3
"""Of address space; a query that needs more fails."""
READ_BYTES = 1 << 16


def answer(store: Store, asked: QueryLogs) -> LogsFound:
    try:
        return LogsFound(id=asked.id, page=page(store, asked.query, asked.upto, time.monotonic))
    except Invalid as error:
        return LogsFound(id=asked.id, refused=str(error))
    except (OSError, MemoryError, RecursionError) as error:
        store.forget()  # the next one has more room
        return LogsFound(id=asked.id, failed=f"the log store could not be searched: {type(error).__name__}: {error}")


def main(argv: list[str]) -> int:
    state_dir = Path(Arguments(argv).needed("state-dir"))
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    store = Store(state_dir / "logs" / "store")
    sock = socket.socket(fileno=os.dup(0))
    reader: FrameReader[QueryLogs] = FrameReader(QueryLogs)
    while data := sock.recv(READ_BYTES):
        for asked in reader.feed(data):
            try:
                sock.sendall(encode(answer(store, asked)))
            except LinkError as error:  # a page of very long records
                words = f"{error}; ask for fewer records at once"
                sock.sendall(encode(LogsFound(id=asked.id, failed=words)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

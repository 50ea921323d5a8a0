"""`nextdeploy stdio`: this machine's control socket over stdin and stdout, for clients that come over ssh."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click

from .failures import WRONG, Failure, Unreachable
from .options import Choices, verb
from .pumping import PIECE, READ, WRITE, Sink, read, wait


@verb("stdio", "stdio --state-dir /var/lib/nextdeploy")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Speak to this machine's daemon over stdin and stdout. This is what `ssh://` addresses run on the other side."""
    from .connection import LocalServer
    from .target import SOCKET, local_socket

    choices = ctx.ensure_object(Choices)
    if choices.server:
        raise Failure("`stdio` speaks to the daemon of this machine; it takes no --server", code=WRONG)
    if sys.stdin is None or sys.stdout is None:
        raise Failure("stdin and stdout must be open", code=WRONG)
    path = Path(choices.state_dir) / SOCKET if choices.state_dir else None
    sock = LocalServer(path or local_socket(os.environ, root=os.geteuid() == 0)).connect()
    with sock:
        join(sys.stdin.fileno(), sys.stdout.fileno(), sock)


def join(source: int, out: int, sock: socket.socket) -> None:
    """Until the daemon has ended the connection, and what it said is written; the end of ``source`` is passed on to it.
    ``BrokenPipeError`` if nobody reads ``out`` any more, ``Unreachable`` if the daemon went away in the middle."""
    sock.setblocking(False)
    there, back = Sink(sock.fileno(), PIECE), Sink(out)
    is_sent = is_shut = is_received = False
    while not is_received or back.waiting:
        wanted = {out: WRITE if back.waiting else 0}
        if not is_received:
            wanted[sock.fileno()] = (READ if back.has_room else 0) | (WRITE if there.waiting else 0)
            if not is_sent and there.has_room:
                wanted[source] = READ
        ready = wait(wanted)
        if ready.get(out, 0) & WRITE:
            back.flush()
        elif ready.get(out, 0):
            raise BrokenPipeError
        try:
            if source in ready:
                data = read(source)
                there.waiting += data or b""
                is_sent = data == b""
            if ready.get(sock.fileno(), 0) & WRITE:
                there.flush()
            if is_sent and not there.waiting and not is_shut:
                is_shut = True
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            is_sent = is_shut = True  # it takes nothing any more, but what it said before may still come
            there.waiting.clear()
        if ready.get(sock.fileno(), 0) & ~WRITE:
            try:
                data = read(sock.fileno())
            except OSError as error:
                raise Unreachable(f"the daemon went away: {error.strerror}") from error
            back.waiting += data or b""
            is_received = data == b""

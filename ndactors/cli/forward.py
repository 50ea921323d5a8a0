"""`nextdeploy forward`: a port of this machine that is a container's, one WebSocket for each connection."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

import click

from .failures import FAILED, Failure, printable
from .options import verb

if TYPE_CHECKING:
    from .channel import Channel
    from .connection import Server

HOST = "127.0.0.1"
MOST = 100
"""So many connections at once; the daemon takes no more either. Further ones wait."""


@verb("forward shop 8080", "forward shop/db 15432:5432", "forward shop/db 0:5432")
@click.argument("where", metavar="APP[/PROCESS]")
@click.argument("ports", metavar="[LOCAL:]PORT")
@click.pass_context
def command(ctx: click.Context, where: str, ports: str) -> None:
    """Reach a container's PORT at 127.0.0.1:LOCAL, until Ctrl-C.

    LOCAL is the same number unless it is given; 0 takes a free one.
    """
    from .channel import place
    from .connection import api, server_from

    app, process = place(where)
    local, port = parsed(ports)
    server = server_from(ctx)
    server.ask("GET", api("apps", app))  # whether it is there, and we may; before anybody connects
    server.close()
    with _listener(local) as listener:
        click.echo(f"{HOST}:{listener.getsockname()[1]} is port {port} of {printable(where)}; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            accept(listener, server, api("apps", app, "forward", process=process, port=port))


def parsed(ports: str) -> tuple[int, int]:
    """``[LOCAL:]PORT``."""
    first, colon, second = ports.partition(":")
    words = (first, second) if colon else (first, first)
    if all(word.isascii() and word.isdigit() and len(word) <= 5 for word in words):
        local, port = int(words[0]), int(words[1])
        if local <= 65535 and 1 <= port <= 65535:
            return local, port
    raise click.UsageError(f"`{ports}` is no [LOCAL:]PORT, such as 5432 or 15432:5432")


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=MOST)
    except OSError as error:
        raise Failure(
            f"{HOST}:{port} cannot be listened on: {os.strerror(error.errno or 0)}", "`0:PORT` takes a free one."
        ) from error


def accept(listener: socket.socket, server: Server, path: str) -> None:
    """For ever."""
    places = threading.BoundedSemaphore(MOST)
    while True:
        places.acquire()
        try:
            sock, address = listener.accept()
        except ConnectionError:
            places.release()
            continue
        name = f"{address[0]}:{address[1]}"
        threading.Thread(target=_serve, args=(server, path, sock, name, places), daemon=True).start()


def _serve(server: Server, path: str, sock: socket.socket, name: str, places: threading.BoundedSemaphore) -> None:
    """One connection, in its thread. Its errors are its own."""
    from .channel import opened

    try:
        with sock:
            try:
                with contextlib.closing(opened(server, path)) as channel:
                    cross(channel, sock)
            except Failure as failure:
                click.echo(printable(f"nextdeploy: {name}: {failure.message}"), err=True)
                # whoever connected sees a reset: an end would look like the container's
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                return  # whoever connected has left; the daemon sees that when the channel closes
    finally:
        places.release()


def cross(channel: Channel, sock: socket.socket) -> None:
    """Both ways, until both have ended. ``Failure`` if the daemon or the container broke it, ``OSError`` if ``sock`` did."""
    from ..core.websocket import NORMAL
    from .pumping import BROKEN, PIECE, READ, WRITE, Sink, read, wait

    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    out = Sink(sock.fileno(), PIECE)
    is_sent = is_received = is_shut = False
    while True:
        for message in channel.turn(reading=out.has_room):
            if isinstance(message, bytes):
                out.waiting += message
            elif message.get("eof"):
                is_received = True
        if is_received and not is_shut and not out.waiting:
            sock.shutdown(socket.SHUT_WR)
            is_shut = True
        if is_shut and is_sent and channel.is_flushed:
            return
        if channel.goodbye is not None and not out.waiting:
            if channel.goodbye.code == NORMAL and is_received:
                return
            raise Failure(channel.goodbye.reason or "the daemon ended it", code=FAILED)
        wanted = {}
        if not (is_shut and is_sent):
            wanted[sock.fileno()] = (READ if not is_sent and channel.has_room else 0) | (WRITE if out.waiting else 0)
        if events := channel.wants(reading=out.has_room and channel.goodbye is None):
            wanted[channel.fileno()] = events
        ready = wait(wanted).get(sock.fileno(), 0)
        if ready & BROKEN:
            return
        if ready & WRITE:
            out.flush()
        if ready & ~WRITE and not is_sent:
            data = read(sock.fileno())
            if data:
                channel.put(data)
            elif data is not None:
                channel.put_json(eof=True)
                is_sent = True

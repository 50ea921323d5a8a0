"""A terminal in a Docker container: an exec with its streams in our hands.

The Engine's API cannot end an exec. As root, on the Engine's own machine, its processes are ended from here, known by a mark
in their environment; else they stay until they end by themselves or their container does."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal as signals
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, EngineUnreachable

if TYPE_CHECKING:
    from .docker_engine import DockerEngine

TERMINAL = "NEXTDEPLOY_TERMINAL"
"""In a terminal's environment: the daemon's id, a colon, and a word of its own."""
PATIENCE_SECONDS = 0.5
"""Between the polite end of a terminal's processes and the other one."""
INSPECT_SECONDS = 5.0
START_SECONDS = 10.0
RESIZE_TRIES = 10
PIECE_BYTES = 64 * 1024
live: set[str] = set()
"""The marks of the terminals that are open."""


class DockerTerminal:
    """``ndactors.ports.Terminal``."""

    def __init__(
        self, engine: DockerEngine, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int
    ) -> None:
        self._engine, self._tty = engine, tty
        self._left, self._is_error = 0, False
        """What is still to come of a frame, without a tty, and on which stream."""
        self._head = b""
        self._closed = False
        self._mark = f"{engine.daemon}:{secrets.token_hex(8)}"
        made = engine.ask(
            lambda api: api.exec_create(container, list(argv), stdin=True, tty=tty, environment={TERMINAL: self._mark})
        )
        self._id = made["Id"]
        self._sock, self._early = engine.ask(lambda api: attach(api, self._id, tty=tty))
        self._sock.settimeout(None)
        live.add(self._mark)
        if tty:
            self._first_size(rows, columns)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended; ``receive`` tells how
            self._sock.sendall(data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            if self._tty:
                self._sock.sendall(b"\x04")
            else:
                self._sock.shutdown(socket.SHUT_WR)

    def receive(self) -> tuple[bytes, bool]:
        if self._tty:
            return self._read(PIECE_BYTES), False
        while not self._left:
            # Docker's "stream format": 1 byte stream, 3 zero, 4 length, then as many bytes
            while len(self._head) < 8:
                data = self._read(8 - len(self._head))
                if not data:
                    return b"", False
                self._head += data
            self._is_error = self._head[0] == 2
            (self._left,) = struct.unpack_from(">I", self._head, 4)
            self._head = b""
        data = self._read(min(self._left, PIECE_BYTES))
        self._left -= len(data)
        return data, self._is_error

    def resize(self, rows: int, columns: int) -> None:
        if self._tty:
            with contextlib.suppress(EngineError):  # it has ended, or is about to
                self._engine.ask(lambda api: api.exec_resize(self._id, height=rows, width=columns))

    def exit_code(self) -> int | None:
        facts = self._inspect()
        deadline = time.monotonic() + INSPECT_SECONDS
        while facts.get("ExitCode") is None and time.monotonic() < deadline:
            time.sleep(0.01)
            facts = self._inspect()
        return facts.get("ExitCode")

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        live.discard(self._mark)
        self._sock.close()
        if self._engine.is_here:
            mark = f"{TERMINAL}={self._mark}"
            try:
                leader = self._pid(mark)
            except EngineError:
                leader = leader_of(mark)
            end_session(leader, mark, PATIENCE_SECONDS)

    def _read(self, size: int) -> bytes:
        if self._early:
            data, self._early = self._early[:size], self._early[size:]
            return data
        try:
            return bytes(self._sock.recv(size))
        except ConnectionResetError:
            return b""
        except OSError as error:
            raise EngineUnreachable(f"the Docker Engine does not answer: {error}") from error

    def _pid(self, mark: str) -> int:
        """0 if it has ended. One that is only about to start is waited for: the Engine hands the streams over before it
        starts anything, and starts it also if nobody holds them any more; and until it has become the program that was
        asked for, it has not its environment, by which alone it can be told from another one with its number."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            facts = self._inspect()
            pid, runs, ended = facts.get("Pid") or 0, bool(facts.get("Running")), facts.get("ExitCode") is not None
            begun = pid and runs and mark.encode() in _environment(int(pid))
            if begun or (ended and not runs) or time.monotonic() > deadline:
                return int(pid) if runs else 0
            time.sleep(0.01)

    def _inspect(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._engine.ask(lambda api: api.exec_inspect(self._id))
        return facts

    def _first_size(self, rows: int, columns: int) -> None:
        """The Engine knows the terminal only a moment after it has answered."""
        for _ in range(RESIZE_TRIES):
            try:
                self._engine.ask(lambda api: api.exec_resize(self._id, height=rows, width=columns))
                return
            except EngineUnreachable:
                raise
            except EngineError:
                time.sleep(0.01)


def attach(api: Any, id: str, *, tty: bool) -> tuple[Any, bytes]:
    """Start an exec: its connection, and what was read of it together with the answer's head."""
    stream = api.exec_start(id, socket=True, tty=tty)
    sock = getattr(stream, "_sock", stream)
    buffer = stream._response.raw._fp.fp
    timeout = sock.gettimeout()
    sock.settimeout(0.0)
    try:
        early = bytes(buffer.peek() if hasattr(buffer, "peek") else b"")
    except (BlockingIOError, ValueError):
        early = b""
    finally:
        sock.settimeout(timeout)
    return Held(sock, stream), early


class Held:
    """A socket that keeps alive what it belongs to: the SDK closes the connection of an answer that nobody holds."""

    def __init__(self, sock: Any, stream: Any) -> None:
        self._sock, self._stream = sock, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._sock.close()


# -- processes on this machine ---------------------------------------------------------------------


def end_session(leader: int, mark: str, patience: float) -> None:
    """End all processes of the session that ``leader`` began, if ``mark`` is in its environment: with SIGHUP, and those
    that are still there after ``patience`` seconds with SIGKILL. A frozen one ends when it is thawed."""
    if not leader or mark.encode() not in _environment(leader):
        return
    if patience:
        for pid in _session(leader):
            _signal(pid, leader, signals.SIGHUP)
            _signal(pid, leader, signals.SIGCONT)
        deadline = time.monotonic() + patience
        while any(_session(leader)) and time.monotonic() < deadline:
            time.sleep(0.02)
    for pid in _session(leader):
        _signal(pid, leader, signals.SIGKILL)


def leader_of(mark: str) -> int:
    """What an exec with this mark started; 0 if there is none."""
    return next((pid for pid in _all() if mark.encode() in _environment(pid) and _came_from_outside(pid)), 0)


def end_leftovers(daemon: str) -> None:
    """End the terminals that an earlier life of this daemon left behind when it was killed. What was started in one of
    them to go on for itself does."""
    prefix = f"{TERMINAL}={daemon}:".encode()
    for pid in _all():
        mark = next((row for row in _environment(pid) if row.startswith(prefix)), None)
        if mark is not None and mark.decode().partition("=")[2] not in live and _came_from_outside(pid):
            end_session(pid, mark.decode(), 0.0)


def _came_from_outside(pid: int) -> bool:
    """Its parent is not in its container: it is what an exec started, and not something started in one."""
    return _facts(pid)[1] == pid and _namespace(pid) != _namespace(_facts(pid)[0])


def _session(leader: int) -> Iterator[int]:
    return (pid for pid in _all() if _facts(pid)[1] == leader)


def _signal(pid: int, leader: int, number: signals.Signals) -> None:
    """To that very process: one that got its number meanwhile is not touched."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _facts(pid)[1] == leader:
                signals.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _all() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _facts(pid: int) -> tuple[int, int]:
    """Parent and session (proc(5), fields 4 and 6); zeros if there is none, or it is dead."""
    return _read(lambda: _stat(Path(f"/proc/{pid}/stat").read_text()), (0, 0))


def _stat(text: str) -> tuple[int, int]:
    fields = text.rpartition(")")[2].split()
    return (0, 0) if fields[0] in "ZX" else (int(fields[1]), int(fields[3]))


def _environment(pid: int) -> list[bytes]:
    return _read(lambda: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"), [])


def _namespace(pid: int) -> str:
    return _read(lambda: os.readlink(f"/proc/{pid}/ns/pid"), "")


def _read(look: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return look()
    except OSError:
        return otherwise

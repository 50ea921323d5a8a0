"""One of our processes that outlives the daemon, as the daemon knows it: find the one that runs, or start one; speak with it
over its socket; notice when it goes, and start over."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
from msgspec import Struct

from ..errors import Conflict, LinkError, NextDeployError
from ..messages.edge import Hello, Refused
from ..runtime.link import FrameReader, SendBuffer, connect_unix, encode
from ..runtime.restarts import Backoff
from .children import child_environment, open_log, start_outliving

ANSWER_SECONDS = 10.0
"""How long a new one may take until it answers."""
SOON_SECONDS = 5.0
"""What ends sooner than that may do so again: each time we wait a little longer."""


class OutlivingProcess:
    """``role`` is its role and the name of its folder, socket and log; ``types`` is what it may tell. Who inherits has
    ``_adopt_or_start`` (and calls ``_adopted`` at its end), ``_take`` for each message, and ``_changed`` for news in words."""

    def __init__(self, state_dir: Path, role: str, types: Any, hello: Hello) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / role
        self._role = role
        self._types = types
        self._hello = hello
        self._log = logging.getLogger(f"ndactors.{role}")
        self._sock: socket.socket | None = None
        self._reader: FrameReader[Any] = FrameReader(types)
        self._out = SendBuffer()
        self._flushing: gevent.Greenlet | None = None
        self._listening: gevent.Greenlet | None = None
        self._closed = False
        self.pid: int | None = None

    def start(self, *, wait: bool = True) -> None:
        """Adopt the one that runs, or start one. ``NextDeployError`` with its own words if neither works; without ``wait``
        it is done beside, and tried again until it works."""
        self.close()
        self._closed = False
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if wait:
            self._adopt_or_start()
        self._listening = gevent.spawn(self._listen)

    def close(self) -> None:
        """Leave it running and let go of it."""
        self._closed = True
        self._end_greenlets()
        self._disconnect()

    def _end(self, last_words: Struct, seconds: float) -> None:
        """Ask it to end, hear what it still has to say, and see that it did."""
        pid, sock = self.pid, self._sock
        self._closed = True
        self._end_greenlets()
        if sock is not None:
            self._send(last_words)
            # the end of the link is the end of the process
            self._link_ends(seconds)
        self._disconnect()
        if pid is not None:
            self._wait_until_gone(pid, 2.0)

    def _end_greenlets(self) -> None:
        for greenlet in (self._listening, self._flushing):
            if greenlet is not None and greenlet is not gevent.getcurrent():
                greenlet.kill(timeout=1.0)

    # -- what the one who inherits does ------------------------------------------------------------

    def _adopt_or_start(self) -> None:
        raise NotImplementedError

    def _take(self, message: Any) -> None:
        raise NotImplementedError

    def _changed(self, words: str) -> None:
        raise NotImplementedError

    # -- finding and starting ----------------------------------------------------------------------

    def _connect(self) -> Hello | None:
        """None if nobody answers. ``Conflict`` if it refuses us."""
        try:
            sock = connect_unix(self._folder / f"{self._role}.sock")
        except OSError:
            return None
        self._reader = FrameReader(self._types)
        self._out = SendBuffer()
        try:
            sock.sendall(encode(self._hello))
            sock.settimeout(ANSWER_SECONDS)
            while True:
                data = sock.recv(1 << 16)
                if not data:
                    sock.close()
                    return None
                hello, *more = self._reader.feed(data) or [None]
                if isinstance(hello, Hello):
                    sock.settimeout(None)
                    self._sock = sock
                    self._take_all(more)
                    return hello
                if isinstance(hello, Refused):
                    sock.close()
                    raise Conflict(f"the {self._role} process refuses this daemon: {hello.reason}")
        except (OSError, LinkError):
            sock.close()
            return None

    def _spawn(
        self,
        arguments: Sequence[str] = (),
        sockets: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Hello:
        program = (sys.executable, "-m", "ndactors", f"--role={self._role}", f"--state-dir={self._state_dir}")
        log_path = self._folder / f"{self._role}.log"
        with open_log(log_path) as output:
            begins = output.tell()
            process = start_outliving(
                [*program, *arguments], output, {**child_environment(), **(environment or {})}, sockets
            )
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            hello = self._connect()
            if hello is not None:
                return hello
            if process.poll() is not None:
                words = log_path.read_bytes()[begins:].decode("utf-8", "replace").strip()
                last = words.splitlines()[-1] if words else process.returncode
                raise NextDeployError(f"the {self._role} process ended at once: {last}")
            gevent.sleep(0.02)
        raise NextDeployError(f"the {self._role} process did not answer within {ANSWER_SECONDS:g} s")

    # -- talking -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        backoff = Backoff(first=0.05, longest=5.0, reset_after=30.0)
        while not self._closed:
            if self._sock is not None:
                began = time.monotonic()
                self._hear()
                if self._closed:
                    return
                self._changed(f"the link to the {self._role} process ended")
                if time.monotonic() - began < SOON_SECONDS:
                    gevent.sleep(backoff.next(time.monotonic()))
            try:
                self._adopt_or_start()
            except (NextDeployError, OSError) as error:
                self._log.error("it cannot be started: %s", error)
                gevent.sleep(backoff.next(time.monotonic()))

    def _hear(self) -> None:
        """Until the connection ends."""
        sock = self._sock
        if sock is None:
            return
        try:
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    break
                self._take_all(self._reader.feed(data))
        except (OSError, LinkError) as error:
            self._log.warning("the link: %s", error)
        if self._sock is sock:
            self._disconnect()

    def _take_all(self, messages: list[Any]) -> None:
        for message in messages:
            self._take(message)

    def _link_ends(self, seconds: float) -> bool:
        """Read until it does, or the time is over."""
        sock = self._sock
        if sock is None:
            return True
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                sock.settimeout(max(0.01, deadline - time.monotonic()))
                data = sock.recv(1 << 18)
                if not data:
                    self._disconnect()
                    return True
                self._take_all(self._reader.feed(data))
        except TimeoutError:
            sock.settimeout(None)
            return False
        except (OSError, LinkError):
            self._disconnect()
            return True
        sock.settimeout(None)
        return False

    def _send(self, message: Struct) -> None:
        if self._sock is None:
            return
        if not self._out.push(encode(message)):
            self._log.error("the %s process takes no messages; one was dropped", self._role)
        if self._flushing is None or self._flushing.dead:
            self._flushing = gevent.spawn(self._flush)

    def _flush(self) -> None:
        while self._out and self._sock is not None:
            sock = self._sock
            try:
                done = self._out.flush(sock)
            except OSError:
                return  # the listener hears of it and starts over
            if not done:
                return

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        self.pid = None
        if sock is not None:
            sock.close()

    def _wait_until_gone(self, pid: int, seconds: float) -> None:
        """Until process ``pid`` ended; past that it is killed, if it still is ours."""
        command_line = Path(f"/proc/{pid}/cmdline")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                words = command_line.read_bytes()
            except OSError:
                return
            if f"--role={self._role}\0".encode() not in words or os.fsencode(self._state_dir) not in words:
                return
            gevent.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
            self._log.error("the %s process (pid %d) did not end and was killed", self._role, pid)

"""What tests of the outlets stand on: a store with something in it, and the outlets' process."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ndactors.core.logrecords import Columns, LogSource, format_ns
from ndactors.logs.outlet_process import OutletState
from ndactors.logs.segments import Segments
from ndactors.messages.logs import KeepLogs

ROOT = Path(__file__).parents[2]
START = 1_790_000_000_000_000_000
WEB = LogSource(container="c" * 64, app="shop", process="web", replica=2)
INFO = 1


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came true")
        time.sleep(0.01)
    return value


class Shelf:
    """A state folder with a log store that a test writes."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.folder = state_dir / "logs" / "store"
        self.segments = Segments(self.folder, lambda *_: None)
        self.segments.open()
        self._count = 0

    def add(self, *messages: str, level: int = INFO, stream: int = 0, source: LogSource = WEB) -> None:
        """One block with these records."""
        times = "".join(format_ns(START + self._count * 1000 + i) for i in range(len(messages)))
        self._count += len(messages)
        columns = Columns(
            text="".join(f"{message}\n" for message in messages),
            times=times,
            levels=bytes([level]) * len(messages),
            streams=bytes([stream]) * len(messages),
            lines=[message.count("\n") + 1 for message in messages],
        )
        self.segments.append(source, columns, None)

    def turn(self) -> int:
        """Close the segment that is written, and begin the next with a record; the number of the closed one."""
        number = self.segments.number
        self.segments.segment_bytes, before = 1, self.segments.segment_bytes
        self.add(f"turned from {number}")
        self.segments.segment_bytes = before
        return number

    def large(self, size: int) -> int:
        """Close a segment of about so many bytes; its number."""
        noise = random.Random(size)
        for _ in range(size // 400_000 + 1):
            self.add(base64.b64encode(noise.randbytes(400_000)).decode())
        return self.turn()

    def path(self, number: int, kind: str = "seg") -> Path:
        return self.folder / f"{number:012d}.{kind}"

    def close(self) -> None:
        self.segments.close()


class Running:
    """The outlets' process, as the log process starts it."""

    def __init__(self, state_dir: Path, keep: KeepLogs, **environment: str) -> None:
        self._state_dir = state_dir
        command = [sys.executable, "-m", "ndactors", "--role=log-outlets", f"--state-dir={state_dir}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self.process.stdin is not None
        with self.process.stdin as given:
            given.write(msgspec.msgpack.encode(keep))
        self.process.stdin = None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> str:
        """What it said."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, said.decode()
        return said.decode()


@contextlib.contextmanager
def running(state_dir: Path, keep: KeepLogs, **environment: str) -> Iterator[Running]:
    process = Running(state_dir, keep, **environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()


@contextlib.contextmanager
def at_work(*works: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """In a thread each, until the end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def state_of(state_dir: Path) -> OutletState:
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((state_dir / "logs" / "outlets.json").read_bytes(), type=OutletState)
    return OutletState()


def with_daemon(state_dir: Path, id: str) -> None:
    """The record that a daemon leaves."""
    folder = state_dir / "state"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "daemon.json").write_text(json.dumps({"sha256": "", "data": {"id": id, "epoch": 3, "key": "AAAA"}}))

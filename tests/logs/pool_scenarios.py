"""What the daemon's side of the log process does when that process is killed, frozen, or cannot be started: each in a
process of its own, as gevent has to patch everything first: `python pool_scenarios.py NAME FOLDER`."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import signal
import sys
import time
from pathlib import Path

import gevent

sys.path.insert(0, str(Path(__file__).parents[2]))

from ndactors import __version__
from ndactors.adapters import outliving
from ndactors.adapters.log_pool import SILENT_SECONDS, LogPool
from ndactors.core.logquery import LogFilter
from ndactors.errors import LogsAway
from ndactors.messages.logs import QUIET_REPORT_SECONDS, GetLogs, KeepLogs


def until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except LogsAway:
            pass
        assert time.monotonic() < deadline, "it never came true"
        gevent.sleep(0.02)


def pool_on(folder: Path) -> LogPool:
    pool = LogPool(folder, epoch=1, version=__version__)
    pool.keep(KeepLogs(days=1, bytes=1 << 24))
    return pool


def processes(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--role=logs" in words and f"--state-dir={folder}".encode() in words:
                found.append(int(entry.name))
    return found


def answers(pool: LogPool) -> bool:
    return pool.query(GetLogs()).items == ()


def killed(folder: Path) -> None:
    """The next one answers; who listened is told."""
    pool = pool_on(folder)
    pool.start()
    until(lambda: answers(pool))
    stream = pool.open(LogFilter(), batch=False, tail=0)
    waiting = gevent.spawn(stream.receive)
    gevent.sleep(0.1)
    first = pool.pid
    os.kill(first, signal.SIGKILL)
    assert waiting.get(timeout=5) is None
    until(lambda: answers(pool))
    assert pool.pid != first
    pool.stop()
    assert processes(folder) == []


def cannot_start_once(folder: Path) -> None:
    """A full disk, say, when it has to be started again."""
    pool = pool_on(folder)
    pool.start()
    until(lambda: answers(pool))
    real, failures = outliving.open_log, [OSError(28, "No space left on device")]

    def open_log(path):
        if failures:
            raise failures.pop()
        return real(path)

    outliving.open_log = open_log
    os.kill(pool.pid, signal.SIGKILL)
    until(lambda: not failures and answers(pool))
    pool.stop()


def started_twice(folder: Path) -> None:
    """A LogActor that crashed starts it again."""
    pool = pool_on(folder)
    pool.start()
    until(lambda: answers(pool))
    first = pool.pid
    pool.start()
    pool.start()
    until(lambda: answers(pool))
    for _ in range(20):
        assert answers(pool)
        gevent.sleep(0.02)
    assert pool.pid == first
    assert processes(folder) == [first]
    pool.stop()


def frozen(folder: Path) -> None:
    """Nobody waits for one that stands still: neither a start, nor for long a removal."""
    pool = pool_on(folder)
    pool.start()
    until(lambda: answers(pool))
    pid = pool.pid
    until(lambda: pool._heard)
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: time.monotonic() - pool._heard > SILENT_SECONDS)
        began = time.monotonic()
        assert not pool.flush(("c" * 64,))
        assert time.monotonic() - began < 1
        other = pool_on(folder)
        began = time.monotonic()
        other.start()
        assert time.monotonic() - began < 1
        other.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: pool.flush(("c" * 64,)))
    pool.stop()


def at_rest(folder: Path) -> None:
    """One that has nothing to tell is no one that stands still: also long after its last word it is waited for."""
    pool = pool_on(folder)
    reports = []
    pool.listen(reports.append, lambda wanted: None, lambda words: None)
    pool.start()
    until(lambda: reports)
    until(lambda: time.monotonic() - pool._heard > QUIET_REPORT_SECONDS - 0.5)
    assert pool.flush(("c" * 64,))
    pool.stop()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
    print("it did")

"""The shop's background process: sweeps sessions that nobody used for a day."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

SESSIONS = Path(os.environ.get("SESSIONS", "/tmp/shop-sessions"))
EVERY_SECONDS = 30.0
DAY_SECONDS = 86_400.0


def sweep() -> int:
    """How many were swept."""
    old = [p for p in SESSIONS.glob("*.json") if time.time() - p.stat().st_mtime > DAY_SECONDS]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def main() -> None:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    while not over.is_set():
        print(f"level=info msg=swept sessions={sweep()}", flush=True)
        over.wait(EVERY_SECONDS)


if __name__ == "__main__":
    main()

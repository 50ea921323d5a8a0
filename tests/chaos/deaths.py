"""The daemon dies at every step of a deploy: `python tests/chaos/deaths.py [--from N] [--points N] [--stride N]`. At each
point the visitors must not notice, and the next daemon must finish the deploy or undo it. Prints a line for each point."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in (HERE.parent / "system", HERE.parent / "ground", HERE.parents[1]):
    sys.path.insert(0, str(folder))

import dockerd
import images
from daemon import Daemon, until
from deploys import Visitors, finished, remove_versions, versions

LAST_POINT = 400


class Mortal(Daemon):
    """Runs as ``dying.py``; ``plan`` says when it dies."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        super().__init__(folder, config)
        self.plan = folder / "plan"
        self.program = [sys.executable, str(HERE / "dying.py"), str(self.plan)]

    def dies_at(self, number: int) -> None:
        self.plan.write_text(str(number))

    def lives(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.plan.unlink()

    def died_of(self) -> str:
        log = Path(f"{self.plan}.log")
        return log.read_text().splitlines()[-1] if log.exists() else ""


def run(first: int, points: int, stride: int, say: Callable[[str], None] = print) -> bool:
    """True if every point was survived. Ends by itself after the last point of a deploy."""
    address = dockerd.answering()
    if address is None:
        say("no Docker Engine answers")
        return False
    base = images.test_app(address)
    folder = Path(tempfile.mkdtemp(prefix="nextdeploy-deaths-"))
    made = versions(address, base, {"one": {"VERSION": "one"}, "two": {"VERSION": "two"}})
    shop = {
        "image": made["one"],
        "domains": ["*"],
        "replicas": 2,
        "healthcheck": {"path": "/health", "interval": "300ms"},
        "processes": {"web": {}, "prepare": {"command": "true", "schedule": "@deploy"}},
    }
    daemon = Mortal(folder, {"engine": "docker", "apps": {"shop": shop}})
    good, survived = True, 0
    try:
        daemon.start()
        daemon.wait_ready()
        settled(daemon)
        for number in range(first, min(first + points * stride, LAST_POINT), stride):
            words = one(daemon, made, number)
            if words is None:
                say(f"{number}: the deploy ended before this point: {survived} points survived")
                break
            survived += not words.startswith("NOT")
            good = good and not words.startswith("NOT")
            say(f"{number}: {words}")
        return good and survived > 0
    finally:
        identity = json.loads((folder / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.lives()
        daemon.close()
        dockerd.remove_all(address, identity)
        remove_versions(address, made)


def settled(daemon: Daemon) -> None:
    until(lambda: not daemon.api("/api/v1/operations?state=running")["items"], 60, "the end of all operations")


def serving(daemon: Daemon) -> str:
    """Which version all of the app's containers are, if they are of one."""
    rows = [row for row in daemon.containers().values() if row["process"] == "web"]
    if len(rows) != 2 or any(row["state"] != "running" or not row["routed"] for row in rows):
        return ""
    wanted = {row["revision"] for row in rows}
    return str(daemon.api("/api/v1/apps/shop")["image"]) if len(wanted) == 1 else ""


def one(daemon: Mortal, made: dict[str, str], number: int) -> str | None:
    before = serving(daemon)
    wanted = made["two"] if before == made["one"] else made["one"]
    visitors = Visitors(daemon.http, daemon.folder, 100)
    try:
        daemon.dies_at(number)
        id = ""
        with contextlib.suppress(OSError, ValueError):  # it may die before it answers
            id = daemon.post("/api/v1/apps/shop/deploy", {"image": wanted})["operation"]
        died = wait_for_death(daemon, id)
        if not died:
            return None
        why = daemon.died_of()
        daemon.lives()
        time.sleep(0.5)
        daemon.start()
        daemon.wait_ready()
        settled(daemon)
        after = until(lambda: serving(daemon), 30, "one version alone")
        outcome = finished(daemon, id)["state"] if id else "unknown to the client"
    finally:
        rows = visitors.stop()
    failed = [row for row in rows if row[1] != 200]
    expected = {"succeeded": wanted, "failed": before, "cancelled": before}.get(outcome, after)
    if failed:
        return f"NOT survived: {len(failed)} of {len(rows)} requests failed ({why}): {failed[:3]}"
    if after != expected or after not in (before, wanted):
        return f"NOT survived: it is {outcome}, but {after} serves ({why})"
    return f"{why.partition(' ')[2]}: {'finished' if after == wanted else 'undone'}, {outcome}, {len(rows)} requests, 0 failed"


def wait_for_death(daemon: Daemon, id: str) -> bool:
    """False if the deploy ended and the daemon lives."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert daemon.process is not None
        if daemon.process.poll() is not None:
            return True
        with contextlib.suppress(OSError, ValueError, KeyError):
            if id and daemon.api(f"/api/v1/operations/{id}")["state"] != "running":
                time.sleep(1.0)
                return daemon.process.poll() is not None
        time.sleep(0.05)
    raise AssertionError("neither the deploy nor the daemon ended")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--points", type=int, default=LAST_POINT)
    parser.add_argument("--stride", type=int, default=1)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return 0 if run(arguments.first, arguments.points, arguments.stride) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Deploys under load, with default settings, on the real Engine: `python tests/system/deploys.py [--deploys N] [--bad N]`
prints a table. Each receipt is held against what the visitors themselves remember."""

from __future__ import annotations

import argparse
import datetime
import json
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "ground"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import docker
from daemon import Daemon, until

LOAD = Path(__file__).parent / "load.py"
RATE = 200


class Visitors:
    """A load from a process of its own."""

    def __init__(self, url: str, folder: Path, rate: float = RATE) -> None:
        self.out = folder / f"visitors-{time.time_ns()}"
        self.process = subprocess.Popen([sys.executable, str(LOAD), url, str(rate), str(self.out)])

    def stop(self) -> list[tuple[str, int, float, float, str]]:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return [tuple(json.loads(line)) for line in self.out.read_text().splitlines()]  # type: ignore[misc]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def versions(address: str, base: str, settings: dict[str, dict[str, str]]) -> dict[str, str]:
    """Images made of ``base`` with other variables: name → image."""
    client = docker.APIClient(base_url=address, timeout=120)
    repository = f"nextdeploy-deploys-{secrets.token_hex(4)}"
    made = {}
    for name, env in settings.items():
        container = client.create_container(base)["Id"]
        changes = "\n".join(f"ENV {key}={value}" for key, value in env.items())
        client.commit(container, repository=repository, tag=name, changes=changes)
        client.remove_container(container)
        made[name] = f"{repository}:{name}"
    client.close()
    return made


def remove_versions(address: str, images: dict[str, str]) -> None:
    client = docker.APIClient(base_url=address, timeout=120)
    for image in images.values():
        client.remove_image(image, force=True)
    client.close()


def deploy(daemon: Daemon, image: str, app: str = "shop", seconds: float = 180.0) -> dict[str, Any]:
    """The operation at its end."""
    id = daemon.post(f"/api/v1/apps/{app}/deploy", {"image": image})["operation"]
    return finished(daemon, id, seconds)


def finished(daemon: Daemon, id: str, seconds: float = 180.0) -> dict[str, Any]:
    def ended() -> Any:
        operation = daemon.api(f"/api/v1/operations/{id}")
        return operation if operation["state"] != "running" else None

    return dict(until(ended, seconds, f"the end of {id}"))


def records(daemon: Daemon, app: str = "shop") -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = daemon.api(
            f"/api/v1/requests?{urllib.parse.urlencode({'app': app, 'limit': 5000, 'cursor': cursor} if cursor else {'app': app, 'limit': 5000})}"
        )
        yield from page["items"]
        if page["next"] is None:
            return
        cursor = page["next"]


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def compare(operations: list[dict[str, Any]], rows: list[Any], daemon: Daemon) -> list[str]:
    """How receipts differ from what the visitors remember: each request of theirs has exactly one record, and each window
    of each receipt counts exactly those of theirs that ended in it."""
    wrong = []
    ids = [row[0] for row in rows if row[0]]
    ended: dict[str, list[float]] = {}
    for record in records(daemon):
        ended.setdefault(record["id"], []).append(moment(record["ts"]) + record["duration_ms"] / 1000)
    strange = [id for id in ids if len(ended.get(id, [])) != 1]
    if strange:
        wrong.append(f"{len(strange)} of the visitors' requests have no record, or more than one")
    if len(ids) != len(set(ids)):
        wrong.append("two requests have the same id")
    known = set(ids)
    moments = sorted(at for id, all in ended.items() if id in known for at in all)
    for operation in operations:
        receipt = operation["receipt"]
        if receipt is None:
            wrong.append(f"{operation['id']} has no receipt")
            continue
        for name, (begin, end) in receipt["windows"].items():
            count = sum(moment(begin) <= at < moment(end) for at in moments)
            if count != receipt["requests"][name]:
                wrong.append(f"{operation['id']}: {name}: receipt {receipt['requests'][name]}, visitors {count}")
    return wrong


def step(operation: dict[str, Any], name: str) -> float:
    return float(next(s["seconds"] for s in operation["steps"] if s["name"] == name))


def run(deploys: int, bad: int, say: Callable[[str], None] = print) -> bool:
    import dockerd
    import images

    address = dockerd.answering()
    if address is None:
        say("no Docker Engine answers")
        return False
    base = images.test_app(address)
    folder = Path(tempfile.mkdtemp(prefix="nextdeploy-deploys-"))
    made = versions(
        address,
        base,
        {"one": {"VERSION": "one"}, "two": {"VERSION": "two"}, "never": {"EXIT_AT_START": "1"}},
    )
    shop = {"image": made["one"], "domains": ["*"], "replicas": 2}
    daemon = Daemon(folder, {"engine": "docker", "apps": {"shop": shop}})
    good = True
    try:
        daemon.start()
        daemon.wait_ready()
        visitors = Visitors(daemon.http, folder)
        try:
            done = []
            for number in range(deploys):
                operation = deploy(daemon, made["two" if number % 2 == 0 else "one"])
                done.append(operation)
                if operation["state"] != "succeeded":
                    say(f"deploy {number + 1}: {operation['state']}: {operation['reason']}")
                    good = False
            refused = []
            before = {row["id"] for row in daemon.containers().values()}
            for _ in range(bad):
                operation = deploy(daemon, made["never"])
                until(lambda: len(daemon.containers()) == 2, 30, "the old version alone")
                untouched = {row["id"] for row in daemon.containers().values()} == before
                refused.append(operation)
                if operation["state"] != "failed" or not untouched:
                    say(f"a bad version: {operation['state']}, old version untouched: {untouched}")
                    good = False
            time.sleep(2.0)  # requests of the last window are let end; their records are compared below
        finally:
            rows = visitors.stop()
        failed = [row for row in rows if row[1] != 200]
        until(lambda: sum(1 for _ in records(daemon)) >= len(rows), 30, "all records")
        wrong = compare([*done, *refused], rows, daemon)
        counted = [o["receipt"] for o in [*done, *refused] if o["receipt"]]
        say(f"requests sent: {len(rows)}; failed: {len(failed)}; worst {max(r[3] - r[2] for r in rows):.2f} s")
        say(
            f"deploys: {len(done)}; receipts that count a failed request: {sum(r['failed'] > 0 for r in counted)}; "
            f"held: {sum(r['held'] for r in counted)}"
        )
        say(f"receipts that differ from what the visitors remember: {len(wrong)}")
        for line in wrong[:10]:
            say(f"    {line}")
        if done:
            for name in ("prepare", "start", "drain"):
                times = sorted(step(o, name) for o in done)
                say(f"{name}: median {statistics.median(times):.2f} s, worst {times[-1]:.2f} s")
        if refused:
            causes = sorted({o["reason"] for o in refused})
            say(f"bad versions: {len(refused)}; causes named: {causes[:3]}")
        for row in failed[:5]:
            say(f"    {row}")
        return good and not failed and not wrong and not any(r["failed"] for r in counted)
    finally:
        identity = json.loads((folder / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.close()
        dockerd.remove_all(address, identity)
        remove_versions(address, made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deploys", type=int, default=100)
    parser.add_argument("--bad", type=int, default=10)
    arguments = parser.parse_args()
    return 0 if run(arguments.deploys, arguments.bad) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How soon a new version serves once its image is there, beside the start-up of the app alone: `python
tests/bench/switch.py [--short]`. Start-up: from the Engine's create to the first answer, without NextDeploy."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE.parent / "system", HERE.parent / "ground", HERE.parents[1]):
    sys.path.insert(0, str(folder))

import docker
import dockerd
import images
from daemon import Daemon
from deploys import finished, moment, remove_versions, step, versions

POLL_SECONDS = 0.005


def answers(url: str, good: Callable[[bytes], bool], seconds: float = 30.0) -> float:
    """When it first answers so (Unix seconds)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                if good(response.read()):
                    return time.time()
        except OSError:
            pass  # it does not listen yet
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"{url} never answered")


def alone(client: docker.APIClient, image: str) -> float:
    began = time.time()
    container = client.create_container(image)["Id"]
    try:
        client.start(container)
        address = client.inspect_container(container)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        return answers(f"http://{address}:8000/", lambda body: True) - began
    finally:
        client.remove_container(container, force=True)


def deployed(daemon: Daemon, image: str, version: str) -> tuple[float, float]:
    """Seconds from when the image was known to be there to the first answer of the new version, and to when all of its
    containers served."""
    id = daemon.post("/api/v1/apps/shop/deploy", {"image": image})["operation"]
    first = answers(daemon.http, lambda body: json.loads(body)["version"] == version)
    operation = finished(daemon, id)
    prepare = next(s for s in operation["steps"] if s["name"] == "prepare")
    return first - (moment(prepare["started"]) + prepare["seconds"]), step(operation, "start")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    rounds = 2 if parser.parse_args().short else 10
    address = dockerd.answering()
    if address is None:
        print("no Docker Engine answers")
        return 1
    made = versions(address, images.test_app(address), {"one": {"VERSION": "one"}, "two": {"VERSION": "two"}})
    folder = Path(tempfile.mkdtemp(prefix="nextdeploy-switch-"))
    shop = {"image": made["one"], "domains": ["*"], "replicas": 2}
    daemon = Daemon(folder, {"engine": "docker", "apps": {"shop": shop}})
    client = docker.APIClient(base_url=address, timeout=60)
    starts, firsts, alls = [], [], []
    try:
        daemon.start()
        daemon.wait_ready()
        for number in range(rounds):
            name = "two" if number % 2 == 0 else "one"
            starts.append(alone(client, made[name]))
            first, all = deployed(daemon, made[name], name)
            firsts.append(first)
            alls.append(all)
    finally:
        identity = json.loads((folder / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.close()
        dockerd.remove_all(address, identity)
        client.close()
        remove_versions(address, made)
    print(
        f"the app alone, from create to its first answer: median {statistics.median(starts):.2f} s, worst {max(starts):.2f} s"
    )
    print(
        f"image there → the new version's first answer:   median {statistics.median(firsts):.2f} s, worst {max(firsts):.2f} s"
    )
    print(
        f"image there → both of its containers serve:     median {statistics.median(alls):.2f} s, worst {max(alls):.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

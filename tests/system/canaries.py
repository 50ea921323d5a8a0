"""Canaries on the real Engine under load: `python tests/system/canaries.py [--hold SECONDS]` deploys a version that fails
5 % of its requests, one that is slower, and a good one, and prints what became of each."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "ground"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from daemon import Daemon, until
from deploys import Visitors, deploy, remove_versions, versions

VERSIONS = {
    "old": {"VERSION": "old"},
    "failing": {"VERSION": "failing", "FAIL_EVERY": "20"},
    "slower": {"VERSION": "slower", "SLOW_MS": "40"},
    "good": {"VERSION": "good"},
}
EXPECTED = {"failing": "failed", "slower": "failed", "good": "succeeded"}


class Canary(NamedTuple):
    version: str
    state: str
    reason: str
    seconds: float
    """From the moment when the canary got its first share to its end."""
    evidence: dict[str, Any]
    served: str
    """The version that serves afterwards, alone."""


def run(address: str, base: str, folder: Path, hold: float) -> tuple[list[Canary], float]:
    """What became of each, and the share of all the visitors' requests that failed."""
    import dockerd

    made = versions(address, base, VERSIONS)
    shop = {
        "image": made["old"],
        "domains": ["*"],
        "replicas": 2,
        "deploy": {"strategy": "canary", "canary": {"steps": [20, 50, 100], "hold": f"{hold:g}s"}},
    }
    daemon = Daemon(folder, {"engine": "docker", "apps": {"shop": shop}})
    found = []
    try:
        daemon.start()
        daemon.wait_ready()
        visitors = Visitors(daemon.http, folder)
        try:
            for name in EXPECTED:
                operation = deploy(daemon, made[name])
                steps = [step for step in operation["steps"] if step["name"].startswith("canary")]
                until(lambda: len(daemon.containers()) == 2, 60, "one version alone")
                served = {_version(daemon.http) for _ in range(20)}
                found.append(
                    Canary(
                        name,
                        operation["state"],
                        operation["reason"],
                        sum(step["seconds"] or 0.0 for step in steps),
                        operation["evidence"],
                        " ".join(sorted(served)),
                    )
                )
        finally:
            rows = visitors.stop()
    finally:
        identity = json.loads((folder / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.close()
        dockerd.remove_all(address, identity)
        remove_versions(address, made)
    return found, sum(row[1] != 200 for row in rows) / len(rows)


def _version(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(json.loads(response.read())["version"])


def main(say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hold", type=float, default=5.0, help="seconds of each step")
    arguments = parser.parse_args()
    import dockerd
    import images

    address = dockerd.answering()
    if address is None:
        say("no Docker Engine answers")
        return 1
    found, share = run(
        address, images.test_app(address), Path(tempfile.mkdtemp(prefix="nextdeploy-canaries-")), arguments.hold
    )
    for row in found:
        say(f"{row.version}: {row.state} after {row.seconds:.1f} s, {row.served} serves; {row.reason}")
        say(f"    {json.dumps(row.evidence)}")
    say(f"share of all requests that failed: {share:.2%}")
    return 0 if all(row.state == EXPECTED[row.version] for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())

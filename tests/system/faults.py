"""Faults in one of two containers, with default settings, under 200 GET/s and 20 POST/s: what was lost, the worst latency,
and whether a POST was carried out twice. `python tests/system/faults.py` prints the table of docs/reliability.md."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GETS, POSTS = 200, 20
GET_CONNECTIONS, POST_CONNECTIONS = 20, 4
BEFORE_SECONDS, FAULT_SECONDS, AFTER_SECONDS = 1.5, 6.0, 2.0


@dataclass
class Result:
    fault: str
    gets: int = 0
    lost: int = 0
    worst: float = 0.0
    posts: int = 0
    posts_failed: int = 0
    posts_twice: int = 0
    examples: list[str] = field(default_factory=list)


class Ground:
    """Two containers of one app behind the edge, and how to break one of them."""

    def __init__(self, url: str, client: Any, posts: Path, ids: Callable[[], list[str]]) -> None:
        self.url = url
        self.client = client
        self.posts = posts
        self.ids = ids

    def victim(self) -> dict[str, Any]:
        return self.client.inspect_container(self.ids()[0])

    def address(self, container: dict[str, Any]) -> str:
        return next(n["IPAddress"] for n in container["NetworkSettings"]["Networks"].values() if n["IPAddress"])

    def inside(self, container: dict[str, Any], *command: str) -> None:
        subprocess.run(
            ["nsenter", "-t", str(container["State"]["Pid"]), "-n", *command], check=False, capture_output=True
        )

    def mode(self, container: dict[str, Any], query: str) -> None:
        port = next(iter(container["Config"]["ExposedPorts"] or {"8000/tcp": {}})).split("/")[0]
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{self.address(container)}:{port}/mode?{query}", timeout=5).read()


@contextlib.contextmanager
def killed(ground: Ground) -> Iterator[None]:
    ground.client.kill(ground.victim()["Id"], "SIGKILL")
    yield


@contextlib.contextmanager
def stopped(ground: Ground) -> Iterator[None]:
    ground.client.stop(ground.victim()["Id"], timeout=1)
    yield


@contextlib.contextmanager
def paused(ground: Ground) -> Iterator[None]:
    victim = ground.victim()["Id"]
    ground.client.pause(victim)
    yield
    with contextlib.suppress(Exception):  # it was restarted meanwhile
        ground.client.unpause(victim)


@contextlib.contextmanager
def disconnected(ground: Ground) -> Iterator[None]:
    victim = ground.victim()
    network = next(iter(victim["NetworkSettings"]["Networks"]))
    ground.client.disconnect_container_from_network(victim["Id"], network, force=True)
    yield
    with contextlib.suppress(Exception):
        ground.client.connect_container_to_network(victim["Id"], network)


def filtered(target: str) -> Callable[[Ground], Any]:
    @contextlib.contextmanager
    def broken(ground: Ground) -> Iterator[None]:
        victim = ground.victim()
        ground.inside(victim, "iptables", "-A", "INPUT", "-j", target)
        yield
        ground.inside(victim, "iptables", "-D", "INPUT", "-j", target)

    return broken


def in_mode(query: str) -> Callable[[Ground], Any]:
    @contextlib.contextmanager
    def broken(ground: Ground) -> Iterator[None]:
        victim = ground.victim()
        ground.mode(victim, query)
        yield
        ground.mode(victim, "")

    return broken


FAULTS: dict[str, Callable[[Ground], Any]] = {
    "SIGKILL": killed,
    "docker stop -t 1": stopped,
    "docker pause": paused,
    "network disconnect": disconnected,
    "iptables DROP": filtered("DROP"),
    "iptables REJECT": filtered("REJECT"),
    "answers after 800 ms": in_mode("ms=800"),
    "closes in mid-answer": in_mode("cut=1"),
    "answers garbage": in_mode("garbage=1"),
}
ANSWERS_SPOILED = ("closes in mid-answer", "answers garbage")
"""Here a byte of the answer was seen, so the request must not be sent again: some are lost."""


class Load:
    def __init__(self, url: str) -> None:
        self._place = urlsplit(url)
        self._over = threading.Event()
        self.gets: list[tuple[int, float, str]] = []
        self.posts: list[tuple[int, float, str]] = []
        self.ids: list[str] = []
        jobs = [(self._get, GETS, GET_CONNECTIONS, n) for n in range(GET_CONNECTIONS)]
        jobs += [(self._post, POSTS, POST_CONNECTIONS, n) for n in range(POST_CONNECTIONS)]
        self._threads = [threading.Thread(target=self._send, args=job) for job in jobs]
        for thread in self._threads:
            thread.start()

    def _send(self, what: Callable[..., None], rate: int, connections: int, number: int) -> None:
        gap = connections / rate
        due = time.monotonic() + gap * number / connections
        connection = self._connect()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + gap, time.monotonic() - 1.0)
            connection = what(connection)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._place.hostname or "", self._place.port or 80, timeout=90)

    def _ask(self, connection: Any, method: str, path: str, rows: list, body: bytes | None = None) -> Any:
        began = time.monotonic()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            response.read()
            rows.append((response.status, time.monotonic() - began, response.headers.get("X-NextDeploy-Error", "")))
            if not response.will_close:
                return connection
        except (OSError, http.client.HTTPException) as error:
            rows.append((0, time.monotonic() - began, repr(error)))
        connection.close()
        return self._connect()

    def _get(self, connection: Any) -> Any:
        return self._ask(connection, "GET", "/", self.gets)

    def _post(self, connection: Any) -> Any:
        self.ids.append(uuid.uuid4().hex)
        return self._ask(connection, "POST", f"/once/{self.ids[-1]}", self.posts, b"hello")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(100)


def run(ground: Ground, fault: str) -> Result:
    load = Load(ground.url)
    time.sleep(BEFORE_SECONDS)
    with FAULTS[fault](ground):
        time.sleep(FAULT_SECONDS)
    time.sleep(AFTER_SECONDS)
    load.stop()
    bad = [row for row in load.gets if row[0] != 200]
    times = {path.name: path.stat().st_size for path in ground.posts.iterdir()}
    return Result(
        fault,
        gets=len(load.gets),
        lost=len(bad),
        worst=max((row[1] for row in load.gets if row[0] == 200), default=0.0),
        posts=len(load.posts),
        posts_failed=sum(row[0] != 200 for row in load.posts),
        posts_twice=sum(times.get(id, 0) > 1 for id in load.ids),
        examples=[f"{status} after {seconds:.2f} s: {words}" for status, seconds, words in bad[:3]],
    )


def table(results: list[Result]) -> str:
    rows = [
        "| fault in one of two containers | GETs | lost | worst | POSTs | not answered with 200 | carried out twice |"
    ]
    rows.append("|---|---|---|---|---|---|---|")
    for r in results:
        rows.append(
            f"| {r.fault} | {r.gets} | {r.lost} | {r.worst:.2f} s | {r.posts} | {r.posts_failed} | {r.posts_twice} |"
        )
    return "\n".join(rows)


def main() -> int:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "ground")]
    import docker
    import dockerd
    import images
    from daemon import Daemon

    own = None
    address = dockerd.answering()
    if address is None:
        own = dockerd.start_own()
        assert own is not None, "no Docker Engine answers, and none can be started here"
        address = own.address
    client = docker.APIClient(base_url=address, timeout=60)
    image = images.test_app(address)
    results = []
    for fault in [name for name in FAULTS if not sys.argv[1:] or name in sys.argv[1:]]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "posts").mkdir()
            app = {
                "image": image,
                "domains": ["*"],
                "replicas": 2,
                "env": {"POSTS": "/posts"},
                "volumes": [f"{folder}/posts:/posts"],
            }
            daemon = Daemon(folder, {"engine": "docker", "apps": {"shop": app}})
            daemon.start()
            try:
                daemon.wait_ready()
                ids = lambda daemon=daemon: [row["id"] for _, row in sorted(daemon.containers().items())]  # noqa: E731
                results.append(run(Ground(daemon.http, client, folder / "posts", ids), fault))
                print(json.dumps(results[-1].__dict__), file=sys.stderr, flush=True)
            finally:
                identity = json.loads((folder / "state" / "state" / "daemon.json").read_text())["data"]["id"]
                daemon.close()
                dockerd.remove_all(address, identity)
    print(table(results))
    client.close()
    if own is not None:
        own.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

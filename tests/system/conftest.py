from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import dockerd as ground_dockerd
from daemon import Daemon


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator:
    """``start_daemon(config)``: a running daemon, ended with all that belongs to it."""
    made: list[Daemon] = []

    def start(config: dict, *arguments: str, ready: bool = True, **options) -> Daemon:
        daemon = Daemon(tmp_path, config, **options)
        made.append(daemon)
        daemon.start(*arguments)
        if ready:
            daemon.wait_ready()
        return daemon

    yield start
    for daemon in made:
        daemon.close()


@pytest.fixture
def on_docker(start_daemon, engine_address: str, test_image: str, tmp_path: Path) -> Iterator:
    """A daemon with the tests' app in containers on the real Engine; its containers are removed afterwards."""
    started: list[Daemon] = []

    def start(replicas: int = 2, **app) -> Daemon:
        check = {"path": "/health", "interval": "300ms", "timeout": "500ms", "retries": 2, "restart_after": "1s"}
        shop = {
            "image": test_image,
            "domains": ["*"],
            "replicas": replicas,
            "healthcheck": check,
            "stop_grace": "2s",
            **app,
        }
        shop = {key: value for key, value in shop.items() if value is not None}
        started.append(start_daemon({"engine": "docker", "apps": {"shop": shop}}))
        return started[-1]

    yield start
    for daemon in started:
        identity = json.loads((tmp_path / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.close()
        ground_dockerd.remove_all(engine_address, identity)


class Load:
    def __init__(self, url: str, rate: float, out: Path, inside: list[str]) -> None:
        self.out = out
        script = Path(__file__).parent / "load.py"
        self.process = subprocess.Popen([*inside, sys.executable, str(script), url, str(rate), str(out)])

    def stop(self) -> dict:
        self.process.terminate()
        self.process.wait(60)
        rows = [json.loads(line) for line in self.out.read_text().splitlines()]
        failed = [row for row in rows if row[1] != 200]
        worst = max((ended - began for _, _, began, ended, _ in rows), default=0)
        return {"sent": len(rows), "failed": len(failed), "worst": worst, "examples": failed[:5]}


@pytest.fixture
def load(tmp_path: Path) -> Iterator:
    """``load(url, rate)`` sends until ``.stop()``, which tells what became of every request."""
    made: list[Load] = []

    def start(url: str, rate: float = 200, inside: list[str] | None = None) -> Load:
        made.append(Load(f"{url}/", rate, tmp_path / f"load-{len(made)}.json", inside or []))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.fixture
def docker_client(engine_address: str) -> Iterator:
    client = docker.APIClient(base_url=engine_address, timeout=60)
    yield client
    client.close()

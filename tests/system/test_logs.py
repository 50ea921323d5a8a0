"""Numbered lines from real containers: every number is in the store, once and in order, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import dockerd
import pytest
from daemon import Daemon, until

sys.path.insert(0, str(Path(__file__).parents[1] / "logs"))

from process import lines, stored

LINES = 300_000
GO = "while [ ! -e /tmp/go ]; do sleep 0.05; done; "
SMALL = {"rotate": {"size": "1MiB", "files": 2}}


@pytest.fixture
def engine(engine_address: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=engine_address, timeout=60)
    yield client
    client.close()


@pytest.fixture
def flooding(start_daemon, engine_address, test_image, tmp_path) -> Iterator:
    """``flooding(script, replicas)``: a daemon with containers that run it, once they are told to go."""
    started: list[Daemon] = []

    def start(script: str, *, replicas: int = 1, logs: dict | None = None, **more) -> Daemon:
        shop = {
            "image": test_image,
            "processes": {"flood": {"command": ["sh", "-c", script], "replicas": replicas, "stop_grace": "1s"}},
        }
        started.append(start_daemon({"engine": "docker", "logs": logs or {}, "apps": {"shop": shop}, **more}))
        return started[-1]

    yield start
    for daemon in started:
        path = daemon.state / "state" / "daemon.json"
        identity = json.loads(path.read_text())["data"]["id"]
        daemon.close()
        dockerd.remove_all(engine_address, identity)


def go(engine: docker.APIClient, daemon: Daemon) -> list[str]:
    """All containers begin; their ids."""
    ids = sorted(row["id"] for row in daemon.containers().values())
    for each in ids:
        made = engine.exec_create(each, ["sh", "-c", ": > /tmp/go"])
        engine.exec_start(made["Id"])
    return ids


def numbers(daemon: Daemon, container: str) -> list[int]:
    return [int(line) for line in lines(daemon.state, container)]


def all_there(daemon: Daemon, containers: list[str], count: int = LINES, seconds: float = 60.0) -> None:
    """Once the last is, they all have to be: each once, and in order."""

    def last() -> bool:
        daemon.api("/api/v1/logs?limit=1")  # what waits is stored
        return all(stored_last(daemon, each) == count for each in containers)

    until(last, seconds, "the last line in the store")
    for each in containers:
        assert numbers(daemon, each) == list(range(1, count + 1))


def stored_last(daemon: Daemon, container: str) -> int:
    items = daemon.api(f"/api/v1/logs?container={container}&limit=1")["items"]
    return int(items[-1]["message"]) if items else 0


def test_every_number_once_and_in_order_over_rotations(flooding, engine):
    daemon = flooding(GO + f"seq 1 {LINES}; sleep 600", logs=SMALL)
    all_there(daemon, go(engine, daemon))


def test_five_containers_at_once(flooding, engine):
    daemon = flooding(GO + f"seq 1 {LINES // 5}; sleep 600", replicas=5, logs=SMALL)
    all_there(daemon, go(engine, daemon), LINES // 5)


def test_from_the_first_line_on(flooding, engine):
    daemon = flooding(f"seq 1 {LINES}; sleep 600", logs=SMALL)
    all_there(daemon, [row["id"] for row in daemon.containers().values()])


@pytest.mark.parametrize("victim", ["log process", "daemon", "both"])
def test_killed_in_mid_flood(flooding, engine, victim):
    daemon = flooding(GO + f"seq 1 {2 * LINES}; sleep 600")
    containers = go(engine, daemon)
    for _ in range(3):
        time.sleep(0.3)
        pids = daemon.pids("logs")
        if victim != "daemon":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        if victim != "log process":
            daemon.kill()
            daemon.start()
        until(
            lambda pids=pids: len(daemon.pids("logs")) == 1 and (victim == "daemon" or daemon.pids("logs") != pids), 20
        )
    all_there(daemon, containers, 2 * LINES)


def test_removed_at_once_after_the_last_line(flooding, engine):
    daemon = flooding(
        "[ -e /tmp/done ] && sleep 600; " + GO + f"seq 1 {LINES // 3}; : > /tmp/done; kill -9 1", logs=SMALL
    )
    (container,) = go(engine, daemon)
    engine.wait(container, timeout=60)
    try:
        engine.remove_container(container, force=True)
    except docker.errors.APIError as error:  # the daemon was as fast
        assert error.status_code in (404, 409)
    until(lambda: stored_last(daemon, container) == LINES // 3, 30, "the last line in the store")
    assert numbers(daemon, container) == list(range(1, LINES // 3 + 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="a disk of its own takes root")
def test_a_full_disk_that_is_freed(flooding, engine, tmp_path):
    store = tmp_path / "state" / "logs"
    store.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], check=True)
    try:
        ballast = store / "ballast"
        ballast.write_bytes(bytes(900 * 1024))
        daemon = flooding(GO + f"seq 1 {LINES}; sleep 600")
        containers = go(engine, daemon)
        until(lambda: daemon.events("logs.store_failed"), 30, "the full disk in the events")
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", store], check=True)
        until(lambda: daemon.events("logs.resumed"), 30, "the freed disk in the events")
        all_there(daemon, containers)
        daemon.close()
    finally:
        subprocess.run(["umount", "-l", store], check=True)


def test_frozen_nobody_waits_for_the_logs(flooding, engine, test_image):
    """Daemon and log process stand still under a flood: the app writes on, and can be killed."""
    daemon = flooding("[ -e /tmp/done ] && sleep 600; " + GO + f"seq 1 {LINES}; : > /tmp/done; sleep 600")
    (log_process,) = daemon.pids("logs")
    os.kill(log_process, signal.SIGSTOP)
    daemon.signal(signal.SIGSTOP)
    try:
        (container,) = [row["Id"] for row in engine.containers() if row["Labels"].get("nextdeploy.process") == "flood"]
        made = engine.exec_create(container, ["sh", "-c", ": > /tmp/go"])
        engine.exec_start(made["Id"])

        def done() -> bool:
            made = engine.exec_create(container, ["ls", "/tmp/done"])
            engine.exec_start(made["Id"])
            return engine.exec_inspect(made["Id"])["ExitCode"] == 0

        until(done, 30, "the end of the flood")
        began = time.monotonic()
        engine.kill(container)
        engine.wait(container, timeout=20)
        assert time.monotonic() - began < 10
    finally:
        daemon.signal(signal.SIGCONT)
        os.kill(log_process, signal.SIGCONT)
    until(lambda: stored_last(daemon, container) == LINES, 60, "the last line in the store")
    assert numbers(daemon, container) == list(range(1, LINES + 1))


def test_beyond_the_rotation_budget_the_gap_is_told(flooding, engine):
    daemon = flooding(GO + f"seq 1 {LINES}; sleep 600", logs=SMALL)
    frozen = [*daemon.pids("logs"), *daemon.pids("log-opener")]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    (container,) = go(engine, daemon)
    path = Path(engine.inspect_container(container)["LogPath"])
    until(lambda: f'"log":"{LINES}\\n"' in path.read_text()[-200:], 60, "the end of the flood")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)

    def last() -> bool:
        records = stored(daemon.state, container=container)
        return bool(records) and records[-1].message == str(LINES)

    until(lambda: daemon.api("/api/v1/logs?limit=1") and last(), 30, "the last line in the store")
    records = stored(daemon.state, container=container)
    found = [int(record.message) for record in records if record.gap is None]
    assert found == sorted(set(found))
    gaps = [record.gap for record in records if record.gap is not None]
    assert gaps
    assert sum(gap.bytes for gap in gaps) > 1024 * 1024
    until(lambda: daemon.events("logs.lost"), what="the loss in the events")


def test_dockerd_restarts(start_daemon, test_image, engine_address, tmp_path):
    private = dockerd.PrivateDockerd(live_restore=True)
    try:
        shared = docker.APIClient(base_url=engine_address, timeout=300)
        own = docker.APIClient(base_url=private.address, timeout=300)
        own.load_image(b"".join(shared.get_image(test_image)))
        shared.close()
        script = (
            GO
            + "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo $n; [ $((n % 30)) = 0 ] && sleep 0.05; done; sleep 600"
        )
        shop = {"image": test_image, "processes": {"flood": {"command": ["sh", "-c", script], "stop_grace": "1s"}}}
        daemon = start_daemon(
            {"engine": "docker", "apps": {"shop": shop}},
            inside=private.inside,
            environment={"DOCKER_HOST": private.address},
            ready=False,
        )
        until(lambda: any(row["state"] == "running" for row in daemon.containers().values()), 60, "the container")
        containers = go(own, daemon)
        for _ in range(2):
            time.sleep(0.7)
            private.kill()
            private.start()
        all_there(daemon, containers, 3000)
        daemon.close()
        own.close()
    finally:
        private.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="to hide files takes root")
def test_where_the_files_cannot_be_read_the_engine_is_asked(start_daemon, engine, engine_address, test_image):
    root = engine.info()["DockerRootDir"]
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {root}/containers && exec "$@"', "sh"]
    long = "x" * 40_000
    script = f"n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo $n; echo $n >&2; sleep 0.01; done; echo {long}; sleep 600"
    shop = {"image": test_image, "processes": {"count": {"command": ["sh", "-c", script], "stop_grace": "1s"}}}
    daemon = start_daemon({"engine": "docker", "apps": {"shop": shop}}, inside=hide)
    try:

        def messages(stream: str = "stdout") -> list[str]:
            return [row["message"] for row in daemon.api(f"/api/v1/logs?limit=1000&stream={stream}")["items"]]

        until(lambda: len(messages()) > 50, 30, "some lines")
        (log_process,) = daemon.pids("logs")
        os.kill(log_process, signal.SIGKILL)
        daemon.kill()
        daemon.start()
        until(lambda: len(messages()) >= 401, 30, "the last line")
        assert messages() == [*map(str, range(1, 401)), long]
        assert messages("stderr") == [*map(str, range(1, 401))]
    finally:
        daemon.close()
        identity = json.loads((daemon.state / "state" / "daemon.json").read_text())["data"]["id"]
        dockerd.remove_all(engine_address, identity)

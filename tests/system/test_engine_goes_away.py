"""The Engine itself killed and frozen, with and without live-restore: a dockerd of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import docker
import dockerd
import pytest
from daemon import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a private dockerd takes root")


@pytest.fixture
def private_engine(request, engine_address, test_image, tmp_path_factory):
    """With the tests' image in it."""
    engine = dockerd.PrivateDockerd(live_restore=request.param)
    shared = docker.APIClient(base_url=engine_address, timeout=300)
    private = docker.APIClient(base_url=engine.address, timeout=300)
    private.load_image(b"".join(shared.get_image(test_image)))
    private.close()
    shared.close()
    yield engine
    engine.close()


@pytest.fixture
def daemon(private_engine, start_daemon, test_image):
    check = {"path": "/health", "interval": "300ms", "timeout": "500ms", "retries": 2}
    shop = {"image": test_image, "domains": ["*"], "replicas": 2, "healthcheck": check, "stop_grace": "2s"}
    made = start_daemon(
        {"engine": "docker", "apps": {"shop": shop}},
        inside=private_engine.inside,
        environment={"DOCKER_HOST": private_engine.address},
        ready=False,
    )
    until(
        lambda: all(row["routed"] for row in made.containers().values()) and len(made.containers()) == 2,
        60,
        "readiness",
    )
    return made


@pytest.mark.parametrize("private_engine", [True], indirect=True, ids=["live-restore"])
def test_killed_with_live_restore_nobody_notices(daemon, private_engine, load):
    before = {name: row["id"] for name, row in daemon.containers().items()}
    sending = load(daemon.http, 200, private_engine.inside)
    time.sleep(1)
    private_engine.kill()
    until(lambda: daemon.events("engine.lost"), what="the loss")
    time.sleep(2)
    private_engine.start()
    until(lambda: daemon.events("engine.found"), 30, "the return")
    time.sleep(2)
    result = sending.stop()
    assert result["failed"] == 0, result
    assert {name: row["id"] for name, row in daemon.containers().items()} == before
    victim = before["nd-shop-web-1-1"]
    subprocess.run(
        [*private_engine.inside, "docker", "-H", private_engine.address, "kill", victim],
        check=True,
        capture_output=True,
    )
    until(lambda: daemon.containers()["nd-shop-web-1-1"]["restarts"] >= 1, 30, "events are heard again")


@pytest.mark.parametrize("private_engine", [False], indirect=True, ids=["without"])
def test_killed_without_live_restore_everything_comes_back(daemon, private_engine):
    before = {name: row["id"] for name, row in daemon.containers().items()}
    private_engine.kill()
    until(lambda: daemon.events("engine.lost"), what="the loss")
    private_engine.start()
    until(lambda: daemon.events("engine.found"), 30, "the return")
    until(lambda: all(row["routed"] for row in daemon.containers().values()), 60, "traffic again")
    assert {name: row["id"] for name, row in daemon.containers().items()} == before


@pytest.mark.parametrize("private_engine", [True], indirect=True, ids=["live-restore"])
def test_frozen_and_thawed_nobody_notices(daemon, private_engine, load):
    before = {name: row["id"] for name, row in daemon.containers().items()}
    sending = load(daemon.http, 100, private_engine.inside)
    private_engine.signal(signal.SIGSTOP)
    until(lambda: daemon.events("engine.lost"), 60, "the loss")
    assert json.loads(json.dumps(daemon.api("/api/v1/status")))["engine"]["reachable"] is False
    private_engine.signal(signal.SIGCONT)
    until(lambda: daemon.events("engine.found"), 60, "the return")
    result = sending.stop()
    assert result["failed"] == 0, result
    assert {name: row["id"] for name, row in daemon.containers().items()} == before
    assert all(row["routed"] for row in daemon.containers().values())

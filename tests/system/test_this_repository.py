"""This repository's own file, as `make run` starts it and as `--env=staging` does."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import dockerd
import pytest
import websocket
import yaml
from daemon import until

ROOT = Path(__file__).parents[2]


def start(start_daemon, tmp_path, environment: str):
    config = yaml.safe_load((ROOT / "nextdeploy.yml").read_text())
    overrides = {
        "state_dir": tmp_path / "state",
        "edge.http": "127.0.0.1:0",
        "admin.listen": "127.0.0.1:0",
        "apps.shop.env.SESSIONS": tmp_path / "sessions" if environment == "dev" else "/tmp/sessions",
    }
    arguments = [f"--env={environment}", *(f"--set={key}={value}" for key, value in overrides.items())]
    return start_daemon(config, *arguments, environment={"SHOP_FOLDER": str(ROOT / "examples" / "shop")})


def shop_answers(daemon) -> None:
    with urllib.request.urlopen(f"{daemon.http}/", timeout=10) as response:
        assert json.loads(response.read())["shop"] == "open"
    with urllib.request.urlopen(f"{daemon.http}/headers", timeout=10) as response:
        headers = json.loads(response.read())
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{daemon.http}/fail", timeout=10)
    assert caught.value.code == 500
    ws = websocket.create_connection(f"ws{daemon.http[4:]}/ws", timeout=10)
    assert ":" in ws.recv()
    for message in ("hello", "x" * 100_000):
        ws.send(message)
        assert ws.recv() == message
    ws.close()


def test_dev_runs_the_shop_without_docker(start_daemon, tmp_path):
    daemon = start(start_daemon, tmp_path, "dev")
    assert sorted(daemon.containers()) == ["nd-shop-web-1-1", "nd-shop-worker-1-1"]
    shop_answers(daemon)
    log = Path(daemon.containers()["nd-shop-web-1-1"]["log_path"])
    until(lambda: "KeyError: 'quince'" in log.read_text(), what="the traceback in the log")


def test_staging_runs_two_replicas_in_containers(start_daemon, tmp_path, engine_address, shop_image):
    daemon = start(start_daemon, tmp_path, "staging")
    try:
        assert sorted(daemon.containers()) == ["nd-shop-web-1-1", "nd-shop-web-1-2", "nd-shop-worker-1-1"]
        shop_answers(daemon)
        hosts = set()
        for _ in range(10):
            with urllib.request.urlopen(f"{daemon.http}/", timeout=10) as response:
                hosts.add(json.loads(response.read())["host"])
        assert len(hosts) == 2
    finally:
        identity = daemon.api("/api/v1/status")["daemon_id"]
        daemon.close()
        dockerd.remove_all(engine_address, identity)

"""The example app by itself: what the demo and other tests build on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websocket

SHOP = Path(__file__).parents[2] / "examples" / "shop"


@pytest.fixture
def shop(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PORT": str(port), "SESSIONS": str(tmp_path / "sessions")}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=SHOP, env=environment, stdout=out, stderr=out)
    deadline = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, (tmp_path / "out").read_text()
    process.url, process.out = f"http://127.0.0.1:{port}", tmp_path / "out"
    yield process
    process.kill()
    process.wait()


def test_a_cart_is_kept_on_disk(shop):
    request = urllib.request.Request(f"{shop.url}/cart", data=b'{"item": "apple"}')
    with urllib.request.urlopen(request) as response:
        cookie = response.headers["Set-Cookie"].partition(";")[0]
        assert json.loads(response.read()) == {"cart": {"apple": 1}, "total": 120}
    request = urllib.request.Request(f"{shop.url}/cart", headers={"Cookie": cookie})
    with urllib.request.urlopen(request) as response:
        assert json.loads(response.read())["cart"] == {"apple": 1}


def test_a_failing_route_answers_500_and_logs_its_traceback(shop):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{shop.url}/fail")
    assert caught.value.code == 500
    assert "KeyError: 'quince'" in shop.out.read_text()


def test_the_websocket_says_everything_back(shop):
    ws = websocket.create_connection(f"ws{shop.url[4:]}/ws", timeout=5)
    assert ":" in ws.recv()
    for message in ("ü", "x" * 200, "y" * 70_000):
        ws.send(message)
        assert ws.recv() == message
    ws.send_binary(bytes(range(256)))
    assert ws.recv() == bytes(range(256))
    ws.ping("hello")
    ws.close()


def test_sigterm_is_an_orderly_end(shop):
    shop.send_signal(signal.SIGTERM)
    assert shop.wait(10) == 0
    assert "the shop is closed" in shop.out.read_text()

"""The real doors: the control socket and gunicorn, beside a real daemon."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import websockets.sync.client

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))

from daemon import PASSWORD, ROOT, Daemon, until


@pytest.fixture
def daemon(tmp_path):
    made = Daemon(
        tmp_path,
        {"engine": "process", "apps": {"shop": {"command": "sleep 600", "healthcheck": {"command": ["true"]}}}},
    )
    made.start()
    made.wait_ready()
    yield made
    made.close()


def ask_socket(path: Path, request: str, **headers) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("control")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(10)
    connection.sock.connect(str(path))
    connection.request("GET", request, headers=headers)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, body


def test_the_control_socket_speaks_http_to_its_group(daemon):
    path = daemon.folder / "state" / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    status, body = ask_socket(path, "/api/v1/apps")
    assert (status, body["items"][0]["name"]) == (200, "shop")


def test_what_is_no_frame_and_no_http_ends_that_peer_only(daemon):
    path = daemon.folder / "state" / "control.sock"
    for data in (b"\0\xff\xff\xff", b"\0\0\0\x05hello", b"\0\0\0\0", b"\x80garbage\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(path))
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1000):
                pass
    assert ask_socket(path, "/healthz") == (200, {"status": "ok"})


def test_gunicorn_answers_the_same_and_waits_for_a_daemon_that_is_away(daemon, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "NEXTDEPLOY_STATE_DIR": str(tmp_path / "state"),
        "NEXTDEPLOY_ADMIN_LISTEN": f"127.0.0.1:{port}",
        "PYTHONPATH": str(ROOT),
    }
    with (tmp_path / "gunicorn.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.py", "web.wsgi:app"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    inside, daemon_admin = daemon.admin, daemon.admin

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    try:
        until(lambda: status("/readyz") == 200, 30, "gunicorn's answer")
        daemon.admin = f"http://127.0.0.1:{port}"
        outside = daemon.api("/api/v1/apps")["items"]
        daemon.admin = inside
        ours = daemon.api("/api/v1/apps")["items"]
        for row in (*ours, *outside):
            for container in row["containers"]:
                del container["uptime"]
        assert outside == ours
        assert status("/api/v1/status") == 401
        words = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {words}"}
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/api/v1/ws", additional_headers=headers) as live:
            live.send('{"subscribe": "nothing"}')
            assert json.loads(live.recv(10))["topic"] == "nothing"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            assert b"nextdeploy_build_info" in response.read()
        daemon.kill()
        assert until(lambda: status("/readyz") == 503, 30, "503")
        assert status("/healthz") == 200
        daemon.start()
        until(lambda: status("/readyz") == 200, 40, "answers again")
    finally:
        daemon.admin = daemon_admin if daemon.process.poll() is not None else daemon.admin
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    assert PASSWORD not in (tmp_path / "gunicorn.log").read_text()

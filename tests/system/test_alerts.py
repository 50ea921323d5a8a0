"""Alerts of a real daemon: figures and events that go wrong reach people, and what is over does, too."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .daemon import until

OURS = ("crash", "error", "healthcheck_failed")
KEY = base64.b64encode(b"k" * 32).decode()
FAILING = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 500 if os.path.exists(os.environ["BROKEN"]) else 200
        self.send_response(status); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Receiver:
    """Keeps what it is sent; every signature is verified."""

    def __init__(self) -> None:
        self.messages: list[dict] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                mine = "v1," + base64.b64encode(hmac.digest(b"k" * 32, signed, hashlib.sha256)).decode()
                assert hmac.compare_digest(mine, self.headers["webhook-signature"])
                receiver.messages.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"

    def heard(self, kind: str, state: str) -> list[dict]:
        return [
            alert
            for message in self.messages
            if message["type"] == f"alert.{state}"
            for alert in message["data"]["alerts"]
            if alert["kind"] == kind
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def alerts(daemon, **query):
    return daemon.api("/api/v1/alerts?" + "&".join(f"{name}={value}" for name, value in query.items()))["items"]


def visit(daemon) -> int:
    try:
        with urllib.request.urlopen(daemon.http, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_goes_wrong_reaches_the_receiver_once_and_so_does_its_end(start_daemon, receiver, tmp_path):
    broken = tmp_path / "broken"
    app = {
        "command": ["python3", "-c", FAILING],
        "domains": ["*"],
        "env": {"BROKEN": str(broken)},
        "healthcheck": {"path": "/", "interval": "300ms", "retries": 2, "restart_after": "1h"},
    }
    alert = {"webhook": [receiver.url], "webhook_secret": f"whsec_{KEY}"}
    daemon = start_daemon(
        {"engine": "process", "apps": {"shop": app}, "monitoring": {"interval": "1s", "alert": alert}}
    )
    (container,) = daemon.containers().values()
    os.kill(container["pid"], signal.SIGKILL)
    until(lambda: receiver.heard("crash", "firing"), 40, "the crash at the receiver")
    (crash,) = receiver.heard("crash", "firing")
    assert crash["app"] == "shop" and crash["summary"].startswith("shop/web crashed") and crash["advice"]
    daemon.wait_ready()
    broken.touch()
    until(lambda: visit(daemon) and receiver.heard("error", "firing"), 90, "the errors at the receiver")
    until(lambda: receiver.heard("healthcheck_failed", "firing"), 40, "the failed check at the receiver")
    # this machine may have troubles of its own
    firing = {row["kind"]: row for row in alerts(daemon, state="firing") if row["kind"] in OURS}
    assert firing.keys() == set(OURS)
    assert firing["error"]["value"] >= 5 and firing["error"]["app"] == "shop"
    assert {event["detail"]["kind"] for event in daemon.events("alert.fired")} >= firing.keys()
    daemon.kill()
    daemon.start()
    kept = {row["id"]: row["state"] for row in alerts(daemon)}
    assert [kept[firing[kind]["id"]] for kind in OURS] == ["firing"] * 3
    until(lambda: len(daemon.events("container.unhealthy")) == 2, what="the failed check, seen by the next daemon")
    broken.unlink()
    until(lambda: receiver.heard("healthcheck_failed", "resolved"), 60, "the end of it at the receiver")
    unhealthy = firing["healthcheck_failed"]["id"]
    for state in ("firing", "resolved"):
        assert [row["id"] for row in receiver.heard("healthcheck_failed", state)] == [unhealthy]
    assert [row["id"] for row in receiver.heard("crash", "firing")] == [firing["crash"]["id"]]
    # it may have become critical meanwhile, which is told, too
    assert {row["id"] for row in receiver.heard("error", "firing")} == {firing["error"]["id"]}

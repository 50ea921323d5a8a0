"""Alerts of a real daemon: figures and events that go wrong reach people, and what is over does, too."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .daemon import until

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


def test_a_crash_and_a_burst_of_errors_reach_the_receiver_and_survive_the_daemon(start_daemon, receiver, tmp_path):
    broken = tmp_path / "broken"
    app = {
        "command": ["python3", "-c", FAILING],
        "domains": ["*"],
        "env": {"BROKEN": str(broken)},
        "healthcheck": {"test": ["CMD", "true"]},
    }
    alert = {"webhook": [receiver.url], "webhook_secret": f"whsec_{KEY}"}
    daemon = start_daemon(
        {"engine": "process", "apps": {"shop": app}, "monitoring": {"interval": "1s", "alert": alert}}
    )
    daemon.wait_ready()
    daemon.signal_app("shop", "KILL")
    until(lambda: receiver.heard("crash", "firing"), 40, "the crash at the receiver")
    (crash,) = receiver.heard("crash", "firing")
    assert crash["app"] == "shop" and "crashed" in crash["summary"] and crash["advice"]
    daemon.wait_ready()
    broken.touch()
    until(lambda: daemon.get("/") and receiver.heard("error", "firing"), 90, "the errors at the receiver")
    (burst,) = [row for row in alerts(daemon, state="firing") if row["kind"] == "error"]
    assert burst["value"] >= 5 and burst["app"] == "shop"
    assert daemon.events("alert.fired")
    daemon.kill()
    broken.unlink()
    daemon.start()
    daemon.wait_ready()
    assert burst["id"] in [row["id"] for row in alerts(daemon)]
    until(lambda: daemon.get("/") and receiver.heard("error", "resolved"), 240, "the end of the errors at the receiver")
    assert [row["id"] for row in receiver.heard("error", "firing")] == [burst["id"]]
    assert [row["id"] for row in receiver.heard("error", "resolved")] == [burst["id"]]

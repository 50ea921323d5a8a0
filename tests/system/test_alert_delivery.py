"""Messages of alerts, by a whole daemon: what waited before it was killed arrives after it, signed, and once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import signal
import stat
import threading

import pytest
from daemon import Daemon, until

from ndactors.adapters.state_files import StateFiles
from ndactors.core.alerts import AlertView
from ndactors.core.notice_queue import ChannelRecord, added, record_name
from ndactors.core.notices import fitted
from ndactors.core.notifications import Notification


class Receiver:
    """Keeps what it is sent; the first answer waits for ``gate``."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.gate = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(({n.lower(): v for n, v in self.headers.items()}, body))
                receiver.gate.wait(60)
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    return

            def log_message(self, *words): ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/S3CRET"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def ids(self) -> list[str]:
        return [json.loads(body)["data"]["id"] for _, body in self.requests]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.gate.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def daemon(tmp_path, receiver):
    made = Daemon(tmp_path, {"engine": "process", "monitoring": {"alert": {"webhook": [receiver.url]}}})
    yield made
    made.close()


def leave(daemon: Daemon, url: str, *numbers: int) -> None:
    """As a daemon leaves it that was killed before it could send anything."""
    record = ChannelRecord(name="x")
    for number in numbers:
        alert = AlertView(id=f"a{number}", kind="oom", rule="oom", severity="critical", summary="out of memory")
        told = Notification(id=f"n{number}", at=1000.0 + number, state="firing", title="t", alerts=(alert,))
        record, _ = added(record, fitted(told), 1000.0)
    StateFiles(daemon.state / "state", lambda kind, words: None).save(record_name(f"webhook {url}"), record)


def signed(key: str, headers: dict[str, str], body: bytes) -> bool:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(base64.b64decode(key.removeprefix("whsec_")), content, hashlib.sha256)
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{base64.b64encode(digest).decode()}")


def events(daemon: Daemon, kind: str) -> list[str]:
    return [event["reason"] for event in daemon.api(f"/api/v1/events?kind={kind}")["items"]]


def test_what_waits_survives_a_daemon_that_is_killed_in_the_middle(daemon, receiver):
    leave(daemon, receiver.url, 1, 2, 3)
    daemon.start()
    until(lambda: receiver.ids() == ["n1"], what="the first message")
    assert daemon.api("/api/v1/alerts/channels")["items"][0]["waiting"] == 3
    daemon.kill()
    receiver.gate.set()
    daemon.start()
    until(lambda: len(events(daemon, "notify.delivered")) == 3, what="all messages")
    assert receiver.ids() == ["n1", "n1", "n2", "n3"], "only the try that was under way is twice"
    key = daemon.api("/api/v1/alerts/key")["key"]
    assert all(signed(key, headers, body) for headers, body in receiver.requests)
    assert receiver.requests[0][0]["webhook-id"] == receiver.requests[1][0]["webhook-id"]
    assert stat.S_IMODE((daemon.state / "webhook-key").stat().st_mode) == 0o600
    results = daemon.post("/api/v1/alerts/test")["items"]
    assert [result["good"] for result in results] == [True] and receiver.requests[-1][0][
        "x-nextdeploy-event"
    ] == "alert.test"
    assert "S3CRET" not in (daemon.folder / "log").read_text() + json.dumps(daemon.api("/api/v1/events"))


def test_a_change_of_the_file_takes_effect_at_once(daemon, receiver):
    leave(daemon, receiver.url, 1, 2)
    daemon.start()
    until(lambda: receiver.ids() == ["n1"], what="the first message")
    daemon.config["monitoring"]["alert"] = {"slack_webhook": receiver.url}
    daemon.write()
    daemon.signal(signal.SIGHUP)
    until(lambda: events(daemon, "notify.failed"), what="a dead letter")
    assert "its channel is not configured any more" in events(daemon, "notify.failed")[0]
    receiver.gate.set()
    until(lambda: events(daemon, "notify.delivered"), what="the message that was on its way")
    view = daemon.api("/api/v1/alerts/channels")
    assert [item["channel"] for item in view["items"]] == [f"Slack ({receiver.url.split('/')[2]}/********)"]
    assert [letter["id"] for letter in view["dead_letters"]] == ["n2"]
    assert daemon.post("/api/v1/alerts/test")["items"][0]["good"]
    assert "blocks" in json.loads(receiver.requests[-1][1])

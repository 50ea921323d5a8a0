"""Webhooks, Slack and Apprise to real receivers; which channels there are; the signing key."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from ndactors.adapters import channel_apprise
from ndactors.adapters.alert_channels import KEY_FILE, AlertChannels
from ndactors.adapters.channel_apprise import AppriseChannel
from ndactors.adapters.channel_slack import SlackChannel
from ndactors.adapters.channel_webhook import WebhookChannel, signature
from ndactors.adapters.config_file import ConfigFile
from ndactors.adapters.webhook import HookClient
from ndactors.core.alerts import AlertView
from ndactors.core.model import Alert, Email
from ndactors.core.notices import fitted
from ndactors.core.notifications import Notification
from ndactors.errors import StateError

KEY = b"k" * 32
ALERT = AlertView(id="a1", kind="oom", rule="oom", severity="critical", app="shop", summary="<!channel> & größer")
NOTE = fitted(Notification(id="n.1", at=1_769_860_800.0, state="firing", title="shop is down", alerts=(ALERT,)))


class Receiver:
    """Answers with the next of ``answers``: status and headers, a function of the handler, or 200."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list = []
        self.over = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers.items()), body))
                answer = receiver.answers.pop(0) if receiver.answers else (200, {})
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer[0])
                for name, value in {"Content-Length": "0", **answer[1]}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *words): ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}/services/S3CRET"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def client():
    return HookClient(post_seconds=5.0)


# -- webhooks --------------------------------------------------------------------------------------


def verified(secret: str, headers: dict[str, str], body: bytes, now: float) -> bool:
    """As the specification has it, written without looking at how we sign."""
    lower = {name.lower(): value for name, value in headers.items()}
    id, stamp = lower["webhook-id"], lower["webhook-timestamp"]
    assert "." not in id and stamp.isdigit() and abs(now - int(stamp)) < 300
    assert secret.startswith("whsec_")
    content = b"%s.%s.%s" % (id.encode("ascii"), stamp.encode("ascii"), body)
    expected = hmac.new(base64.b64decode(secret[6:]), content, hashlib.sha256)
    for each in lower["webhook-signature"].split(" "):
        version, _, given = each.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64decode(given), expected.digest()):
            return True
    return False


def test_the_specifications_own_example():
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_is_signed_and_says_what_it_is(receiver, client):
    channel = WebhookChannel(receiver.url, lambda: KEY, client)
    assert channel.send(NOTE).good
    path, headers, body = receiver.requests[0]
    secret = f"whsec_{base64.b64encode(KEY).decode()}"
    assert path == "/services/S3CRET"
    assert verified(secret, headers, body, time.time())
    assert not verified(secret, headers, body + b" ", time.time())
    assert not verified(f"whsec_{base64.b64encode(b'x' * 32).decode()}", headers, body, time.time())
    assert headers["X-NextDeploy-Event"] == "alert.firing"
    assert headers["Content-Type"] == "application/json"
    told = json.loads(body)
    assert (told["type"], told["data"]["alerts"][0]["summary"]) == ("alert.firing", "<!channel> & größer")
    assert channel.name == f"webhook http://{receiver.address}/********"


def test_every_try_has_the_same_id_and_its_own_time(receiver, client):
    moments = iter([1000.0, 2000.0])
    channel = WebhookChannel(receiver.url, lambda: KEY, client, lambda: next(moments))
    receiver.answers = [(500, {})]
    first = channel.send(NOTE)
    assert (first.good, first.again) == (False, True)
    assert channel.send(NOTE).good
    (_, one, _), (_, two, _) = receiver.requests
    assert one["webhook-id"] == two["webhook-id"] == "n_1"
    assert (one["webhook-timestamp"], two["webhook-timestamp"]) == ("1000", "2000")
    assert one["webhook-signature"] != two["webhook-signature"]


def test_a_redirect_elsewhere_gets_nothing_signed(receiver, client):
    other = Receiver()
    receiver.answers = [(307, {"Location": other.url})]
    answer = WebhookChannel(receiver.url, lambda: KEY, client).send(NOTE)
    other.close()
    assert (answer.good, answer.again, other.requests) == (False, False, [])
    receiver.answers = [(308, {"Location": "/moved"})]
    assert WebhookChannel(receiver.url, lambda: KEY, client).send(NOTE).good
    assert receiver.requests[-1][0] == "/moved"


def test_one_that_hangs_and_one_that_closes(receiver):
    receiver.answers = [lambda handler: receiver.over.wait(20), lambda handler: handler.connection.shutdown(2)]
    channel = WebhookChannel(receiver.url, lambda: KEY, HookClient(post_seconds=0.5))
    late, broken = channel.send(NOTE), channel.send(NOTE)
    assert (late.again, late.words) == (True, "no answer within 0.5 s")
    assert (broken.good, broken.again) == (False, True)
    assert "S3CRET" not in late.words + broken.words


def test_a_key_that_cannot_be_read_is_told(receiver, client):
    def broken():
        raise StateError("the disk is full")

    answer = WebhookChannel(receiver.url, broken, client).send(NOTE)
    assert (answer.good, answer.again, answer.words) == (False, True, "it cannot be signed: the disk is full")
    assert receiver.requests == []


# -- Slack -----------------------------------------------------------------------------------------


def test_slack_gets_blocks_and_may_ask_for_patience(receiver, client):
    channel = SlackChannel(receiver.url, client)
    receiver.answers = [(429, {"Retry-After": "30"})]
    later = channel.send(NOTE)
    assert (later.good, later.again, later.wait) == (False, True, 30.0)
    assert channel.send(NOTE).good
    body = json.loads(receiver.requests[-1][2])
    assert body["text"] == "[nextdeploy] Critical: shop is down"
    assert body["blocks"][1]["text"]["text"].startswith("CRITICAL: &lt;!channel&gt; &amp; größer")
    assert channel.name == f"Slack ({receiver.address}/********)"


def test_slack_that_does_not_know_the_hook(receiver, client):
    receiver.answers = [(404, {})]
    answer = SlackChannel(receiver.url, client).send(NOTE)
    assert (answer.good, answer.again, answer.words) == (False, False, "answered 404")


# -- Apprise ---------------------------------------------------------------------------------------


def apprise(receiver, **more) -> AppriseChannel:
    return AppriseChannel(f"json://{receiver.address}/S3CRET", **more)


def test_apprise_delivers_and_shows_its_scheme_only(receiver):
    channel = apprise(receiver)
    answer = channel.send(NOTE)
    assert (answer.good, answer.words) == (True, "accepted")
    body = json.loads(receiver.requests[0][2])
    assert body["title"] == "[nextdeploy] Critical: shop is down"
    assert "<!channel> & größer" in body["message"] and body["type"] == "failure"
    assert channel.name == "Apprise (json://********)"


@pytest.mark.parametrize(("status", "again"), [(500, True), (429, True), (403, False)])
def test_apprise_is_refused(receiver, status, again):
    receiver.answers = [(status, {})]
    answer = apprise(receiver).send(NOTE)
    assert (answer.good, answer.again, answer.words) == (False, again, f"answered {status}")


def test_a_url_that_apprise_does_not_know():
    answer = AppriseChannel("nonsense://S3CRET").send(NOTE)
    assert (answer.good, answer.again) == (False, False)
    assert answer.words == "Apprise does not understand this URL"


def test_a_service_that_hangs_is_killed_when_its_time_is_over_and_its_url_is_in_no_process_list(receiver):
    seen: list[str] = []

    def hang(handler):
        seen.extend(command_lines())
        receiver.over.wait(30)

    receiver.answers = [hang]
    began = time.monotonic()
    answer = AppriseChannel(f"json://{receiver.address}/S3CRET?rto=60", seconds=5.0).send(NOTE)
    assert (answer.good, answer.again, answer.words) == (False, True, "no answer within 5 s")
    assert time.monotonic() - began < 12
    mine = [line for line in seen if "apprise_process" in line]
    assert mine and not any("S3CRET" in line for line in seen)
    deadline = time.monotonic() + 10
    while any("apprise_process" in line for line in command_lines(os.getpid())):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def command_lines(parent: int | None = None) -> list[str]:
    """Of all processes, with what is in their environments; or of the children of one."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                state = file.read().rpartition(")")[2].split()
            if parent is not None and int(state[1]) != parent:
                continue
            text = b""
            for name in ("cmdline", "environ"):
                with open(f"/proc/{entry}/{name}", "rb") as raw:
                    text += raw.read(100_000)
            found.append(text.decode("utf-8", "replace"))
    return found


def test_apprise_that_is_not_installed_is_told_by_the_channel_and_by_the_configuration(receiver, monkeypatch, tmp_path):
    monkeypatch.setattr(channel_apprise.importlib.util, "find_spec", lambda name: None)
    answer = apprise(receiver).send(NOTE)
    assert (answer.good, answer.again) == (False, False)
    assert answer.words == "Apprise is not installed: pip install 'nextdeploy[notify]'"
    path = tmp_path / "nextdeploy.yml"
    path.write_text("monitoring: {alert: {apprise: 'ntfy://S3CRET'}}\n")
    (warning,) = ConfigFile(path, "dev", (), {}, lambda call: call()).warnings
    assert "monitoring.alert.apprise: Apprise is not installed" in warning and "S3CRET" not in warning


def test_the_process_ends_by_itself_when_nobody_waits(receiver):
    receiver.answers = [lambda handler: receiver.over.wait(30)]
    order = {"url": f"json://{receiver.address}/x", "title": "t", "body": "b", "kind": "info", "seconds": -4}
    process = subprocess.Popen(
        [sys.executable, "-m", "ndactors.adapters.apprise_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.communicate(json.dumps(order).encode(), timeout=20)
    assert process.returncode == -14


# -- which there are -------------------------------------------------------------------------------


EVERYTHING = Alert(
    webhook=("https://a.test/one", "https://a.test/two", "https://a.test/one"),
    slack_webhook="https://hooks.slack.test/services/S3CRET",
    email=Email(to=("ops@x.test",), sender="a@x.test", smtp=":587", password="S3CRET"),
    apprise=("tgram://S3CRET/1",),
)


def test_the_channels_that_the_configuration_asks_for(tmp_path, client):
    alert = EVERYTHING
    source = AlertChannels(lambda: alert, tmp_path, client)
    channels = source.current()
    assert [channel.name for channel in channels] == [
        "webhook https://a.test/********",
        "webhook https://a.test/******** (2)",
        "Slack (hooks.slack.test/********)",
        "mail to ops@x.test by localhost:587",
        "Apprise (tgram://********)",
    ]
    assert not any("S3CRET" in channel.name for channel in channels)
    assert len({channel.key for channel in channels}) == 5
    assert source.current() is channels
    alert = Alert(webhook=("https://a.test/two",))
    assert [channel.key for channel in source.current()] == ["webhook https://a.test/two"]
    assert AlertChannels(Alert, tmp_path, client).current() == ()


def test_a_key_is_made_once_for_its_owner_only(tmp_path, receiver, client):
    alert = Alert(webhook=(receiver.url,))
    source = AlertChannels(lambda: alert, tmp_path, client)
    assert source.current()[0].send(NOTE).good
    key = source.own_key()
    assert len(base64.b64decode(key.removeprefix("whsec_"))) == 32
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert AlertChannels(lambda: alert, tmp_path, client).own_key() == key
    assert verified(key, receiver.requests[0][1], receiver.requests[0][2], time.time())


def test_a_key_of_the_configuration_signs_and_is_told_to_nobody(tmp_path, receiver, client):
    secret = f"whsec_{base64.b64encode(b'y' * 24).decode()}"
    alert = Alert(webhook=(receiver.url,), webhook_secret=secret)
    source = AlertChannels(lambda: alert, tmp_path, client)
    assert source.current()[0].send(NOTE).good
    assert source.own_key() is None and not (tmp_path / KEY_FILE).exists()
    assert verified(secret, receiver.requests[0][1], receiver.requests[0][2], time.time())


@pytest.mark.parametrize("content", ["", "whsec_!!!", "whsec_YWJj\n", "\udcff"])
def test_a_damaged_key_is_told_and_nothing_is_sent(tmp_path, receiver, client, content):
    (tmp_path / KEY_FILE).write_bytes(content.encode("utf-8", "surrogateescape"))
    source = AlertChannels(lambda: Alert(webhook=(receiver.url,)), tmp_path, client)
    answer = source.current()[0].send(NOTE)
    assert not answer.good and answer.words.startswith("it cannot be signed: ")
    assert receiver.requests == []
    with pytest.raises(StateError):
        source.own_key()

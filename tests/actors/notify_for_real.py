"""Run by test_notify.py: a NotifyActor over the real channels in a patched process, with servers that misbehave."""

from gevent import monkey

monkey.patch_all()

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import gevent
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

from ndactors.actors.notify import NotifyActor
from ndactors.adapters.channel_apprise import AppriseChannel
from ndactors.adapters.channel_mail import MailChannel
from ndactors.adapters.channel_webhook import WebhookChannel
from ndactors.adapters.state_files import StateFiles
from ndactors.adapters.webhook import HookClient
from ndactors.core import notice_queue
from ndactors.core.alerts import AlertView
from ndactors.core.model import Email, Settings
from ndactors.core.notifications import Notification
from ndactors.messages.alerts import Notify, TestChannels
from ndactors.runtime.actor import Actor
from ndactors.runtime.lag import LagMeter
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

notice_queue.DELAYS = (0.2, 0.2)
FLAKY = 2
LIMIT = 0.5

heard: dict[str, list[str]] = {"well": [], "flaky": []}
at: dict[str, float] = {}
mails: list[bytes] = []
events: list[tuple[str, str, dict]] = []
lateness: list[float] = [0.0]


def wsgi(name: str, failures: int = 0) -> str:
    left = [failures]

    def app(environ, start_response):
        body = json.loads(environ["wsgi.input"].read())
        if body["type"] != "alert.test":
            heard[name].append(body["data"]["id"])
        at[name] = time.monotonic()
        status = "500 Internal Server Error" if left[0] > 0 else "204 No Content"
        left[0] -= 1
        start_response(status, [("Content-Length", "0")])
        return [b""]

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    return f"http://127.0.0.1:{server.server_port}/{name}"


def raw(handler) -> str:
    server = StreamServer(("127.0.0.1", 0), handler)
    server.start()
    return f"127.0.0.1:{server.server_port}"


def hang(sock, address):
    gevent.sleep(60)


def drip(sock, address):
    """A byte of a header now and then: no single read is ever late."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    forever(sock, b"x", 0.1)


def slow_mail(sock, address):
    """A line of the greeting now and then."""
    forever(sock, b"220-wait\r\n", 0.1)


def mail_without_end(sock, address):
    forever(sock, b"220-and so on\r\n" * 1000, 0.0)


def forever(sock, data, pause):
    try:
        while True:
            sock.sendall(data)
            gevent.sleep(pause)
    except OSError:
        return


def good_mail(sock, address):
    file = sock.makefile("rb")
    sock.sendall(b"220 hi\r\n")
    for line in file:
        verb = line[:4].upper()
        if verb == b"DATA":
            sock.sendall(b"354 go on\r\n")
            text = b""
            while (part := file.readline()) != b".\r\n":
                text += part
            if b"Test:" not in text:
                mails.append(text)
        sock.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")


def mail(address: str, name: str) -> MailChannel:
    settings = Email(to=("ops@x.test",), sender="a@x.test", smtp=address, starttls=False)
    channel = MailChannel(settings, "web1", seconds=LIMIT)
    channel.name = name
    return channel


def hook(url: str, name: str) -> WebhookChannel:
    channel = WebhookChannel(url, lambda: b"k" * 32, HookClient(post_seconds=LIMIT))
    channel.name = name
    return channel


class Heard(Actor):
    def receive(self, message):
        events.append((message.kind, message.reason, message.detail))


class Source:
    server = "web1"

    def __init__(self, channels) -> None:
        self.channels = channels

    def current(self):
        return self.channels

    def own_key(self):
        return None


def main() -> None:
    lag = LagMeter(lateness.append)
    lag.start()
    hooks = [
        hook(wsgi("well"), "well"),
        hook(wsgi("flaky", FLAKY), "flaky"),
        hook(f"http://{raw(hang)}/x", "hang"),
        hook(f"http://{raw(drip)}/x", "drip"),
    ]
    by_mail = [
        mail(raw(good_mail), "mail"),
        mail(raw(slow_mail), "slow mail"),
        mail(raw(mail_without_end), "mail without end"),
    ]
    notify, refs = Ref("notify"), Ref("events")
    ids = itertools.count(1)
    with tempfile.TemporaryDirectory() as folder:
        state = StateFiles(Path(folder), lambda kind, words: None)
        source = Source(hooks + by_mail)
        args = (lambda: Settings(project="p"), source, state, refs, lambda: f"t{next(ids)}", time.time)
        root = Root(
            Child(
                supervisor_ref("root"),
                Supervisor,
                [Child(refs, Heard), Child(notify, NotifyActor, *args)],
                Strategy.ONE_FOR_ONE,
                Intensity(None),
            )
        )
        began = time.monotonic()
        for number in (1, 2, 3):
            alert = AlertView(id=f"a{number}", kind="oom", rule="r", severity="critical", summary="größer")
            notify.tell(
                Notify(notification=Notification(id=f"n{number}", at=1.0, state="firing", title="t", alerts=(alert,)))
            )
        with gevent.Timeout(60):
            while len(heard["well"]) < 3:
                gevent.sleep(0.01)
            well_seconds = at["well"] - began
            while sum(kind in ("notify.delivered", "notify.failed") for kind, _, _ in events) < 21:
                gevent.sleep(0.02)
            source.channels.append(AppriseChannel(f"json://{raw(hang)}/x?rto=60", seconds=3.0))
            results = {result.channel: result.good for result in notify.ask(TestChannels(by="x"), 20)}
        root.stop(5)
    failed: dict[str, int] = {}
    for kind, _, detail in events:
        if kind == "notify.failed":
            failed[detail["channel"]] = failed.get(detail["channel"], 0) + 1
    json.dump(
        {
            **heard,
            "well_seconds": well_seconds,
            "mail": len(mails),
            "failed": failed,
            "lag": max(lateness),
            "tested": {
                "webhooks": [results[channel.name] for channel in hooks],
                "mails": [results[channel.name] for channel in by_mail],
                "apprise": results["Apprise (json://********)"],
            },
        },
        sys.stdout,
    )


main()

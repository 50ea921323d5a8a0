"""Run by test_hooks.py: a HookActor over the real client in a patched process, with servers that misbehave."""

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

from ndactors.actors.hook import HookActor
from ndactors.adapters.state_files import StateFiles
from ndactors.adapters.webhook import HookClient
from ndactors.core import webhooks
from ndactors.core.model import Webhook
from ndactors.messages.hooks import SendHooks
from ndactors.runtime.actor import Actor
from ndactors.runtime.lag import LagMeter
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

webhooks.DELAYS = (0.2, 0.2)
FLAKY = 2


def wsgi(name: str, failures: int = 0):
    left = [failures]

    def app(environ, start_response):
        body = json.loads(environ["wsgi.input"].read())
        heard[name].append(body["operation"])
        at[name] = time.monotonic()
        status = "500 Internal Server Error" if left[0] > 0 else "204 No Content"
        left[0] -= 1
        start_response(status, [("Content-Length", "0")])
        return [b""]

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    return f"http://127.0.0.1:{server.server_port}/{name}"


def raw(handler):
    server = StreamServer(("127.0.0.1", 0), handler)
    server.start()
    return f"http://127.0.0.1:{server.server_port}/raw"


def hang(sock, address):
    gevent.sleep(60)


def drip(sock, address):
    """A byte of a header now and then: no single read is ever late."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    try:
        while True:
            sock.sendall(b"x")
            gevent.sleep(0.1)
    except OSError:
        return


class Heard(Actor):
    def receive(self, message):
        events.append((message.kind, message.reason))


heard: dict[str, list[str]] = {"well": [], "flaky": []}
at: dict[str, float] = {}
events: list[tuple[str, str]] = []
lateness: list[float] = [0.0]


def main() -> None:
    lag = LagMeter(lateness.append)
    lag.start()
    told = Path(sys.argv[1])
    script = f"cat > /dev/null; echo $NEXTDEPLOY_EVENT > {told}"
    urls = (wsgi("well"), wsgi("flaky", FLAKY))
    webhook = Webhook(on_success=(*urls, ("sh", "-c", script)), on_failure=(raw(hang), raw(drip)))
    hooks, refs = Ref("hooks"), Ref("events")
    ids = itertools.count(1)
    with tempfile.TemporaryDirectory() as folder:
        state = StateFiles(Path(folder), lambda kind, words: None)
        client = HookClient(post_seconds=1.0)
        root = Root(
            Child(
                supervisor_ref("root"),
                Supervisor,
                [
                    Child(refs, Heard),
                    Child(hooks, HookActor, lambda: webhook, client, state, refs, lambda: f"d{next(ids)}"),
                ],
                Strategy.ONE_FOR_ONE,
                Intensity(None),
            )
        )
        hooks.tell(SendHooks(event="deploy.failed", app="shop", payload={"operation": "op0"}))
        began = time.monotonic()
        for number in (1, 2, 3):
            hooks.tell(SendHooks(event="deploy.succeeded", app="shop", payload={"operation": f"op{number}"}))
        with gevent.Timeout(30):
            while len(heard["well"]) < 3:
                gevent.sleep(0.01)
            well_seconds = at["well"] - began
            while len(events) < 11:
                gevent.sleep(0.01)
        root.stop(5)
    json.dump(
        {
            **heard,
            "well_seconds": well_seconds,
            "events": events,
            "command": told.read_text().strip(),
            "lag": max(lateness),
        },
        sys.stdout,
    )


main()

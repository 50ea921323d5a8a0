"""For ``gunicorn -c conf/gunicorn.py web.wsgi:app``: API and pages as a process of their own, over the control socket."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gevent.hub import get_hub

from ndactors.adapters.claimed_blobs import BlobClaims, SharedBlobs
from ndactors.adapters.control_socket import ControlClient, RemoteRef
from ndactors.cli.daemon import state_folder
from ndactors.errors import NextDeployError
from ndactors.messages.control import GetWebSettings

from . import Refs, create_app
from .relay import Relay

log = logging.getLogger("nextdeploy.web")

REFRESH_SECONDS = 30.0
NAMES = {
    "root": "root",
    "daemon": "daemon",
    "apps": "apps",
    "events": "events",
    "records": "records",
    "edge": "proxy",
    "host": "host",
    "engine": "engine",
    "operations": "operations",
    "config": "config",
    "access": "access",
    "secrets": "secrets",
    "logs": "logs",
    "metrics": "metrics",
    "alerts": "alerts",
    "notify": "notify",
}


def control_path() -> Path:
    setting = os.environ.get("NEXTDEPLOY_STATE_DIR")
    return state_folder(setting, Path("nextdeploy.yml"), os.environ, root=os.geteuid() == 0) / "control.sock"


class LateApp:
    """The app, made when the daemon first answers; until then, and whenever it is away, 503. Users and keys are asked
    for again now and then: the daemon may have got new ones."""

    def __init__(self, path: Path) -> None:
        self._client = ControlClient(path)
        self._relay = Relay(path)
        self._folder = path.parent
        self._app: Any = None
        self._settings: Any = None
        self._asked = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/healthz" and self._app is None:
            return _answer(start_response, "200 OK", b'{"status":"ok"}\n', "application/json")
        try:
            self._refresh()
        except NextDeployError as error:
            if self._app is None:
                text = f'{{"type":"about:blank","title":"{error.title}","status":503,"detail":"the daemon does not answer"}}\n'
                return _answer(start_response, "503 Service Unavailable", text.encode(), "application/problem+json")
        return self._app(environ, start_response)  # type: ignore[no-any-return]

    def _refresh(self) -> None:
        if self._app is not None and time.monotonic() - self._asked < REFRESH_SECONDS:
            return
        settings = RemoteRef(self._client, "daemon").ask(GetWebSettings(), 5.0)
        self._asked = time.monotonic()
        if settings != self._settings:
            refs = Refs(**{field: RemoteRef(self._client, name) for field, name in NAMES.items()})
            self._settings = settings
            self._app = create_app(refs, settings, relay=self._relay, blobs=_blobs(self._folder))


def _blobs(state: Path) -> SharedBlobs | None:
    """Uploads go straight into the state folder; None if this process may not write there."""
    if not os.access(state, os.W_OK | os.X_OK):
        return None
    claims = BlobClaims(state / "claims.db", lambda kind, words: log.warning("%s: %s", kind, words), _off_loop)
    return SharedBlobs(state / "blobs", claims, _off_loop)


def _off_loop(call: Callable[[], Any]) -> Any:
    return get_hub().threadpool.apply(call)


def _answer(start_response: Callable[..., Any], status: str, body: bytes, kind: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


app = LateApp(control_path())

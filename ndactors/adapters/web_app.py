"""The web app, made when somebody first asks for it: Flask and what it needs take 8 MB, and many a server is looked at once
a week."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import gevent
from gevent.lock import RLock

PIECES = ("email.message", "http.server", "jinja2", "werkzeug", "click", "flask", "prometheus_client", "web.api", "web")
"""Loaded one after the other, so that nobody waits for all of them: the event loop goes on in between."""


class WebApp:
    """A WSGI app in front of the one that ``make`` gives. The first request waits for it, a third of a second; others that
    come meanwhile, too. If it cannot be made, each request fails, and the next one tries again."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._app: Any = None
        self._lock = RLock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._app is None:
            with self._lock:
                if self._app is None:
                    self._app = self._load()
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer

    def _load(self) -> Any:
        for name in PIECES:
            import_module(name)
            gevent.sleep(0.001)  # 0 would only let greenlets go on, and no file or timer
        return self._make()

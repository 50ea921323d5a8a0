"""AdminActor: keeps the doors to the API open: the admin address and the control socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..runtime.actor import Actor


class Server(Protocol):
    def start(self) -> None:
        """Listen and serve in the background; an error if it cannot."""
        ...

    def stop(self) -> None: ...


class AdminActor(Actor):
    """``open_server`` makes a fresh server each time: one that failed is not started twice."""

    def __init__(self, open_server: Callable[[], Server]) -> None:
        self._open = open_server
        self._server: Server | None = None

    def on_start(self) -> None:
        self._server = self._open()
        self._server.start()

    def on_stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def on_crash(self, error: BaseException) -> None:
        self.on_stop()

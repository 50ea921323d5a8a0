"""StatsActor: figures about the host. They are read on a timer, so that asking costs nothing."""

from __future__ import annotations

from typing import Protocol

from ..messages.queries import GetHost, HostView
from ..runtime.actor import Actor


class HostStatistics(Protocol):
    def read(self) -> HostView: ...


class ReadNow: ...


class StatsActor(Actor):
    def __init__(self, host: HostStatistics, interval: float) -> None:
        self._host = host
        self._interval = interval
        self._view: HostView | None = None

    def on_start(self) -> None:
        self._view = self._host.read()
        self.every(self._interval, ReadNow())

    def receive(self, message: object) -> object:
        match message:
            case ReadNow():
                self._view = self._host.read()
            case GetHost():
                return self._view
            case _:
                return super().receive(message)
        return None

"""ConfigActor: the configuration in force. A reload applies what changed; a file that is wrong changes nothing."""

from __future__ import annotations

import logging
from typing import Protocol

from ..core.model import Settings
from ..errors import ConfigurationError
from ..messages.containers import ApplySettings, RecordEvent, ReloadConfig
from ..runtime.actor import Actor
from ..runtime.ref import Ref

log = logging.getLogger("ndactors.config")


class ConfigSource(Protocol):
    """A configuration that can be read again; it remembers the last good one."""

    def current(self) -> Settings: ...

    def reload(self) -> tuple[Settings, tuple[str, ...]]:
        """Read it again; the settings and the warnings. ``ConfigurationError`` leaves ``current`` as it was."""
        ...


class ConfigActor(Actor):
    def __init__(self, source: ConfigSource, listeners: tuple[Ref, ...], events: Ref) -> None:
        self._source = source
        self._listeners = listeners
        self._events = events

    def receive(self, message: object) -> object:
        match message:
            case ReloadConfig():
                self._reload()
            case _:
                return super().receive(message)
        return None

    def _reload(self) -> None:
        before = self._source.current()
        try:
            settings, warnings = self._source.reload()
        except ConfigurationError as error:
            for line in error.lines():
                log.error("%s", line)
            self._events.tell(
                RecordEvent(kind="config.refused", reason=error.lines()[0], detail={"errors": error.lines()})
            )
            return
        for line in warnings:
            log.warning("%s", line)
        changed = settings != before
        self._events.tell(RecordEvent(kind="config.reloaded", reason="changed" if changed else "nothing changed"))
        for listener in self._listeners:
            listener.tell(ApplySettings(settings=settings))

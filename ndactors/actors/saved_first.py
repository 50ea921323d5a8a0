"""Counters that go on over every restart: what was told is on disk before it is told, so that whoever begins anew goes on from
there, and nobody ever sees a counter fall."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import StateError
from ..runtime.ref import Later
from ..runtime.timers import Task

log = logging.getLogger("ndactors.state")

Run = Callable[[Callable[[], object], Callable[[object, BaseException | None], object]], Task]
"""``Actor.run``."""


@dataclass
class Saved:
    record: object
    answer: object
    asked: list[Later]
    error: BaseException | None


class SavedFirst:
    """``current`` gives what to save (None: nothing yet) and what to answer; ``save`` may wait. Its actor passes every
    ``Saved`` to ``done``."""

    def __init__(
        self, run: Run, save: Callable[[object], None], current: Callable[[], tuple[object | None, object]]
    ) -> None:
        self._run = run
        self._save = save
        self._current = current
        self._saved: object = None
        self._asked: list[Later] = []
        self._saving = False

    def ask(self) -> object:
        """The answer, or the ``Later`` of it."""
        record, answer = self._current()
        if record is None or record == self._saved:
            return answer
        later = Later()
        self._asked.append(later)
        self.keep()
        return later

    def keep(self) -> None:
        """Save what is new, if nothing is being saved; who asks meanwhile gets what the next one saves."""
        record, answer = self._current()
        if self._saving or record is None or (record == self._saved and not self._asked):
            return
        asked, self._asked = self._asked, []
        self._saving = True
        self._run(lambda: self._save(record), lambda _, error: Saved(record, answer, asked, error))

    def done(self, message: Saved) -> None:
        """A disk that takes nothing does not keep anybody from seeing the figures."""
        self._saving = False
        if message.error is None:
            self._saved = message.record
        elif isinstance(message.error, StateError):
            log.error("counters cannot be saved: %s", message.error)
        else:
            raise message.error
        for later in message.asked:
            later.answer(message.answer)
        if self._asked:
            self.keep()

    def last_words(self) -> None:
        """At an orderly stop."""
        record, _ = self._current()
        if record is not None and record != self._saved:
            try:
                self._save(record)
            except StateError as error:
                log.error("counters cannot be saved: %s", error)

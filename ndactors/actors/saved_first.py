"""Counters that go on over every restart: what was told is on disk before it is told, so that whoever begins anew goes on from
there, and nobody ever sees a counter fall."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    telling: bool
    error: BaseException | None


class SavedFirst:
    """``current`` gives what to save (None: nothing yet) and what to answer; ``save`` may wait; ``told`` takes the answer to
    those who listen. Its actor passes every ``Saved`` to ``done``."""

    def __init__(
        self,
        run: Run,
        save: Callable[[object], None],
        current: Callable[[], tuple[object | None, object]],
        told: Callable[[Any], None],
    ) -> None:
        self._run = run
        self._save = save
        self._current = current
        self._told = told
        self._saved: object = None
        self._asked: list[Later] = []
        self._telling = False
        self._saving = False

    def ask(self) -> object:
        """The answer, or the ``Later`` of it."""
        record, answer = self._current()
        if record is None or record == self._saved:
            return answer
        later = Later()
        self._asked = [*(each for each in self._asked if not each.done), later]
        self.keep()
        return later

    def tell(self) -> None:
        """``told`` gets what is now, or what is then, once it is saved."""
        self._telling = True
        self.keep()

    def keep(self) -> None:
        """Save what is new, if nothing is being saved; who asks meanwhile gets what the next one saves."""
        record, answer = self._current()
        if self._saving or record is None:
            return
        asked, self._asked = self._asked, []
        telling, self._telling = self._telling, False
        if record == self._saved:
            self._give(answer, asked, telling=telling)
            return
        self._saving = True
        self._run(lambda: self._save(record), lambda _, error: Saved(record, answer, asked, telling, error))

    def done(self, message: Saved) -> None:
        """A disk that takes nothing does not keep anybody from seeing the figures."""
        self._saving = False
        if message.error is None:
            self._saved = message.record
        elif isinstance(message.error, StateError):
            log.error("counters cannot be saved: %s", message.error)
        else:
            raise message.error
        self._give(message.answer, message.asked, telling=message.telling)
        if self._asked or self._telling:
            self.keep()

    def _give(self, answer: object, asked: list[Later], *, telling: bool) -> None:
        for later in asked:
            later.answer(answer)
        if telling:
            self._told(answer)

    def last_words(self) -> None:
        """At an orderly stop."""
        record, _ = self._current()
        if record is not None and record != self._saved:
            try:
                self._save(record)
            except StateError as error:
                log.error("counters cannot be saved: %s", error)

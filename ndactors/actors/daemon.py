"""DaemonActor: who this daemon is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..runtime.actor import Actor


class DaemonActor(Actor):
    """``answers``: for each kind of query, what makes its answer."""

    def __init__(self, answers: Mapping[type, Callable[[], object]]) -> None:
        self._answers = answers

    def receive(self, message: object) -> object:
        answer = self._answers.get(type(message))
        return answer() if answer is not None else super().receive(message)

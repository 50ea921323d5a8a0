"""DaemonActor: who this daemon is. It answers with what was fixed at its start."""

from __future__ import annotations

from collections.abc import Mapping

from ..runtime.actor import Actor


class DaemonActor(Actor):
    """``answers``: one fixed answer for each kind of query."""

    def __init__(self, answers: Mapping[type, object]) -> None:
        self._answers = answers

    def receive(self, message: object) -> object:
        answer = self._answers.get(type(message))
        return answer if answer is not None else super().receive(message)

"""SecretActor: the only one that changes secrets. Their values stay in the store; containers get them when they are made."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import NextDeployError, StateError
from ..messages.containers import RecordEvent
from ..messages.secrets import ChangeSecrets, GetSecretNames, RotateSecrets
from ..ports import SecretStore
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref

log = logging.getLogger("ndactors.secret")


class SecretActor(Actor):
    def __init__(self, store: SecretStore, events: Ref) -> None:
        self._store = store
        self._events = events

    def on_start(self) -> None:
        """A rotation that was interrupted is ended. If it cannot be, every secret is still readable as it is."""
        try:
            count = self._store.resume()
        except NextDeployError as error:
            log.error("%s", error)
            self._events.tell(RecordEvent(kind="secrets.refused", reason=str(error)))
            return
        if count:
            self._rotated(count)

    def receive(self, message: object) -> object:
        match message:
            case ChangeSecrets():
                return self._answer(lambda: self._change(message))
            case GetSecretNames(app=app):
                return self._store.names(app)
            case RotateSecrets():
                return self._answer(self._rotate)
            case _:
                return super().receive(message)

    def _answer(self, call: Callable[[], object]) -> object:
        """A disk that is full is an answer, not a crash."""
        try:
            return call()
        except StateError as error:
            failed = Later()
            failed.fail(error)
            return failed

    def _change(self, message: ChangeSecrets) -> None:
        self._store.change(message.app, message.set, message.unset)
        for kind, names in (("secret.set", sorted(message.set)), ("secret.deleted", message.unset)):
            for name in names:
                self._events.tell(RecordEvent(kind=kind, app=message.app, reason=name))

    def _rotate(self) -> int:
        count = self._store.rotate()
        self._rotated(count)
        return count

    def _rotated(self, count: int) -> None:
        self._events.tell(RecordEvent(kind="secrets.rotated", reason=f"{count} secrets have a new key"))

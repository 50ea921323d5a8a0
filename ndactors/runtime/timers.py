"""Timers and tasks of one life of an actor. What they bring is ignored once that life is over or they are cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.hub import get_hub

if TYPE_CHECKING:
    from .actor import Life


class Due:
    """What waits in the mailbox when a timer fired or a task ended."""

    __slots__ = ("_message", "_owner", "life")

    def __init__(self, life: Life, owner: Timer | Task, message: Any) -> None:
        self.life = life
        self._owner = owner
        self._message = message

    @property
    def cancelled(self) -> bool:
        return self._owner.cancelled

    def take(self) -> Any:
        self._owner.taken()
        return self._message


class Timer:
    """One or repeated. A repeating timer waits until its message was handled before it counts again as due."""

    __slots__ = ("_life", "_message", "_queued", "_repeat", "_watcher", "cancelled")

    def __init__(self, life: Life, seconds: float, message: Any, *, repeat: bool) -> None:
        self._life = life
        self._message = message
        self._repeat = repeat
        self._queued = False
        self.cancelled = False
        seconds = max(0.0, seconds)
        self._watcher: Any = get_hub().loop.timer(seconds, max(seconds, 0.001) if repeat else 0.0)
        # the loop's idea of now is old after a long callback; a timer must never fire early
        self._watcher.start(self._fire, update=True)

    def _fire(self) -> None:
        if self._queued or self.cancelled:
            return
        self._queued = True
        if not self._repeat:
            self._close()
        self._life.ref.mailbox.put_first(Due(self._life, self, self._message))

    def taken(self) -> None:
        self._queued = False
        if not self._repeat:
            self._life.forget(self)

    def cancel(self) -> None:
        """It will not be delivered any more, even if it fired already. Twice is once."""
        self.cancelled = True
        self._close()
        self._life.forget(self)

    def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


class Task:
    """A slow call in a greenlet of its own; its end comes back as a message."""

    __slots__ = ("_call", "_greenlet", "_life", "_then", "cancelled")

    def __init__(self, life: Life, call: Callable[[], Any], then: Callable[[Any, BaseException | None], Any]) -> None:
        self._life = life
        self._call = call
        self._then = then
        self.cancelled = False
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._call()
        except Exception as error:  # noqa: BLE001 - handed to the actor, which decides what it means
            failure = error
        if not self.cancelled:
            message = self._then(result, failure)
            self._life.ref.mailbox.put_first(Due(self._life, self, message))

    def taken(self) -> None:
        self._life.forget(self)

    def cancel(self) -> None:
        """Stop it where it is; nothing of it will be delivered."""
        if self.cancelled:
            return
        self.cancelled = True
        self._life.forget(self)
        self._greenlet.kill(block=False)

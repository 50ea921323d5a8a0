"""The address of an actor. It owns the mailbox and the figures, so both outlive every restart of the actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

from ..errors import ActorStopped, AskTimeout, NextDeployError
from .mailbox import Mailbox, Overflow
from .tree import ActorNode, LastError

DEFAULT_CAPACITY = 10_000
ASK_SECONDS = 5.0


class Request:
    """An ask on its way: a message that somebody waits for."""

    __slots__ = ("_done", "_error", "_value", "_waiter", "message")

    def __init__(self, message: Any) -> None:
        self.message = message
        self._waiter: greenlet | None = None
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Answered, or given up by who asked."""
        return self._done

    def answer(self, value: Any) -> None:
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self._done:
            return
        self._done, self._value, self._error = True, value, error
        if self._waiter is not None:
            get_hub().loop.run_callback(self._resume)

    def _resume(self) -> None:
        # the waiter may have timed out, or been killed, after this was scheduled
        if self._waiter is not None:
            self._waiter.switch()

    def wait(self, seconds: float, name: str) -> Any:
        if not self._done:
            hub = get_hub()
            timer = hub.loop.timer(seconds)
            self._waiter = getcurrent()
            timer.start(self._resume)
            try:
                hub.switch()
            finally:
                self._waiter = None
                timer.stop()
                timer.close()
            if not self._done:
                self._done = True
                raise AskTimeout(f"{name} did not answer {type(self.message).__name__} within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._value


class Later:
    """An answer that is not known yet: returned by ``receive``, given by ``answer`` or ``fail`` when it is. If the actor
    ends before, the ask fails."""

    __slots__ = ("_outcome", "_request")

    def __init__(self) -> None:
        self._request: Request | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None

    def answer(self, value: Any) -> None:
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self._outcome is not None:
            return
        self._outcome = (value, error)
        if self._request is not None:
            self._request._finish(value, error)

    @property
    def done(self) -> bool:
        """It was given, or nobody waits for it any more."""
        return self._outcome is not None or (self._request is not None and self._request.is_over)

    def bind(self, request: Request) -> bool:
        """Who waits for it. True if it is still open."""
        self._request = request
        if self._outcome is None:
            return True
        request._finish(*self._outcome)
        return False


class Ref:
    """Where to send messages. Made once, handed out by constructors; whoever holds it need not know who lives there."""

    __slots__ = (
        "busy_seconds",
        "cls",
        "handled",
        "last_error",
        "mailbox",
        "name",
        "restarts",
        "started_at",
        "state",
        "subtree",
    )

    def __init__(
        self, name: str, *, capacity: int = DEFAULT_CAPACITY, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> None:
        self.name = name
        self.mailbox = Mailbox(capacity, overflow)
        self.cls = ""
        self.state = "starting"
        self.handled = 0
        self.busy_seconds = 0.0
        self.restarts = 0
        self.started_at: float | None = None
        """Unix seconds of the current incarnation's start."""
        self.last_error: LastError | None = None
        self.subtree: Callable[[], tuple[ActorNode, ...]] | None = None
        """Set by a supervisor: what lives below it."""

    def __repr__(self) -> str:
        return f"<Ref {self.name} {self.state}>"

    def tell(self, message: Any) -> None:
        """Send and go on. To an actor that has stopped for good it is dropped and counted.

        ``MailboxFull`` only from a mailbox that refuses (``REJECT``, ``BLOCK``).
        """
        lost = self.mailbox.put(message)
        if type(lost) is Request:
            lost.fail(ActorStopped(f"{self.name} dropped the question: too many messages wait"))

    def ask(self, message: Any, timeout: float = ASK_SECONDS) -> Any:
        """Send and wait for the answer. For the rim (web, CLI, tests): an actor never waits for an actor.

        ``AskTimeout``, ``ActorStopped`` when it stops first, ``ActorCrashed`` when this message made it crash,
        ``MailboxFull``, or the ``NextDeployError`` that it answered with.
        """
        request = Request(message)
        lost = self.mailbox.put(request)
        if lost is not None:
            if lost is request:
                raise ActorStopped(f"{self.name} is not running")
            if type(lost) is Request:
                lost.fail(ActorStopped(f"{self.name} dropped the question: too many messages wait"))
        return request.wait(timeout, self.name)

    def node(self) -> ActorNode:
        """This actor as a record of the tree, with what lives below it."""
        return ActorNode(
            name=self.name,
            cls=self.cls,
            state=self.state,
            mailbox=len(self.mailbox.items),
            handled=self.handled,
            busy_seconds=self.busy_seconds,
            dropped=self.mailbox.dropped,
            restarts=self.restarts,
            started_at=self.started_at,
            last_error=self.last_error,
            children=self.subtree() if self.subtree is not None else (),
        )

    def close(self, reason: str) -> None:
        """Nobody will live here again: whoever waits for an answer is told so at once."""
        self.mailbox.closed = True
        self.clear(reason)

    def clear(self, reason: str) -> None:
        """Forget what waits; asks among it fail at once."""
        for item in self.mailbox.clear():
            if type(item) is Request:
                item.fail(ActorStopped(f"{self.name} {reason}"))


def expected(error: BaseException) -> bool:
    """True for an error that is an answer to an ask, not a crash: one of our own, below 500."""
    return isinstance(error, NextDeployError) and error.status < 500

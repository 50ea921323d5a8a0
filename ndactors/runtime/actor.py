"""What an actor is, and one life of it: a greenlet that takes messages from the ref's mailbox until told to stop."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from greenlet import GreenletExit, greenlet

from ..errors import ActorCrashed, ActorStopped
from .ref import Later, Ref, Request, expected
from .timers import Due, Task, Timer
from .tree import LastError

if TYPE_CHECKING:
    from .supervisor import Supervisor

log = logging.getLogger("ndactors.actor")

BURST = 200
"""Messages handled in a row before others in the hub get their turn."""


class Actor:
    """State and behaviour behind a ref. Subclasses take what they need in ``__init__`` and answer in ``receive``.

    Inside, an exception means: crash me, restart me. Everything that belongs to this life (timers, tasks) ends with it.
    """

    _life: Life

    @property
    def ref(self) -> Ref:
        return self._life.ref

    def on_start(self) -> None:
        """Before the first message; an exception here counts as a crash."""

    def receive(self, message: Any) -> Any:
        """Handle one message. What it returns answers an ask."""
        raise TypeError(f"{type(self).__name__} does not understand {type(message).__name__}")

    def on_stop(self) -> None:
        """After the last message of an orderly stop."""

    def on_crash(self, error: BaseException) -> None:
        """Last words of a life that crashed or was killed (``GreenletExit``): release what it held; do not wait."""

    def after(self, seconds: float, message: Any) -> Timer:
        """Tell myself ``message`` in ``seconds``, unless cancelled or dead by then."""
        return self._life.timer(seconds, message, repeat=False)

    def every(self, seconds: float, message: Any) -> Timer:
        """Tell myself ``message`` every ``seconds``; never a second one while the first still waits."""
        return self._life.timer(seconds, message, repeat=True)

    def run(self, call: Callable[[], Any], then: Callable[[Any, BaseException | None], Any]) -> Task:
        """Do something slow beside the mailbox: ``call()`` runs in a greenlet of this life; what
        ``then(result, error)`` makes of its end is told to myself. It dies with this life."""
        return self._life.task(call, then)

    def stop(self) -> None:
        """End this life in good order after the current message."""
        self._life.request_stop()


class Life:
    """One incarnation. The stop signal, timers, tasks and the exit notice belong to it, never to the mailbox."""

    __slots__ = (
        "_done",
        "_greenlet",
        "_owed",
        "_resources",
        "_started",
        "_stopping",
        "actor",
        "ended",
        "error",
        "factory",
        "ref",
        "supervisor",
    )

    def __init__(self, ref: Ref, factory: type[Actor], args: tuple[Any, ...], supervisor: Supervisor | None):
        self.ref = ref
        self.factory = factory
        self.supervisor = supervisor
        self.actor: Actor | None = None
        self.error: BaseException | None = None
        self.ended = False
        self._stopping = False
        self._resources: set[Timer | Task] | None = None
        self._owed: list[Later] = []
        self._started: Event | None = None
        self._done: Event | None = None
        self._greenlet = greenlet(lambda: self._main(args), parent=get_hub())
        ref.cls = factory.__name__
        ref.state = "starting"
        ref.mailbox.closed = False
        get_hub().loop.run_callback(self._greenlet.switch)

    # -- seen from the supervisor ------------------------------------------------------------------

    def wait_started(self, seconds: float) -> bool:
        """True once it runs or has ended; False if it is still starting after ``seconds``."""
        if self.ended or self.ref.state != "starting":
            return True
        self._started = Event()
        return bool(self._started.wait(seconds))

    def wait_ended(self, seconds: float) -> bool:
        if self.ended:
            return True
        self._done = self._done or Event()
        return bool(self._done.wait(seconds))

    def request_stop(self) -> None:
        self._stopping = True
        self.ref.mailbox.wake()

    def kill(self) -> None:
        """End it wherever it is; ``on_stop`` does not run."""
        if not self.ended:
            gevent.kill(self._greenlet, GreenletExit)

    # -- timers and tasks --------------------------------------------------------------------------

    def timer(self, seconds: float, message: Any, *, repeat: bool) -> Timer:
        timer = Timer(self, seconds, message, repeat=repeat)
        self._keep(timer)
        return timer

    def task(self, call: Callable[[], Any], then: Callable[[Any, BaseException | None], Any]) -> Task:
        task = Task(self, call, then)
        self._keep(task)
        return task

    def _keep(self, resource: Timer | Task) -> None:
        if self._resources is None:
            self._resources = set()
        self._resources.add(resource)

    def forget(self, resource: Timer | Task) -> None:
        if self._resources is not None:
            self._resources.discard(resource)

    def _owe(self, later: Later, request: Request) -> None:
        self._owed = [owed for owed in self._owed if not owed.done]
        if later.bind(request):
            self._owed.append(later)

    # -- the greenlet ------------------------------------------------------------------------------

    def _main(self, args: tuple[Any, ...]) -> None:
        during = "__init__"
        request: Request | None = None
        ref = self.ref
        try:
            actor = self._construct(args)
            during = "on_start"
            actor.on_start()
            ref.started_at = time.time()
            ref.state = "running"
            if self._started is not None:
                self._started.set()
            mailbox = ref.mailbox
            items, receive = mailbox.items, actor.receive
            during = "receive"
            burst = 0
            woken = time.perf_counter()
            while not self._stopping:
                if not items:
                    burst = 0
                    # taken once for all that came at once: a clock for each message would cost as much as the message
                    ref.busy_seconds += time.perf_counter() - woken
                    mailbox.wait()
                    woken = time.perf_counter()
                    continue
                message = items.popleft()
                kind = type(message)
                if kind is Request:
                    request, message = message, message.message
                elif kind is Due:
                    if message.life is not self or message.cancelled:
                        continue
                    message = message.take()
                ref.handled += 1
                if request is None:
                    receive(message)
                else:
                    try:
                        value = receive(message)
                        if type(value) is Later:
                            self._owe(value, request)
                        else:
                            request.answer(value)
                    except Exception as error:  # an answer, if it is one of the expected refusals
                        if not expected(error):
                            raise
                        request.fail(error)
                    request = None
                burst += 1
                if burst >= BURST:
                    burst = 0
                    ref.busy_seconds += time.perf_counter() - woken
                    gevent.sleep(0)
                    woken = time.perf_counter()
            ref.state = "stopping"
            during = "on_stop"
            actor.on_stop()
        except GreenletExit as killed:
            self._release()
            self._last_words(killed)
            if request is not None:
                request.fail(ActorStopped(f"{ref.name} was stopped"))
        except BaseException as error:  # noqa: BLE001 - the one place where every failure of an actor becomes a restart
            self._release()
            self._crashed(error, type(message).__name__ if during == "receive" else during)
            if request is not None:
                request.fail(ActorCrashed(f"{ref.name} crashed: {type(error).__name__}: {error}"))
        finally:
            self._end()

    def _construct(self, args: tuple[Any, ...]) -> Actor:
        actor: Actor = self.factory.__new__(self.factory)
        actor._life = self  # the ref is known before the constructor runs
        self.actor = actor
        actor.__init__(*args)  # type: ignore[misc]
        return actor

    def _release(self) -> None:
        resources, self._resources = self._resources, None
        for resource in resources or ():
            resource.cancel()

    def _crashed(self, error: BaseException, during: str) -> None:
        self.error = error
        # chained causes are kept, the text is bounded: a RecursionError prints a thousand frames
        text = "".join(traceback.format_exception(error, limit=-30))[-16_000:]
        self.ref.last_error = LastError(
            ts=time.time(), type=type(error).__name__, message=str(error)[:1000], traceback=text, during=during
        )
        log.error("%s crashed during %s: %s: %s", self.ref.name, during, type(error).__name__, error, exc_info=error)
        self._last_words(error)

    def _last_words(self, error: BaseException) -> None:
        if self.actor is not None:
            try:
                self.actor.on_crash(error)
            except Exception:  # its crash is on record already; this one must not hide the restart
                log.exception("%s failed in on_crash", self.ref.name)

    def _end(self) -> None:
        self._release()
        for later in self._owed:
            later.fail(ActorStopped(f"{self.ref.name} ended before it could answer"))
        self.ended = True
        self.ref.state = "failed" if self.error is not None else "stopped"
        if self._started is not None:
            self._started.set()
        if self._done is not None:
            self._done.set()
        if self.supervisor is not None:
            self.supervisor.child_ended(self)

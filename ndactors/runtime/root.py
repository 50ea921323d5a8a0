"""The top of a tree: starts one supervisor and, whatever happens to it, keeps one running until told to stop."""

from __future__ import annotations

import time

import gevent

from .actor import Life
from .restarts import Backoff
from .supervisor import Child


class Root:
    """Nobody supervises the first supervisor; this does, with a backoff and without an end."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._backoff = Backoff()
        self._stopped = False
        self._life = Life(child.ref, child.factory, child.args, None)
        self._watch = gevent.spawn(self._keep_alive)

    def wait_started(self, seconds: float) -> bool:
        return self._life.wait_started(seconds)

    def _keep_alive(self) -> None:
        while True:
            life = self._life
            while not life.wait_ended(3600):
                pass
            if self._stopped:
                return
            gevent.sleep(self._backoff.next(time.monotonic()))
            if self._stopped:
                return
            self._child.ref.restarts += 1
            self._life = Life(self._child.ref, self._child.factory, self._child.args, None)

    def stop(self, deadline: float) -> bool:
        """Stop everything in reverse order; False if something had to be killed after ``deadline`` seconds."""
        self._stopped = True
        self._life.request_stop()
        if self._life.wait_ended(deadline):
            self._child.ref.close("was stopped")
            return True
        self._life.kill()
        self._life.wait_ended(1.0)
        self._child.ref.close("was stopped")
        return False

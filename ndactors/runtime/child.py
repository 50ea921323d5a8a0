"""Processes that our other processes start: what they need of ``subprocess``, which takes a megabyte of each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence


class Child:
    """Runs ``command`` (its first word a path). It has ``stdin`` as its input, else nothing, our output, and of our other
    descriptors (none of which is inheritable) those to ``keep``, under their numbers. ``session``: a session of its own,
    so that no signal of our terminal reaches it. ``OSError`` if it cannot be started. See posix_spawn(3)."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: int | None = None,
        keep: Sequence[int] = (),
        session: bool = False,
    ) -> None:
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        given = [(os.POSIX_SPAWN_DUP2, stdin, 0) if stdin is not None else nothing]
        # copied onto itself, a descriptor stays open in the new program
        given += [(os.POSIX_SPAWN_DUP2, descriptor, descriptor) for descriptor in keep]
        self.pid = os.posix_spawn(
            command[0],
            list(command),
            env,
            file_actions=given,
            setsid=session,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores them, and what is ignored is inherited
        )
        self.returncode: int | None = None
        """As ``subprocess`` has it: negative for a signal."""

    def poll(self) -> int | None:
        """Its ``returncode``, if it has ended."""
        return self._wait(os.WNOHANG)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it ended within that time."""
        if seconds is None:
            self._wait(0)
            return True
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)  # there may be no descriptor left to wait on
        return True

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:  # until it is waited for, its number is nobody else's
            os.kill(self.pid, number)

    def _wait(self, flags: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:  # whoever started us has us ignore SIGCHLD: nobody can tell how it ended
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

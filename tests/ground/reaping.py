"""Keepers that tests without an event loop start: nobody waits for their end, as the loop would."""

from __future__ import annotations

import contextlib
import os


def reap() -> None:
    """Takes note of every child that has ended, so that none stays a zombie as long as the tests run."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

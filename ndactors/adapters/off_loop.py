"""Work off the event loop. gevent's pool prints whatever is raised in it, so errors that are answers travel as values
and are raised where they were asked for."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import NextDeployError, StateError

R = TypeVar("R")
Apply = Callable[[Callable[[], Any]], Any]
"""Runs a call in gevent's thread pool, or at once."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def run(apply: Apply, call: Callable[[], R], about: Path) -> R:
    """What ``call`` returns. Errors of ours as they are; those of the file system as ``StateError``."""

    def guarded() -> tuple[R | None, Exception | None]:
        try:
            return call(), None
        except (NextDeployError, OSError) as error:
            return None, error

    value, error = apply(guarded)
    if isinstance(error, OSError):
        raise failed(error, about) from error
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def failed(error: OSError, about: Path) -> StateError:
    """In words for the user."""
    if error.errno in _FULL:
        return StateError(f"the disk that holds {about} is full")
    return StateError(f"{error.filename or about}: {error.strerror or error}")


def is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL

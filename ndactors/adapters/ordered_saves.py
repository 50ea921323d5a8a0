"""Saving beside the event loop, in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from gevent.monkey import get_original

_Lock = get_original("threading", "Lock")


class OrderedSaves:
    """``save`` in whatever thread ``apply`` takes. Of one record, what was asked for earlier never replaces what was asked for
    later: whoever asked may be gone, and another daemon's life have begun, while a slow disk still holds up the save."""

    def __init__(self, save: Callable[[str, object], None], apply: Callable[[Callable[[], None]], None]) -> None:
        self._save = save
        self._apply = apply
        self._asked: defaultdict[str, int] = defaultdict(int)
        self._saved: defaultdict[str, int] = defaultdict(int)
        # a real lock: who waits is a thread of the pool
        self._locks = defaultdict(_Lock)

    def __call__(self, name: str, value: object) -> None:
        """``StateError`` if it cannot be written. One that came too late is as good as written: a later one is."""
        self._asked[name] += 1
        number, lock = self._asked[name], self._locks[name]

        def save() -> None:
            with lock:
                if number > self._saved[name]:
                    self._save(name, value)
                    self._saved[name] = number

        self._apply(save)

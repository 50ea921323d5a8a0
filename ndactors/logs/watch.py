"""Hears of new log files at once (inotify(7)), so that each is open before a rotation deletes it. Without inotify files are
found by looking, and then a container that writes very fast may be faster."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .intake import Intake

PAUSE_SECONDS = 0.1
NICE = -10
"""Of the thread that opens files (nice(2))."""


class Watch:
    """``note`` hears why it cannot be had; ``wake`` is called, by any thread, when an intake was woken."""

    def __init__(self, note: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._note = note
        self._by_watch: dict[int, Path] = {}
        self._watches: dict[Path, int] = {}
        self._armed: dict[int, Intake] = {}
        self._wake = wake
        self._complained = False
        self._intakes: dict[Path, Intake] = {}
        self._inotify = self._open()

    def _open(self) -> Any:
        try:
            from inotify_simple import INotify

            return INotify()
        except (ImportError, OSError) as error:
            self._note(f"new log files are not told of: {error}")
            return None

    def add(self, intake: Intake) -> None:
        """Its folder is watched from now on, if it is there."""
        if intake.tail is None:
            return
        path = intake.tail.path
        self._intakes[path] = intake
        if path.parent in self._watches or self._begin(path.parent):
            self._look(intake)
            intake.tail.watched()

    def _begin(self, folder: Path) -> bool:
        if self._inotify is None:
            return False
        from inotify_simple import flags

        try:
            number = self._inotify.add_watch(
                os.fspath(folder), flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.ONLYDIR
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._note(f"{folder} cannot be watched, nor maybe others: {error}")
            return False
        self._watches[folder], self._by_watch[number] = number, folder
        return True

    def arm(self, intake: Intake) -> bool:
        """Wake it when its newest file is written to, once. False: that cannot be had."""
        if self._inotify is None or intake.tail is None:
            return False
        from inotify_simple import flags

        try:
            number = self._inotify.add_watch(os.fspath(intake.tail.path), flags.MODIFY | flags.ONESHOT)
        except OSError:
            return False  # then it is looked at by the clock
        self._armed[number] = intake
        return True

    def missing(self, intake: Intake) -> bool:
        """Whether its folder is not watched (yet)."""
        return self._inotify is not None and intake.tail is not None and intake.tail.path.parent not in self._watches

    def remove(self, intake: Intake) -> None:
        if intake.tail is None:
            return
        path = intake.tail.path
        self._intakes.pop(path, None)
        if self._inotify is None or any(other.parent == path.parent for other in self._intakes):
            return
        number = self._watches.pop(path.parent, None)
        if number is not None and self._by_watch.pop(number, None) is not None:
            try:
                self._inotify.rm_watch(number)
            except OSError:
                return  # it went with its folder

    def start(self) -> None:
        """From now on every new file is opened at once, in a thread that does nothing else: however busy the others are, a
        file lives for two rotations, and that may be less than a tenth of a second."""
        if self._inotify is not None:
            threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        # it does next to nothing, but that at once; without the privilege it goes as it is
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            try:
                self._open_new()
            except Exception:  # noqa: BLE001 - the guard: without this thread rotations would be missed unseen
                self._note(f"news of log files failed: {traceback.format_exc()}")
                for each in list(self._intakes.values()):
                    if each.tail is not None:
                        each.tail.uncounted()
                time.sleep(PAUSE_SECONDS)

    def _open_new(self) -> None:
        from inotify_simple import flags

        assert self._inotify is not None
        changed: set[Path] = set()
        for event in self._inotify.read():
            if event.mask & flags.Q_OVERFLOW:
                changed |= set(self._intakes)
                for each in list(self._intakes.values()):
                    if each.tail is not None:
                        each.tail.uncounted()
            if (resting := self._armed.pop(event.wd, None)) is not None:
                resting.armed = False
                self._woken(resting)
            folder = self._by_watch.get(event.wd)
            if folder is None:
                continue
            if event.mask & flags.IGNORED:
                self._by_watch.pop(event.wd, None)
                self._watches.pop(folder, None)
                continue
            path = folder / event.name
            if path not in self._intakes:
                continue
            # a rotation ends with a new file under the plain name; a removal with none
            changed.add(path)
            if event.mask & flags.CREATE:
                self._count(path)
        for path in changed:
            if (rotated := self._intakes.get(path)) is not None:
                self._look(rotated)
                rotated.armed = False  # that was for the file before
                self._woken(rotated)

    def _woken(self, intake: Intake) -> None:
        intake.woken = True
        self._wake()

    def _look(self, intake: Intake) -> None:
        try:
            if intake.tail is not None:
                intake.tail.look()
        except OSError as error:
            # too many open files, say: what is missed is found later, or told as a gap
            self._note(f"a new log file could not be opened: {error}")

    def _count(self, path: Path) -> None:
        intake = self._intakes.get(path)
        if intake is not None and intake.tail is not None:
            intake.tail.created()

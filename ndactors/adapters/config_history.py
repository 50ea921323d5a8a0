"""Every text that the configuration file ever had, as far as this daemon saw it: who wrote it, when, and what changed."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from ..errors import NotFound
from ..messages.config import ConfigHistory, ConfigVersion, ConfigView, ConfigWritten, GetConfigHistory
from ..ports import StateStore
from .config_file import ConfigFile, etag
from .off_loop import Apply, run
from .yaml_masking import unified_diff

INDEX = "config"
TEXTS = "config"
"""The folder of the texts, one record for each."""
MAX_VERSIONS = 100
MAX_MESSAGE = 500
BY_FILE = "file"


class Index(Struct, frozen=True, kw_only=True):
    """The record of all versions, oldest first, without their texts."""

    versions: tuple[ConfigVersion, ...] = ()


class Text(Struct, frozen=True, kw_only=True):
    text: str


class ConfigVersions:
    """``now`` gives the time in UTC. A text is on record before it is in the file, so that no text is ever in force that
    nobody can look up. One greenlet changes it (ConfigActor)."""

    def __init__(
        self,
        file: ConfigFile,
        state: StateStore,
        apply: Apply = lambda call: call(),
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._file = file
        self._state = state
        self._apply = apply
        self._now = now
        self._index = state.load(INDEX, Index) or Index()
        # an index that was lost begins anew, but no number is given twice
        numbers = [name.rpartition("/")[2] for name in state.names(TEXTS)]
        self._highest = max((int(number) for number in numbers if number.isdigit()), default=0)

    def observe(self) -> int | None:
        """After the file was loaded: what somebody wrote into it by hand is a version too. The newest version's number;
        None while there is neither file nor version."""
        text = self._file.text()
        newest = self._newest()
        if text is None or (newest is not None and self._text(newest.version) == text):
            return newest.version if newest is not None else None
        version = self._next(text, BY_FILE, None)
        self._record(version, text)
        return version.version

    def view(self) -> ConfigView:
        """``NotFound`` while the file is gone."""
        text = self._file.text()
        if text is None:
            raise NotFound(f"{self._file.path} is gone.")
        newest = self._newest()
        known = newest is not None and self._text(newest.version) == text
        return ConfigView(
            version=newest.version if newest is not None and known else None,
            etag=self._file.etag(),
            text=text,
            effective=self._file.render(),
        )

    def put(self, text: str, by: str, message: str | None = None, if_match: Collection[str] = ()) -> ConfigWritten:
        """Errors as of ``ConfigFile.write``. The same text again is no new version."""
        there = self.observe()
        if there is not None and self._file.text() == text:
            # judged all the same: what is not set any more makes the same text wrong
            written = self._file.write(text, if_match)
            return ConfigWritten(version=there, etag=written)
        version = self._next(text, by, message[:MAX_MESSAGE] if message else None)
        before = self._index
        try:
            self._file.write(text, if_match, ready=lambda: self._save(version, text))
        except BaseException:
            if self._index is not before:
                self._forget(before, version)
            raise
        self._trim()
        return ConfigWritten(version=version.version, etag=etag(text.encode()))

    def rollback(self, to: int, by: str, message: str | None = None) -> ConfigWritten:
        """``NotFound`` for a version that is not, or no longer, kept; else as ``put``."""
        if all(version.version != to for version in self._index.versions):
            raise NotFound(f"There is no version {to} of the configuration.")
        text = self._text(to)
        if text is None:
            raise NotFound(f"The text of version {to} is lost.")
        return self.put(text, by, message or f"back to version {to}")

    def page(self, query: GetConfigHistory) -> ConfigHistory:
        rows = [v for v in reversed(self._index.versions) if query.before is None or v.version < query.before]
        items = tuple(rows[: query.limit])
        return ConfigHistory(items=items, next=items[-1].version if len(rows) > len(items) else None)

    # -- records -----------------------------------------------------------------------------------

    def _newest(self) -> ConfigVersion | None:
        return self._index.versions[-1] if self._index.versions else None

    def _text(self, version: int) -> str | None:
        record = self._state.load(f"{TEXTS}/{version}", Text)
        return record.text if record is not None else None

    def _next(self, text: str, by: str, message: str | None) -> ConfigVersion:
        newest = self._newest()
        number = max(newest.version if newest is not None else 0, self._highest) + 1
        diff = ""
        if newest is not None:
            names = f"version {newest.version}", f"version {number}"
            before = self._text(newest.version) or ""
            diff = run(self._apply, partial(unified_diff, before, text, names), self._file.path)
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return ConfigVersion(version=number, at=stamp, by=by, message=message, diff=diff)

    def _record(self, version: ConfigVersion, text: str) -> None:
        run(self._apply, lambda: self._save(version, text), self._file.path)
        self._trim()

    def _save(self, version: ConfigVersion, text: str) -> None:
        """The text first: what the index names is there."""
        index = replace(self._index, versions=(*self._index.versions, version))
        self._state.save(f"{TEXTS}/{version.version}", Text(text=text))
        self._state.save(INDEX, index)
        self._index = index

    def _forget(self, before: Index, version: ConfigVersion) -> None:
        """It was not written after all."""
        run(self._apply, lambda: self._state.save(INDEX, before), self._file.path)
        self._index = before
        self._state.delete(f"{TEXTS}/{version.version}")

    def _trim(self) -> None:
        old, kept = self._index.versions[:-MAX_VERSIONS], self._index.versions[-MAX_VERSIONS:]
        if not old:
            return
        index = replace(self._index, versions=kept)
        run(self._apply, lambda: self._state.save(INDEX, index), self._file.path)
        self._index = index
        for version in old:
            self._state.delete(f"{TEXTS}/{version.version}")

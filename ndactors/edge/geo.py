"""Countries by address, from an .mmdb file that may come, change and go while we run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 5.0
REMEMBERED = 4096


class Countries:
    """Both layouts: ``country_code`` and ``country.iso_code``. Without a file, or for an address that is in none of its
    networks, the country is empty."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._path = ""
        self._seen: tuple[int, int, int] | None = None
        self._reader: Any = None
        self._damaged: type[Exception] = ValueError
        self._known: dict[str, str] = {}
        self._looked = 0.0
        self.problem = ""

    def follow(self, path: str, now: float) -> None:
        """Use this file from now on; empty: none."""
        if path != self._path:
            self._path, self._looked = path, 0.0
            self._let_go()
        self.look(now)

    def look(self, now: float) -> None:
        """Load the file anew if it is another one than before."""
        if not self._path or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            found = os.stat(self._path)
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        except FileNotFoundError:
            self._let_go()
            return
        except OSError as error:
            self._let_go()
            self._complain(f"{self._path}: {error.strerror}")
            return
        if seen == self._seen:
            return
        try:
            import maxminddb  # most have no such file
        except (ImportError, OSError) as error:
            self._complain(f"its reader cannot be loaded: {error}")
            return
        try:
            reader = maxminddb.open_database(self._path, maxminddb.MODE_AUTO)
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            # the one before stays; a file that is just being written will be whole the next time
            self._complain(f"{self._path}: {error}")
            return
        self._let_go()
        self._damaged = maxminddb.InvalidDatabaseError
        self._reader, self._seen, self.problem = reader, seen, ""

    def _complain(self, words: str) -> None:
        if words != self.problem:
            self._note(f"geoip: {words}")
        self.problem = words

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._seen = None
        self._known.clear()

    def country(self, address: str) -> str:
        """ISO 3166 code of two letters, or empty."""
        if self._reader is None:
            return ""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._find(address)
        return known

    def _find(self, address: str) -> str:
        try:
            record = self._reader.get(address.partition("%")[0])
        except (ValueError, self._damaged):
            return ""
        if not isinstance(record, dict):
            return ""
        code = record.get("country_code")
        if code is None and isinstance(record.get("country"), dict):
            code = record["country"].get("iso_code")
        if not isinstance(code, str) or len(code) != 2 or not (code.isascii() and code.isalpha()):
            return ""
        return code.upper()

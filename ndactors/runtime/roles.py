"""The arguments of our other processes: ``--name=value``, told by us, so there is little to understand. (argparse would
take a tenth of what such a process needs.)"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes 0.7 MB, and the opener needs it for nothing else
    from typing import NoReturn


class Arguments:
    """``given``: as ``--role`` of ``__main__`` passes them on. What is not in ``known`` ends the process with 2, as does one
    that is asked for as ``needed`` and not there."""

    def __init__(self, given: list[str], *known: str) -> None:
        self._values: dict[str, list[str]] = {}
        for argument in given:
            name, equals, value = argument.removeprefix("--").partition("=")
            if not argument.startswith("--") or not equals or name not in ("role", "state-dir", *known):
                _wrong(f"{argument!r} is not understood")
            self._values.setdefault(name, []).append(value)

    def needed(self, name: str) -> str:
        return self.text(name) or _wrong(f"--{name} is missing")

    def text(self, name: str, default: str | None = None) -> str | None:
        values = self._values.get(name)
        return values[-1] if values else default

    def number(self, name: str) -> int | None:
        values = self._values.get(name)
        return _number(name, values[-1]) if values else None

    def numbers(self, name: str) -> list[int]:
        """Of an argument that may be given several times."""
        return [_number(name, value) for value in self._values.get(name, ())]


def _number(name: str, text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else _wrong(f"--{name} needs a number")


def _wrong(words: str) -> NoReturn:
    sys.stderr.write(f"nextdeployd: {words}\n")
    raise SystemExit(2)

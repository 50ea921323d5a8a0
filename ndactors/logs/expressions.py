"""Regular expressions that take linear time, whatever they are (RE2)."""

from __future__ import annotations

from typing import Any

from ..core.logquery import Search
from ..errors import Invalid

MAX_PROGRAM = 2500
"""Steps of a regular expression that is compiled: with so many, the worst takes a second for a block. ``.{0,200}`` has 1800."""


def compile_re2(pattern: str, most: int = MAX_PROGRAM) -> Search:
    """A search in linear time; lines are what ``^`` and ``$`` stand for. ``Invalid``, also for a program of more than
    ``most`` instructions, by which a byte may cost so much more."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 16 * 1024 * 1024
    options.never_capture = True
    try:
        found = re2.compile(f"(?m){pattern}".encode(), options)
    except UnicodeEncodeError as error:
        raise Invalid("q has half a character.") from error
    except re2.error as error:
        words = error.args[0] if error.args else error
        raise Invalid(
            f"q is no regular expression (RE2): {words.decode() if isinstance(words, bytes) else words}"
        ) from error
    if found.programsize > most:
        raise Invalid("q is too large a regular expression: it repeats too much, or too many kinds of letters.")

    def search(text: bytes, start: int, end: int) -> Any:
        return found.search(text, start, end)

    return search

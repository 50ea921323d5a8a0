"""Text that every match of a regular expression has: whatever lacks it needs no search."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?: (?P<plain> \\[^\w\s] | [^\\\[\](){}.^$|*+?] )
          | (?P<unit> \\[abBdDfnrsStvwWAz] | \[\^?(?:[^\\\[\]]|\\.)+\] | [.^$] )
          | (?P<close> \) )
        ) (?P<times> (?:[*+?]|\{\d+(?:,\d*)?\})\?? )?
      | (?P<open> \((?:\?:)? ) (?![*+?])
      | (?P<either> \| )""",
    re.VERBOSE | re.ASCII,
)
"""What is understood of RE2's syntax; with anything else nothing is claimed."""
_MAY_LACK = ("*", "?", "{0")


def needed_texts(pattern: str) -> list[str]:
    """The runs of plain characters, outside of groups, that every match of ``pattern`` (RE2 syntax, matched with case) has,
    the longest first; empty where there is none, or none is sure."""
    runs, run, depth, at = [], "", 0, 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None or (token["either"] and not depth):
            return []
        at = token.end()
        depth += bool(token["open"]) - bool(token["close"])
        plain, times = token["plain"], token["times"] or ""
        if plain and not depth and not times.startswith(_MAY_LACK):
            run += plain[-1]
        if not plain or times:
            runs.append(run)
            run = ""
    return sorted(dict.fromkeys(filter(None, [*runs, run])), key=len, reverse=True)

"""Which request a line of output belongs to, as the line says: to find it beside the request's record."""

from __future__ import annotations

import re

LOOKED_AT = 16 * 1024
"""What is looked at of a message, in characters from its beginning."""
_ID = r"([A-Za-z0-9._-]{6,128}+)"
_NAME = r"(?:(?:x[-_.]?)?request[-_. ]?id|http\.request\.id|req[-_.]?id|rid)"
_CORRELATION = r"(?:x[-_.]?)?correlation[-_. ]?id"
_END = r"""(?=["'\s,;)\]}]|$)"""
_NO_ID = frozenset({"undefined", "unknown", "missing", "required", "invalid", "disabled"})
"""Long enough for an id, but none."""
_LIKE_AN_ID = re.compile(r"[0-9]|.{16}")

_TAG = re.compile(
    r"(?:[DIWEFA], \[[^\]\n]{1,60}+\] {1,2}[A-Z]{3,5} -- [^:\n]{0,60}+: )?(?:\[[^\[\]\n]{1,60}+\] ){0,2}?"
    r"\[([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24,32}+)\]"
)
"""Rails writes the id of its request in brackets before each line: its own, or the one that our edge gave it."""


def _expressions(name: str) -> tuple[re.Pattern[str], ...]:
    """A field of a JSON object, ``name=id``, ``name: id``; what is found first counts."""
    before = r"(?<![A-Za-z0-9_.?&/%-])"
    return (
        re.compile(rf'"{name}"\s{{0,9}}+:\s{{0,9}}+"?{_ID}(?=["\s,}}])', re.IGNORECASE),
        re.compile(rf"{before}{name} ?= ?[\"']?{_ID}{_END}", re.IGNORECASE),
        re.compile(rf"{before}{name}[\"']?: {{0,2}}[\"']?{_ID}{_END}", re.IGNORECASE),
    )


_NAMED = _expressions(_NAME)
_NESTED = re.compile(rf'"req(?:uest)?"\s{{0,9}}+:\s{{0,9}}+\{{\s{{0,9}}+"id"\s{{0,9}}+:\s{{0,9}}+"{_ID}"')
"""pino-http, and Elastic's common schema."""
_CORRELATED = _expressions(_CORRELATION)


def request_id_of(message: str) -> str | None:
    """The id of 6 to 128 letters, digits, dots, underscores and hyphens; None if the message names none."""
    text = message[:LOOKED_AT]
    tag = _TAG.match(text)
    if tag is not None:
        return tag[1]
    lowered = text.lower()
    if "id" not in lowered:
        return None
    if "req" in lowered or "rid" in lowered:
        found = _first(_NAMED, text) or _first((_NESTED,), text)
        if found is not None:
            return found
    return _first(_CORRELATED, text) if "correlation" in lowered else None


def _first(expressions: tuple[re.Pattern[str], ...], text: str) -> str | None:
    for expression in expressions:
        for match in expression.finditer(text):
            id = match[1].rstrip(".")
            if len(id) >= 6 and id.lower() not in _NO_ID and (_is_field(match) or _LIKE_AN_ID.search(id)):
                return id
    return None


def _is_field(match: re.Match[str]) -> bool:
    """``request id: required`` is a sentence; ``request_id=required`` and ``"request_id":"required"`` are not."""
    return "=" in match[0] or match[0].startswith('"')

"""Which files a ``.dockerignore`` keeps out of a build context, as Docker reads it (moby's ``patternmatcher``).

Time is bounded by the lengths of pattern and path multiplied: no pattern makes it explode, so files of strangers may be
matched.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from itertools import accumulate

from msgspec import Struct

from ..errors import Invalid

NAME = ".dockerignore"
MAX_RULES = 2000
MAX_PATTERN = 1024
"""Characters of one line."""
CACHED_FOLDERS = 4096
SPECIAL = frozenset("*?[]\\")
Range = tuple[str, str]


class Some(Struct, frozen=True):
    """One character of these ranges, or one of no range: ``[a-z]``, ``[^a-z]``."""

    ranges: tuple[Range, ...]
    negated: bool


ONE = "?"  # any character but a slash
STAR = "*"  # any number of them
DEEP = "**/"  # nothing, or anything up to and with a slash
REST = "**"  # anything at all


class Wild(Struct, frozen=True):
    """A part of a pattern that is no plain text."""

    kind: str


Token = str | Wild | Some
"""A string is matched as it is."""


class Rule(Struct, frozen=True):
    """``keeps``: its line began with ``!``, so what it matches is sent."""

    tokens: tuple[Token, ...]
    keeps: bool

    def matches(self, path: str) -> bool:
        """This very path; what lies below a folder that matches is for the caller to think of."""
        first, last = self.tokens[0], self.tokens[-1]
        if len(self.tokens) == 1 and isinstance(first, str):
            return path == first
        if isinstance(first, str) and not path.startswith(first):
            return False
        if isinstance(last, str) and not path.endswith(last):
            return False
        return _walk(self.tokens, path, unfinished=False)

    def may_match_below(self, folder: str) -> bool:
        return _walk(self.tokens, f"{folder}/", unfinished=True)


class IgnoreRules:
    """The rules of one file: the last one that matches a path, or a folder that it is in, decides. Paths are relative
    to the context, with ``/``. ``keep`` names paths that are always sent: the Dockerfile, and the file of the rules.

    ``Invalid`` with the line for a pattern that is none.
    """

    def __init__(self, text: str, keep: Iterable[str] = (), *, name: str = NAME) -> None:
        self._rules = (*_parse(text, name), *(Rule((path,), True) for path in keep))
        self._of_folder: dict[str, int] = {}

    def ignored(self, path: str) -> bool:
        number = self._decisive(path)
        return number >= 0 and not self._rules[number].keeps

    def may_skip_folder(self, path: str) -> bool:
        """True if nothing below this folder is sent, so that nobody need look there."""
        number = self._decisive(path)
        if number < 0 or self._rules[number].keeps:
            return False
        return not any(rule.keeps and rule.may_match_below(path) for rule in self._rules[number + 1 :])

    def _decisive(self, path: str) -> int:
        """The number of the rule that decides about ``path``; -1 if there is none."""
        folder = posixpath.dirname(path)
        inherited = self._of_folder.get(folder)
        if inherited is None:
            inherited = -1
            for part in accumulate(folder.split("/") if folder else (), "{}/{}".format):
                inherited = self._last(part, inherited)
            if len(self._of_folder) >= CACHED_FOLDERS:
                self._of_folder.clear()
            self._of_folder[folder] = inherited
        return self._last(path, inherited)

    def _last(self, path: str, inherited: int) -> int:
        for number in range(len(self._rules) - 1, inherited, -1):
            if self._rules[number].matches(path):
                return number
        return inherited


def _parse(text: str, name: str) -> Iterable[Rule]:
    rules: list[Rule] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.startswith("#") or not line.strip():
            continue
        if len(line) > MAX_PATTERN:
            raise Invalid(f"{name}:{number}: a pattern of more than {MAX_PATTERN} characters")
        if len(rules) == MAX_RULES:
            raise Invalid(f"{name}:{number}: more than {MAX_RULES} patterns")
        rule = _rule(line.strip())
        if rule is None:
            raise Invalid(f"{name}:{number}: {line.strip()!r} is no valid pattern")
        rules.append(rule)
    return rules


def _rule(line: str) -> Rule | None:
    # in two rounds, as Docker does it: what only shows after the first (``/!name``, ``name /``) counts in the second
    pattern = f"!{_clean(line[1:].strip())}" if line.startswith("!") else _clean(line)
    pattern = posixpath.normpath(pattern.strip())
    keeps = pattern.startswith("!")
    pattern = pattern.removeprefix("!")
    tokens = _tokens(pattern) if pattern else None
    return None if tokens is None else Rule(tokens, keeps)


def _clean(pattern: str) -> str:
    """The shortest form of the path, without a slash at its start."""
    if not pattern:
        return ""
    # ``normpath`` keeps two leading slashes, which mean nothing here
    pattern = posixpath.normpath(f"/{pattern.lstrip('/')}" if pattern.startswith("/") else pattern)
    return pattern[1:] if pattern.startswith("/") and pattern != "/" else pattern


def _tokens(pattern: str) -> tuple[Token, ...] | None:
    """None if it is no pattern. ``**`` swallows the slash behind it."""
    tokens: list[Token] = []
    at, length = 0, len(pattern)
    while at < length:
        character = pattern[at]
        at += 1
        if character == "*" and pattern.startswith("*", at):
            at += 2 if pattern.startswith("/", at + 1) else 1
            tokens.append(Wild(REST if at == length else DEEP))
        elif character in "*?":
            tokens.append(Wild(character))
        elif character == "[":
            some, at = _some(pattern, at)
            if some is None:
                return None
            tokens.append(some)
        else:
            if character == "\\":
                if at == length:
                    return None
                character = pattern[at]
                at += 1
            if tokens and isinstance(tokens[-1], str):
                tokens[-1] += character
            else:
                tokens.append(character)
    if pattern.startswith("**") and not pattern.startswith("**/") and not SPECIAL.intersection(pattern[2:]):
        # ``**name`` is the one form in which ``**`` need not end at a slash
        tokens[0] = Wild(REST)
    return tuple(tokens)


def _some(pattern: str, at: int) -> tuple[Some | None, int]:
    """A class of characters, from behind its ``[``, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[Range] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _one(pattern, at)
        high = low
        if low and pattern.startswith("-", at):
            high, at = _one(pattern, at + 1)
        if not low or not high or low > high:
            return None, at
        ranges.append((low, high))
    return Some(tuple(ranges), negated), at + 1


def _one(pattern: str, at: int) -> tuple[str, int]:
    """A character inside a class and the place behind it; an empty one if none may stand here."""
    if pattern.startswith("\\", at):
        return pattern[at + 1 : at + 2], at + 2
    found = pattern[at : at + 1]
    return ("" if found in ("-", "]") else found), at + 1


def _walk(tokens: Sequence[Token], path: str, *, unfinished: bool) -> bool:
    """Whether ``tokens`` match the whole of ``path``; if it is ``unfinished``, whether they match anything longer that
    begins with it. Goes through the tokens with the set of all places that they can have come to."""
    length = len(path)
    places = {0}
    for token in tokens:
        if unfinished and length in places:
            return True
        reached: set[int] = set()
        if isinstance(token, str):
            for at in places:
                if path.startswith(token, at):
                    reached.add(at + len(token))
                elif unfinished and token.startswith(path[at:]):
                    return True
        elif isinstance(token, Some):
            reached = {at + 1 for at in places if at < length and _holds(token, path[at])}
        elif token.kind == ONE:
            reached = {at + 1 for at in places if at < length and path[at] != "/"}
        elif token.kind == STAR:
            for at in sorted(places):
                while at not in reached:
                    reached.add(at)
                    if at < length and path[at] != "/":
                        at += 1
        elif unfinished:
            return bool(places)
        elif token.kind == REST:
            reached = set(range(min(places), length + 1)) if places else set()
        else:
            reached = places | {at + 1 for at in range(min(places, default=length), length) if path[at] == "/"}
        if not reached:
            return False
        places = reached
    return not unfinished and length in places


def _holds(some: Some, character: str) -> bool:
    return any(low <= character <= high for low, high in some.ranges) != some.negated

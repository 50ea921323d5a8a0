"""What is shown of values that may be secret: one place decides. It goes by names (`*_KEY`, `password`), by what a text
looks like (`user:password@host`, `--token x`), and by secrets that are known. Rather too much is masked than too little."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from .environments import Path, dotted

MASK = "********"
SHORTEST = 4
"""Shorter secrets are not looked for in a text: they would be everywhere."""

_SECRET_NAME = re.compile(
    r"pass|pwd$|secret|token|credential|private|keys?$|dsn|webhook|apprise|cookie|salt$|signature|connection_?string"
    r"|(?:^|(?<!metrics)[_.-])auth(?:$|[_.-]|orization)",
    re.IGNORECASE,
)
_SECRET_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z0-9_.-]+)?")
_ASSIGNED = re.compile(r"([\w.-]{1,128})[\"']?[ \t]{0,2}[=:][ \t]{0,2}")
_FLAG = re.compile(r"(?<![\w-])--?([A-Za-z][\w-]{0,63})[ \t]{1,4}(?!-)")
_VALUE = re.compile(r"\"[^\"\n]*\"?|'[^'\n]*'?|[^\s&;,]+")
_BEARER = re.compile(r"\b(Bearer|Basic)([ \t]{1,4})[\w.~+/=-]{16,}", re.IGNORECASE)
_OWN_TOKEN = re.compile(r"\b(nd[th]_)[A-Za-z0-9]{8,}")
_WORD = re.compile(r"\S+")
_PEM = "PRIVATE KEY-----"
_HTTP_HOST = re.compile(r"(https?://)(?:[^\s/?#]*@)?([^\s/?#@]*)", re.IGNORECASE)
_PLAIN_LOGIN = ("ssh", "git+ssh", "sftp")
"""Where the user alone is no secret: a key proves it."""


def is_secret(name: str) -> bool:
    """Whether something of this name is not for showing."""
    return _SECRET_NAME.search(name) is not None


def masked(name: str, value: Any) -> Any:
    """What is shown of a plain ``value`` that is called ``name``. Numbers come back as they are, unless masked."""
    if value is None or isinstance(value, bool) or value == "":
        return value
    if is_secret(name):
        return MASK
    return mask_words(value) if isinstance(value, str) else value


def mask_tree(tree: Any, name: str = "") -> Any:
    """The same for a tree of mappings, lists and plain values. What is below a secret name is secret too; below
    ``secrets`` are only the names of some."""
    if isinstance(tree, dict):
        if is_secret(name) and name != "secrets":
            return {key: mask_tree(below, name) for key, below in tree.items()}
        if name == "forward":
            return {key: _mask_outlet(str(key), below) for key, below in tree.items()}
        secret = tree.get("secret") is True or is_secret(str(tree.get("name", "")))
        return {
            key: mask_tree(below, "secret" if key == "value" and secret and "name" in tree else str(key))
            for key, below in tree.items()
        }
    if isinstance(tree, (list, tuple)):
        return [_mask_item(tree, index, name) for index in range(len(tree))]
    return masked(name, tree)


def _mask_outlet(key: str, value: Any) -> Any:
    """Of a receiver of log records. Any header may be what lets us in, and so may the path of a URL."""
    if key == "headers":
        return mask_tree(value, "secret")
    match = _HTTP_HOST.match(value) if key == "http" and isinstance(value, str) else None
    if match is None:
        return mask_tree(value, key)
    host = f"{match[1]}{match[2]}"
    return value if value.rstrip("/") == host else f"{host}/{MASK}"


def _mask_item(items: list[Any] | tuple[Any, ...], index: int, name: str) -> Any:
    item = items[index]
    if not isinstance(item, str):
        if name == "secrets" and isinstance(item, dict) and item.keys() <= {"name", "store_name"}:
            return item
        return mask_tree(item, name)
    if name == "secrets" and _SECRET_REFERENCE.fullmatch(item):
        return item
    before = items[index - 1] if index else ""
    flag = _FLAG.fullmatch(before + " ") if isinstance(before, str) else None
    if flag is not None and is_secret(flag[1]) and not item.startswith("-"):
        return MASK
    key, equals, _ = item.partition("=")
    if equals and _SECRET_REFERENCE.fullmatch(key) and is_secret(key):
        return f"{key}={MASK}"
    return masked(name, item)


def mask_words(text: str) -> str:
    """A text in which some words may be secrets, by how they look: passwords in URLs, ``name=value``, ``--token x``,
    authorization headers, private keys, our own tokens."""
    if _PEM in text:
        return MASK
    if "://" in text:
        text = _WORD.sub(lambda match: _mask_url(match[0]), text)
    if "=" in text or ":" in text:
        text = _mask_after(text, _ASSIGNED)
    if "-" in text:
        text = _mask_after(text, _FLAG)
    return _OWN_TOKEN.sub(rf"\1{MASK}", _BEARER.sub(rf"\1\2{MASK}", text))


def _mask_url(word: str) -> str:
    start, end = word.find("://"), word.rfind("@")
    if start < 0 or end < start + 3:
        return word
    login, scheme = word[start + 3 : end], re.split(r"[^A-Za-z0-9+.-]", word[:start])[-1].lower()
    user, colon, _ = login.partition(":")
    if colon:
        shown = f"{user}:{MASK}" if re.fullmatch(r"[\w.+%-]*", user) else MASK
    elif scheme in _PLAIN_LOGIN or re.search(r"[/?#]", login):
        return word
    else:
        shown = MASK
    return f"{word[: start + 3]}{shown}{word[end:]}"


def _mask_after(text: str, pattern: re.Pattern[str]) -> str:
    """The value after each secret name that ``pattern`` finds."""
    parts: list[str] = []
    done = place = 0
    while (match := pattern.search(text, place)) is not None:
        place = match.end()
        if not is_secret(match[1]):
            continue
        value = _VALUE.match(text, place)
        if value is None:
            continue
        parts += [text[done:place], MASK]
        done = place = value.end()
    return "".join((*parts, text[done:])) if parts else text


def mask_text(text: str, values: Iterable[str]) -> str:
    """``text`` without any of the secrets ``values``: whole, line by line, and as JSON, a URL or a shell would write
    them."""
    return masker(values)(text)


def masker(values: Iterable[str]) -> Callable[[str], str]:
    """``mask_text`` for many texts."""
    forms: set[str] = set()
    for value in values:
        for part in (value, *value.splitlines()):
            part = part.strip()
            if len(part) >= SHORTEST:
                shell = part.replace("'", "'\\''")
                forms |= {part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1], shell}
                forms |= {quote(part, safe="", errors="replace"), quote(part, errors="replace")}
    if not forms:
        return lambda text: text
    known = re.compile("|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form))))
    return lambda text: known.sub(MASK, text)


def differences(before: Any, after: Any) -> tuple[tuple[str, Any, Any], ...]:
    """What differs between two trees of plain values, as dotted path, before, after; masked. None: not there. Lists are
    compared as wholes. A secret that changed is there too, with a mask on either side."""
    found: list[tuple[str, Any, Any]] = []

    def compare(a: Any, b: Any, path: Path, name: str) -> None:
        if a == b:
            return
        if isinstance(a, dict) and isinstance(b, dict):
            for key in dict.fromkeys((*a, *b)):
                below = name if is_secret(name) and name != "secrets" else str(key)
                compare(a.get(key), b.get(key), (*path, str(key)), below)
        else:
            found.append((dotted(path), mask_tree(a, name), mask_tree(b, name)))

    compare(before, after, (), "")
    return tuple(found)

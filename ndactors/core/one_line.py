"""Text from outside, fit to be shown, written and sent."""

from __future__ import annotations

import re

_SPACES = re.compile(r"\s+")


def line(text: str, most: int) -> str:
    """One printable line of at most ``most`` characters."""
    short = text[: most * 4]  # what comes after is not looked at: a text may be a whole log
    flat = _SPACES.sub(" ", "".join(c if c.isprintable() else " " if c.isspace() else "" for c in short)).strip()
    return flat if len(flat) <= most and len(short) == len(text) else flat[: most - 1] + "…"


def name(text: str, most: int = 200) -> str:
    """The same, for what mostly is fit already."""
    return text if len(text) <= most and text.isprintable() else line(text, most)

"""An app's own error pages: a folder with ``404.html``, ``503.html``, ``default.html``, or one file for all of them."""

from __future__ import annotations

import re
from pathlib import Path

MAX_PAGE_BYTES = 64 * 1024
_NAME = re.compile(r"([45]\d\d|default)\.html")


def read_pages(path: str) -> tuple[dict[str, str], str]:
    """Pages by status or ``default``, and what is wrong with them, in words."""
    place = Path(path)
    try:
        if place.is_dir():
            found = {file.stem: file for file in sorted(place.iterdir()) if _NAME.fullmatch(file.name)}
        else:
            found = {"default": place}
        if not found:
            return {}, f"{path}: there is no page called like 404.html or default.html"
        pages: dict[str, str] = {}
        for name, file in found.items():
            with file.open("rb") as stream:
                content = stream.read(MAX_PAGE_BYTES + 1)
            if len(content) > MAX_PAGE_BYTES:
                return {}, f"{file}: larger than {MAX_PAGE_BYTES} bytes"
            pages[name] = content.decode("utf-8")
    except OSError as error:
        return {}, f"{path}: {error.strerror}"
    except UnicodeDecodeError:
        return {}, f"{path}: not UTF-8"
    return pages, ""

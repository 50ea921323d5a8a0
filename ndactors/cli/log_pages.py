"""Stored log records, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from .connection import Server, api

PAGE = 10_000
"""Records of one answer at most; the API gives no more."""

Record = dict[str, Any]


def oldest(server: Server, wanted: Mapping[str, str]) -> Iterator[list[Record]]:
    """All that match, the oldest first."""
    cursor: str | None = None
    while True:
        answer = _page(server, wanted, PAGE, cursor, order="oldest")
        yield answer["items"]
        cursor = answer["next"]
        if cursor is None:
            return


class Newest:
    """The newest ``count`` that match. ``records`` has those that were found so far, the oldest first; ``more``: there may
    be older ones."""

    def __init__(self, server: Server, wanted: Mapping[str, str], count: int) -> None:
        self._server, self._wanted, self._count = server, wanted, count
        self._pages: list[list[Record]] = []
        self.more = False

    @property
    def records(self) -> list[Record]:
        return [record for page in reversed(self._pages) for record in page]

    def find(self) -> None:
        """Page after page, also over empty ones, until there are enough or no more."""
        missing, cursor = self._count, None
        while missing > 0:
            answer = _page(self._server, self._wanted, min(missing, PAGE), cursor)
            self._pages.append(answer["items"])
            missing -= len(answer["items"])
            cursor = answer["next"]
            self.more = cursor is not None
            if not self.more:
                return


def _page(server: Server, wanted: Mapping[str, str], limit: int, cursor: str | None, **more: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.ask("GET", api("logs", **{**wanted, **more}, limit=limit, cursor=cursor))
    if answer.get("damaged"):
        click.echo(f"--- {answer['damaged']:,} blocks of the log store are damaged and were left out ---", err=True)
    return answer

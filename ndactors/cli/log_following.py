"""Log records as they come, over a WebSocket. When the link ends it is made again, and goes on after the last line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from ..core.logrecords import format_ns, parse_ns
from .channel import Channel, opened
from .connection import Server, api
from .failures import Failure, Refused, Unreachable, printable
from .log_lines import Lines, Output, as_json
from .log_pages import PAGE, oldest
from .pumping import wait
from .uploading import TRANSIENT

MESSAGE_BYTES = 4 * 1024 * 1024
"""A chunk has some 64 KiB, but a single record may have 256 K characters, and JSON may need six bytes for each."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between attempts."""
BACK_NS = 10_000_000_000
"""So far before the newest record others may have been written that arrive after it."""


class Seen:
    """What was shown already, so that after a break nothing is shown twice and nothing is left out."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}
        """The time of each container's newest record."""
        self._marks: dict[str, str] = {}
        """The same at the last break, of containers of which nothing newer has come since."""
        self._begin = ""
        """The oldest record that was shown: what is before it was not asked for."""

    def __bool__(self) -> bool:
        return bool(self._newest)

    def resume(self) -> str | None:
        """From now on records may come twice. The time from which on they are to be asked for; None: nothing was shown."""
        self._marks = dict(self._newest)
        if not self._newest:
            return None
        newest = max(self._newest.values())
        back = format_ns((parse_ns(newest) or 0) - BACK_NS)
        return max(self._begin, back, min(self._newest.values()))

    def take(self, container: str, times: list[str]) -> int:
        """How many of these records, the oldest first, were shown before. The others count as shown now."""
        known = 0
        mark = self._marks.get(container)
        if mark is not None:
            known = next((n for n, time in enumerate(times) if time > mark), len(times))
            if known == len(times):
                return known
            del self._marks[container]
        self._newest[container] = max(times[-1], self._newest.get(container, ""))
        self._begin = min(times[known], self._begin or times[known])
        return known


class Following:
    """``wanted`` is the filter, as words. ``lines`` None: records are written as JSON, one a line."""

    def __init__(self, server: Server, wanted: Mapping[str, str], output: Output, lines: Lines | None) -> None:
        self._server, self._wanted, self._output, self._lines = server, wanted, output, lines
        self._seen = Seen()
        self._texts: list[str] = []
        self._pause = FIRST_PAUSE

    def run(self, count: int | None, pause: Callable[[float], None] = time.sleep) -> None:
        """For ever; the last ``count`` records come first (at most ``PAGE``; None: all). ``Failure`` if it cannot begin, or
        for what will not get better; ``BrokenPipeError`` when nobody reads any more."""
        if count is None:
            self._catch_up(self._wanted)
            channel = self._again(PAGE)
        else:
            channel = self._subscribed(self._wanted, count)
        while True:
            try:
                self._pump(channel)
            except (Unreachable, Refused) as failure:
                _check(failure)
                click.echo(printable(f"nextdeploy: {failure.message}; trying again"), err=True)
            finally:
                channel.close()
            channel = self._reconnected(PAGE if count is None else count, pause)
            click.echo(f"nextdeploy: {printable(self._server.name)} answers again", err=True)

    # -- the link ----------------------------------------------------------------------------------

    def _subscribed(self, wanted: Mapping[str, str], tail: int) -> Channel:
        channel = opened(self._server, api("ws"), MESSAGE_BYTES)
        channel.put_json(subscribe="logs", filter=dict(wanted), batch=self._lines is not None, tail=tail)
        return channel

    def _reconnected(self, tail: int, pause: Callable[[float], None]) -> Channel:
        while True:
            pause(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            try:
                return self._again(tail)
            except (Unreachable, Refused) as failure:
                _check(failure)

    def _again(self, tail: int) -> Channel:
        """Shows what is stored since the last record, then subscribes so that nothing is missing in between. As at first
        while nothing was shown."""
        since = self._seen.resume()
        if since is None:
            return self._subscribed(self._wanted, tail)
        self._catch_up({**self._wanted, "since": since})
        since = self._seen.resume()
        assert since is not None
        return self._subscribed({**self._wanted, "since": since}, PAGE)

    def _catch_up(self, wanted: Mapping[str, str]) -> None:
        for page in oldest(self._server, wanted):
            fresh = [record for record in page if not self._seen.take(record["container"], [record["ts"]])]
            if self._lines is None:
                self._texts += map(as_json, fresh)
            else:
                self._texts.append(self._lines.records(fresh))
            self._write()
        self._server.close()  # over ssh:// it is a process, which nobody needs from here on

    # -- what comes --------------------------------------------------------------------------------

    def _pump(self, channel: Channel) -> None:
        """Until the link ends, which is a ``Failure``. Everything that came at once is written at once."""
        out = self._output.descriptor
        while True:
            messages = channel.turn(reading=True)
            try:
                for message in messages:
                    if isinstance(message, dict):
                        self._hear(message)
            finally:
                self._write()
            if channel.goodbye is not None:
                raise Unreachable(f"the daemon ended it: {channel.goodbye.reason or channel.goodbye.code}")
            if messages:
                continue
            wanted = {channel.fileno(): channel.wants(reading=True)}
            if out is not None and wait({**wanted, out: 0}).get(out):
                raise BrokenPipeError
            if out is None:
                wait(wanted)

    def _hear(self, message: dict[str, Any]) -> None:
        if isinstance(message.get("gap"), int):
            self._write()
            missed = message["gap"]
            click.echo(f"--- {missed:,} records missed: this terminal was too slow ---", err=True)
        elif "error" in message:
            self._trouble(message)
        elif message.get("topic") == "logs":
            self._pause = FIRST_PAUSE
            data = message["data"]
            for row in data if isinstance(data, list) else [data]:
                self._take(row)

    def _trouble(self, message: dict[str, Any]) -> None:
        words = str(message["error"])
        if isinstance(message.get("status"), int):
            raise Refused(message["status"], {"detail": words})
        if "topic" not in message:
            raise Failure(words)
        if self._seen:
            raise Unreachable("the log process is away")
        # the daemon begins again as soon as it can, and nothing that was shown is behind us
        click.echo("nextdeploy: the log process is away; waiting for it", err=True)

    def _take(self, row: dict[str, Any]) -> None:
        if self._lines is None:
            if not self._seen.take(row["container"], [row["ts"]]):
                self._texts.append(as_json(row))
            return
        known = self._seen.take(row["container"], row["times"])
        if known:
            row = {**row, **{name: row[name][known:] for name in ("times", "levels", "messages")}}
        if row["times"]:
            self._texts.append(self._lines.columns(row))

    def _write(self) -> None:
        texts, self._texts = self._texts, []
        self._output.write("".join(texts))


def _check(failure: Failure) -> None:
    """Raises what will not get better."""
    if isinstance(failure, Refused) and failure.status not in TRANSIENT:
        raise failure

"""An operation until its end: its steps with their seconds, its log, its receipt, and the exit code that it makes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from .connection import Server, api
from .failures import DONE, FAILED, INTERRUPTED, Ended, Refused, Unreachable, printable
from .options import Choices, put_json, wants_json
from .screen import Screen
from .showing import receipt, seconds
from .uploading import TRANSIENT

POLL_SECONDS = 0.25
SLOW_SECONDS = 1.0
SOON_SECONDS = 30.0
"""So long it is asked often, then less."""
AWAY_SECONDS = 120.0
"""A daemon may be started anew meanwhile: the operation is finished, or undone, by the next one."""
TAIL = 8
LAST = 20
MAX_KEPT = 256 * 1024
MARKS = {"succeeded": "✓", "failed": "✗", "running": "•", "pending": " ", "skipped": "–"}


class Following:
    """``raw``: the log is another program's output, and all that is shown."""

    def __init__(self, server: Server, id: str, screen: Screen, *, raw: bool = False) -> None:
        self._server = server
        self._id = id
        self._screen = screen
        self._raw = raw
        self._read = 0
        self._kept = ""
        self._line = ""
        self._told: dict[str, str] = {}
        self._began = time.monotonic()

    def until_end(self, pause: Callable[[float], None] = time.sleep) -> dict[str, Any]:
        """The operation, ended, with all of its log that was seen. ``Ended`` after Ctrl-C, which ends this alone."""
        away_since: float | None = None
        try:
            while True:
                try:
                    operation = self._server.ask("GET", api("operations", self._id, log_from=self._read))
                    away_since = None
                except (Unreachable, Refused) as error:
                    lasting = isinstance(error, Refused) and error.status not in TRANSIENT
                    if lasting or not self._server.reached:
                        raise
                    now = time.monotonic()
                    if away_since is None:
                        away_since = now
                        self._screen.say(f"{self._server.name} is away; waiting for it")
                    elif now - away_since > AWAY_SECONDS:
                        raise
                    pause(SLOW_SECONDS)
                    continue
                self._take(operation)
                if operation.get("state") != "running":
                    return {**operation, "log": self._kept}
                late = time.monotonic() - self._began > SOON_SECONDS
                pause(SLOW_SECONDS if late else POLL_SECONDS)
        except KeyboardInterrupt as error:
            self._screen.clear()
            for line in how_to_go_on(self._id):
                click.echo(line, err=True)
            raise Ended(INTERRUPTED) from error

    def _take(self, operation: dict[str, Any]) -> None:
        text = str(operation.get("log") or "")
        self._read = max(self._read, int(operation.get("log_length") or self._read + len(text)))
        self._kept = (self._kept + text)[-MAX_KEPT:]
        over = operation.get("state") != "running"
        if self._raw:
            if text and not self._screen.quiet:
                # as it is, colours too, which `click.echo` would take out
                sys.stdout.write(text)
                sys.stdout.flush()
            return
        lines = (self._line + text).split("\n")
        self._line = "" if over else lines.pop()
        if self._screen.live:
            self._draw(operation, over=over)
            return
        steps = operation.get("steps") or ()
        # what was logged belongs to a step that began meanwhile, unless one ended: then it comes before that end
        if not any(self._is_news(step) and step.get("state") != "running" for step in steps):
            for step in steps:
                self._tell(step)
        for line in lines:
            if line:
                self._screen.say(f"  | {line}")
        for step in steps:
            self._tell(step)

    def _is_news(self, step: dict[str, Any]) -> bool:
        state = str(step.get("state"))
        return state != "pending" and self._told.get(str(step.get("name"))) != state

    def _tell(self, step: dict[str, Any]) -> None:
        """A step, once for each state that it was seen in."""
        if self._is_news(step):
            name = str(step.get("name"))
            self._told[name] = str(step.get("state"))
            self._screen.say(f"{name}: {described(step)}")

    def _draw(self, operation: dict[str, Any], *, over: bool) -> None:
        steps = [step for step in operation.get("steps") or () if not over or step.get("state") != "pending"]
        lines = [_step_line(step) for step in steps]
        if over:
            self._screen.clear()
            for line in lines:
                self._screen.say(line)
            return
        tail = [line for line in self._kept.split("\n") if line.strip()][-TAIL:]
        self._screen.show([*lines, *(f"    {line}" for line in tail)])


def described(step: dict[str, Any]) -> str:
    words = str(step.get("state"))
    if step.get("state") in ("succeeded", "failed") and step.get("seconds") is not None:
        words += f" in {seconds(step['seconds'])}"
    return words + (f" ({step['detail']})" if step.get("detail") else "")


def _step_line(step: dict[str, Any]) -> str:
    mark = MARKS.get(str(step.get("state")), "?")
    took = seconds(step["seconds"]) if step.get("seconds") is not None else ""
    return f"  {mark} {step.get('name')!s:<12} {took:>8}  {step.get('detail') or ''}".rstrip()


def how_to_go_on(id: str) -> list[str]:
    return [
        f"Operation {id} goes on.",
        f"  follow it:  nextdeploy operations {id} --follow",
        f"  cancel it:  nextdeploy operations {id} --cancel",
    ]


def finish(ctx: click.Context, operation: dict[str, Any], screen: Screen, *, require_clean: bool = False) -> None:
    """Says how it ended and ends the command with 0, or 1 if it failed."""
    code = DONE if operation.get("state") == "succeeded" else FAILED
    failed = int((operation.get("receipt") or {}).get("failed") or 0)
    uncounted = any(s["name"].endswith("receipt") and s["state"] != "succeeded" for s in operation.get("steps") or ())
    dirty = require_clean and (failed > 0 or uncounted)
    if wants_json(ctx):
        put_json(operation)
    else:
        for line in ending(operation):
            screen.say(line)
    if code != DONE:
        if not wants_json(ctx):
            for line in last_lines(operation, screen):
                click.echo(f"  {printable(line)}", err=True)
        reason = operation.get("reason") or "no reason was given"
        click.echo(f"nextdeploy: {what(operation)} {operation.get('state')}: {printable(str(reason))}", err=True)
    elif dirty:
        words = (
            "what failed during the switch is not known"
            if uncounted
            else f"{failed:,} requests failed during the switch"
        )
        click.echo(f"nextdeploy: {words} (--require-clean)", err=True)
        code = FAILED
    raise Ended(code)


def last_lines(operation: dict[str, Any], screen: Screen) -> list[str]:
    """The end of the log, where it is not on the screen already."""
    lines = [line for line in str(operation.get("log") or "").split("\n") if line.strip()]
    return lines[-LAST:] if screen.live else []


def what(operation: dict[str, Any]) -> str:
    apps = ", ".join(operation.get("apps") or ())
    return " ".join(part for part in (str(operation.get("kind") or "operation"), f"of {apps}" if apps else "") if part)


def ending(operation: dict[str, Any]) -> list[str]:
    """What came of it: revisions, receipts."""
    lines = [f"{app} is at revision {number}" for app, number in sorted((operation.get("revisions") or {}).items())]
    if operation.get("state") == "succeeded" and operation.get("reason"):
        lines.append(str(operation["reason"]))
    receipts = operation.get("receipts") or {}
    if len(receipts) > 1:
        lines += [f"{app}: {receipt(row)}" for app, row in sorted(receipts.items())]
    if operation.get("receipt"):
        lines.append(("all: " if len(receipts) > 1 else "") + receipt(operation["receipt"]))
    return lines


def accepted(
    ctx: click.Context, server: Server, answer: dict[str, Any], *, detach: bool, require_clean: bool = False
) -> None:
    """After a 202: follow the operation to its end, or say how that is done. Ends the command."""
    id = answer.get("operation")
    screen = Screen(quiet=ctx.ensure_object(Choices).json)
    if id is None or detach:
        if wants_json(ctx):
            put_json(answer)
        elif id is None:
            click.echo("done: nothing has to be restarted")
        else:
            for line in how_to_go_on(str(id)):
                click.echo(line)
        raise Ended(DONE)
    finish(ctx, Following(server, str(id), screen).until_end(), screen, require_clean=require_clean)

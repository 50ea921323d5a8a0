"""What a command ends with when it cannot do its work: plain lines on stderr and one of the exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

DONE, FAILED, WRONG, REFUSED = 0, 1, 2, 3
"""Exit codes: done, failed at run time, wrong usage or invalid configuration, refused by the daemon."""
INTERRUPTED = 130
"""As a shell has it after Ctrl-C."""


class Failure(click.ClickException):
    """``lines`` are shown as they are, the first with the program's name before it unless ``bare``."""

    exit_code = FAILED

    def __init__(self, *lines: str, code: int | None = None, bare: bool = False) -> None:
        super().__init__("\n".join(lines))
        self.bare = bare
        self.code = self.exit_code if code is None else code

    def show(self, file: Any = None) -> None:
        text = self.message if self.bare else f"nextdeploy: {self.message}"
        click.echo(printable(text), file=file, err=file is None)


class Unreachable(Failure):
    """Nobody answers there, or the connection broke."""


class Invalid(Failure):
    """A configuration that is wrong: all of its lines at once."""

    exit_code = WRONG

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(*lines, bare=True)


class Ended(click.exceptions.Exit):
    """The end of a command with a code of its own, when everything has been said."""


class Refused(Failure):
    """The daemon said no. ``problem`` is its answer (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any], reason: str = "") -> None:
        self.status = status
        self.problem = problem
        errors = [str(line) for line in problem.get("errors") or () if isinstance(line, str)]
        words = str(problem.get("detail") or problem.get("title") or f"the server answered {status} {reason}".strip())
        hints = {401: "Send a token: $NEXTDEPLOY_TOKEN, or `nextdeploy login URL` once."}
        lines = errors if errors and status == 422 else [words, *errors]
        lines += [hints[status]] if status in hints else []
        super().__init__(*lines, bare=bool(errors) and status == 422)
        self.code = REFUSED if status in (401, 403, 409) else WRONG if status in (400, 422) else FAILED


def printable(text: str) -> str:
    """Without what would steer a terminal: only line feeds and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)

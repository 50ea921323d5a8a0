"""What every verb accepts: which daemon, which file, which form of answer. Before the verb or behind it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .connection import Server

DEFAULT_FILE = "nextdeploy.yml"


@dataclass
class Choices:
    """``file`` and the like are None unless they were given."""

    server: str | None = None
    token: str | None = None
    state_dir: str | None = None
    file: str | None = None
    env: str | None = None
    json: bool = False
    opened: Server | None = None

    @property
    def environment(self) -> str:
        return self.env or os.environ.get("NEXTDEPLOY_ENV") or "dev"

    @property
    def path(self) -> Path:
        return Path(self.file or DEFAULT_FILE)


class Shared(click.Option):
    """Its value goes into the ``Choices`` that verb and group share."""

    def __init__(self, *names: str, **settings: Any) -> None:
        super().__init__(names, expose_value=False, callback=self._keep, **settings)

    def _keep(self, ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            setattr(ctx.ensure_object(Choices), str(self.name), value)


def shared(*, file: bool = True) -> list[click.Parameter]:
    """Options of every verb; without ``--file`` for one that means another file by it."""
    options = [
        Shared("--server", metavar="ADDRESS", help="ssh://user@host or https://host (also $NEXTDEPLOY_SERVER)."),
        Shared("--token", metavar="TOKEN", help="For https://. Others can see arguments: better in $NEXTDEPLOY_TOKEN."),
        Shared("--state-dir", metavar="FOLDER", help="Of the daemon on this machine (also $NEXTDEPLOY_STATE_DIR)."),
        Shared("-f", "--file", metavar="PATH", help="The project file (default: ./nextdeploy.yml)."),
        Shared("--env", metavar="NAME", help="The overlay of `environments:` (default: $NEXTDEPLOY_ENV, else dev)."),
        Shared("--json", is_flag=True, help="The API's answer as JSON on stdout, and nothing else."),
    ]
    return [option for option in options if file or option.name != "file"]


def verb(*examples: str, file: bool = True, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a verb, with the shared options and ``examples`` at the end of its help."""
    epilog = "\b\nExample:\n" + "\n".join(f"  nextdeploy {example}" for example in examples)

    def decorate(function: Callable[..., Any]) -> click.Command:
        made: click.Command = click.command(None, click.Command, epilog=epilog, **settings)(function)
        made.params += shared(file=file)
        return made

    return decorate


def wants_json(ctx: click.Context) -> bool:
    return ctx.ensure_object(Choices).json


def put_json(value: Any) -> None:
    """``value`` on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))

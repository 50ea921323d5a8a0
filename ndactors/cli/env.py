"""`nextdeploy env`: an app's variables."""

from __future__ import annotations

import re

import click

from .connection import api, server_from
from .options import put_json, verb, wants_json

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@verb("env shop", "env shop set LOG_LEVEL=debug WORKERS=4", "env shop unset LOG_LEVEL")
@click.argument("app")
@click.argument("action", type=click.Choice(["list", "set", "unset"]), default="list")
@click.argument("names", metavar="[NAME=VALUE… | NAME…]", nargs=-1)
@click.option("--process", metavar="NAME", help="Only this process has the variable (default: all).")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(
    ctx: click.Context, app: str, action: str, names: tuple[str, ...], process: str | None, detach: bool
) -> None:
    """List and change APP's variables. A change is a rolling restart, nothing is built.

    What is set here stays when the project is deployed again, unless its file changes that very variable. Passwords
    belong into `nextdeploy secrets`.
    """
    from .following import accepted
    from .showing import table

    server = server_from(ctx)
    if action == "list":
        if names:
            raise click.UsageError("`list` takes no names")
        answer = server.ask("GET", api("apps", app, "env"))
        if wants_json(ctx):
            put_json(answer)
            return
        rows = [row for row in answer.get("items") or () if process in (None, row.get("process"))]
        cells = [(r.get("name"), r.get("value"), r.get("process"), r.get("source")) for r in rows]
        click.echo(table(("NAME", "VALUE", "PROCESS", "FROM"), cells) if cells else "no variables")
        return
    if not names:
        raise click.UsageError(f"`{action}` what? Write " + ("NAME=VALUE." if action == "set" else "NAME."))
    body: dict[str, object] = {"process": process} if process else {}
    body |= {"set": _pairs(names)} if action == "set" else {"unset": [_name(name) for name in names]}
    accepted(ctx, server, server.ask("PATCH", api("apps", app, "env"), body), detach=detach)


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.UsageError(f"`{word}` is no NAME=VALUE")
        found[_name(name)] = value
    return found


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise click.UsageError(f"`{text}` is no name of a variable")
    return text

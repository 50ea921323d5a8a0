"""`nextdeploy secrets`: values that only go in. They come from stdin or a prompt, never from the command line."""

from __future__ import annotations

import sys

import click

from .connection import api, server_from
from .failures import WRONG, Failure
from .options import put_json, verb, wants_json

MAX_BYTES = 1024 * 1024


@verb("secrets shop", "secrets shop set DATABASE_URL < url.txt", "secrets shop unset DATABASE_URL")
@click.argument("app")
@click.argument("action", type=click.Choice(["list", "set", "unset"]), default="list")
@click.argument("name", required=False)
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(ctx: click.Context, app: str, action: str, name: str | None, detach: bool) -> None:
    """List, set and remove APP's secrets. Nobody can read them back; a change is a rolling restart where it is used.

    `set` reads the value from stdin, or asks for it on a terminal. One line feed at its end is taken off.
    """
    from .following import accepted
    from .showing import age, table

    server = server_from(ctx)
    if action == "list":
        if name is not None:
            raise click.UsageError("`list` takes no name")
        answer = server.ask("GET", api("apps", app, "secrets"))
        if wants_json(ctx):
            put_json(answer)
            return
        rows = [(row.get("name"), age(row.get("set_at"))) for row in answer.get("items") or ()]
        click.echo(table(("NAME", "SET"), rows) if rows else "no secrets")
        return
    if not name:
        raise click.UsageError(f"`{action}` which secret?")
    if "=" in name:
        raise click.UsageError(
            "the value must not be on the command line, where others can see it: write its name only"
        )
    if action == "set":
        answer = server.ask("PUT", api("apps", app, "secrets", name), {"value": _value(name)})
    else:
        answer = server.ask("DELETE", api("apps", app, "secrets", name))
    accepted(ctx, server, answer, detach=detach)


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"{name} (it is not shown)", hide_input=True, confirmation_prompt=True, err=True))
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Failure("the value is longer than 1 MiB", code=WRONG)
    try:
        value = content.decode()
    except UnicodeDecodeError as error:
        raise Failure("the value is no text (UTF-8)", code=WRONG) from error
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise Failure("there is no value on stdin", code=WRONG)
    return value

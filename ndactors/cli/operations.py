"""`nextdeploy operations`: what is being changed and what was."""

from __future__ import annotations

import click

from .connection import api, server_from
from .failures import Ended, printable
from .options import put_json, verb, wants_json


@verb("operations --app shop", "operations 4f2c --follow", "operations 4f2c --cancel")
@click.argument("id", required=False)
@click.option("--follow", is_flag=True, help="Until it ends; exits with 1 if it fails.")
@click.option("--cancel", is_flag=True, help="Stop it and go back to what was.")
@click.option("--app", metavar="NAME", help="Only those of this app.")
@click.option("--state", type=click.Choice(["running", "succeeded", "failed", "cancelled"]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="So many (default 20).")
@click.option("--cursor", metavar="NEXT", help="Go on where the last list ended.")
@click.pass_context
def command(
    ctx: click.Context,
    id: str | None,
    follow: bool,
    cancel: bool,
    app: str | None,
    state: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List changes, newest first; with ID, show one, follow it, or cancel it."""
    from .following import Following, described, ending, finish
    from .screen import Screen
    from .showing import age, table

    server = server_from(ctx)
    if id is None:
        if follow or cancel:
            raise click.UsageError("of which operation? Give its id.")
        answer = server.ask("GET", api("operations", app=app, state=state, limit=limit, cursor=cursor))
        if wants_json(ctx):
            put_json(answer)
            return
        rows = [
            (
                r.get("id"),
                r.get("kind"),
                r.get("apps"),
                r.get("state"),
                age(r.get("started")),
                r.get("by"),
                r.get("reason"),
            )
            for r in answer.get("items") or ()
        ]
        click.echo(table(("ID", "KIND", "APPS", "STATE", "STARTED", "BY", "WHY"), rows) if rows else "no operations")
        if answer.get("next"):
            click.echo(f"more: --cursor {answer['next']}")
        return
    if cancel:
        answer = server.ask("POST", api("operations", id, "cancel"), {})
        if not follow:
            put_json(answer) if wants_json(ctx) else click.echo(f"operation {id} is being cancelled")
            return
    if follow:
        screen = Screen(quiet=wants_json(ctx))
        finish(ctx, Following(server, id, screen).until_end(), screen)
    operation = server.ask("GET", api("operations", id))
    if wants_json(ctx):
        put_json(operation)
        raise Ended(0)
    why = f": {operation['reason']}" if operation.get("reason") else ""
    head = f"{operation.get('kind')} of {', '.join(operation.get('apps') or ())}: {operation.get('state')}{why}"
    lines = [head, *(f"  {step.get('name')}: {described(step)}" for step in operation.get("steps") or ())]
    lines += [f"  | {line}" for line in str(operation.get("log") or "").splitlines()]
    click.echo(printable("\n".join([*lines, *(ending(operation) if operation.get("state") != "running" else ())])))

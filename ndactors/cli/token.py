"""`nextdeploy token`: tokens for the API and for git hooks."""

from __future__ import annotations

import click

from .connection import api, server_from
from .failures import printable
from .options import put_json, verb, wants_json


@verb(
    "token create ci --role operator --app shop",
    "token create github --kind hook --app shop",
    "token list",
    "token revoke 4f2c",
)
@click.argument("action", type=click.Choice(["create", "list", "revoke"]))
@click.argument("name", metavar="[NAME | ID]", required=False)
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="operator", help="What it may do.")
@click.option("--app", "apps", multiple=True, metavar="NAME", help="Limits it to this app; repeatable.")
@click.option("--kind", type=click.Choice(["api", "hook"]), default="api", help="hook: for POST /hooks/{token}.")
@click.pass_context
def command(ctx: click.Context, action: str, name: str | None, role: str, apps: tuple[str, ...], kind: str) -> None:
    """Make, list and revoke API tokens. A token is shown once, when it is made."""
    from .showing import age, table

    server = server_from(ctx)
    if action == "list":
        answer = server.ask("GET", api("tokens"))
        rows = [
            (r.get("id"), r.get("name"), r.get("kind"), r.get("role"), r.get("apps") or "all", age(r.get("created_at")))
            for r in answer.get("items") or ()
        ]
        text = table(("ID", "NAME", "KIND", "ROLE", "APPS", "MADE"), rows) if rows else "no tokens"
    elif not name:
        raise click.UsageError("give it a name" if action == "create" else "which one? Give its id")
    elif action == "create":
        body = {"name": name, "role": role, "apps": list(apps) or None, "kind": kind}
        answer = server.ask("POST", api("tokens"), body)
        text = str(answer.get("token"))
        if not wants_json(ctx):
            click.echo(printable(f"{name} ({answer.get('id')}); this is shown only once:"), err=True)
    else:
        answer = server.ask("DELETE", api("tokens", name))
        text = f"{name} is revoked"
    put_json(answer) if wants_json(ctx) else click.echo(printable(text))

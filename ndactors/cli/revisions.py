"""`nextdeploy revisions`: what each change of an app made."""

from __future__ import annotations

import click

from .connection import api, server_from
from .failures import printable
from .options import put_json, verb, wants_json


@verb("revisions shop", "revisions shop --diff --limit 3")
@click.argument("app")
@click.option("--diff", is_flag=True, help="With the keys that each one changed.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="So many (default 20).")
@click.option("--cursor", metavar="NEXT", help="Go on where the last list ended.")
@click.pass_context
def command(ctx: click.Context, app: str, diff: bool, limit: int, cursor: str | None) -> None:
    """List what each change of APP made, newest first."""
    from .showing import age, differences, table

    answer = server_from(ctx).ask("GET", api("apps", app, "revisions", limit=limit, cursor=cursor))
    if wants_json(ctx):
        put_json(answer)
        return
    rows = answer.get("items") or []
    cells = []
    for row in rows:
        git = row.get("git") or {}
        about = row.get("message") or git.get("message") or row.get("reason")
        sha = str(git.get("sha") or "")
        cells.append(
            (
                row.get("number"),
                row.get("state"),
                age(row.get("at")),
                row.get("by"),
                row.get("kind"),
                sha[:10] + ("-dirty" if sha.endswith("-dirty") else ""),
                about,
            )
        )
    text = table(("REVISION", "STATE", "WHEN", "BY", "HOW", "COMMIT", "ABOUT"), cells).splitlines()
    click.echo(text[0] if rows else "no revisions")
    for line, row in zip(text[1:], rows, strict=True):
        click.echo(line)
        if diff:
            click.echo(printable("\n".join(differences(row.get("diff") or (), "    "))) or "    nothing")
    if answer.get("next"):
        click.echo(f"more: --cursor {answer['next']}")

"""`nextdeploy ps`: the containers."""

from __future__ import annotations

import click

from .connection import api, server_from
from .options import put_json, verb, wants_json


@verb("ps", "ps shop")
@click.argument("app", required=False)
@click.pass_context
def command(ctx: click.Context, app: str | None) -> None:
    """List containers, of all apps or of APP."""
    from .status import container_table

    answer = server_from(ctx).ask("GET", api("containers", app=app))
    if wants_json(ctx):
        put_json(answer)
        return
    rows = answer.get("items") or []
    click.echo(container_table(rows) if rows else "no containers")

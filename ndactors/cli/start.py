"""`nextdeploy start`: an app that was stopped runs again."""

from __future__ import annotations

import click

from .connection import api, server_from
from .options import verb


@verb("start shop")
@click.argument("app")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(ctx: click.Context, app: str, detach: bool) -> None:
    """Start APP again, after it was stopped."""
    from .following import accepted

    server = server_from(ctx)
    accepted(ctx, server, server.ask("POST", api("apps", app, "start"), {}), detach=detach)

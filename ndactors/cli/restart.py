"""`nextdeploy restart`: new containers of the same version."""

from __future__ import annotations

import click

from .connection import api, server_from
from .options import verb


@verb("restart shop")
@click.argument("app")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(ctx: click.Context, app: str, detach: bool) -> None:
    """New containers of the same version of APP, one after another."""
    from .following import accepted

    server = server_from(ctx)
    accepted(ctx, server, server.ask("POST", api("apps", app, "restart"), {}), detach=detach)

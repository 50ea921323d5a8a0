"""`nextdeploy scale`: how many containers a process has."""

from __future__ import annotations

import re

import click

from .connection import api, server_from
from .options import verb


@verb("scale shop 3", "scale shop worker=2")
@click.argument("app")
@click.argument("count", metavar="[PROCESS=]COUNT")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(ctx: click.Context, app: str, count: str, detach: bool) -> None:
    """Change how many containers a process of APP has; `web`, unless another one is named."""
    from .following import accepted

    match = re.fullmatch(r"(?:([a-z0-9-]+)=)?(\d{1,4})", count)
    if match is None:
        raise click.UsageError("write it like 3 or worker=2")
    body = {"process": match[1] or "web", "replicas": int(match[2])}
    server = server_from(ctx)
    accepted(ctx, server, server.ask("POST", api("apps", app, "scale"), body), detach=detach)

"""`nextdeploy rollback`: a deploy of what ran before."""

from __future__ import annotations

import click

from .connection import api, server_from
from .options import verb


@verb("rollback shop", "rollback shop --to 12")
@click.argument("app")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="So many revisions back (default 1).")
@click.option(
    "--to", type=click.IntRange(1), metavar="REVISION", help="To this one; `nextdeploy revisions` lists them."
)
@click.option("--require-clean", is_flag=True, help="Exit with 1 if a request failed during the switch.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(ctx: click.Context, app: str, steps: int | None, to: int | None, require_clean: bool, detach: bool) -> None:
    """Go back to an earlier revision of APP: image, command and variables as they were.

    It is a deploy like any other, and makes a new revision.
    """
    from .following import accepted

    if steps is not None and to is not None:
        raise click.UsageError("give --steps or --to, not both")
    server = server_from(ctx)
    answer = server.ask("POST", api("apps", app, "rollback"), {"to": to} if to is not None else {"steps": steps or 1})
    accepted(ctx, server, answer, detach=detach, require_clean=require_clean)

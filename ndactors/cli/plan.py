"""`nextdeploy plan`: what a deploy would change, and what drifted from the file. Nothing is sent but the list of files."""

from __future__ import annotations

import os
from typing import Any

import click

from .connection import api, server_from
from .failures import FAILED, Ended
from .options import Choices, put_json, verb, wants_json

SIGNS = {"create": "+", "change": "~", "remove": "-", "none": " "}


@verb("plan", "plan --prune --exit-code", "plan shop --drift")
@click.argument("app", required=False)
@click.option("--prune", is_flag=True, help="As `deploy --prune`: apps that the file does not have would go.")
@click.option("--drift", is_flag=True, help="Only what was changed live; needs no project file.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if something would change.")
@click.pass_context
def command(ctx: click.Context, app: str | None, prune: bool, drift: bool, exit_code: bool) -> None:
    """Show what a deploy would change, and what drifted.

    For each app: + created, ~ changed, - removed, with the keys that change; and what was changed live and differs from
    the file.
    """
    choices = ctx.ensure_object(Choices)
    server = server_from(ctx)
    if drift or (choices.file is None and not choices.path.exists()):
        answer = server.ask("GET", api("plan", app=app))
        rows = answer.get("items") or []
    else:
        answer = _project(choices, server, prune=prune)
        rows = [row for row in answer.get("apps") or [] if app in (None, row.get("app"))]
    if wants_json(ctx):
        put_json(answer)
    else:
        _show(rows, answer)
    changed = any(row.get("action", "none") != "none" or row.get("drift") for row in rows)
    raise Ended(FAILED if exit_code and changed else 0)


def _project(choices: Choices, server: Any, *, prune: bool) -> dict[str, Any]:
    import msgspec

    from . import project_file
    from .bundling import package

    project = project_file.read(choices.path, choices.environment, os.environ)
    bundle = package(project, os.environ).bundle
    body = {"bundle": msgspec.to_builtins(bundle), "prune": prune}
    return dict(server.ask("POST", api("projects", project.project, "plan"), body))


def _show(rows: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    from .failures import printable
    from .showing import differences, plural, size

    if not rows:
        click.echo("no apps")
    for row in rows:
        action = str(row.get("action", "none"))
        words = {"create": "new", "change": "changes", "remove": "goes", "none": "as it is"}.get(action, action)
        lines = [f"{SIGNS.get(action, '?')} {row.get('app')}: {words}", *differences(row.get("changes") or (), "    ")]
        if row.get("drift"):
            lines += ["    changed live:", *differences(row["drift"], "      ")]
        click.echo(printable("\n".join(lines)))
    if answer.get("missing_blobs"):
        click.echo(f"to send: {plural(answer['missing_blobs'], 'file')}, {size(answer.get('missing_bytes') or 0)}")
    for line in answer.get("warnings") or ():
        click.echo(f"warning: {printable(str(line))}", err=True)

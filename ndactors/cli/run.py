"""`nextdeploy run`: a command once, in a container of its own, from the current revision."""

from __future__ import annotations

import click

from .connection import api, server_from
from .failures import DONE, FAILED, Ended, printable
from .options import put_json, verb, wants_json


@verb("run shop -- ./manage.py migrate", "run shop --process worker --timeout 60 -- sh -c 'ls /data'")
@click.argument("app")
@click.argument("argv", metavar="-- COMMAND…", nargs=-1, required=True)
@click.option("--process", metavar="NAME", help="Set up as this process (default: web).")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="End it after so long.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(
    ctx: click.Context, app: str, argv: tuple[str, ...], process: str | None, timeout: float | None, detach: bool
) -> None:
    """Run a command once, from the current revision of APP. Exits with its exit code.

    No shell is involved: write `-- sh -c '…'` for one.
    """
    from .following import Following, accepted
    from .screen import Screen

    server = server_from(ctx)
    body: dict[str, object] = {"command": list(argv)}
    body |= {"process": process} if process else {}
    body |= {"timeout": timeout} if timeout else {}
    answer = server.ask("POST", api("apps", app, "run"), body)
    if detach:
        accepted(ctx, server, answer, detach=True)
    screen = Screen(quiet=wants_json(ctx))
    operation = Following(server, str(answer["operation"]), screen, raw=True).until_end()
    if wants_json(ctx):
        put_json(operation)
    code = operation.get("exit_code")
    if not isinstance(code, int):
        code = DONE if operation.get("state") == "succeeded" else FAILED
        if code:
            words = f"{operation.get('state')}: {operation.get('reason') or 'it did not run'}"
            click.echo(f"nextdeploy: the command {printable(words)}", err=True)
    raise Ended(code if 0 <= code < 256 else FAILED)

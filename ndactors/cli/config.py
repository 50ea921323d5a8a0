"""`nextdeploy config`: the server's own file, edited while it runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from .connection import Server, api, server_from
from .failures import WRONG, Failure, Refused, printable
from .options import put_json, verb, wants_json

MAX_BYTES = 1024 * 1024


@verb(
    "config show",
    "config edit",
    "config set -f nextdeploy.yml -m 'two replicas'",
    "config history",
    "config rollback 7",
    file=False,
)
@click.argument("action", type=click.Choice(["show", "edit", "set", "history", "rollback"]), default="show")
@click.argument("version", type=click.IntRange(1), required=False)
@click.option("-f", "--file", "path", metavar="PATH", help="The file that `set` sends; - is stdin.")
@click.option("-m", "--message", metavar="TEXT", help="Why; kept in the history.")
@click.option("--effective", is_flag=True, help="`show` what it means: merged, secrets masked.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, metavar="N", help="Of the history (default 20).")
@click.pass_context
def command(
    ctx: click.Context,
    action: str,
    version: int | None,
    path: str | None,
    message: str | None,
    effective: bool,
    limit: int,
) -> None:
    """Show and edit the server's file. A change is checked, kept as a version, and applied where something changed.

    `edit` opens $VISUAL or $EDITOR. A file that is refused stays where you edited it.
    """
    server = server_from(ctx)
    if (action == "rollback") != (version is not None):
        raise click.UsageError(
            "`rollback` takes a version, which `history` lists" if version is None else "what is that number for?"
        )
    if action == "show":
        answer = server.ask("GET", api("config"))
        put_json(answer) if wants_json(ctx) else click.echo(answer["effective" if effective else "yaml"], nl=False)
    elif action == "edit":
        _edit(ctx, server, message)
    elif action == "set":
        if path is None:
            raise click.UsageError("which file? Give -f PATH, or -f - for stdin")
        _put(ctx, server, _read(path), message, None)
    elif action == "history":
        answer = server.ask("GET", api("config", "history", limit=limit))
        put_json(answer) if wants_json(ctx) else _history(answer.get("items") or [])
    else:
        _done(ctx, server.ask("POST", api("config", "rollback"), {"to": version}))


def _history(rows: list[dict[str, Any]]) -> None:
    from .showing import age

    for row in rows:
        about = f": {row['message']}" if row.get("message") else ""
        click.echo(printable(f"version {row.get('version')}, {age(row.get('at'))}, by {row.get('by')}{about}"))
        for line in str(row.get("diff") or "").splitlines():
            click.echo(printable(f"    {line}"))
    if not rows:
        click.echo("no history")


def _read(path: str) -> str:
    try:
        with click.open_file(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", code=WRONG) from error
    if len(content) > MAX_BYTES:
        raise Failure(f"{path} is larger than 1 MiB", code=WRONG)
    try:
        return str(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not UTF-8", code=WRONG) from error


def _put(ctx: click.Context, server: Server, text: str, message: str | None, etag: str | None) -> None:
    import json

    body = json.dumps({"yaml": text, **({"message": message} if message else {})}).encode()
    headers = {"Content-Type": "application/json", **({"If-Match": etag} if etag else {})}
    _done(ctx, server.request("PUT", api("config"), body, headers).json())


def _done(ctx: click.Context, answer: dict[str, Any]) -> None:
    if wants_json(ctx):
        put_json(answer)
        return
    more = f"; follow it: nextdeploy operations {answer['operation']} --follow" if answer.get("operation") else ""
    click.echo(f"version {answer.get('version')} is in force{more}")
    for line in answer.get("warnings") or ():
        click.echo(f"warning: {printable(str(line))}", err=True)


def _edit(ctx: click.Context, server: Server, message: str | None) -> None:
    found = server.request("GET", api("config"))
    before = found.json()
    etag = found.headers.get("ETag") or before.get("etag")
    folder = Path(tempfile.mkdtemp(prefix="nextdeploy-"))
    path = folder / "nextdeploy.yml"
    path.write_text(before["yaml"])
    keep = True
    try:
        while True:
            _open_editor(path)
            text = _read(str(path))
            if text == before["yaml"]:
                click.echo("nothing was changed", err=True)
                keep = False
                return
            try:
                _put(ctx, server, text, message, etag)
                keep = False
                return
            except Refused as error:
                if error.status != 422 or not sys.stdin.isatty():
                    raise
                error.show()
                if not click.confirm("Edit it again?", default=True, err=True):
                    raise
    finally:
        if keep:
            click.echo(f"your text is in {path}", err=True)
        else:
            path.unlink()
            folder.rmdir()


def _open_editor(path: Path) -> None:
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        done = subprocess.run([*editor, str(path)], check=False)
    except OSError as error:
        raise Failure(f"{editor[0]} cannot be started: {error.strerror}; set $EDITOR") from error
    if done.returncode:
        raise Failure(f"{editor[0]} ended with {done.returncode}: nothing is sent")

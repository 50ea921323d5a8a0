"""`nextdeploy login`: remember a server, and a token for it."""

from __future__ import annotations

import base64
import getpass
import os
import socket
import sys

import click

from . import logins
from .connection import HttpServer, Server, api, server_at
from .failures import WRONG, Failure, Refused, printable
from .options import Choices, put_json, verb, wants_json


@verb("login https://ops.example.com", "login ssh://root@example.com", "login https://ops.example.com --user admin")
@click.argument("url")
@click.option("--user", metavar="NAME", help="Sign in with a password, and have a token made.")
@click.option("--forget", is_flag=True, help="Forget the server and its token.")
@click.pass_context
def command(ctx: click.Context, url: str, user: str | None, forget: bool) -> None:
    """Remember a server, for commands that name none.

    The token comes from $NEXTDEPLOY_TOKEN, from stdin, or from a prompt. It is kept in a file that only you can read,
    and sent to that server only.
    """
    if forget:
        known = logins.forget(url, os.environ)
        _tell(ctx, {"server": url, "forgotten": known}, f"{url} is forgotten" if known else f"{url} was not known")
        return
    choices = ctx.ensure_object(Choices)
    token: str | None = None
    server = server_at(url, None, os.environ)
    ctx.call_on_close(server.close)
    if isinstance(server, HttpServer):
        token = _made(server, user) if user else choices.token or os.environ.get("NEXTDEPLOY_TOKEN") or _asked("token")
        server.headers["Authorization"] = f"Bearer {token}"
    elif user:
        raise Failure("--user is for https://", code=WRONG)
    status = server.ask("GET", api("status"))
    logins.remember(url, token, os.environ)
    words = f"signed in to {url}: nextdeploy {status.get('version')}, {status.get('env')}"
    _tell(ctx, {"server": url, "version": status.get("version"), "env": status.get("env")}, words)


def _made(server: Server, user: str) -> str:
    """A token of this machine's own; one for an hour if this user may not make any."""
    pair = base64.b64encode(f"{user}:{_asked('password')}".encode()).decode()
    server.headers["Authorization"] = f"Basic {pair}"
    name = f"{getpass.getuser()}@{socket.gethostname()}"[:64]
    try:
        body = {"name": name, "role": "admin", "apps": None, "kind": "api"}
        return str(server.ask("POST", api("tokens"), body)["token"])
    except Refused as error:
        if error.status != 403:
            raise
    answer = server.ask("POST", api("token"), {})
    click.echo(f"{user} may not make tokens: this sign-in ends at {answer.get('expires_at')}", err=True)
    return str(answer["token"])


def _asked(what: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True))
    text = sys.stdin.readline(4096).strip()
    if not text:
        raise Failure(f"there is no {what} on stdin", code=WRONG)
    return text


def _tell(ctx: click.Context, value: dict[str, object], words: str) -> None:
    put_json(value) if wants_json(ctx) else click.echo(printable(words))

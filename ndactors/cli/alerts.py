"""`nextdeploy alerts`: what is wrong, who looks after it, and how people are told."""

from __future__ import annotations

from typing import Any

import click

from .connection import api, server_from
from .failures import FAILED, Ended, printable
from .options import put_json, verb, wants_json

ACTIONS = ("list", "ack", "resolve", "silence", "silences", "unsilence", "test", "channels", "key")
OF_ONE = ("ack", "resolve", "unsilence")


@verb(
    "alerts",
    "alerts ack 4f2c",
    "alerts resolve 4f2c",
    "alerts silence --for 2h --kind high_disk --reason cleaning",
    "alerts silences",
    "alerts unsilence 9a1b",
    "alerts test",
    "alerts channels",
)
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@click.argument("id", required=False)
@click.option("--for", "seconds", metavar="TIME", help="How long a silence lasts, such as 30m, 2h or 1d.")
@click.option("--kind", metavar="KIND", help="Silence this kind only (a word of monitoring.alert.notify_on).")
@click.option("--app", metavar="NAME", help="Silence, or list, this app's only.")
@click.option("--reason", metavar="TEXT", help="Why it is silenced.")
@click.option("--state", type=click.Choice(["firing", "acknowledged", "resolved"]), help="List only these.")
@click.pass_context
def command(
    ctx: click.Context,
    action: str,
    id: str | None,
    seconds: str | None,
    kind: str | None,
    app: str | None,
    reason: str | None,
    state: str | None,
) -> None:
    """List alerts: what fires, then what is over. `ack` says that you look after one, `resolve` that it is over, `silence`
    tells nobody for a while; of an id four characters at its begin or end will do. `test` sends a message on every channel (it exits with 1 if one fails), `channels` shows what waits and what could not
    be delivered, `key` what webhooks are signed with.
    """
    _check(action, id, {"--for": seconds, "--kind": kind, "--app": app, "--reason": reason, "--state": state})
    server = server_from(ctx)
    if action == "list":
        answer = server.ask("GET", api("alerts", app=app, state=state))
        text = _alerts(answer)
    elif action == "ack":
        answer = server.ask("POST", api("alerts", str(id), "ack"), {})
        text = f"{id} is looked after by {answer.get('acknowledged_by') or 'you'}"
    elif action == "resolve":
        answer = server.ask("POST", api("alerts", str(id), "resolve"), {})
        text = f"{id} is over"
    elif action == "silence":
        wanted = {"for": seconds, "kind": kind, "app": app, "reason": reason}
        answer = server.ask("POST", api("silences"), {key: value for key, value in wanted.items() if value is not None})
        text = f"{answer.get('id')}: {_silenced(answer)} until {answer.get('ends')}"
    elif action == "silences":
        answer = server.ask("GET", api("silences"))
        text = _silences(answer)
    elif action == "unsilence":
        answer = server.ask("DELETE", api("silences", str(id)))
        text = f"{id} is over"
    elif action == "test":
        answer = server.ask("POST", api("alerts", "test"), {})
        text = _tested(answer)
    elif action == "channels":
        answer = server.ask("GET", api("alerts", "channels"))
        text = _channels(answer)
    else:
        answer = server.ask("GET", api("alerts", "key"))
        text = str(answer.get("key"))
    put_json(answer) if wants_json(ctx) else click.echo(printable(text))
    if action == "test" and not all(row.get("good") for row in answer.get("items") or ()):
        raise Ended(FAILED)


def _check(action: str, id: str | None, given: dict[str, str | None]) -> None:
    if action in OF_ONE and not id:
        raise click.UsageError(f"`{action}` which one? Give its id")
    if action not in OF_ONE and id:
        raise click.UsageError(f"`{action}` takes no id")
    if action == "silence" and not given["--for"]:
        raise click.UsageError("for how long? Give --for, such as --for 2h")
    mine = {"silence": ("--for", "--kind", "--app", "--reason"), "list": ("--app", "--state")}.get(action, ())
    for name, value in given.items():
        if value is not None and name not in mine:
            raise click.UsageError(f"`{action}` takes no {name}")


def _alerts(answer: dict[str, Any]) -> str:
    from .showing import age, table

    rows = [
        (
            row.get("id"),
            _state(row),
            row.get("severity"),
            row.get("kind"),
            row.get("app"),
            age(row.get("resolved_at") or row.get("since") or row.get("fired_at")),
            row.get("summary"),
        )
        for row in answer.get("items") or ()
    ]
    return table(("ID", "STATE", "SEVERITY", "KIND", "APP", "SINCE", "WHAT"), rows) if rows else "no alerts"


def _state(row: dict[str, Any]) -> str:
    by = f" by {row['acknowledged_by']}" if row.get("state") == "acknowledged" and row.get("acknowledged_by") else ""
    return f"{row.get('state')}{by}{' (silenced)' if row.get('silenced') else ''}"


def _silenced(row: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (row.get("kind") or "everything", "of", row.get("app") or "all apps"))


def _silences(answer: dict[str, Any]) -> str:
    from .showing import table

    rows = [
        (
            row.get("id"),
            row.get("kind") or "all",
            row.get("app") or "all",
            row.get("ends"),
            row.get("by"),
            row.get("reason"),
        )
        for row in answer.get("items") or ()
    ]
    return table(("ID", "KIND", "APP", "UNTIL", "BY", "WHY"), rows) if rows else "no silences"


def _tested(answer: dict[str, Any]) -> str:
    rows = answer.get("items") or ()
    lines = [f"{'ok' if row.get('good') else 'FAILED'}  {row.get('channel')}: {row.get('words')}" for row in rows]
    return "\n".join(lines) or "no channels: give one in monitoring.alert"


def _channels(answer: dict[str, Any]) -> str:
    from .showing import age, table

    rows = [
        (row.get("channel"), row.get("waiting"), row.get("delivered"), row.get("failed"), row.get("last_words"))
        for row in answer.get("items") or ()
    ]
    text = table(("CHANNEL", "WAITING", "DELIVERED", "FAILED", "LAST"), rows) if rows else "no channels"
    letters = [
        (age(row.get("at")), row.get("channel"), row.get("tries"), row.get("words"), row.get("title"))
        for row in answer.get("dead_letters") or ()
    ]
    if letters:
        text += "\n\nNot delivered:\n" + table(("WHEN", "CHANNEL", "TRIES", "WHY", "WHAT"), letters)
    return text

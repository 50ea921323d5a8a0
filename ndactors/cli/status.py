"""`nextdeploy status`: the daemon, its host and its apps; or one app in full."""

from __future__ import annotations

from typing import Any

import click

from .connection import api, server_from
from .options import put_json, verb, wants_json


@verb("status", "status shop --json")
@click.argument("app", required=False)
@click.pass_context
def command(ctx: click.Context, app: str | None) -> None:
    """How the daemon and its apps are; with APP, one app in full."""
    server = server_from(ctx)
    if app is not None:
        found = server.ask("GET", api("apps", app))
        put_json(found) if wants_json(ctx) else click.echo(_app(found))
        return
    status = server.ask("GET", api("status"))
    if wants_json(ctx):
        put_json(status)
        return
    apps = server.ask("GET", api("apps")).get("items") or []
    click.echo(_daemon(server.name, status))
    click.echo()
    click.echo(_apps(apps) if apps else "no apps")


def _daemon(name: str, status: dict[str, Any]) -> str:
    from .failures import printable
    from .showing import seconds, size

    host, engine, edge = status.get("host") or {}, status.get("engine") or {}, status.get("edge") or {}
    reached = "" if engine.get("reachable") else " (does not answer)"
    lines = [
        name,
        f"nextdeploy {status.get('version')}, {status.get('env')}, up {seconds(status.get('uptime'))}",
        f"engine  {engine.get('name')} {engine.get('version')}{reached}",
        f"edge    {', '.join(edge.get('http') or ()) or 'does not answer'}",
    ]
    if host:
        used, total = host.get("memory_used") or 0, host.get("memory_total") or 0
        lines.append(f"host    cpu {host.get('cpu_percent'):.0f} %, memory {size(used)} of {size(total)}")
    return printable("\n".join(lines))


def _apps(apps: list[dict[str, Any]]) -> str:
    from .showing import table

    rows = []
    for app in apps:
        processes = app.get("processes") or ()
        counts = " ".join(f"{p['name']} {p['running']}/{p['desired']}" for p in processes)
        reason = app.get("reason") or (f"operation {app['operation']}" if app.get("operation") else "")
        rows.append((app["name"], app.get("state"), app.get("revision"), counts, app.get("routes"), reason))
    return table(("APP", "STATE", "REVISION", "RUNNING", "SERVES", "WHY"), rows)


def _app(app: dict[str, Any]) -> str:
    from .failures import printable

    lines = [f"{app.get('name')}: {app.get('state')}" + (f" ({app['reason']})" if app.get("reason") else "")]
    lines += [
        f"{label:<10}{value if isinstance(value, str) else ', '.join(value) if isinstance(value, list) else value}"
        for label, value in (
            ("project", app.get("project")),
            ("revision", app.get("revision")),
            ("image", app.get("image")),
            ("serves", app.get("routes")),
            ("changed by", app.get("operation") and f"operation {app['operation']}"),
            ("canary", app.get("canary_percent") and f"{app['canary_percent']:g} % of requests"),
        )
        if value
    ]
    text = printable("\n".join(lines))
    return f"{text}\n\n{container_table(app.get('containers') or [])}" if app.get("containers") else text


def container_table(rows: list[dict[str, Any]]) -> str:
    from .showing import seconds, size, table

    return table(
        ("CONTAINER", "PROCESS", "STATE", "HEALTH", "RESTARTS", "UP", "CPU", "MEMORY", "WHY"),
        [
            (
                row.get("name"),
                f"{row.get('app')}/{row.get('process')}",
                row.get("state"),
                row.get("health"),
                row.get("restarts"),
                seconds(row["uptime"]) if row.get("uptime") else None,
                f"{row['cpu']:.0f} %" if row.get("cpu") is not None else None,
                size(row["memory"]) if row.get("memory") is not None else None,
                row.get("reason"),
            )
            for row in rows
        ],
    )

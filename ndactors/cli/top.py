"""`nextdeploy top`: what uses the machine, refreshed in place on a terminal."""

from __future__ import annotations

import time
from typing import Any

import click

from .connection import Server, api, server_from
from .options import Choices, put_json, verb, wants_json

INTERVAL = 2.0
ACTORS = 5


@verb("top", "top shop")
@click.argument("app", required=False)
@click.option("--interval", type=click.FloatRange(min=0.5, max=3600.0), default=INTERVAL, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Show it once, as in a pipe.")
@click.pass_context
def command(ctx: click.Context, app: str | None, interval: float, once: bool) -> None:
    """What this machine, its containers and the daemon use; of all apps or of APP."""
    from .screen import Screen

    server = server_from(ctx)
    screen = Screen(quiet=bool(ctx.ensure_object(Choices).json))
    seen = _look(server, app)
    if wants_json(ctx):
        put_json(seen)
        return
    if once or not screen.live:
        click.echo("\n".join(lines(seen, None)))
        return
    before: dict[str, Any] | None = None
    while True:
        screen.show(lines(seen, before))
        time.sleep(interval)
        before, seen = seen, _look(server, app)


def _look(server: Server, app: str | None) -> dict[str, Any]:
    """A token that is limited to some apps sees no host and no actors."""
    from .failures import Failure

    status = server.ask("GET", api("status"))
    containers = server.ask("GET", api("containers", app=app)).get("items") or []
    try:
        actors = server.ask("GET", api("actors")).get("items") or [] if status.get("host") else []
    except Failure:
        actors = []
    return {
        "at": time.monotonic(),
        "host": status.get("host"),
        "containers": sorted(containers, key=lambda row: -(row.get("cpu") or 0.0)),
        "actors": actors,
    }


def lines(seen: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """What is shown. ``before``: the look before, by which the actors' shares are told; None: since the daemon began."""
    from .showing import table
    from .status import container_table

    shown = [*_host(seen["host"]), ""] if seen["host"] else []
    rows = seen["containers"]
    shown += container_table(rows).splitlines() if rows else ["no containers"]
    busiest = sorted(_busy(seen, before), key=lambda row: -row[1])[:ACTORS]
    if busiest:
        unit = "BUSY %" if before else "BUSY s"
        cells = [(name, f"{busy:.1f}", mailbox, restarts) for name, busy, mailbox, restarts in busiest]
        shown += ["", *table(("ACTOR", unit, "WAITING", "RESTARTS"), cells).splitlines()]
    return shown


def _host(host: dict[str, Any]) -> list[str]:
    from .showing import size

    memory = f"memory {size(host['memory_used'])} of {size(host['memory_total'])}"
    swap = f", swap {size(host['swap_used'])} of {size(host['swap_total'])}" if host.get("swap_total") else ""
    load = " ".join(f"{each:.2f}" for each in host.get("load") or ())
    found = [f"cpu {host['cpu_percent']:.0f} % of {host.get('cpus') or '?'} cores, load {load}, {memory}{swap}"]
    disks = [
        f"{mount} {100 * used / total:.0f} % of {size(total)}"
        for mount, (used, total) in sorted((host.get("disks") or {}).items())
        if total
    ]
    waits = [f"{name} {some:.0f} %" for name, (some, _) in sorted((host.get("pressure") or {}).items())]
    if disks:
        found.append(f"disks {', '.join(disks)}")
    if waits:
        found.append(f"somebody waited for {', '.join(waits)} of the last 10 s")
    return found


def _busy(seen: dict[str, Any], before: dict[str, Any] | None) -> list[tuple[str, float, int, int]]:
    """Actors, and how busy they were: seconds in all, or percent of the time between two looks."""
    known = {row["name"]: row.get("busy_seconds") or 0.0 for row in before["actors"]} if before else {}
    between = seen["at"] - before["at"] if before else 0.0
    found = []
    for row in seen["actors"]:
        busy = row.get("busy_seconds") or 0.0
        if before:
            # a daemon that was restarted counts anew
            grown = busy - known.get(row["name"], 0.0)
            busy = 100.0 * (grown if grown >= 0 else busy) / between if between > 0 else 0.0
        found.append((row["name"], busy, row.get("mailbox") or 0, row.get("restarts") or 0))
    return found

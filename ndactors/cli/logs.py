"""`nextdeploy logs`: what apps print, stored or as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import Shared, verb, wants_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .connection import Server
    from .log_lines import Lines, Output

LINES = 100


def lines_of(text: str) -> int | None:
    """``-n``; None: all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 8:
        raise click.BadParameter("write a number, or `all`")
    return int(text)


@verb(
    "logs shop",
    "logs shop/worker -f --level warning",
    "logs --grep '/timeout|refused/' --since 2h -n all",
    "logs shop --request 0197a3c1 --json",
    file=False,
)
@click.argument("where", metavar="[APP[/PROCESS]]", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=lines_of,
    default=str(LINES),
    metavar="N",
    help=f"The newest N ({LINES}); `all` or 0: all; with -f 0 is none.",
)
@click.option("--level", metavar="LEVEL", help="`error`: that and worse; `info,error`: exactly these.")
@click.option("--grep", metavar="TEXT", help="With TEXT, /REGULAR EXPRESSION/ (RE2) or FIELD:VALUE of a JSON line.")
@click.option("--since", metavar="TIME", help="10m ago, or 2026-01-31T12:00:00Z.")
@click.option("--until", metavar="TIME", help="Before that.")
@click.option("--process", metavar="NAME", help="Of this process.")
@click.option("--replica", type=click.IntRange(1), metavar="N", help="Of this replica.")
@click.option("--container", metavar="NAME", help="Of this container: its name, or the beginning of its id.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Of this stream.")
@click.option("--request", metavar="ID", help="Of the request with this id.")
@click.option("-t", "--timestamps", is_flag=True, help="With their times, in UTC.")
@click.option("--no-prefix", is_flag=True, help="Without who wrote them.")
@click.option("--no-color", is_flag=True, help="Without colours, those of the app too (also $NO_COLOR).")
@click.pass_context
def command(
    ctx: click.Context,
    where: str | None,
    follow: bool,
    lines: int | None,
    grep: str | None,
    request: str | None,
    timestamps: bool,
    no_prefix: bool,
    no_color: bool,
    **given: Any,
) -> None:
    """What apps print, of all of them or of APP: the newest records, the newest last.

    With --json each record is an object on a line of its own.
    """
    import os
    import sys

    from .channel import place
    from .connection import server_from
    from .log_lines import Lines, Output, style_for

    app, process = place(where) if where is not None else (None, None)
    if process is not None and given["process"] not in (None, process):
        raise click.UsageError(f"`{where}` and --process name two processes")
    if follow and given["until"]:
        raise click.UsageError("-f goes on for ever: it takes no --until")
    given = {"app": app, **given, "process": process or given["process"], "q": grep, "request_id": request}
    wanted = {name: str(value) for name, value in given.items() if value is not None}
    style = style_for(sys.stdout, os.environ, no_color=no_color, prefix=not no_prefix, times=timestamps)
    writer = None if wants_json(ctx) else Lines(style)
    if follow:
        _follow(server_from(ctx), wanted, lines, Output(), writer)
    else:
        _show(server_from(ctx), wanted, lines, Output(), writer)


command.params.append(Shared("--file", metavar="PATH", help="The project file (default: ./nextdeploy.yml)."))


def _follow(server: Server, wanted: Mapping[str, str], count: int | None, output: Output, writer: Lines | None) -> None:
    from .connection import api
    from .failures import INTERRUPTED, Ended
    from .log_following import Following
    from .log_pages import PAGE

    if count is not None and count > PAGE:
        raise click.UsageError(f"-f begins with at most {PAGE} lines, or with all")
    try:
        if "app" in wanted:
            server.ask("GET", api("apps", wanted["app"]))  # one that is not there would be waited for in silence
            server.close()
        Following(server, wanted, output, writer).run(count)
    except KeyboardInterrupt as error:
        raise Ended(INTERRUPTED) from error


def _show(server: Server, wanted: Mapping[str, str], count: int | None, output: Output, writer: Lines | None) -> None:
    from .log_pages import Newest, oldest

    found = 0
    if not count:
        for page in oldest(server, wanted):
            _write(page, output, writer)
            found += len(page)
    else:
        newest = Newest(server, wanted, count)
        try:
            newest.find()
        finally:
            _write(newest.records, output, writer)  # what was found is shown, whatever ended the search
        found = len(newest.records)
        if newest.more and found and "since" in wanted:
            click.echo(f"only the newest {found:,} records are shown; `-n all` shows all of them", err=True)
    if not found:
        _nothing(server, wanted)


def _write(records: list[dict[str, Any]], output: Output, writer: Lines | None) -> None:
    from .log_lines import as_json

    output.write("".join(map(as_json, records)) if writer is None else writer.records(records))


def _nothing(server: Server, wanted: Mapping[str, str]) -> None:
    """``Refused`` if there is no such app."""
    from .connection import api

    if "app" in wanted:
        server.ask("GET", api("apps", wanted["app"]))
    click.echo("no log records" + (" match" if set(wanted) - {"app"} else ""), err=True)

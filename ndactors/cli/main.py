"""`nextdeploy VERB …`: the verbs, each in a file of its own that is loaded when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import TracebackType
from typing import Any

import click

from .. import __version__
from .failures import DONE, FAILED, INTERRUPTED, WRONG, Failure, printable
from .options import Choices, shared

VERBS = {
    "init": "Write nextdeploy.yml, Dockerfile and .dockerignore for what is in this folder",
    "validate": "Check the file, without a daemon",
    "plan": "Show what a deploy would change, and what drifted",
    "deploy": "Send this project and switch to it",
    "rollback": "Go back to an earlier revision",
    "status": "How the daemon and its apps are",
    "ps": "List containers",
    "top": "What uses this machine",
    "logs": "Show what apps print, and follow it",
    "alerts": "List what is wrong, and see that people are told",
    "revisions": "List what each change made",
    "operations": "List changes, follow one, cancel one",
    "scale": "Change how many containers a process has",
    "restart": "New containers of the same version",
    "stop": "Stop an app",
    "start": "Start an app that was stopped",
    "run": "Run a command once, from the current revision",
    "exec": "Open a terminal in a container",
    "forward": "Reach a container's port from here",
    "env": "List and change an app's variables",
    "secrets": "List, set and remove an app's secrets",
    "config": "Show and edit the server's file",
    "token": "Make, list and revoke API tokens",
    "login": "Remember a server",
    "stdio": "Speak to this machine's daemon over stdin and stdout",
}
"""In the order in which the help lists them."""
ALIASES = {"ship": "deploy"}


class Verbs(click.Group):
    """Loads no verb before it is called: the help needs their names only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        name = ALIASES.get(name, name)
        if name not in VERBS:
            return None
        command = import_module(f"{__package__}.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and name not in VERBS and name not in ALIASES and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, [*VERBS, *ALIASES], 1)
            raise click.UsageError(f"there is no verb `{name}`" + (f"; did you mean `{near[0]}`?" if near else ""), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=Verbs,
    subcommand_metavar="VERB …",
    params=[*shared()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="\b\nExample:\n  nextdeploy init && nextdeploy deploy --server ssh://root@example.com",
)
@click.version_option(__version__, message="nextdeploy %(version)s")
@click.pass_context
def nextdeploy(ctx: click.Context) -> None:
    """Deploys projects to NextDeploy servers, and looks after them."""
    ctx.ensure_object(Choices)


def main(argv: list[str] | None = None) -> int:
    """The exit code. Whatever goes wrong is told in plain lines."""
    sys.excepthook = _fault
    try:
        with nextdeploy.make_context("nextdeploy", sys.argv[1:] if argv is None else argv) as ctx:
            nextdeploy.invoke(ctx)
        sys.stdout.flush()
        return DONE
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return WRONG
    except click.UsageError as error:
        usage = error.ctx.command_path if error.ctx is not None else "nextdeploy"
        click.echo(f"{usage}: {printable(error.format_message())}", err=True)
        click.echo(f"`{usage} --help` shows how it is used.", err=True)
        return WRONG
    except Failure as error:
        error.show()
        return error.code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt, EOFError):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has enough; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """A bug of ours, in one line; with $NEXTDEPLOY_DEBUG in all of them."""
    if os.environ.get("NEXTDEPLOY_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    place = trace
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" ({os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno})" if place is not None else ""
    click.echo(f"nextdeploy: {kind.__name__}: {printable(str(error))}{where}", err=True)
    click.echo("This is a fault of nextdeploy. $NEXTDEPLOY_DEBUG=1 shows where it happened.", err=True)


if __name__ == "__main__":
    sys.exit(main())

"""`nextdeploy validate`: every mistake of a file, without a daemon."""

from __future__ import annotations

import os
from typing import Any

import click

from .failures import DONE, WRONG, Ended, Failure, Invalid
from .options import Choices, put_json, verb, wants_json


@verb("validate", "validate --env prod", "validate --server-file -f /etc/nextdeploy/nextdeploy.yml")
@click.option("--server-file", is_flag=True, help="It is a server's own file, which may hold everything.")
@click.pass_context
def command(ctx: click.Context, server_file: bool) -> None:
    """Check the file, without a daemon.

    Tells every mistake with its line and column, and whether what the file names is here. Exits with 2 if there is one.
    """
    choices = ctx.ensure_object(Choices)
    errors: list[str] = []
    found: dict[str, Any] = {"apps": [], "warnings": []}
    try:
        found = _server(choices) if server_file else _project(choices)
    except Failure as error:
        if wants_json(ctx):
            errors = error.message.split("\n")
        else:
            raise Invalid(error.message.split("\n")) from error
    if wants_json(ctx):
        put_json({"valid": not errors, "errors": errors, **found})
        raise Ended(WRONG if errors else DONE)
    for line in found["warnings"]:
        click.echo(f"warning: {line}", err=True)
    click.echo(f"{choices.path} is valid: " + (", ".join(found["apps"]) or "no apps"))


def _project(choices: Choices) -> dict[str, Any]:
    from . import project_file
    from .collecting import collect

    project = project_file.read(choices.path, choices.environment, os.environ)
    collect(project.folder, project.places)
    unset = [
        f"${{{name}}} is not set here; the server takes it from the app's secrets, or refuses" for name in project.unset
    ]
    return {"apps": list(project.settings.apps), "warnings": [*project.warnings, *unset]}


def _server(choices: Choices) -> dict[str, Any]:
    from ..adapters import yaml_file
    from ..errors import ConfigurationError

    try:
        loaded = yaml_file.load(choices.path, environment=choices.environment, variables=os.environ)
    except ConfigurationError as error:
        raise Invalid(error.lines()) from error
    return {"apps": list(loaded.settings.apps), "warnings": list(loaded.warnings)}

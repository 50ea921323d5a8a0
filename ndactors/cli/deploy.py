"""`nextdeploy deploy`: send what is missing, switch, and follow that to its end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click

from .connection import Server, api, server_from
from .failures import WRONG, Failure, Refused
from .options import Choices, verb

MAX_ROUNDS = 3
"""Blobs may go again between upload and deploy, but not for ever."""


@verb(
    "deploy",
    "deploy --server ssh://root@example.com --env prod --require-clean",
    "deploy shop --image registry.example.com/shop:1.5",
)
@click.argument("app", required=False)
@click.option("--image", metavar="NAME", help="Run this image for APP, or for the only app of the project file.")
@click.option("--build", type=click.Choice(["server", "local"]), default="server", help="Where images are built.")
@click.option("--rebuild", is_flag=True, help="Build without the image cache.")
@click.option("--pull", is_flag=True, help="Fetch images also if the engine has one of that name.")
@click.option("--prune", is_flag=True, help="Remove this project's apps that the file does not have.")
@click.option("-m", "--message", metavar="TEXT", help="Why; kept with the revision.")
@click.option("--require-clean", is_flag=True, help="Exit with 1 if a request failed during the switch.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
@click.pass_context
def command(
    ctx: click.Context,
    app: str | None,
    image: str | None,
    build: str,
    rebuild: bool,
    pull: bool,
    prune: bool,
    message: str | None,
    require_clean: bool,
    detach: bool,
) -> None:
    """Send this project and switch to it.

    Sends nextdeploy.yml and what it names (build contexts less .dockerignore, env files, relative mounts), as far as the
    server lacks it, and waits until the new version serves. It exits with 1 if the old one had to stay. With APP and
    --image nothing is sent: the server runs that image.
    """
    from .following import accepted

    choices = ctx.ensure_object(Choices)
    wanted = {"rebuild": rebuild, "pull": pull, "message": message}
    wanted = {key: value for key, value in wanted.items() if value}
    server = server_from(ctx)
    if image is not None or app is not None:
        name = _only_app(choices, app, image)
        body = {**wanted, **({"image": image} if image else {})}
        answer = server.ask("POST", api("apps", name, "deploy"), body)
    else:
        answer = _project(choices, server, {**wanted, **({"prune": True} if prune else {})}, local=build == "local")
    accepted(ctx, server, answer, detach=detach, require_clean=require_clean)


def _only_app(choices: Choices, app: str | None, image: str | None) -> str:
    """Which app an image is for."""
    from . import project_file

    if choices.file is None and not choices.path.exists():
        if app is None:
            raise click.UsageError("there is no nextdeploy.yml here: name the app that the image is for")
        return app
    apps = list(project_file.keys_of_apps(choices.path, choices.environment))
    if app is not None:
        if image is None and app in apps:
            raise click.UsageError(f"`{app}` is of the project here: `nextdeploy deploy` without a name deploys it")
        return app
    if len(apps) != 1:
        raise click.UsageError(f"which app is the image for? {', '.join(apps) or 'The file has none.'}")
    return apps[0]


def _project(choices: Choices, server: Server, wanted: dict[str, Any], *, local: bool) -> dict[str, Any]:
    """Everything up to the 202. ``Ctrl-C`` before it leaves the server as it was."""
    from . import git, local_build, project_file
    from .bundling import package
    from .screen import Screen

    screen = Screen(quiet=choices.json)
    project = project_file.read(choices.path, choices.environment, os.environ)
    if not project.settings.apps:
        raise Failure(f"{choices.path} has no apps", code=WRONG)
    with tempfile.TemporaryDirectory(prefix="nextdeploy-") as folder:
        images = {}
        if local:
            images = local_build.built(
                project,
                Path(folder),
                os.environ,
                fresh=bool(wanted.get("rebuild")),
                pull=bool(wanted.get("pull")),
                quiet=choices.json,
            )
        screen.show(["reading files"])
        ready = package(project, os.environ, images=images)
        screen.clear()
        body = {**wanted, "bundle": _plain(ready.bundle)}
        seen = git.describe(project.folder)
        if seen is not None:
            body["git"] = seen
        return _sent(server, project.project, body, ready, screen)


def _sent(server: Server, project: str, body: dict[str, Any], ready: Any, screen: Any) -> dict[str, Any]:
    from .showing import plural, size
    from .uploading import sleep, upload

    def progress(done: int, total: int) -> None:
        screen.show([f"sending {size(done)} of {size(total)}"])

    wanted = ready.blobs
    sent: set[str] = set()
    count = 0
    for round in range(1, MAX_ROUNDS + 1):
        done = upload(server, wanted, progress, pause=sleep)
        sent |= done.digests
        count += done.size
        screen.clear()
        try:
            answer = server.ask("POST", api("projects", project, "deploy"), body)
            break
        except Refused as error:
            lacking = {one: ready.blobs[one] for one in error.problem.get("missing") or () if one in ready.blobs}
            if error.status != 409 or not lacking or round == MAX_ROUNDS:
                raise
            wanted = lacking
    files = sum(1 for file in (*ready.bundle.files, *ready.bundle.images.values()) if file.sha256 in sent)
    rest = ready.files - files
    screen.say(
        f"sent {plural(files, 'file')}, {size(count)}"
        + (f"; {plural(rest, 'file')} {'was' if rest == 1 else 'were'} there already" if rest else "")
    )
    for line in answer.get("warnings") or ():
        click.echo(f"warning: {line}", err=True)
    return dict(answer)


def _plain(bundle: Any) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(bundle))

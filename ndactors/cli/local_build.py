"""Images built where the client is, as archives to send: `docker build`, then `docker save`."""

from __future__ import annotations

import hashlib
import os
import posixpath
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from ..core.model import App, Build
from ..messages.projects import BundleFile
from .failures import Failure
from .project_file import Place, ProjectFile

PIECE = 1024 * 1024


def built(
    project: ProjectFile, folder: Path, variables: Mapping[str, str], *, fresh: bool, pull: bool, quiet: bool
) -> dict[str, tuple[BundleFile, Path]]:
    """An archive in ``folder`` for every app that is built from a local context. ``Failure`` when docker fails."""
    contexts = {place.app: place for place in project.places if place.kind == "context"}
    found = {}
    for name, place in contexts.items():
        app = project.settings.apps[name]
        if app.build is None:
            continue
        image = _build(project, app, app.build, place, variables, fresh=fresh, pull=pull, quiet=quiet)
        archive = folder / f"{name}.tar"
        _docker(["save", "--output", str(archive), image], {}, quiet=True)
        found[name] = (_described(name, archive), archive)
    return found


def _build(
    project: ProjectFile,
    app: App,
    build: Build,
    place: Place,
    variables: Mapping[str, str],
    *,
    fresh: bool,
    pull: bool,
    quiet: bool,
) -> str:
    """The image's id. Values of arguments and secrets go by the environment: others can see command lines."""
    command = ["build", "--file", str(project.folder / posixpath.join(place.path, place.dockerfile))]
    for name in build.args:
        command += ["--build-arg", name]
    for name, variable in build.secret_names():
        if variable not in variables:
            raise Failure(f"the build secret `{variable}` of {app.name} is not set in this environment")
        command += ["--secret", f"id={name},env={variable}"]
    command += ["--target", build.target] if build.target else []
    command += ["--platform", build.platform] if build.platform else []
    command += ["--no-cache"] if fresh else []
    command += ["--pull"] if pull else []
    with tempfile.NamedTemporaryFile("r") as told:
        command += ["--iidfile", told.name, str(project.folder / place.path)]
        more = {**build.args, **({"DOCKER_BUILDKIT": "1"} if build.secrets else {})}
        _docker(command, more, quiet=quiet)
        image = Path(told.name).read_text().strip()
    if not image:
        raise Failure(f"docker built {app.name}, and did not say which image it is")
    return image


def _docker(words: list[str], more: Mapping[str, str], *, quiet: bool) -> None:
    try:
        done = subprocess.run(
            ["docker", *words],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if quiet else None,
            check=False,
        )
    except OSError as error:
        raise Failure(f"docker cannot be started here: {error.strerror}") from error
    if done.returncode:
        raise Failure(f"`docker {words[0]}` failed with {done.returncode}")


def _described(app: str, archive: Path) -> BundleFile:
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    size = archive.stat().st_size
    click.echo(f"{app}: built here", err=True)
    return BundleFile(path=f"{app}.tar", sha256=digest.hexdigest(), size=size)

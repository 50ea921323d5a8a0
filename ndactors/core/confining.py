"""What a project's file may ask for on somebody else's server: nothing of the host but what `allow:` gives it. The file,
and everything that came with it, is a stranger's. Pure; where paths on the host really lead is for the adapter to see."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from msgspec.structs import replace

from ..errors import Invalid
from .environments import Path
from .git_urls import git_context, is_remote
from .images import repository
from .manifests import Manifest
from .model import Allow, App, Process, Settings, Volume

JUDGED: dict[str, str] = {
    # -- an app
    "name": "a-z, 0-9, -; another project's name is a conflict",
    "project": "the one that it is deployed as",
    "image": "not one that was built here for another project, and no image by its id",
    "build": "a folder that was sent, with its Dockerfile inside; or https git; secrets by name",
    "domains": "what another app serves is a conflict",
    "path": "part of its domains",
    "strip_path": "its own requests",
    "processes": "each as below",
    "deploy": "its own versions",
    "mirror": "its own containers",
    "sticky": "its own visitors",
    "rate_limit": "its own visitors",
    "timeouts": "its own requests",
    "http": "its own answers; `error_pages` must have been sent",
    "backup": "runs in its container (on the host: as `command`)",
    "image_id": "never in a file",
    "stopped": "never in a file",
    "nonce": "never in a file",
    # -- a process
    "command": "runs in its container; on the host only with `allow.host_commands`",
    "entrypoint": "as `command`",
    "user": "of its container; capabilities and no-new-privileges bind root too",
    "workdir": "in its container; on the host in what was sent, or below `allow.host_paths`",
    "port": "of its container; the edge alone dials it",
    "env": "what the file and the client say; nothing of the daemon's",
    "env_file": "must have been sent",
    "templates": "secrets of this app",
    "secrets": "of this app",
    "volumes": "named ones are the project's; relative ones were sent; host paths only below `allow.host_paths`",
    "networks": "only those of `allow.networks`, never a project's own",
    "resources": "limits; without them it has what the host has",
    "replicas": "at most 1000, by the schema",
    "scale": "its own replicas",
    "healthcheck": "asks its container; `command` runs in it (on the host: as `command`)",
    "restart": "its own containers",
    "stop_grace": "its own containers",
    "stop_signal": "its own containers",
    "cap_add": "only those of `allow.capabilities`",
    "cap_drop": "less is always allowed",
    "schedule": "its own jobs",
    "timezone": "its own jobs",
    "timeout": "its own jobs",
}
"""Every key of ``App`` and ``Process``, and what holds a hostile file that uses it. A test keeps it complete."""

Use = Literal["context", "tree", "kept", "whole"]
"""What a path of the project is for: a build; read-only in containers, or by the edge; written by containers; a process
on the host."""

NETWORK_PREFIX = "nd-"
MAX_APPS = 200
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*(?::[A-Za-z0-9_.-]+)?")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")

Found = Iterator[tuple[Path, str]]


def confined(
    settings: Settings,
    allow: Allow,
    files: Manifest[Any],
    on_host: Callable[[App], bool],
    images: Mapping[str, Any] | None = None,
) -> list[tuple[Path, str]]:
    """Everything that the file may not ask for: where it stands, and a sentence. ``files`` came with it, ``on_host`` says
    whether an app's commands would run on the host, ``images`` are those that came built, by app."""
    wrong: list[tuple[Path, str]] = []
    if len(settings.apps) > MAX_APPS:
        wrong.append((("apps",), f"There are more than {MAX_APPS} apps."))
    for name, app in settings.apps.items():
        at: Path = ("apps", name)
        if on_host(app) and not allow.host_commands:
            wrong.append((at, _host_words(app)))
        wrong += _image(app, at, settings.project)
        wrong += _build(app, at, files, built=name in (images or {}))
        if app.http.error_pages is not None:
            wrong += _sent(app.http.error_pages, (*at, "http", "error_pages"), files)
        for process in app.processes.values():
            wrong += _process(process, (*at, "processes", process.name), allow, files, runs_on_host=on_host(app))
    for name in images or {}:
        if name not in settings.apps or settings.apps[name].build is None:
            wrong.append((("apps", name), "An image came for this app, which has no `build`."))
    return list(dict.fromkeys(wrong))


def _host_words(app: App) -> str:
    if app.on_host:
        return "Give `image` or `build`: this server does not let projects run commands on the host."
    return "Containers cannot be had on this server, and it does not let projects run commands on the host."


def more_of_the_machine(target: App, live: App) -> str | None:
    """What ``target`` would get of this machine that ``live`` has not: an older version may have had what its project
    may not ask for any more. In words; None: nothing."""

    def of(app: App) -> set[str]:
        found: set[str] = set()
        for process in app.processes.values():
            found |= {f"the path {v.source}" for v in process.volumes if not v.is_named}
            found |= {f"the capability {name}" for name in process.cap_add}
            found |= {f"the network {name}" for name in process.networks}
        return found

    more = sorted(of(target) - of(live))
    return f"it had {more[0]}, which what runs now has not; deploy a file that asks for it" if more else None


def image_words(image: str, project: str) -> str | None:
    """Why ``project`` may not run ``image``; None if it may."""
    plain = image.removeprefix("docker.io/").removeprefix("index.docker.io/")
    if _IMAGE_ID.fullmatch(plain):
        return "An image is named, not given by its id; a name that looks like one takes a tag, like `cafe:latest`."
    own = repository(project, "")
    if plain.startswith("nextdeploy/") and not plain.startswith(own):
        return "This image was built for another project."
    return None


def _image(app: App, at: Path, project: str) -> Found:
    words = image_words(app.image, project) if app.image is not None else None
    if words is not None:
        yield (*at, "image"), words


def _build(app: App, at: Path, files: Manifest[Any], *, built: bool) -> Found:
    build = app.build
    if build is None:
        return
    for index, secret in enumerate(build.secrets):
        if not _SECRET.fullmatch(secret):
            yield (*at, "build", "secrets", index), "Not a valid secret; write NAME or NAME:STORE_NAME."
    if built:
        return
    place = (*at, "build", "context")
    dockerfile = inside(build.dockerfile or "Dockerfile")
    if not dockerfile:
        yield (*at, "build", "dockerfile"), "It must be in the build context."
    if is_remote(build.context):
        try:
            context = git_context(build.context)
        except Invalid as error:
            yield place, str(error)
            return
        if not context.url.startswith("https://"):
            yield place, "A git repository is reached by https."
        return
    folder = _real(build.context, files)
    if folder is None or files.entry(folder) is not None:
        yield place, _not_sent(build.context, "folder")
    elif dockerfile:
        real = files.find(posixpath.join(folder, dockerfile))
        if real is None or files.entry(real) is None:
            yield place, f"There is no `{dockerfile}` in it."
        elif folder and not real.startswith(f"{folder}/"):
            yield (*at, "build", "dockerfile"), "It must be in the build context."


def _process(process: Process, at: Path, allow: Allow, files: Manifest[Any], *, runs_on_host: bool) -> Found:
    allowed = {name.upper().removeprefix("CAP_") for name in allow.capabilities}
    for index, name in enumerate(process.cap_add):
        if name.upper().removeprefix("CAP_") not in allowed:
            yield (*at, "cap_add", index), f"This server does not give the capability `{name}` to projects."
    for index, name in enumerate(process.networks):
        if name.startswith(NETWORK_PREFIX) or name not in allow.networks:
            yield (*at, "networks", index), f"This server does not let projects into the network `{name}`."
    for index, volume in enumerate(process.volumes):
        for words in _volume(volume, allow, files):
            yield (*at, "volumes", index), words
    if process.env_file is not None:
        yield from _sent(process.env_file, (*at, "env_file"), files, kind="file")
    if runs_on_host and process.workdir is not None:
        if not process.workdir.startswith("/"):
            yield from _sent(process.workdir, (*at, "workdir"), files, kind="folder")
        elif not below(process.workdir, allow.host_paths):
            yield (*at, "workdir"), "This server does not give this path to projects; a relative one is in the project."


def _volume(volume: Volume, allow: Allow, files: Manifest[Any]) -> Iterator[str]:
    if volume.is_named:
        return
    if volume.source.startswith("/"):
        if not below(volume.source, allow.host_paths):
            yield "This server does not give this path to projects; write ./folder for one of the project, or a name."
    elif not volume.source.startswith(("./", "../")):
        yield f"Write `./{volume.source}` for a folder of the project."
    elif inside(volume.source) is None:
        yield f"`{volume.source}` leads out of the project."
    elif volume.read_only and _real(volume.source, files) is None:
        yield _not_sent(volume.source)
    elif _is_in_a_file(volume.source, files):
        yield f"`{volume.source}` is behind a file."
    elif not volume.read_only and (real := _real(volume.source, files)) is not None and files.below(real) is None:
        yield f"A symbolic link in `{volume.source}` leads out of it: what containers write to stands alone."


def _is_in_a_file(source: str, files: Manifest[Any]) -> bool:
    """What was not sent is made as a folder, which below a file there can be none of."""
    path = inside(source) or ""
    while path:
        path = posixpath.dirname(path)
        real = files.find(path)
        if real is not None:
            return files.entry(real) is not None
    return False


def _sent(path: str, at: Path, files: Manifest[Any], kind: str = "") -> Found:
    real = _real(path, files)
    is_file = real is not None and files.entry(real) is not None
    if real is None or (kind == "file" and not is_file) or (kind == "folder" and is_file):
        yield at, _not_sent(path, kind)


def _not_sent(path: str, kind: str = "") -> str:
    if inside(path) is None:
        return f"`{path}` is not in the project."
    return f"There is no {kind} `{path}` in what was sent." if kind else f"There is no `{path}` in what was sent."


def _real(path: str, files: Manifest[Any]) -> str | None:
    """Where a path of the project really is; None if it is not in what was sent."""
    return files.find(path) if inside(path) is not None else None


def inside(path: str) -> str | None:
    """A relative path in its shortest form; ``""`` is the project itself, None is for one that leads out."""
    shortest = posixpath.normpath(path)
    if not path or path.startswith("/") or shortest == ".." or shortest.startswith("../") or "\0" in path:
        return None
    return "" if shortest == "." else shortest


def below(path: str, allowed: tuple[str, ...]) -> bool:
    """Whether an absolute path is one of ``allowed``, or in one of them, by how it is written."""
    shortest = _normal(path)
    roots = [_normal(root) for root in allowed if root.startswith("/")]
    return any(shortest == root or shortest.startswith(root.rstrip("/") + "/") for root in roots)


def _normal(path: str) -> str:
    # normpath keeps two leading slashes, which mean nothing here
    return posixpath.normpath("/" + path.lstrip("/"))


def written(tree: Mapping[str, Any], path: Path) -> Path:
    """Where in the file the value is that a process has: in its own block, or in its app's, from which it inherits."""
    if path[:1] != ("apps",) or path[2:3] != ("processes",) or len(path) < 5:
        return path
    app = tree["apps"][path[1]]
    own = (app.get("processes") or {}).get(path[3]) or {}
    return path if path[4] in own else (*path[:2], *path[4:])


# -- paths -----------------------------------------------------------------------------------------


def placed(app: App, place: Callable[[Use, str], str], *, runs_on_host: bool, built: bool) -> App:
    """``app`` with every path of the project replaced by where ``place`` says that it is on this machine."""
    if app.build is not None:
        app = replace(app, build=_placed_build(app, place, built=built))
    if app.http.error_pages is not None:
        app = replace(app, http=replace(app.http, error_pages=place("tree", app.http.error_pages)))
    processes = {}
    for name, process in app.processes.items():
        volumes = tuple(
            volume
            if volume.is_named or volume.source.startswith("/")
            else replace(volume, source=place("tree" if volume.read_only else "kept", volume.source))
            for volume in process.volumes
        )
        workdir = process.workdir
        if runs_on_host and not (workdir or "").startswith("/"):
            workdir = place("whole", workdir or ".")
        processes[name] = replace(process, volumes=volumes, workdir=workdir)
    return replace(app, processes=processes)


def _placed_build(app: App, place: Callable[[Use, str], str], *, built: bool) -> Any:
    build = app.build
    assert build is not None
    if built or is_remote(build.context):
        return build
    return replace(build, context=place("context", build.context))


def paths_of(app: App) -> set[str]:
    """Every path on this machine that an app needs."""
    found = {volume.source for process in app.processes.values() for volume in process.volumes if not volume.is_named}
    found |= {process.workdir for process in app.processes.values() if process.workdir}
    found |= {app.http.error_pages} if app.http.error_pages else set()
    return found | ({app.build.context} if app.build is not None else set())

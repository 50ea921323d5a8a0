"""The slow calls that a DeployActor runs beside its mailbox: finding or making the image, and looking at what failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from ..core.diagnosing import TAIL, Symptoms, cause
from ..core.images import BuildRequest, ImageInfo
from ..core.model import App, Registry
from ..core.specs import Secrets, missing_secrets
from ..errors import BuildFailed, EngineError, ImageNotFound, Invalid
from ..messages.queries import ContainerView
from ..ports import BlobStore, BuildContexts, ContainerEngine, ImageStore, Listeners


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What an image is made with. ``images`` None: the engine has none (host processes)."""

    images: ImageStore | None
    contexts: BuildContexts
    blobs: BlobStore
    registries: Callable[[], Mapping[str, Registry]]


@dataclass(frozen=True)
class Prepared:
    """``app`` with the very image it will run. ``words`` say where it came from, ``error`` why there is none."""

    app: App | None
    words: str = ""
    sha: str | None = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Diagnosed:
    reason: str
    tail: tuple[str, ...] = ()
    revision: int = 0


def prepare(
    shop: Workshop, app: App, secrets: Secrets, *, rebuild: bool, pull: bool, say: Callable[[str], None]
) -> Prepared:
    """Everything that can be known before a container is made."""
    missing = missing_secrets(app, secrets.values)
    if missing:
        raise Invalid(f"these secrets are not set: {', '.join(missing)} (nextdeploy secrets {app.name} set NAME)")
    if shop.images is None:
        return Prepared(app, "no image is needed")
    if app.image_id is not None:
        found = shop.images.find(app.image_id)
        if found is None:
            raise ImageNotFound(f"the image of that version ({app.image_id[:19]}) is not there any more")
        return Prepared(app, f"image {found.name} is there")
    if app.build is not None:
        info, sha = _built(shop, shop.images, app, secrets, rebuild=rebuild, say=say)
        words = f"nothing to build: {info.name} is there" if info.cached else f"built {info.name}"
        return Prepared(replace(app, image_id=info.id), words, sha)
    assert app.image is not None
    there = None if pull else shop.images.find(app.image)
    if there is not None:
        return Prepared(replace(app, image_id=there.id), f"nothing to pull: {app.image} is there")
    info = shop.images.pull(app.image, shop.registries(), say)
    return Prepared(replace(app, image_id=info.id), f"pulled {app.image}")


def _built(
    shop: Workshop, images: ImageStore, app: App, secrets: Secrets, *, rebuild: bool, say: Callable[[str], None]
) -> tuple[ImageInfo, str | None]:
    build = app.build
    assert build is not None
    request = BuildRequest(project=app.project, app=app.name, registries=dict(shop.registries()))
    if build.archive is not None:
        archive = shop.blobs.path(build.archive)
        if archive is None:
            raise BuildFailed("the image that was sent is not here any more; deploy again")
        return images.load(archive, replace(request, tree=build.archive), say), None
    stored = dict(build.secret_names())
    unset = sorted(set(stored.values()) - secrets.values.keys())
    if unset:
        raise Invalid(f"these build secrets are not set: {', '.join(unset)} (nextdeploy secrets {app.name} set NAME)")
    context = shop.contexts.open(app.name, build, say)
    try:
        request = replace(
            request,
            context=context.folder,
            dockerfile=context.dockerfile,
            args=build.args,
            target=build.target,
            platform=build.platform,
            secrets={name: secrets.values[store] for name, store in stored.items()},
            tree=context.tree,
            fresh=rebuild,
        )
        return images.build(request, say), context.sha
    finally:
        shop.contexts.close(context)


def diagnose(engine: ContainerEngine, listeners: Listeners, view: ContainerView | None) -> Diagnosed:
    """Why it did not come up, while it is still there to be looked at."""
    if view is None:
        return Diagnosed("it did not come up")
    tail: tuple[str, ...] = ()
    if view.id:
        try:
            tail = tuple(engine.output(view.id, TAIL))
        except EngineError:
            tail = ()
    heard = listeners.of(view.pid) if view.pid else None
    ran_for = None
    if view.id:
        try:
            status = engine.inspect(view.id)
        except EngineError:
            status = None
        if status is not None and status.started_at:
            end = status.finished_at if status.finished_at and status.finished_at > status.started_at else time.time()
            ran_for = end - status.started_at
    symptoms = Symptoms(
        reason=view.reason,
        state=view.state,
        port=view.port,
        exit_code=view.exit_code,
        ran_for=ran_for,
        listeners=tuple(heard) if heard is not None else None,
        tail=tail,
    )
    return Diagnosed(cause(symptoms), tail)

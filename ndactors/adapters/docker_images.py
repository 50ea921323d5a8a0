"""``ndactors.ports.ImageStore`` on a Docker Engine: BuildKit where it has one, else its classic builder."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3

from ..core import images
from ..core.buildlog import Masker, PullLog, shortened
from ..core.images import BuildRequest, ImageInfo
from ..core.model import Registry
from ..core.registries import credentials, refusal, registry_host, shown
from ..errors import Conflict, EngineError, EngineUnreachable, ImageNotFound
from ..ports import Progress
from . import off_loop
from .build_context import read_context
from .build_limits import BuildGroup
from .docker_build import ClassicBuilder, streamed
from .image_archive import renamed

log = logging.getLogger("ndactors.images")
CALL_SECONDS = 60.0
SILENT_SECONDS = 300.0
"""How long a pull or a load may say nothing."""


class DockerImages:
    """``apply`` runs a call off the event loop (gevent's thread pool, or at once). ``buildkit`` False: never use it."""

    def __init__(
        self,
        daemon_id: str,
        base_url: str,
        apply: off_loop.Apply,
        *,
        buildkit: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._daemon = daemon_id
        self._base_url = base_url
        self._apply = apply
        self._buildkit = buildkit
        self._now = now
        self._building = threading.Lock()

    def find(self, name: str) -> ImageInfo | None:
        with self._client() as api:
            return _found(api, name)

    # -- from elsewhere ----------------------------------------------------------------------------

    def pull(self, name: str, registries: Mapping[str, Registry], progress: Progress) -> ImageInfo:
        host = registry_host(name)
        account = credentials(registries, host)
        mask = Masker([account.password] if account else [])
        # None: the SDK looks into ~/.docker/config.json
        login = {"username": account.username, "password": account.password} if account else None
        progress(f"pulling {name} from {host}")
        news = PullLog()
        with self._client(SILENT_SECONDS) as api:
            before = _found(api, name)
            try:
                for row in api.pull(name, stream=True, decode=True, auth_config=login):
                    if error := row.get("error"):
                        raise EngineError(str(error))
                    if line := news.hear(row, self._now()):
                        progress(mask(line))
            except EngineUnreachable:
                raise
            except docker.errors.APIError as error:
                raise _refused(name, mask(str(error.explanation or error))) from None
            except EngineError as error:
                raise _refused(name, mask(str(error))) from None
            made = _found(api, name)
        if made is None:
            raise ImageNotFound(f"the Engine pulled {name}, and does not have it")
        unchanged = before is not None and before.id == made.id
        progress("nothing new: it is here already" if unchanged else f"pulled {made.id[:19]}")
        return _replaced(made, cached=unchanged)

    def load(self, archive: Path, request: BuildRequest, progress: Progress) -> ImageInfo:
        name = images.image_name(request)
        with self._client(SILENT_SECONDS) as api:
            known = _found(api, name)
            if known is not None and not request.fresh:
                progress(f"nothing to load: {name} is here")
                return _replaced(known, cached=True)
            progress(f"loading {name}")
            for row in api.load_image(streamed(renamed(archive, name), self._apply, archive)):
                if error := row.get("error"):
                    raise EngineError(f"the Engine does not take the image: {shown(str(error))}")
            made = _found(api, name)
        if made is None:
            raise EngineError("the Engine took the image archive, and has no image of it")
        progress(f"loaded {made.id[:19]}")
        return made

    # -- made here ---------------------------------------------------------------------------------

    def build(self, request: BuildRequest, progress: Progress) -> ImageInfo:
        name, labels = images.image_name(request), images.own_labels(request, self._daemon)
        mask = Masker([*request.secrets.values(), *(found.password for found in request.registries.values())])
        with self._client() as api:
            before = self._ours(api, name, request)
            if before is not None and not request.fresh:
                progress(f"nothing to build: the same was built before ({name})")
                return _replaced(before, cached=True)
            if not self._building.acquire(blocking=False):
                progress("another build is running; this one waits for its end")
                self._building.acquire()
            try:
                self._build(api, request, name, labels, mask, progress)
            finally:
                self._building.release()
            made = _found(api, name)
            if made is None:
                raise EngineError(f"the Engine built {name}, and does not have it")
            if before is not None and before.id != made.id:
                # what ran until now may have to run again
                api.tag(before.id, images.repository(request.project, request.app), images.kept_tag(name, before.id))
        progress(f"built {name} ({made.id[:19]}, {made.size / 1e6:.0f} MB)")
        return made

    def _build(
        self,
        api: Any,
        request: BuildRequest,
        name: str,
        labels: Mapping[str, str],
        mask: Masker,
        progress: Progress,
    ) -> None:
        folder = Path(request.context)
        context = off_loop.run(self._apply, lambda: read_context(folder, request.dockerfile), folder)
        facts = api.info()
        limits = images.build_limits(request, int(facts.get("NCPU") or 0), int(facts.get("MemTotal") or 0))
        progress(f"building with {limits.cpus:g} CPUs and {limits.memory // 2**20} MiB at most")
        deadline = time.monotonic() + request.timeout
        from .buildkit import BuildKit, offered  # HTTP/2 is for those who build

        if not (self._buildkit and offered(self._base_url)):
            classic = ClassicBuilder(self._base_url, self._apply)
            classic.build(
                request,
                context,
                name=name,
                labels=labels,
                limits=limits,
                mask=mask,
                deadline=deadline,
                progress=progress,
            )
            return
        version = tuple(int(part) for part in str(api.version(api_version=False).get("ApiVersion", "0")).split("."))
        group = BuildGroup(self._base_url, facts, version, self._daemon)
        with group.limited(limits, deadline, progress):
            BuildKit(self._base_url, self._apply).build(
                request,
                context,
                name=name,
                labels=labels,
                limits=limits,
                cgroup=group.parent,
                mask=mask,
                deadline=deadline,
                progress=progress,
            )

    def _ours(self, api: Any, name: str, request: BuildRequest) -> ImageInfo | None:
        facts = _inspected(api, name)
        if facts is None or not self._is_ours(_labels(facts), request.project, request.app):
            return None
        return _info(facts, name)

    def _is_ours(self, labels: Mapping[str, str], project: str, app: str) -> bool:
        own = (labels.get(images.IMAGE_DAEMON), labels.get(images.IMAGE_PROJECT), labels.get(images.IMAGE_APP))
        return own == (self._daemon, project, app)

    # -- out with the old --------------------------------------------------------------------------

    def prune(self, project: str, app: str, keep: Iterable[str]) -> list[str]:
        repository = images.repository(project, app)
        kept = set(keep)
        gone: list[str] = []
        with self._client() as api:
            used = {row.get("ImageID") for row in api.containers(all=True)}
            for row in api.images(name=repository):
                facts = _inspected(api, row["Id"])  # with all its names: the listing has only those that were asked for
                if facts is None or row["Id"] in kept or row["Id"] in used:
                    continue
                tags, labels = facts.get("RepoTags") or (), _labels(facts)
                elsewhere = any(tag.rpartition(":")[0] != repository for tag in tags)
                # what was loaded has no labels of ours; its name is ours alone to give
                foreign = images.IMAGE_DAEMON in labels and not self._is_ours(labels, project, app)
                if not elsewhere and not foreign:
                    gone += [tag for tag in tags if _removed(api, tag)]
        return gone

    @contextlib.contextmanager
    def _client(self, timeout: float = CALL_SECONDS) -> Iterator[Any]:
        """A client of its own for each call, whose connections end with it. The one place where the SDK's exceptions
        become ours."""
        try:
            api = docker.APIClient(base_url=self._base_url, version="auto", timeout=timeout)
            try:
                yield api
            finally:
                api.close()
        except docker.errors.APIError as error:
            words = shown(str(error.explanation or error))
            raise (Conflict if error.status_code == 409 else EngineError)(words) from error
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
        ) as error:
            raise EngineUnreachable(f"the Docker Engine does not answer: {shown(str(error))}") from error


def _refused(name: str, words: str) -> EngineError:
    return refusal(name, words) or EngineError(f"the image {name} could not be pulled: {shortened(shown(words))}")


def _inspected(api: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(api.inspect_image(name))
    except docker.errors.NotFound:
        return None
    except docker.errors.APIError as error:
        if error.status_code == 400:  # what is no name of an image is the name of none
            return None
        raise


def _found(api: Any, name: str) -> ImageInfo | None:
    facts = _inspected(api, name)
    return None if facts is None else _info(facts, name)


def _info(facts: Mapping[str, Any], name: str) -> ImageInfo:
    called = next(iter(facts.get("RepoTags") or ()), name) if name.startswith("sha256:") else name
    digest = next((each.rpartition("@")[2] for each in facts.get("RepoDigests") or ()), None)
    return ImageInfo(id=facts["Id"], name=called, size=int(facts.get("Size") or 0), digest=digest)


def _labels(facts: Mapping[str, Any]) -> Mapping[str, str]:
    return (facts.get("Config") or {}).get("Labels") or {}


def _replaced(info: ImageInfo, *, cached: bool) -> ImageInfo:
    return ImageInfo(id=info.id, name=info.name, size=info.size, digest=info.digest, cached=cached)


def _removed(api: Any, tag: str) -> bool:
    """False if a container took it up just now. What it was built on stays: that may be somebody else's."""
    try:
        api.remove_image(tag, noprune=True)
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        log.info("%s is in use and stays", tag)
        return False
    return True

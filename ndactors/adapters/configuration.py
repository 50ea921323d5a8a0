"""``ndactors.ports.ConfigSource``: the server's own file and the projects that clients sent, as one configuration. What a
project was accepted with is kept as it was understood then, so that a restart needs neither its file nor its client."""

from __future__ import annotations

import hashlib
import logging
import posixpath
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from ..core.model import Allow, App, Settings
from ..core.projects import composed, strangers, taken_apps, taken_domains
from ..errors import Conflict, NotFound, StateError
from ..messages.operations import Origin
from ..messages.projects import Bundle
from ..ports import CheckedProject, SecretStore, StateStore
from .bundles import Bundles
from .claimed_blobs import SharedBlobs
from .config_file import ConfigFile
from .project_files import ProjectLoader

log = logging.getLogger("ndactors.config")

T = TypeVar("T")
FOLDER = "projects"
FOLDERS_KEPT = 6
"""Laid-out files of so many deploys stay: containers of older revisions may have them mounted."""


class ProjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is on record of a project: its apps, whose deploy each came with, and the folders of its files, newest last."""

    name: str
    apps: dict[str, App] = msgspec.field(default_factory=dict)
    origins: dict[str, Origin] = msgspec.field(default_factory=dict)
    digests: dict[str, str] = msgspec.field(default_factory=dict)
    folders: tuple[str, ...] = ()
    at: float = 0.0


class Configuration:
    """``current`` is cheap; it changes only by ``reload``, ``accept`` and ``remove``."""

    def __init__(
        self,
        file: ConfigFile,
        state: StateStore,
        bundles: Bundles,
        loader: ProjectLoader,
        blobs: SharedBlobs,
        secrets: SecretStore,
    ) -> None:
        self.file = file
        self._state = state
        self._bundles = bundles
        self._loader = loader
        self._blobs = blobs
        self._secrets = secrets
        self._projects: dict[str, ProjectRecord] = {}
        for name in state.names(FOLDER):
            record = state.load(name, ProjectRecord)
            if record is not None:
                self._projects[record.name] = record
        self._compose()

    @property
    def path(self) -> Path:
        return self.file.path

    def current(self) -> Settings:
        return self._settings

    def origins(self) -> dict[str, Origin]:
        return self._origins

    def reload(self) -> tuple[Settings, tuple[str, ...]]:
        _, warnings = self.file.reload()
        self._compose()
        return self._settings, (*warnings, *self._hidden())

    def _compose(self) -> None:
        own = self.file.current()
        apps = composed(own.apps, {name: record.apps for name, record in self._projects.items()})
        self._settings = replace(own, apps=apps)
        self._origins = {
            name: origin
            for record in self._projects.values()
            for name, origin in record.origins.items()
            if name in apps and name not in own.apps
        }

    def _hidden(self) -> tuple[str, ...]:
        """Apps of projects that give way to the server's own file."""
        return tuple(
            f"the app {app} of the project {record.name} gives way: the server's own file has its name or its place"
            for record in self._projects.values()
            for app in record.apps
            if self._settings.apps.get(app) != record.apps[app]
        )

    # -- projects ----------------------------------------------------------------------------------

    def check(
        self, project: str, bundle: Bundle, *, lay_out: bool, only: tuple[str, ...] | None = None
    ) -> CheckedProject:
        seen = self._blobs.seen_by(only)
        # who is limited to some apps gets nothing of this machine, whatever projects get otherwise
        allow = self._settings.allow if only is None else Allow()
        names = self._secret_names if only is None else lambda app: self._secret_names(app) if app in only else set()
        loaded = self._loader.load(project, bundle, None, names, allow, seen=seen)
        # whose they are is known before anything of it is on disk
        self.judge(project, loaded.settings.apps, only)
        folder = self._bundles.lay_out(project, bundle, seen) if lay_out else None
        if folder is not None:
            loaded = self._loader.load(project, bundle, folder, names, allow, seen=seen)
        apps = {
            name: _with_archive(replace(app, project=project), bundle) for name, app in loaded.settings.apps.items()
        }
        digests = {name: _digest_of(bundle, app, folder) for name, app in apps.items() if app.build is not None}
        before = self._projects.get(project)
        known = before.digests if before is not None else {}
        wanted = {file.sha256: file.size for file in (*bundle.files, *bundle.images.values()) if file.sha256}
        missing = [] if lay_out else seen.missing(wanted)
        return CheckedProject(
            apps=apps,
            folder=str(folder or ""),
            digests=digests,
            changed_files=frozenset(name for name, digest in digests.items() if known.get(name, digest) != digest),
            missing_blobs=len(missing),
            missing_bytes=sum(wanted[digest] for digest in missing),
            warnings=loaded.warnings,
        )

    def _secret_names(self, app: str) -> set[str]:
        return set(self._secrets.names(app))

    def judge(self, project: str, apps: Mapping[str, App], only: Collection[str] | None) -> None:
        record, own, there = self._projects.get(project), self.file.current(), self._settings.apps
        strange = strangers(apps, record.apps if record is not None else None, only)
        if strange:
            # first of all: who may not see an app is not told that there is one
            raise NotFound(f"There is no app called {strange[0]}.")
        if project == own.project and own.apps:
            raise Conflict(f"The project {project} is the server's own.")
        wrong = [*taken_apps(project, apps, there, own.apps), *taken_domains(apps, there)]
        if wrong:
            raise Conflict(" ".join(wrong))

    def apps_of(self, project: str) -> Mapping[str, App]:
        record = self._projects.get(project)
        return record.apps if record is not None else {}

    def accept(self, project: str, checked: CheckedProject, origin: Origin, gone: Collection[str]) -> None:
        before = self._projects.get(project) or ProjectRecord(name=project)
        folders = [folder for folder in before.folders if folder != checked.folder]
        record = ProjectRecord(
            name=project,
            apps={**_without(before.apps, gone), **checked.apps},
            origins={**_without(before.origins, gone), **dict.fromkeys(checked.apps, origin)},
            digests={**_without(before.digests, gone), **checked.digests},
            folders=(*folders, checked.folder)[-FOLDERS_KEPT:],
            at=time.time(),
        )
        self._state.save(f"{FOLDER}/{project}", record)
        self._projects[project] = record
        self._compose()
        try:
            self._bundles.clean(project, record.folders, record.apps.values())
        except StateError as error:
            log.error("%s", error)  # the deploy stands; the next hour cleans

    def remove(self, app: str) -> None:
        if app in self.file.current().apps:
            raise Conflict(f"{app} is in the server's own file; take it out there.")
        record = next((record for record in self._projects.values() if app in record.apps), None)
        if record is None:
            raise NotFound(f"There is no app called {app}.")
        gone = (app,)
        record = replace(
            record,
            apps=_without(record.apps, gone),
            origins=_without(record.origins, gone),
            digests=_without(record.digests, gone),
        )
        self._state.save(f"{FOLDER}/{record.name}", record)
        self._projects[record.name] = record
        self._compose()

    def clean(self) -> None:
        for name in self._bundles.projects():
            record = self._projects.get(name)
            self._bundles.clean(name, record.folders if record else (), record.apps.values() if record else ())
        self._blobs.clean(self.blobs_in_use(), time.time())

    def blobs_in_use(self) -> set[str]:
        """Archives that an app may be built from again."""
        apps = self._settings.apps.values()
        return {app.build.archive for app in apps if app.build is not None and app.build.archive is not None}


def _without(rows: Mapping[str, T], gone: Collection[str]) -> dict[str, T]:
    return {name: row for name, row in rows.items() if name not in gone}


def _with_archive(app: App, bundle: Bundle) -> App:
    """An image that was built elsewhere comes instead of a build here."""
    image = bundle.images.get(app.name)
    if image is None or app.build is None:
        return app
    return replace(app, build=replace(app.build, archive=image.sha256))


def _digest_of(bundle: Bundle, app: App, folder: Path | None) -> str:
    """Equal for equal files below the app's build context."""
    assert app.build is not None
    if app.build.archive is not None:
        return app.build.archive
    context = app.build.context
    if folder is not None and context.startswith(f"{folder}"):
        context = str(Path(context).relative_to(folder))
    plain = posixpath.normpath(context)
    prefix = "" if plain == "." else plain + "/"
    rows = sorted((f.path, f.sha256, f.executable, f.link) for f in bundle.files if f.path.startswith(prefix))
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()

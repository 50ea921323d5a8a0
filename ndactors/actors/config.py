"""ConfigActor: the configuration in force, the server's file and the projects that clients sent. A reload or a deploy
applies what changed; a file that is wrong changes nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..core.masking import differences
from ..core.model import App, Process
from ..errors import ConfigurationError, Conflict, NextDeployError, NotFound, StateError
from ..messages.config import ConfigWritten, GetConfig, GetConfigHistory, PutConfig, RollbackConfig
from ..messages.containers import ApplySettings, RecordEvent, ReloadConfig
from ..messages.deployments import DeployRecord, shown
from ..messages.operations import (
    Difference,
    OperationRefused,
    OperationReserved,
    OperationState,
    PartEnded,
    ReserveOperation,
)
from ..messages.projects import (
    AppPlan,
    DeployProject,
    GetPlan,
    PlanProject,
    ProjectAccepted,
    ProjectPlan,
    RemoveApp,
)
from ..ports import CheckedProject, ConfigSource, ConfigTexts
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref

log = logging.getLogger("ndactors.config")


CLEAN_SECONDS = 3600.0


class CleanDue: ...


@dataclass(frozen=True)
class Cleaned:
    error: StateError | None


@dataclass(frozen=True)
class Checked:
    """What a task found out about a project's file."""

    ask: DeployProject | PlanProject
    later: Later
    checked: CheckedProject | None
    error: BaseException | None


@dataclass(frozen=True)
class Reserved:
    """A deploy that waits for its operation."""

    ask: DeployProject
    later: Later
    checked: CheckedProject


class ConfigActor(Actor):
    """``deployed``: what is on record of an app's deployment."""

    def __init__(
        self,
        source: ConfigSource,
        texts: ConfigTexts,
        listeners: tuple[Ref, ...],
        events: Ref,
        operations: Ref,
        deployed: Callable[[str], DeployRecord | None],
    ) -> None:
        self._source = source
        self._texts = texts
        self._listeners = listeners
        self._events = events
        self._operations = operations
        self._deployed = deployed
        self._waiting: dict[int, Reserved] = {}
        self._requests = time.monotonic_ns()  # another life's numbers are not this one's

    def on_start(self) -> None:
        try:
            self._texts.observe()
        except StateError as error:
            log.error("%s", error)
        self.every(CLEAN_SECONDS, CleanDue())

    def receive(self, message: object) -> object:
        match message:
            case ReloadConfig():
                self._reload()
            case GetConfig():
                return self._texts.view()
            case GetConfigHistory():
                return self._texts.page(message)
            case PutConfig(text=text, by=by, message=words, if_match=if_match):
                return self._written(lambda: self._texts.put(text, by, words, if_match))
            case RollbackConfig(to=to, by=by, message=words):
                return self._written(lambda: self._texts.rollback(to, by, words))
            case Cleaned(error=error):
                if error is not None:
                    log.error("%s", error)
            case CleanDue():
                self.run(self._source.clean, _cleaned)
            case DeployProject() | PlanProject():
                return self._check(message)
            case Checked():
                self._checked(message)
            case OperationReserved(request=request, operation=operation, apps=apps):
                reserved = self._waiting.pop(request, None)
                if reserved is None:
                    # whoever asked is gone with an earlier life of this actor
                    self._end(operation, apps, "failed", "the server was restarted before it was accepted")
                else:
                    self._accept(reserved, operation)
            case OperationRefused(request=request, reason=reason):
                refused = self._waiting.pop(request, None)
                if refused is not None:
                    refused.later.fail(Conflict(reason))
            case RemoveApp(app=app, by=by):
                self._remove(app, by)
            case GetPlan(app=app):
                return self._drift(app)
            case _:
                return super().receive(message)
        return None

    # -- the server's own file ---------------------------------------------------------------------

    def _reload(self) -> None:
        before = self._source.current()
        try:
            settings, warnings = self._source.reload()
        except ConfigurationError as error:
            for line in error.lines():
                log.error("%s", line)
            self._events.tell(
                RecordEvent(kind="config.refused", reason=error.lines()[0], detail={"errors": error.lines()})
            )
            return
        for line in warnings:
            log.warning("%s", line)
        self._texts.observe()
        changed = settings != before
        self._events.tell(RecordEvent(kind="config.reloaded", reason="changed" if changed else "nothing changed"))
        self._apply()

    def _written(self, write: Callable[[], ConfigWritten]) -> ConfigWritten:
        written = write()
        self._reload()
        return written

    def _apply(self) -> None:
        message = ApplySettings(settings=self._source.current(), origins=self._source.origins())
        for listener in self._listeners:
            listener.tell(message)

    # -- projects ----------------------------------------------------------------------------------

    def _check(self, ask: DeployProject | PlanProject) -> Later:
        later, source = Later(), self._source
        self.run(
            lambda: source.check(ask.project, ask.bundle, lay_out=isinstance(ask, DeployProject), only=ask.only),
            lambda checked, error: Checked(ask, later, checked, error),
        )
        return later

    def _checked(self, message: Checked) -> None:
        ask, later, checked = message.ask, message.later, message.checked
        try:
            if checked is None:
                assert message.error is not None
                raise message.error
            self._refuse_what_is_not_theirs(ask, checked)
            if isinstance(ask, PlanProject):
                later.answer(self._plan(ask, checked))
                return
        except NextDeployError as error:
            later.fail(error)
            return
        self._requests += 1
        self._waiting[self._requests] = Reserved(ask, later, checked)
        apps = tuple(sorted({*checked.apps, *self._pruned(ask, checked)}))
        self._operations.tell(
            ReserveOperation(
                request=self._requests, apps=apps, project=ask.project, origin=ask.origin, reply_to=self.ref
            )
        )

    def _refuse_what_is_not_theirs(self, ask: DeployProject | PlanProject, checked: CheckedProject) -> None:
        """Again, now that nothing else changes meanwhile."""
        self._source.judge(ask.project, checked.apps, ask.only)

    def _pruned(self, ask: DeployProject | PlanProject, checked: CheckedProject) -> set[str]:
        return self._source.apps_of(ask.project).keys() - checked.apps.keys() if ask.prune else set()

    def _accept(self, reserved: Reserved, operation: str) -> None:
        ask, checked = reserved.ask, reserved.checked
        origin = replace(ask.origin, operation=operation)
        gone = self._pruned(ask, checked)
        try:
            self._source.judge(ask.project, checked.apps, ask.only)
            self._source.accept(ask.project, checked, origin, gone)
        except NextDeployError as error:
            self._end(operation, (*checked.apps, *gone), "failed", str(error))
            reserved.later.fail(error)
            return
        self._end(operation, gone, "succeeded", "")
        self._events.tell(
            RecordEvent(
                kind="project.deployed",
                reason=f"{ask.project}: {', '.join(sorted(checked.apps)) or 'no apps'}",
                detail={"project": ask.project, "operation": operation, "by": origin.by, "removed": sorted(gone)},
            )
        )
        self._apply()
        reserved.later.answer(
            ProjectAccepted(operation=operation, apps=tuple(sorted(checked.apps)), warnings=checked.warnings)
        )

    def _end(self, operation: str, apps: Iterable[str], state: OperationState, reason: str) -> None:
        for app in apps:
            self._operations.tell(PartEnded(operation=operation, app=app, state=state, reason=reason))

    def _remove(self, app: str, by: str) -> None:
        self._source.remove(app)
        self._events.tell(RecordEvent(kind="app.removed", app=app, reason=f"by {by}"))
        self._apply()

    # -- plans -------------------------------------------------------------------------------------

    def _plan(self, ask: PlanProject, checked: CheckedProject) -> ProjectPlan:
        there = self._source.current().apps
        rows = [self._app_plan(name, app, checked, there.get(name)) for name, app in sorted(checked.apps.items())]
        rows += [AppPlan(app=name, action="remove") for name in sorted(self._pruned(ask, checked))]
        return ProjectPlan(
            project=ask.project,
            apps=tuple(rows),
            missing_blobs=checked.missing_blobs,
            missing_bytes=checked.missing_bytes,
            warnings=checked.warnings,
        )

    def _app_plan(self, name: str, app: App, checked: CheckedProject, there: App | None) -> AppPlan:
        if there is None:
            return AppPlan(app=name, action="create", changes=_rows(shown(_plain(app)), shown(app)))
        record = self._deployed(name)
        base = record.base if record is not None and record.base is not None else there
        changes = _rows(shown(base), shown(app))
        if name in checked.changed_files:
            changes = (*changes, Difference(path="build", before="files", after="other files"))
        return AppPlan(app=name, action="change" if changes else "none", changes=changes, drift=_drift(record))

    def _drift(self, app: str | None) -> tuple[AppPlan, ...]:
        names = sorted(self._source.current().apps)
        if app is not None and app not in names:
            raise NotFound(f"There is no app called {app}.")
        rows = []
        for name in names if app is None else [app]:
            drift = _drift(self._deployed(name))
            rows.append(AppPlan(app=name, action="none", drift=drift))
        return tuple(rows)


def _cleaned(_: object, error: BaseException | None) -> Cleaned:
    if error is not None and not isinstance(error, StateError):
        raise error
    return Cleaned(error)


def _drift(record: DeployRecord | None) -> tuple[Difference, ...]:
    """How what runs differs from what the file said when it was accepted, and from what it said since in vain."""
    if record is None or record.live is None:
        return ()
    wanted = record.attempted or record.base
    if wanted is None:
        return ()
    rows = _rows(shown(wanted), shown(record.live))
    return tuple(row for row in rows if row.path != "image_id")  # a file names no digest


def _plain(app: App) -> App:
    """What an app would be of which the file says nothing."""
    return App(name=app.name, processes={name: Process(name=name) for name in app.processes})


def _rows(before: Any, after: Any) -> tuple[Difference, ...]:
    return tuple(Difference(path=path, before=old, after=new) for path, old, new in differences(before, after))

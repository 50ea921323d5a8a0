"""AppsActor: which apps there are. It starts and ends their actors as the configuration changes and answers for all."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..core.model import App, Settings
from ..core.rollups import until_sampling
from ..errors import NotFound
from ..messages.containers import (
    AccountFor,
    AppChanged,
    AppGone,
    ApplyApp,
    ApplySettings,
    CancelChange,
    CarryOut,
    OrphansFound,
    TellService,
)
from ..messages.deployments import DeployRecord
from ..messages.jobs import GetJobs, JobsChanged
from ..messages.metrics import Sampled
from ..messages.operations import Origin, PartEnded
from ..messages.queries import AppView, GetApps, GetReadiness, Readiness
from ..messages.secrets import EnvView, GetEnv
from ..messages.sources import GetSource, SourceView, source_of
from ..messages.views import env_view, readiness
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.supervisor import Child, StartChild, StopChild
from .samples import app_samples

Place = tuple[str, str]
"""An app's name and its engine's: an app that moves to another engine is for a while in two places."""


class SampleNow: ...


class AppsActor(Actor):
    """``groups`` is the supervisor below which every app has a group of its own; ``engine_of`` says where an app
    belongs; ``new_app`` makes the ref of an app's DeployActor and the Child of its group; ``listeners`` are told figures;
    ``now`` is Unix seconds."""

    def __init__(
        self,
        current: Callable[[], Settings],
        groups: Ref,
        state: StateStore,
        operations: Ref,
        engine_of: Callable[[App], str],
        new_app: Callable[[str, str, Ref], tuple[Ref, Child]],
        listeners: tuple[Ref, ...],
        now: Callable[[], float],
    ) -> None:
        self._settings = current()
        self._groups = groups
        self._state = state
        self._operations = operations
        self._engine_of = engine_of
        self._new_app = new_app
        self._listeners = listeners
        self._now = now
        self._apps: dict[Place, tuple[Ref, Child]] = {}
        self._views: dict[str, AppView] = {}
        self._jobs: dict[Place, JobsChanged] = {}
        self._empty: set[Place] = set()
        """Places where the last container is gone."""

    def on_start(self) -> None:
        self.after(until_sampling(self._now()), SampleNow())
        names = [*self._state.names("apps"), *self._state.names("deploys")]
        remembered = [name.partition("/")[2].partition("@") for name in names]
        for place in sorted({*self._wanted(), *((name, engine) for name, _, engine in remembered if engine)}):
            self._start(place)

    def receive(self, message: object) -> object:
        match message:
            case AppChanged(view=view, engine=engine):
                if (view.name, engine) in self._wanted() or view.name not in self._settings.apps:
                    self._views[view.name] = view
            case AppGone(app=app, engine=engine):
                self._empty.add((app, engine))
                self._end_if_gone((app, engine))
            case JobsChanged(app=app, engine=engine):
                self._jobs[app, engine] = message
                self._end_if_gone((app, engine))
            case ApplySettings(settings=settings, origins=origins):
                self._apply(settings, origins)
            case CarryOut() | AccountFor() | CancelChange():
                self._pass_on(message)
            case OrphansFound(engine=engine, apps=apps):
                for name in apps:
                    if (name, engine) not in self._apps:
                        self._start((name, engine))
            case TellService():
                for ref, _ in self._apps.values():
                    ref.tell(message)
            case SampleNow():
                self._sample()
            case GetApps():
                return tuple(view for _, view in sorted(self._views.items()))
            case GetJobs():
                return tuple(row for _, told in sorted(self._jobs.items()) for row in told.jobs)
            case GetEnv(app=app):
                return self._environment(app)
            case GetSource(app=app):
                return self._source(app)
            case GetReadiness():
                return self._readiness()
            case _:
                return super().receive(message)
        return None

    def _sample(self) -> None:
        """Not before every app has told: what one tells later than the others would look as if it had just come."""
        now = self._now()
        self.after(until_sampling(now), SampleNow())
        if self._views.keys() >= self._settings.apps.keys():
            samples = app_samples(view for _, view in sorted(self._views.items()))
            for listener in self._listeners:
                listener.tell(Sampled(source="apps", at=now, samples=samples, from_zero=True))

    def _wanted(self) -> set[Place]:
        return {(app.name, self._engine_of(app)) for app in self._settings.apps.values()}

    def _readiness(self) -> Readiness:
        ready = readiness([view for name, view in self._views.items() if name in self._settings.apps])
        unknown = sorted(self._settings.apps.keys() - self._views.keys())
        if not unknown:
            return ready
        return replace(ready, ready=False, waiting=(*ready.waiting, *(f"{name} is starting" for name in unknown)))

    def _start(self, place: Place) -> None:
        self._apps[place] = self._new_app(*place, self.ref)
        self._groups.tell(StartChild(child=self._apps[place][1]))

    def _pass_on(self, message: CarryOut | AccountFor | CancelChange) -> None:
        """To the app's own actor."""
        wanted = self._wanted()
        for place, (ref, _) in self._apps.items():
            if place in wanted and place[0] == message.app:
                ref.tell(message)
                return
        self._operations.tell(
            PartEnded(
                operation=message.operation,
                app=message.app,
                state="failed",
                reason=f"there is no app called {message.app} any more",
            )
        )

    def _apply(self, settings: Settings, origins: dict[str, Origin]) -> None:
        before, self._settings = self._settings, settings
        wanted = self._wanted()
        if before.logs.rotate != settings.logs.rotate:
            # it is part of every container: their actors are made anew with it
            for place in list(self._apps):
                self._end(place)
                self._start(place)
        for place in list(self._apps):
            app = settings.apps[place[0]] if place in wanted else None
            self._apps[place][0].tell(ApplyApp(app=app, origin=origins.get(place[0], Origin())))
        for place in sorted(wanted - self._apps.keys()):
            self._start(place)

    def _end_if_gone(self, place: Place) -> None:
        """Its actors end once neither containers nor jobs are left that somebody must look after."""
        told = self._jobs.get(place)
        if place not in self._empty or (told is not None and not told.idle):
            return
        self._empty.discard(place)
        if place in self._wanted():
            return  # it came back meanwhile
        self._end(place)
        self._jobs.pop(place, None)
        if place[0] not in self._settings.apps:
            self._views.pop(place[0], None)

    def _source(self, name: str) -> SourceView:
        app = self._settings.apps.get(name)
        if app is None:
            raise NotFound(f"There is no app called {name}.")
        return source_of(app)

    def _environment(self, name: str) -> EnvView:
        app = self._settings.apps.get(name)
        if app is None:
            raise NotFound(f"There is no app called {name}.")
        engine = self._engine_of(app)
        record = self._state.load(f"deploys/{name}@{engine}", DeployRecord)
        return env_view(app, record, on_host=engine == "process")

    def _end(self, place: Place) -> None:
        known = self._apps.pop(place, None)
        if known is not None:
            self._groups.tell(StopChild(ref=known[1].ref))

"""From what an AppActor knows to what the API shows. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from ..core.model import App
from ..core.revisions import AppRecord, restarts_of
from .containers import ShowDeploy
from .deployments import DeployRecord
from .queries import AppView, ContainerView, ProcessView, Readiness
from .secrets import EnvItem, EnvView


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One container of an app, for the view."""

    key: str
    container: ContainerView
    routed: bool
    leaving: bool


def app_view(
    app: App,
    project: str,
    record: AppRecord | None,
    shown: list[Shown],
    *,
    stopping: bool,
    engine_error: str,
    deploy: ShowDeploy | None = None,
) -> AppView:
    processes = []
    stopping = stopping or app.stopped
    for process in app.processes.values():
        own = [s for s in shown if s.container.process == process.name]
        by_reason: dict[str, int] = {}
        if record is not None:
            keys = [key for key in record.restarts if key.rpartition("-")[0].rpartition("-")[0] == process.name]
            by_reason = restarts_of(record, process.name, keys)
        processes.append(
            ProcessView(
                name=process.name,
                desired=process.replicas if process.schedule is None and not stopping else 0,
                running=sum(s.container.state == "running" for s in own),
                routed=sum(s.routed and s.container.state == "running" for s in own),
                restarts=sum(by_reason.values()),
                restarts_by_reason=by_reason,
            )
        )
    staying = [s for s in shown if not s.leaving]
    state, reason = _state(processes, [s.container for s in staying], engine_error, stopping=stopping)
    if app.stopped:
        reason = "stopped" if not shown else "stopping"
    elif record is None and deploy is not None:
        state, reason = "failed" if deploy.failed else "starting", engine_error or deploy.reason
    return AppView(
        name=app.name,
        project=project,
        state=state,
        reason=reason,
        revision=record.revision if record is not None else 1,
        image=app.image,
        image_id=app.image_id,
        operation=deploy.operation if deploy is not None else None,
        canary_percent=record.canary if record is not None else None,
        domains=app.domains,
        path=app.path,
        routes=tuple(domain + (app.path if app.path != "/" else "") for domain in app.domains),
        processes=tuple(processes),
        containers=tuple(replace(s.container, routed=s.routed) for s in shown),
    )


def _state(
    processes: list[ProcessView], containers: list[ContainerView], engine_error: str, *, stopping: bool
) -> tuple[str, str]:
    if stopping:
        return "stopped", "being removed"
    missing = [p for p in processes if p.running < p.desired]
    if not missing:
        return "healthy", ""
    down = [c for c in containers if c.state != "running"]
    worst = next((c for state in _WORST_FIRST for c in down if c.state == state and c.reason), None)
    reason = f"{worst.name}: {worst.reason}" if worst is not None else engine_error
    if all(c.state == "failed" for c in containers) and containers:
        return "failed", reason
    web = next((p for p in processes if p.name == "web"), missing[0])
    if web.running or not down or any(c.state in ("failed", "stopped", "unhealthy") for c in down):
        started = any(p.running for p in processes)
        return ("degraded" if started or down else "starting"), reason
    return "starting", reason


_WORST_FIRST = ("failed", "restarting", "unhealthy", "stopped", "starting", "pending")


def readiness(apps: list[AppView]) -> Readiness:
    """Ready when every app has all its replicas, routed where it is routed at all, or has visibly failed."""
    waiting = []
    for app in apps:
        if app.state == "failed" and not app.containers:
            continue  # it could not even be prepared, and says so
        for process in app.processes:
            failed = sum(c.state in ("failed", "stopped") for c in app.containers if c.process == process.name)
            have = process.routed if process.name == "web" else process.running
            if have + failed < process.desired:
                why = f": {app.reason}" if app.reason else ""
                waiting.append(f"{app.name}/{process.name} has {have} of {process.desired}{why}")
    return Readiness(ready=not waiting, waiting=tuple(waiting))


def env_view(app: App, record: DeployRecord | None, *, on_host: bool) -> EnvView:
    """The variables of every process, and where each is from. ``app`` is what the file says."""
    live = record.live if record is not None and record.live is not None else app
    base = record.base if record is not None and record.base is not None else app
    items = []
    for process in live.processes.values():
        before = base.processes.get(process.name)
        for name, value in sorted({**process.templates, **process.env}.items()):
            same = before is not None and {**before.templates, **before.env}.get(name) == value
            items.append(EnvItem(name=name, value=value, process=process.name, source="file" if same else "live"))
        items += [EnvItem(name=secret.name, process=process.name, source="secret") for secret in process.secrets]
    return EnvView(items=tuple(items), on_host=on_host)

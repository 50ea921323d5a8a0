"""The slow calls that a ContainerActor runs beside its mailbox, and what they bring back."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.containers import ContainerSpec, ContainerStatus
from ..core.model import App, Process
from ..errors import Conflict, ContainerNotFound, EngineError, EngineUnreachable
from ..ports import ContainerEngine, Prober


@dataclass(frozen=True)
class Started:
    """``status`` with an ``error``: it exists but could not be started."""

    status: ContainerStatus | None
    error: BaseException | None


@dataclass(frozen=True)
class Probed:
    """``failure`` None: it is well. ``void``: the probe says nothing about the container."""

    failure: str | None
    void: bool


@dataclass(frozen=True)
class Removed:
    error: BaseException | None


def launch(
    engine: ContainerEngine,
    spec: ContainerSpec,
    existing: ContainerStatus | None,
    process: Process,
    *,
    stop_first: bool,
) -> Started:
    """Create it if there is none, and start it."""
    status = existing or _create(engine, spec)
    try:
        if stop_first:
            engine.stop(status.id, signal=process.stop_signal, grace=process.stop_grace)
        return Started(engine.start(status.id), None)
    except (EngineUnreachable, ContainerNotFound):
        raise
    except EngineError as error:
        return Started(status, error)  # it exists, so it must be known to be started again or removed


def remove(engine: ContainerEngine, name: str, existing: ContainerStatus | None, process: Process) -> None:
    """Stop and remove it, if it is there."""
    status = existing or _find(engine, name)
    if status is None:
        return
    try:
        engine.stop(status.id, signal=process.stop_signal, grace=process.stop_grace)
        engine.remove(status.id)
    except ContainerNotFound:
        return  # it is gone, which is what was wanted


def probe(engine: ContainerEngine, prober: Prober, app: App, process: Process, status: ContainerStatus) -> str | None:
    """None if it is well, else why not, in words."""
    check = process.healthcheck
    if check.kind == "command":
        return _command(engine, status.id, check.command, check.timeout)
    if not status.address or not status.port:
        return "it has no address"
    target = (status.address, status.port)
    if check.kind == "tcp":
        return prober.tcp(target, check)
    host = check.host or next((domain for domain in app.domains if "*" not in domain), "localhost")
    return prober.http(target, check, host)


def _create(engine: ContainerEngine, spec: ContainerSpec) -> ContainerStatus:
    try:
        return engine.create(spec)
    except Conflict:
        # ours, by name: made in an earlier life of this actor or of the daemon
        found = _find(engine, spec.name)
        if found is None:
            raise
        return found


def _find(engine: ContainerEngine, name: str) -> ContainerStatus | None:
    return next((status for status in engine.containers() if status.name == name), None)


def _command(engine: ContainerEngine, container: str, argv: tuple[str, ...], timeout: float) -> str | None:
    result = engine.execute(container, argv, timeout)
    if result.exit_code == 0:
        return None
    if result.exit_code == 124:
        return f"the check did not end within {timeout:g} s"
    lines = result.output.strip().splitlines()
    return f"the check exited {result.exit_code}" + (f": {lines[-1][:200]}" if lines else "")

"""What is watched: signals that pass a threshold, and events. Two tables, and what they say to people."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from .model import Monitoring

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


class LevelRule(Struct, frozen=True, kw_only=True):
    """Fires when a signal has been at or beyond ``threshold`` for ``lasts`` seconds, and is over when it has been on the
    good side of it by ``margin`` for ``over`` seconds. ``below``: low values are the bad ones. ``critical``: from there on
    it is. ``words`` say what is, ``advice`` what to do; both may name parts of the subject and ``value``, ``limit``."""

    rule: str
    kind: str
    signal: str
    threshold: Callable[[Monitoring], float]
    critical: float | None = None
    margin: float = 0.0
    lasts: float = 0.0
    over: float = MINUTE
    below: bool = False
    unit: str = "%"
    words: str
    past: str = ""
    """Instead of ``words`` when less than nothing is left."""
    gone: str = "it is not there any more"
    """How it ends when nobody tells of it any more."""
    sums: bool = False
    """What is told is the sum of all bad values."""
    advice: str


def _of(name: str) -> Callable[[Monitoring], float]:
    return lambda monitoring: float(getattr(monitoring.thresholds, name))


def _always(value: float) -> Callable[[Monitoring], float]:
    return lambda monitoring: value


LEVELS: tuple[LevelRule, ...] = (
    LevelRule(
        rule="host.cpu",
        kind="high_cpu",
        signal="host.cpu",
        threshold=_of("cpu"),
        margin=5,
        lasts=5 * MINUTE,
        over=2 * MINUTE,
        words="The CPU of this machine is {value} busy",
        advice="`nextdeploy top` shows which container uses it. Give that app a limit (`resources`), or the machine more cores.",
    ),
    LevelRule(
        rule="host.memory",
        kind="high_memory",
        signal="host.memory",
        threshold=_of("memory"),
        critical=97,
        margin=5,
        lasts=2 * MINUTE,
        over=2 * MINUTE,
        words="{value} of this machine's memory is in use",
        advice="`nextdeploy top` shows which container has it. Without free memory the kernel kills processes.",
    ),
    LevelRule(
        rule="host.swap",
        kind="high_memory",
        signal="host.swap",
        threshold=_of("swap"),
        margin=5,
        lasts=5 * MINUTE,
        over=5 * MINUTE,
        words="{value} of this machine's swap is in use",
        advice="More is wanted than there is memory, and everything becomes slow. `nextdeploy top` shows who wants it.",
    ),
    LevelRule(
        rule="disk.used",
        kind="high_disk",
        signal="disk.used",
        threshold=_of("disk"),
        critical=97,
        margin=2,
        lasts=MINUTE,
        words="The disk at {mount} is {value} full",
        advice="Remove what is not needed there: old images (`docker image prune`), volumes, logs (`logs.retain`).",
    ),
    LevelRule(
        rule="disk.inodes",
        kind="high_disk",
        signal="disk.inodes",
        threshold=_of("disk"),
        critical=97,
        margin=2,
        lasts=MINUTE,
        words="The disk at {mount} has used {value} of its inodes",
        advice="There are too many small files. Nothing new can be made when all inodes are used, however much room there is.",
    ),
    LevelRule(
        rule="disk.filling",
        kind="high_disk",
        signal="disk.hours_left",
        threshold=_always(4.0),
        critical=1.0,
        margin=2.0,
        lasts=5 * MINUTE,
        over=10 * MINUTE,
        below=True,
        unit="h",
        words="The disk at {mount} will be full in {value} at this rate",
        advice="Something writes much there: a log, a database, uploads. Find it (`du -xh {mount} | sort -h | tail`) before it is full.",
    ),
    LevelRule(
        rule="container.memory",
        kind="high_memory",
        signal="container.memory",
        threshold=_of("memory"),
        critical=98,
        margin=5,
        lasts=2 * MINUTE,
        over=2 * MINUTE,
        words="{container} uses {value} of the memory that it may have",
        advice="At its limit the kernel kills it. Raise `resources.memory`, or look for a leak.",
    ),
    LevelRule(
        rule="app.errors",
        kind="error",
        signal="app.errors",
        threshold=_always(5.0),
        critical=50.0,
        margin=3,
        lasts=20.0,
        over=2 * MINUTE,
        words="{app} answers {value} of its requests with an error",
        advice="`nextdeploy logs {app} --level error` shows why; `nextdeploy rollback {app}` goes back to the version before.",
    ),
    LevelRule(
        rule="certificate",
        kind="certificate",
        signal="certificate.days_left",
        threshold=_always(14.0),
        critical=3.0,
        margin=1.0,
        below=True,
        unit="days",
        words="The certificate of {domain} ends in {value}",
        past="The certificate of {domain} ended {value} ago",
        advice="It should have been renewed by now. Is the domain's address still this machine's?",
    ),
    LevelRule(
        rule="daemon.lag",
        kind="self",
        signal="daemon.lag",
        threshold=_always(0.25),
        margin=0.15,
        lasts=MINUTE,
        over=2 * MINUTE,
        unit="s",
        words="The daemon answers {value} late",
        advice="The machine may be overloaded, or a fault holds the daemon up. `nextdeploy top` shows what it is busy with.",
    ),
    LevelRule(
        rule="actor.silent",
        kind="self",
        signal="actor.silent",
        threshold=_always(60.0),
        margin=30.0,
        unit="s",
        words="The actor {actor} has done nothing for {value} though messages wait",
        gone="it works again",
        advice="`POST /api/v1/actors/{actor}/restart` begins it anew; its state is on disk. Please report the fault.",
    ),
    LevelRule(
        rule="requests.dropped",
        kind="self",
        signal="requests.dropped",
        threshold=_always(1.0),
        over=10 * MINUTE,
        unit="",
        words="{value} request records were dropped",
        sums=True,
        advice="The daemon was away for too long, or its disk was too slow. Requests themselves were answered.",
    ),
    LevelRule(
        rule="logs.dropped",
        kind="self",
        signal="logs.dropped",
        threshold=_always(1.0),
        over=10 * MINUTE,
        unit="",
        words="{value} log lines of {app} were dropped",
        sums=True,
        advice="The log store's disk was full. Make room, or lower `logs.retain`.",
    ),
    LevelRule(
        rule="figures.missing",
        kind="self",
        signal="figures.age",
        threshold=_always(MINUTE),
        margin=30.0,
        unit="s",
        words="There are no figures of {source} for {value}",
        advice="Alerts about them cannot fire meanwhile. Does the engine answer, and the disk?",
    ),
)


class EventRule(Struct, frozen=True, kw_only=True):
    """Fires when ``many`` events of ``fires`` were heard within ``within`` seconds, and is over when one of ``clears`` is
    heard, or none of the others for ``calm`` seconds. ``by``: what tells one subject from another, of the event or of its
    ``detail``. ``critical_at``: so many within that time are critical; 0: none are."""

    rule: str
    kind: str
    fires: tuple[str, ...]
    clears: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    many: int = 1
    within: float = 10 * MINUTE
    critical_at: int = 0
    calm: float | None = None
    renewed: bool = False
    """A daemon that finds it so tells it anew: what an earlier one told, and this one does not, is over."""
    words: str
    advice: str


EVENTS: tuple[EventRule, ...] = (
    EventRule(
        rule="crash",
        kind="crash",
        fires=("container.died", "container.vanished", "container.start_failed"),
        by=("app", "process"),
        critical_at=3,
        calm=10 * MINUTE,
        words="{app}/{process} crashed: {reason}",
        advice="It was started again. `nextdeploy logs {app} --process {process}` shows its last words.",
    ),
    EventRule(
        rule="gave_up",
        kind="crash",
        fires=("container.gave_up",),
        clears=("container.healthy", "container.started", "container.restarted", "container.removed"),
        by=("app", "process", "container"),
        critical_at=1,
        words="{app}/{process} is not started again: {reason}",
        advice="`nextdeploy logs {app} --process {process}` shows why; `nextdeploy restart {app}` tries again, `nextdeploy rollback {app}` goes back.",
    ),
    EventRule(
        rule="oom",
        kind="oom",
        fires=("container.oom",),
        by=("app", "process"),
        critical_at=3,
        calm=30 * MINUTE,
        words="{app}/{process} ran out of memory: {reason}",
        advice="Raise its `resources.memory`, or look for a leak: `nextdeploy top` shows what it uses.",
    ),
    EventRule(
        rule="unhealthy",
        kind="healthcheck_failed",
        fires=("container.unhealthy",),
        # one that was started again is looked at anew
        clears=(
            *("container.healthy", "container.died", "container.restarted", "container.started"),
            *("container.stopped", "container.removed"),
        ),
        by=("app", "process", "container"),
        renewed=True,
        words="{container} does not pass its health check: {reason}",
        advice="It gets no requests meanwhile, and is started again if that goes on.",
    ),
    EventRule(
        rule="failover",
        kind="failover",
        fires=("failover.switched",),
        clears=("failover.returned",),
        by=("app",),
        critical_at=1,
        words="{app} is served by its mirror: {reason}",
        advice="It goes back by itself when the primary is healthy for long enough.",
    ),
    EventRule(
        rule="deploy",
        kind="deploy",
        fires=("deploy.failed", "canary.rolled_back"),
        clears=("deploy.succeeded", "app.removed"),
        by=("app",),
        words="A deploy of {app} failed: {reason}",
        advice="The version before is still served. `nextdeploy status {app}` shows the deploy's steps.",
    ),
    EventRule(
        rule="job",
        kind="job",
        fires=("job.failed", "job.missed"),
        clears=("job.succeeded", "app.removed"),
        by=("app", "process"),
        words="The job {app}/{process} failed: {reason}",
        advice="`nextdeploy logs {app} --process {process}` shows its output; `nextdeploy run` tries it now.",
    ),
    EventRule(
        rule="backup",
        kind="backup",
        fires=("backup.failed",),
        clears=("backup.succeeded",),
        by=("app",),
        critical_at=2,
        within=2 * DAY,
        words="The backup of {app} failed: {reason}",
        advice="Until one succeeds, the newest backup is an old one.",
    ),
    EventRule(
        rule="port",
        kind="port",
        fires=("port.opened",),
        clears=("port.closed",),
        by=("protocol", "address", "port", "process"),
        words="{reason}",
        advice="If you want it, let the configuration say so or bind it to 127.0.0.1; if you do not, end that process.",
    ),
    EventRule(
        rule="engine",
        kind="self",
        fires=("engine.lost",),
        clears=("engine.found",),
        by=("engine",),
        critical_at=1,
        renewed=True,
        words="The engine {engine} does not answer: {reason}",
        advice="What runs goes on, and so does its traffic; nothing can be deployed or healed. `systemctl status` of its service tells more.",
    ),
    EventRule(
        rule="actor",
        kind="self",
        fires=("actor.restarted",),
        by=("actor",),
        many=3,
        calm=10 * MINUTE,
        words="The actor {actor} fails again and again: {reason}",
        advice="What it does stands still between its restarts. Please report the fault.",
    ),
    EventRule(
        rule="logs.lost",
        kind="self",
        fires=("logs.lost",),
        by=("app",),
        calm=10 * MINUTE,
        words="Output of {app} is missing in the logs: {reason}",
        advice="It wrote faster than its files were kept: raise `logs.rotate`.",
    ),
    EventRule(
        rule="logs.store",
        kind="self",
        fires=("logs.store_failed",),
        clears=("logs.resumed",),
        critical_at=1,
        renewed=True,
        words="Logs cannot be stored: {reason}",
        advice="Make room on that disk. It goes on by itself.",
    ),
    EventRule(
        rule="state",
        kind="self",
        fires=("state.corrupt",),
        calm=DAY,
        words="A file of the daemon's state was damaged: {reason}",
        advice="The last good copy is used. Check the disk (`dmesg`, `smartctl`).",
    ),
    EventRule(
        rule="zombies",
        kind="self",
        fires=("host.zombies",),
        calm=HOUR,
        words="{reason}",
        advice="Their parent does not reap them: restart it. In containers, an init process reaps (it is on by default).",
    ),
)

BY_SIGNAL: Mapping[str, tuple[LevelRule, ...]] = {
    signal: tuple(rule for rule in LEVELS if rule.signal == signal) for signal in {rule.signal for rule in LEVELS}
}


def shown(value: float, unit: str) -> str:
    """A figure as people read it."""
    if unit == "h" and value < 1:
        return f"{value * 60:.0f} min"
    digits = 0 if abs(value) >= 10 or value == int(value) else 1 if abs(value) >= 1 else 2
    text = f"{value:,.{digits}f}"
    return f"{text} %" if unit == "%" else f"{text} {unit}".strip()

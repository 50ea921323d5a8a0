"""The daemon's life: read the file, take the state folder, start the tree, obey signals, stop in good order. Loaded by
``__main__`` alone, once gevent has patched the standard library."""

from __future__ import annotations

import argparse
import datetime
import gc
import logging
import os
import secrets
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import argon2
import gevent
import msgspec
from gevent.event import Event
from gevent.hub import get_hub
from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool

from . import __version__
from .actors.log import OutputRows
from .actors.samples import daemon_samples
from .adapters.admin_server import AdminServer
from .adapters.alert_channels import AlertChannels
from .adapters.bound_sockets import BoundSockets
from .adapters.build_contexts import Contexts
from .adapters.bundles import Bundles
from .adapters.cgroups import Cgroups
from .adapters.claimed_blobs import BlobClaims, SharedBlobs
from .adapters.config_file import ConfigFile
from .adapters.config_history import ConfigVersions
from .adapters.configuration import Configuration
from .adapters.container_statistics import ContainerStatistics
from .adapters.control_socket import ControlServer
from .adapters.disk_sizes import DiskSizes
from .adapters.docker_address import docker_address, docker_present
from .adapters.edge_pool import EdgePool
from .adapters.error_pages import read_pages
from .adapters.host_statistics import HostStatistics, host_memory
from .adapters.job_output import ContainerOutputs
from .adapters.journal import open_journal
from .adapters.listeners import ProcListeners
from .adapters.log_pool import LogPool
from .adapters.logged_engine import LoggedEngine
from .adapters.off_loop import run as run_off_loop
from .adapters.ordered_saves import OrderedSaves
from .adapters.probe import SocketProber
from .adapters.process_engine import ProcessEngine
from .adapters.process_table import ProcessTable
from .adapters.project_files import ProjectLoader
from .adapters.secrets_box import SecretBox
from .adapters.sqlite_events import SqliteEvents
from .adapters.sqlite_ledger import SqliteLedger
from .adapters.sqlite_metrics import SqliteMetrics
from .adapters.sqlite_requests import SqliteRequests
from .adapters.state_files import StateFiles, StateLock, replace_file, saved
from .adapters.terminals import EngineTerminals
from .adapters.web_app import WebApp
from .adapters.webhook import HookClient
from .cli.daemon import config_path, parse, state_folder
from .core.containers import ContainerStatus
from .core.model import App, Settings, User
from .core.samples import Sample
from .core.specs import Owner, engine_for
from .errors import ConfigurationError, EngineError, NextDeployError, StateLocked
from .messages.containers import ContainersSeen, RecordEvent, RecordsArrived, ReloadConfig
from .messages.control import GetWebSettings, WebSettings
from .messages.edge import LATENCY_BUCKETS, EdgeReport, Histogram
from .messages.queries import DaemonView, GetDaemon, GetEdge
from .ports import ContainerEngine, ImageStore
from .runtime.activation import from_systemd
from .runtime.lag import LagMeter
from .runtime.memory import FIRST_SECONDS, GIVE_BACK_SECONDS, give_back, one_arena
from .runtime.ref import Ref
from .runtime.root import Root
from .runtime.silence import Silences
from .tree import Refs, World, tree

if TYPE_CHECKING:
    from .adapters.docker_engine import DockerEngine

log = logging.getLogger("ndactors.daemon")

DONE, FAILED, WRONG, REFUSED = 0, 1, 2, 3
"""Exit codes."""
STOP_SECONDS = 60.0
NAME_THREADS = 20
EDGE_STOP_SECONDS = 10.0
GREETING_SECONDS = 15.0
SWITCH_SECONDS = 0.001
"""After so long a thread of the pool that computes in Python lets the event loop go on; 5 ms is Python's own."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What makes this daemon recognise its own: ``id`` is on every container, ``epoch`` grows with each start. ``key``
    signs sessions and tokens."""

    id: str
    epoch: int
    key: bytes


class Rested(msgspec.Struct, frozen=True, kw_only=True):
    """Containers that this daemon stopped because it was told to when it ended."""

    containers: list[str]


def run(argv: list[str]) -> int:
    one_arena()
    arguments = parse(argv, os.environ)
    try:
        config = ConfigFile(config_path(arguments.config), arguments.env, arguments.set, os.environ, off_loop)
    except ConfigurationError as error:
        return _complain(WRONG, *error.lines())
    if arguments.check:
        for line in config.warnings:
            sys.stderr.write(f"warning: {line}\n")
        sys.stdout.write(config.render())
        return DONE
    open_journal(config.current().logs.level, terminal=sys.stderr.isatty())
    for line in config.warnings:
        log.warning("%s", line)
    folder = state_folder(config.current().state_dir, config.path, os.environ, root=os.geteuid() == 0)
    lock = StateLock(folder)
    try:
        lock.acquire()
    except StateLocked as error:
        return _complain(REFUSED, f"nextdeployd: {error}")
    except NextDeployError as error:
        return _complain(FAILED, f"nextdeployd: {error}")
    try:
        return Daemon(config, folder, arguments).serve()
    except NextDeployError as error:
        return _complain(FAILED, f"nextdeployd: {error}")
    finally:
        lock.release()


class Daemon:
    """One run, from its start to its end."""

    def __init__(self, config: ConfigFile, folder: Path, arguments: argparse.Namespace) -> None:
        self._config = config
        self._folder = folder
        self._arguments = arguments
        self._sockets = from_systemd(os.environ, os.getpid())
        self._refs = Refs()
        self._lag_counts = [0] * (len(LATENCY_BUCKETS) + 1)
        self._lag_total = 0.0
        self._silences = Silences()
        self._silent: dict[str, float] = {}
        self._lag = LagMeter(self._late)
        self._state = StateFiles(folder / "state", self._report)
        self._identity = _identity(self._state)
        rested = self._state.load("rested", Rested)
        self._rested = frozenset(rested.containers) if rested is not None else frozenset()
        self._state.delete("rested")
        self._started = time.time()
        self._events = SqliteEvents(folder / "events.db", self._report, off_loop)
        self._requests = SqliteRequests(
            folder / "requests.db", self._report, off_loop, lambda: config.current().requests.retain
        )
        self._ledger = SqliteLedger(folder / "ledger.db", self._report, off_loop)
        self._metrics = SqliteMetrics(folder / "metrics.db", self._report, off_loop)
        claims = BlobClaims(folder / "claims.db", self._report, off_loop)
        self._blobs = SharedBlobs(folder / "blobs", claims, off_loop)
        self._secrets = SecretBox(
            self._state,
            folder,
            config.current().environment,
            credentials=_credentials(),
            report=self._report,
            apply=off_loop,
        )
        bundles = Bundles(folder / "projects", self._blobs, off_loop)
        loader = ProjectLoader(folder, bundles, self._blobs, off_loop, self._on_host)
        self._configuration = Configuration(config, self._state, bundles, loader, self._blobs, self._secrets)
        self._alert_channels = AlertChannels(lambda: config.current().monitoring.alert, folder, HookClient())
        self._table = ProcessTable()
        self._logs = LogPool(folder, epoch=self._identity.epoch, version=__version__)
        self._engines = self._make_engines(config.current())
        self._refs.engines.update({name: Ref(f"engine:{name}") for name in self._engines})
        self._password, users = _users(config.current(), folder)
        self._web = WebSettings(
            users=users,
            key=self._identity.key,
            metrics_open=_metrics_open(config.current()),
            project=config.current().project,
            environment=config.current().environment,
        )
        self._web_app = WebApp(self._make_web)
        self._admin: AdminServer | None = None
        self._stopping = False

    def serve(self) -> int:
        arguments, refs = self._arguments, self._refs
        sys.setswitchinterval(SWITCH_SECONDS)
        over = Event()
        signals = [
            gevent.signal_handler(signal.SIGTERM, over.set),
            gevent.signal_handler(signal.SIGINT, over.set),
            gevent.signal_handler(signal.SIGHUP, lambda: refs.config.tell(ReloadConfig())),
        ]
        self._lag.start()
        _look_up_names_apart()
        root = Root(tree(self._world(), refs))
        refs.events.tell(
            RecordEvent(kind="daemon.started", reason=f"nextdeploy {__version__}, epoch {self._identity.epoch}")
        )
        settle_memory()
        beside = [gevent.spawn(self._greet), gevent.spawn(stay_small)]
        over.wait()
        gevent.killall(beside)
        log.info("stopping")
        refs.events.tell(RecordEvent(kind="daemon.stopping"))
        self._stopping = True
        in_time = root.stop(STOP_SECONDS)
        if not arguments.leave_edge:
            self._stop_engines(stop_containers=arguments.stop_apps)
        self._events.close()
        self._requests.close()
        self._ledger.close()
        self._metrics.close()
        self._blobs.claims.close()
        for engine in self._engines.values():
            engine.close()
        self._lag.stop()
        for handler in signals:
            handler.cancel()
        return DONE if in_time else FAILED

    # -- the world ---------------------------------------------------------------------------------

    def _world(self) -> World:
        settings, identity = self._config.current(), self._identity
        return World(
            config=self._configuration,
            config_versions=ConfigVersions(self._config, self._state, off_loop),
            owner=Owner(project=settings.project, daemon=identity.id),
            epoch=identity.epoch,
            state=self._state,
            event_store=self._events,
            record_store=self._requests,
            engines={name: self._logged(engine) for name, engine in self._engines.items()},
            images=self._images(),
            contexts=Contexts(self._folder / "git", off_loop),
            blobs=self._blobs,
            secrets=self._secrets,
            hook_sender=HookClient(),
            alert_channels=self._alert_channels,
            ledger=self._ledger,
            listeners=ProcListeners(),
            logs=self._logs,
            output_rows={name: _rows(engine) for name, engine in self._engines.items()},
            monotonic=time.monotonic,
            outputs={name: ContainerOutputs(_asked(engine), off_loop) for name, engine in self._engines.items()},
            new_operation=new_operation,
            now=time.time,
            moment=moment,
            docker_present=settings.engine != "process" and docker_present(),
            prober=SocketProber(),
            lag=self._lag,
            host=HostStatistics(self._table, off_loop),
            usage=self._usage(),
            sockets=BoundSockets(self._folder, self._table, off_loop),
            stamp=_now,
            new_pool=self._new_pool,
            read_pages=lambda path: off_loop(lambda: read_pages(path)),
            rested=self._rested,
            leave_edge=lambda: not self._stopping or bool(self._arguments.leave_edge),
            answers={GetDaemon: self._view, GetWebSettings: lambda: self._web},
            open_admin=self._open_admin,
            open_control=self._open_control,
            metric_store=self._metrics,
            own_samples=self._own_samples,
            save=OrderedSaves(self._state.save, lambda call: run_off_loop(off_loop, call, self._folder)),
        )

    def _usage(self) -> ContainerStatistics:
        docker, memory = _asked(self._engines.get("docker")), host_memory()
        return ContainerStatistics(
            Cgroups(host_memory=memory),
            self._table,
            engine=docker,
            disk=DiskSizes(self._folder, docker, off_loop),
            host_memory=memory,
            apply=off_loop,
        )

    def _make_engines(self, settings: Settings) -> dict[str, ContainerEngine]:
        engines: dict[str, ContainerEngine] = {}
        if settings.engine != "process":
            from .adapters.docker_engine import DockerEngine  # with the SDK, which nobody else needs

            engines["docker"] = DockerEngine(self._folder, self._identity.id)
        if settings.engine in ("auto", "process"):
            engines["process"] = ProcessEngine(self._folder, self._identity.id)
        return engines

    def _logged(self, engine: ContainerEngine) -> ContainerEngine:
        def created(status: ContainerStatus) -> None:
            self._refs.logs.tell(ContainersSeen(engine=engine.name, containers=(status,), announced=True))

        return LoggedEngine(engine, created, lambda container: self._logs.flush((container,)))  # type: ignore[return-value]

    def _on_host(self, app: App) -> bool:
        settings = self._config.current()
        present = settings.engine != "process" and docker_present()
        return engine_for(app, settings.engine, docker_present=present) == "process"

    def _images(self) -> dict[str, ImageStore]:
        if "docker" not in self._engines:
            return {}
        from .adapters.docker_images import DockerImages

        return {"docker": DockerImages(self._identity.id, docker_address(), off_loop)}

    def _new_pool(
        self,
        settings: Settings,
        on_report: Callable[[EdgeReport], None],
        on_records: Callable[[RecordsArrived], None],
        on_change: Callable[[str], None],
    ) -> EdgePool:
        return EdgePool(
            self._folder,
            http=settings.edge.http,
            workers=settings.edge.workers,
            epoch=self._identity.epoch,
            version=__version__,
            on_report=on_report,
            on_records=on_records,
            on_change=on_change,
            sockets=self._sockets,
        )

    def _asked(self) -> dict[str, Ref]:
        """Whom the API asks, by the names that it has for them."""
        refs = self._refs
        engine = refs.engines.get("docker" if "docker" in refs.engines and docker_present() else "process")
        return {
            "root": refs.root,
            "daemon": refs.daemon,
            "apps": refs.apps,
            "events": refs.events,
            "records": refs.records,
            "edge": refs.edge,
            "host": refs.host,
            "engine": engine or next(iter(refs.engines.values())),
            "operations": refs.operations,
            "config": refs.config,
            "access": refs.access,
            "secrets": refs.secrets,
            "logs": refs.logs,
            "metrics": refs.metrics,
            "alerts": refs.alerts,
            "notify": refs.notify,
        }

    def _make_web(self) -> Any:
        import web

        return web.create_app(
            web.Refs(**self._asked()),
            self._web,
            terminals=EngineTerminals(self._engines),
            blobs=self._blobs,
            logs=self._logs,
        )

    def _open_admin(self, refs: Refs) -> AdminServer:
        self._admin = AdminServer(self._config.current().admin.listen, self._web_app)
        return self._admin

    def _open_control(self, refs: Refs) -> ControlServer:
        names = {"edge": "proxy"}
        asks = {names.get(name, name): ref for name, ref in self._asked().items()}
        return ControlServer(self._folder / "control.sock", asks, self._web_app)

    def _view(self) -> DaemonView:
        settings = self._config.current()
        return DaemonView(
            version=__version__,
            environment=settings.environment,
            project=settings.project,
            daemon_id=self._identity.id,
            epoch=self._identity.epoch,
            pid=os.getpid(),
            started_at=self._started,
            config_path=str(self._config.path),
            state_dir=str(self._folder),
            hub_lag=self._hub_lag(),
            silent=self._silent,
        )

    def _hub_lag(self) -> Histogram:
        return Histogram(counts=tuple(self._lag_counts), total=self._lag_total)

    def _own_samples(self) -> tuple[Sample, ...]:
        refs = self._refs
        every = (*(getattr(refs, name) for name in vars(refs) if name != "engines"), *refs.engines.values())
        self._silent = self._silences.look(refs.root.node(), time.monotonic())
        return daemon_samples(self._hub_lag(), {ref.name: len(ref.mailbox.items) for ref in every}, self._silent)

    # -- small things ------------------------------------------------------------------------------

    def _late(self, seconds: float) -> None:
        self._lag_counts[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        self._lag_total += seconds

    def _report(self, kind: str, words: str) -> None:
        self._refs.events.tell(RecordEvent(kind=kind, reason=words))

    def _greet(self) -> None:
        """Say where everything is, once it is known; the password on a terminal only."""
        deadline = time.monotonic() + GREETING_SECONDS
        report: EdgeReport | None = None
        while time.monotonic() < deadline and (report is None or self._admin is None):
            gevent.sleep(0.05)
            try:
                report = self._refs.edge.ask(GetEdge(), 1.0)
            except NextDeployError:
                report = None
        out = sys.stdout
        for address in report.http if report is not None else ():
            out.write(f"apps:      {_url(address)}\n")
        if self._admin is not None:
            out.write(f"dashboard: {_url(self._admin.address)}\n")
        if self._password is not None and out.isatty():
            out.write(f"sign in:   admin / {self._password}\n")
        elif self._password is not None:
            out.write(f"sign in:   admin, with the password in {self._folder / PASSWORD_FILE}\n")
        out.flush()

    def _stop_engines(self, *, stop_containers: bool) -> None:
        """Host processes are the daemon's own and end with it; containers stay unless told otherwise."""
        for engine in self._engines.values():
            try:
                if isinstance(engine, ProcessEngine):
                    engine.shutdown()
                elif stop_containers:
                    grace = max(
                        (p.stop_grace for a in self._config.current().apps.values() for p in a.processes.values()),
                        default=10.0,
                    )
                    running = [c for c in engine.containers() if c.state in ("running", "paused")]
                    self._state.save("rested", Rested(containers=[c.id for c in running]))
                    gevent.joinall([gevent.spawn(engine.stop, c.id, signal="SIGTERM", grace=grace) for c in running])
            except EngineError as error:
                log.error("%s", error)


PASSWORD_FILE = "admin-password"


def _identity(state: StateFiles) -> Identity:
    """Kept from the last start, with the epoch counted up."""
    fresh = Identity(id=secrets.token_hex(8), epoch=0, key=secrets.token_bytes(32))
    before = saved(state, "daemon", Identity, lambda: fresh)
    now = msgspec.structs.replace(before, epoch=before.epoch + 1)
    state.save("daemon", now)
    return now


def _users(settings: Settings, folder: Path) -> tuple[str | None, tuple[User, ...]]:
    """Those of the file; ``$NEXTDEPLOY_ADMIN_PASSWORD`` sets ``admin``; if that leaves nobody, a password is made once
    and kept in a file that only its owner can read. The second value has everybody."""
    given = os.environ.pop("NEXTDEPLOY_ADMIN_PASSWORD", "")
    users = {user.name: user for user in settings.admin.users}
    path, made = folder / PASSWORD_FILE, None
    if not given and not users:
        if not path.exists():
            replace_file(path, secrets.token_urlsafe(15).encode() + b"\n")
        made = given = path.read_text().strip()
    if given:
        users["admin"] = User(name="admin", password_hash=argon2.PasswordHasher().hash(given), role="admin")
    return made, tuple(users.values())


def _metrics_open(settings: Settings) -> bool:
    if settings.admin.metrics_auth is not None:
        return not settings.admin.metrics_auth
    host = settings.admin.listen.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _url(address: str) -> str:
    host, _, port = address.rpartition(":")
    host = "localhost" if host in ("0.0.0.0", "[::]", "::", "") else host
    return f"http://{host}" + ("" if port == "80" else f":{port}") + "/"


def settle_memory() -> None:
    """What is there by now stays: looking through it for garbage again and again would stop everybody for tens of
    milliseconds."""
    gc.collect()
    gc.freeze()


def stay_small() -> None:
    """Every now and then, for ever."""
    gevent.sleep(FIRST_SECONDS)
    while True:
        give_back()
        gevent.sleep(GIVE_BACK_SECONDS)


def off_loop(call: Callable[[], Any]) -> Any:
    """Run what blocks in gevent's thread pool; the caller waits, everybody else goes on."""
    return get_hub().threadpool.apply(call)


def _look_up_names_apart() -> None:
    """Names of hosts are looked up in threads of their own: a name server that is away holds each for half a minute, and
    what is written to disk must not wait for it."""
    hub = get_hub()
    if isinstance(hub.resolver, Resolver):
        hub.resolver.pool = ThreadPool(NAME_THREADS)


def _now() -> str:
    return moment(time.time())


def moment(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_operation() -> str:
    """An id that grows with time, and that nobody can guess."""
    return f"{int(time.time() * 1000):011x}{secrets.token_hex(4)}"


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _rows(engine: ContainerEngine) -> OutputRows:
    docker = _asked(engine)
    return docker.output_rows if docker is not None else lambda container, since: ()


def _asked(engine: ContainerEngine | None) -> DockerEngine | None:
    """Who can be asked for a container's output where its file cannot be read."""
    return engine if engine is not None and engine.name == "docker" else None  # type: ignore[return-value]


def _complain(code: int, *lines: str) -> int:
    sys.stderr.write("\n".join(lines) + "\n")
    return code

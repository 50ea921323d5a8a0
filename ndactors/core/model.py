"""The effective configuration as values: what `nextdeploy.yml` means once it is merged, checked and normalised.

Durations are seconds, sizes are bytes, percentages are 0 to 100. Nothing here parses or reads anything.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

EngineChoice = Literal["auto", "docker", "process", "swarm"]


class Value(Struct, frozen=True, kw_only=True):
    """A frozen record."""


# -- an app ----------------------------------------------------------------------------------------


class Rate(Value, frozen=True, kw_only=True):
    """``count`` events in every ``seconds``."""

    count: int
    seconds: float = 1.0


class Build(Value, frozen=True, kw_only=True):
    context: str = "."
    dockerfile: str | None = None
    args: dict[str, str] = field(default_factory=dict)
    target: str | None = None
    platform: str | None = None
    secrets: tuple[str, ...] = ()
    archive: str | None = None
    """Never in a file: the digest of a `docker save` archive that was built elsewhere; then nothing is built here."""

    def secret_names(self) -> list[tuple[str, str]]:
        """By what name a step asks for each secret, and by what name it is stored (``NAME:STORE_NAME``, or just one)."""
        return [(name, store or name) for name, _, store in (text.partition(":") for text in self.secrets)]


class SecretRef(Value, frozen=True, kw_only=True):
    """``name`` is the variable the app sees, ``store_name`` the secret's name in the store."""

    name: str
    store_name: str


class Volume(Value, frozen=True, kw_only=True):
    """``source`` is a volume's name, or a host path (it then contains a slash); ``target`` is absolute."""

    source: str
    target: str
    read_only: bool = False

    @property
    def is_named(self) -> bool:
        return "/" not in self.source


class Resources(Value, frozen=True, kw_only=True):
    """None: no limit (``pids`` always has one)."""

    cpus: float | None = None
    memory: int | None = None
    pids: int = 256


class Scale(Value, frozen=True, kw_only=True):
    min: int = 1
    max: int = 5
    cpu: float | None = None
    memory: float | None = None
    rps: float | None = None
    p95: float | None = None
    up_after: float = 10.0
    down_after: float = 60.0
    idle_to_zero: float = 0.0


class Healthcheck(Value, frozen=True, kw_only=True):
    """Exactly one kind: HTTP on ``path`` (the default), ``tcp``, ``command``, or ``none`` (running is healthy).

    ``status`` is the inclusive range of healthy HTTP statuses. Without a ``healthcheck:`` key any HTTP answer
    counts (100 to 599): only a process that reads and answers is alive.
    """

    kind: Literal["http", "tcp", "command", "none"] = "http"
    path: str = "/"
    host: str | None = None
    command: tuple[str, ...] = ()
    status: tuple[int, int] = (200, 399)
    interval: float = 2.0
    timeout: float = 2.0
    retries: int = 3
    restart_after: float = 30.0
    start_period: float = 60.0


class Restart(Value, frozen=True, kw_only=True):
    policy: Literal["always", "unless-stopped", "on-failure", "no"] = "always"
    max_restarts: int = 10
    within: float = 600.0
    backoff: float = 0.5
    backoff_max: float = 60.0


class Canary(Value, frozen=True, kw_only=True):
    steps: tuple[int, ...] = (5, 25, 100)
    hold: float = 30.0
    max_error_rate: float = 1.0
    max_p95_ratio: float = 1.5


class Deploy(Value, frozen=True, kw_only=True):
    strategy: Literal["rolling", "canary", "recreate"] = "rolling"
    timeout: float = 120.0
    drain: float = 30.0
    keep: int = 5
    skew: float = 0.0
    canary: Canary = Canary()


class Mirror(Value, frozen=True, kw_only=True):
    cooldown: float = 30.0
    sync: tuple[str, ...] = ()
    every: float = 2.0
    max_lag: float = 10.0


class RateLimit(Value, frozen=True, kw_only=True):
    per_ip: Rate | None = None
    per_app: Rate | None = None
    burst: int = 100


class Timeouts(Value, frozen=True, kw_only=True):
    connect: float = 2.0
    response: float = 60.0


class Http(Value, frozen=True, kw_only=True):
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    basic_auth: dict[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    error_pages: str | None = None


class AppBackup(Value, frozen=True, kw_only=True):
    command: tuple[str, ...]
    schedule: str = "@daily"


class Process(Value, frozen=True, kw_only=True):
    """One process type of an app, with everything it inherits from the app already filled in.

    ``templates`` are variables whose text has ``${NAME}`` of secrets in it, filled in when a container is made.
    ``command`` is a string as written (the engine decides how to split it), an argv, or None for the image's own.
    ``schedule`` is a cron expression (in ``timezone``), ``@deploy``, or None for a process that always runs. A job that
    takes longer than ``timeout`` is ended.
    """

    name: str
    command: str | tuple[str, ...] | None = None
    entrypoint: str | tuple[str, ...] | None = None
    user: str | None = None
    workdir: str | None = None
    port: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    env_file: str | None = None
    templates: dict[str, str] = field(default_factory=dict)
    secrets: tuple[SecretRef, ...] = ()
    volumes: tuple[Volume, ...] = ()
    networks: tuple[str, ...] = ()
    resources: Resources = Resources()
    replicas: int = 1
    scale: Scale | None = None
    healthcheck: Healthcheck = Healthcheck()
    restart: Restart = Restart()
    stop_grace: float = 10.0
    stop_signal: str = "SIGTERM"
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    schedule: str | None = None
    timezone: str = "UTC"
    timeout: float | None = None


class App(Value, frozen=True, kw_only=True):
    """``processes`` always holds at least one; the one called ``web`` is what the edge routes to.

    The last three are never written in a file. ``image_id`` is the very image that runs, once it is known. ``stopped``:
    no containers. ``nonce`` makes containers of the same version new ones (a restart).
    """

    name: str
    project: str = ""
    image: str | None = None
    build: Build | None = None
    domains: tuple[str, ...] = ()
    path: str = "/"
    strip_path: bool = False
    processes: dict[str, Process]
    deploy: Deploy = Deploy()
    mirror: Mirror | None = None
    sticky: bool = False
    rate_limit: RateLimit | None = None
    timeouts: Timeouts = Timeouts()
    http: Http = Http()
    backup: AppBackup | None = None
    image_id: str | None = None
    stopped: bool = False
    nonce: int = 0

    @property
    def on_host(self) -> bool:
        """True when it has neither image nor build: its command runs on the host, under the process engine."""
        return self.image is None and self.build is None


# -- the server ------------------------------------------------------------------------------------


class EdgeLimits(Value, frozen=True, kw_only=True):
    header_bytes: int = 32 * 1024
    header_timeout: float = 10.0
    idle_timeout: float = 75.0
    tunnel_timeout: float = 3600.0
    """A WebSocket in which nothing moves for so long is closed."""
    body_bytes: int = 0
    """0: no limit."""
    connections: int = 10_000
    """All workers together."""


class Capture(Value, frozen=True, kw_only=True):
    headers: bool = True
    body_bytes: int = 0
    redact: tuple[str, ...] = ("authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key")
    redact_query: tuple[str, ...] = ("token", "code", "password")
    client_ip: Literal["full", "truncated", "none"] = "full"


class Edge(Value, frozen=True, kw_only=True):
    """``http`` and ``https`` are ``host:port`` or ``:port`` (both families); an empty string is off."""

    http: str = ":80"
    https: str = ":443"
    workers: int | None = None
    """None: one for each core, at most 4."""
    trusted_proxies: tuple[str, ...] = ()
    limits: EdgeLimits = EdgeLimits()
    capture: Capture = Capture()


class User(Value, frozen=True, kw_only=True):
    name: str
    password_hash: str
    role: Literal["viewer", "operator", "admin"] = "viewer"


class Admin(Value, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:8090"
    domain: str | None = None
    metrics_auth: bool | None = None
    """None (auto): required unless ``listen`` is loopback."""
    users: tuple[User, ...] = ()
    allowed_origins: tuple[str, ...] = ()


class Registry(Value, frozen=True, kw_only=True):
    username: str
    password: str


class Allow(Value, frozen=True, kw_only=True):
    host_paths: tuple[str, ...] = ()
    host_commands: bool = False
    capabilities: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


class Rotate(Value, frozen=True, kw_only=True):
    size: int = 50 * 1024 * 1024
    files: int = 3


class Retain(Value, frozen=True, kw_only=True):
    days: float = 7
    bytes: int = 1024**3


class Bucket(Value, frozen=True, kw_only=True):
    """A place in S3-compatible storage."""

    endpoint: str | None = None
    bucket: str
    region: str | None = None
    prefix: str = ""
    access_key: str | None = None
    secret_key: str | None = None


class Forward(Value, frozen=True, kw_only=True):
    """Where log records go besides: ``syslog`` (``tcp://host:514``, ``udp://…``, ``tls://…``; RFC 5424) or ``http`` (a URL
    that gets NDJSON by POST, with ``headers``)."""

    syslog: str | None = None
    http: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Logs(Value, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    rotate: Rotate = Rotate()
    retain: Retain = Retain()
    archive: Bucket | None = None
    forward: tuple[Forward, ...] = ()


class Requests(Value, frozen=True, kw_only=True):
    retain: Retain = Retain()
    export: str | None = None


class Thresholds(Value, frozen=True, kw_only=True):
    cpu: float = 90
    memory: float = 90
    disk: float = 90
    swap: float = 50


class Anomaly(Value, frozen=True, kw_only=True):
    sigma: float = 4
    window: float = 86_400.0


class Email(Value, frozen=True, kw_only=True):
    to: tuple[str, ...]
    sender: str
    smtp: str
    username: str | None = None
    password: str | None = None
    starttls: bool = True


class Alert(Value, frozen=True, kw_only=True):
    webhook: tuple[str, ...] = ()
    slack_webhook: str | None = None
    email: Email | None = None
    notify_on: tuple[str, ...] = (
        "crash",
        "oom",
        "healthcheck_failed",
        "failover",
        "high_cpu",
        "high_memory",
        "high_disk",
        "anomaly",
        "deploy",
        "error",
        "budget",
        "certificate",
        "job",
        "backup",
        "self",
        "port",
    )
    webhook_secret: str | None = None
    """``whsec_`` and the key in base64; None: one that was made here once."""
    apprise: tuple[str, ...] = ()


class Monitoring(Value, frozen=True, kw_only=True):
    interval: float = 5.0
    thresholds: Thresholds = Thresholds()
    anomaly: Anomaly = Anomaly()
    alert: Alert = Alert()


class Prices(Value, frozen=True, kw_only=True):
    ram_gib_hour: float = 0
    cpu_hour: float = 0
    egress_gib: float = 0
    million_requests: float = 0


class Usage(Value, frozen=True, kw_only=True):
    prices: Prices = Prices()
    caps: dict[str, float] = field(default_factory=dict)


class Ssl(Value, frozen=True, kw_only=True):
    enabled: bool | None = None
    """None (auto): on for public domains."""
    provider: Literal["letsencrypt", "custom"] = "letsencrypt"
    email: str | None = None
    directory: str | None = None
    redirect: bool = True
    cert: str | None = None
    key: str | None = None
    dns: dict[str, Any] | None = None


class Database(Value, frozen=True, kw_only=True):
    type: Literal["postgres", "mysql"] = "postgres"
    host: str = "localhost"
    port: int | None = None
    username: str | None = None
    password: str | None = None
    name: str
    migrate_on_deploy: bool | str | tuple[str, ...] = False
    """True: the framework's own migration, whichever it is; or the command."""


class BackupStorage(Value, frozen=True, kw_only=True):
    provider: Literal["s3", "local"] = "local"
    path: str | None = None
    s3: Bucket | None = None


class Backup(Value, frozen=True, kw_only=True):
    enabled: bool = False
    frequency: str = "daily"
    retention_days: int = 7
    storage: BackupStorage | None = None


class Webhook(Value, frozen=True, kw_only=True):
    """Each entry is a URL or an argv; never a shell string."""

    on_success: tuple[str | tuple[str, ...], ...] = ()
    on_failure: tuple[str | tuple[str, ...], ...] = ()


class Settings(Value, frozen=True, kw_only=True):
    """A whole file, effective for one environment."""

    version: str = "1.0"
    project: str
    environment: str = "dev"
    server: str | None = None
    state_dir: str | None = None
    engine: EngineChoice = "auto"
    edge: Edge = Edge()
    geoip_database: str | None = None
    admin: Admin = Admin()
    registries: dict[str, Registry] = field(default_factory=dict)
    allow: Allow = Allow()
    apps: dict[str, App] = field(default_factory=dict)
    logs: Logs = Logs()
    requests: Requests = Requests()
    monitoring: Monitoring = Monitoring()
    usage: Usage = Usage()
    ssl: Ssl = Ssl()
    database: Database | None = None
    backup: Backup = Backup()
    webhook: Webhook = Webhook()

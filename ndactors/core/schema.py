"""The schema of `nextdeploy.yml`, both roles. What a key means is in `docs/configuration.md`; a test holds the two
together."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, validates_schema
from marshmallow.validate import Length

from . import cron
from .fields import (
    Address,
    Block,
    Bool,
    Cidr,
    Command,
    Duration,
    Either,
    Env,
    Field,
    Int,
    ListOf,
    MapOf,
    Num,
    Of,
    RateOf,
    Size,
    Str,
    Word,
    plain,
)

NAME = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
NAME_HINT = "Not a valid name; use a-z, 0-9 and -, at most 40 characters."
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = rf"\*|(?:\*\.)?(?=.{{1,253}}$)(?:{LABEL}\.)*{LABEL}"
URL = r"https?://[^\s]+"
SIGNAL = r"(?:SIG)?[A-Z][A-Z0-9+-]{1,12}|\d{1,2}"
FIELDS = r"[0-9*,/-]+"
WORDS = r"[0-9A-Za-z*,/-]+"
CRON = rf"@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)|{FIELDS} +{FIELDS} +{FIELDS} +{WORDS} +{WORDS}"
SCHEDULE_HINT = "Not a valid schedule; write five fields, or @hourly, @daily, @weekly, @monthly, @deploy."
VOLUME = r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*|[^:\s/][^:/]*/[^:]*|/[^:]*):/[^:]*(?::(?:ro|rw))?"
NETWORK = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
CAPABILITY = r"(?:CAP_)?[A-Z_]{2,40}"
FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
FORWARDERS_OWN = frozenset(("connection", "content-length", "content-type", "host", "transfer-encoding"))
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
MAILBOX = rf"(?=[^@]{{1,64}}@.{{1,255}}$){ATOM}(?:\.{ATOM})*@{LABEL}(?:\.{LABEL})*"
SENDER = rf"[^@<>\x00-\x1f\x7f]{{0,200}}<{MAILBOX.replace('$', '>$')}>|{MAILBOX}"
MAILBOX_HINT = "Not a valid address; write it like ops@example.com (a domain of other letters as xn--…)."
STORE_NAME = r"[A-Za-z0-9_.-]+"
"""Of a secret in the store."""


class Status(Str):
    schema = {"type": ["string", "integer"]}

    def convert(self, value: Any) -> Any:
        value = plain(value)
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        low, dash, high = text.partition("-")
        if low.isdigit() and (high.isdigit() or not dash):
            bounds = int(low), int(high or low)
            if 100 <= bounds[0] <= bounds[1] <= 599:
                return bounds
        raise ValueError("Not a valid status; write it like 200 or 200-399.")

    def json_schema(self) -> dict[str, Any]:
        return dict(self.schema)


class Cron(Str):
    """A cron schedule that comes true some day; or one of ``besides``."""

    def __init__(self, hint: str, *besides: str, **kwargs: Any) -> None:
        super().__init__("|".join((*besides, CRON)), hint, **kwargs)
        self.besides = besides

    def convert(self, value: Any) -> Any:
        text = super().convert(value)
        if text not in self.besides:
            cron.parse(text)
        return text


class Target(Str):
    """A URL with a host, and a port from 1 to 65535 if it has one."""

    def __init__(self, schemes: str, hint: str, *, path: bool, **kwargs: Any) -> None:
        host = r"(?:[^\s/?#@\[\]:]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
        login, rest = (r"(?:[^\s/?#@]*@)?", r"(?:[/?][^\s#]*)?") if path else ("", "/?")
        super().__init__(f"(?:{schemes})://{login}{host}{rest}", hint, **kwargs)

    def convert(self, value: Any) -> Any:
        text = super().convert(value)
        try:
            good = urlsplit(text).port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(self.hint)
        return text


class SigningKey(Str):
    """Of Standard Webhooks: ``whsec_`` and 24 to 64 bytes in base64."""

    def __init__(self, **kwargs: Any) -> None:
        hint = "Not a valid key; write `whsec_` and 24 to 64 bytes in base64 (`openssl rand -base64 32` makes some)."
        super().__init__(r"(?:whsec_)?[A-Za-z0-9+/]{32,86}={0,2}", hint, **kwargs)

    def convert(self, value: Any) -> Any:
        text = super().convert(value)
        try:
            size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not 24 <= size <= 64:
            raise ValueError(self.hint)
        return text


class Zone(Str):
    def convert(self, value: Any) -> Any:
        text = super().convert(value)
        cron.zone(text)
        return text


class Receiver(Target):
    """Of messages, by HTTP."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("https?", "Not a valid URL; write it like https://host/path.", path=True, **kwargs)


class Hook(Command):
    """A URL, or an argv: no string is ever given to a shell."""

    schema = {
        "anyOf": [
            {"type": "string", "pattern": f"^(?:{URL})$"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ]
    }

    def convert(self, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(URL, value):
            raise ValueError("Not a valid URL; a command is a list of words: no shell runs.")
        return super().convert(value)


class Migration(Command):
    """True, false, or a command."""

    schema = {"anyOf": [{"type": "boolean"}, *Command.schema["anyOf"]]}

    def convert(self, value: Any) -> Any:
        value = plain(value)
        return value if isinstance(value, bool) else super().convert(value)


class PathText(Str):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(r"/[^\s?#]*", "Not a valid path; it starts with / and has no spaces.", **kwargs)


class OrAuto(Either):
    """The word ``auto``, or what ``long`` takes."""

    def __init__(self, long: Any, **kwargs: Any) -> None:
        super().__init__(long, lambda value: value, {"const": "auto"}, allow_none=True, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return None if value == "auto" else self.long.deserialize(value)


class Edge(Block):
    class Limits(Block):
        header_bytes = Size()
        header_timeout = Duration(above_zero=True)
        idle_timeout = Duration(above_zero=True)
        tunnel_timeout = Duration(above_zero=True)
        body_bytes = Size()
        connections = Int(1)

    class Capture(Block):
        headers = Bool()
        body_bytes = Size()
        redact = ListOf(Str())
        redact_query = ListOf(Str())
        client_ip = Word("full", "truncated", "none")

    http = Address(may_be_empty=True)
    https = Address(may_be_empty=True)
    workers = OrAuto(Int(1, 64))
    trusted_proxies = ListOf(Cidr())
    limits = Of(Limits)
    capture = Of(Capture)


class Admin(Block):
    class User(Block):
        name = Str(r"[A-Za-z0-9_.@-]{1,64}", "Not a valid user name.", required=True)
        password_hash = Str(
            r"(\$argon2|scrypt:|pbkdf2:).+",
            "Not a password hash; it starts with $argon2, scrypt: or pbkdf2:.",
            required=True,
        )
        role = Word("viewer", "operator", "admin")

    listen = Address()
    domain = Str(DOMAIN, "Not a valid domain.", allow_none=True)
    metrics_auth = OrAuto(Bool())
    users = ListOf(Of(User))
    allowed_origins = ListOf(Str())


class Registry(Block):
    username = Str(required=True)
    password = Str(required=True)


class Allow(Block):
    host_paths = ListOf(Str())
    host_commands = Bool()
    capabilities = ListOf(Str(CAPABILITY, "Not a capability."))
    networks = ListOf(Str(NETWORK, "Not a valid network name."))


class Build(Block):
    context = Str()
    dockerfile = Str(allow_none=True)
    args = Env()
    target = Str(allow_none=True)
    platform = Str(allow_none=True)
    secrets = ListOf(Str())


class Resources(Block):
    cpus = Num(0, above=True, allow_none=True)
    memory = Size(allow_none=True)
    pids = Int(1)


class Scale(Block):
    min = Int(0)
    max = Int(1)
    cpu = Num(0, 100, above=True, allow_none=True)
    memory = Num(0, 100, above=True, allow_none=True)
    rps = Num(0, above=True, allow_none=True)
    p95 = Duration(allow_none=True)
    up_after = Duration()
    down_after = Duration()
    idle_to_zero = Duration()


class Healthcheck(Block):
    path = PathText()
    host = Str(allow_none=True)
    tcp = Bool()
    command = Command(allow_none=True)
    interval = Duration(above_zero=True)
    timeout = Duration(above_zero=True)
    retries = Int(1, 100)
    restart_after = Duration()
    start_period = Duration()
    status = Status()


POLICIES = ("always", "unless-stopped", "on-failure", "no")


class Restart(Block):
    policy = Word(*POLICIES)
    max_restarts = Int(0)
    within = Duration(above_zero=True)
    backoff = Duration()
    backoff_max = Duration()


def _policy(value: Any) -> Any:
    if value is False:
        value = "no"
    if value not in POLICIES:
        raise ValueError(f"Must be one of: {', '.join(POLICIES)}.")
    return {"policy": value}


class Deploy(Block):
    class Canary(Block):
        steps = ListOf(Int(1, 100))
        hold = Duration()
        max_error_rate = Num(0, 100)
        max_p95_ratio = Num(0, above=True)

    strategy = Word("rolling", "canary", "recreate")
    timeout = Duration(above_zero=True)
    drain = Duration()
    keep = Int(1)
    skew = Duration()
    canary = Of(Canary)


class Mirror(Block):
    cooldown = Duration()
    sync = ListOf(PathText())
    every = Duration(above_zero=True)
    max_lag = Duration()


def _mirror(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("Not a valid mirror; write true, or a mapping.")
    return {} if value else {"off": True}


class RateLimit(Block):
    per_ip = RateOf(allow_none=True)
    per_app = RateOf(allow_none=True)
    burst = Int(0)


class Timeouts(Block):
    connect = Duration(above_zero=True)
    response = Duration(above_zero=True)


class Http(Block):
    redirects = MapOf(Str())
    headers = MapOf(Str(r"[^\r\n]*", "Must be one line."), FIELD_NAME, "Not a header name.")
    basic_auth = MapOf(Str())
    allow = ListOf(Cidr())
    error_pages = Str(allow_none=True)


class ProcessKeys(Block):
    """What a process has of its own or inherits from its app."""

    command = Command(allow_none=True)
    entrypoint = Command(allow_none=True)
    user = Str(allow_none=True)
    workdir = Str(allow_none=True)
    port = Int(1, 65535, allow_none=True)
    env = Env()
    env_file = Str(allow_none=True)
    secrets = ListOf(
        Str(rf"[A-Za-z_][A-Za-z0-9_]*(?::{STORE_NAME})?", "Not a valid secret; write NAME or NAME:STORE_NAME.")
    )
    volumes = ListOf(Str(VOLUME, "Not a valid volume; write name:/path, ./folder:/path or /folder:/path:ro."))
    networks = ListOf(Str(NETWORK, "Not a valid network name."))
    resources = Of(Resources)
    replicas = Int(0, 1000)
    scale = Of(Scale)
    healthcheck = Of(Healthcheck)
    restart = Either(Of(Restart), _policy, {"enum": list(POLICIES)})
    stop_grace = Duration()
    stop_signal = Str(SIGNAL, "Not a signal; write it like SIGTERM.")
    cap_add = ListOf(Str(CAPABILITY, "Not a capability."))
    cap_drop = ListOf(Str(CAPABILITY, "Not a capability."))


class Process(ProcessKeys):
    schedule = Cron(SCHEDULE_HINT, "@deploy", allow_none=True)
    timezone = Zone()
    timeout = Duration(above_zero=True, allow_none=True)


class AppBackup(Block):
    command = Command(required=True)
    schedule = Cron("Not a valid schedule; write five fields, or @hourly, @daily, @weekly, @monthly.")


def _build(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("Not a valid build; write a folder, or a mapping.")
    return {"context": value}


class App(ProcessKeys):
    image = Str(r"\S+", "Not a valid image name.", allow_none=True)
    build = Either(Of(Build), _build, {"type": "string"})
    processes = MapOf(Of(Process), NAME, NAME_HINT)
    domains = ListOf(Str(DOMAIN, "Not a valid domain; write it like shop.example.com, *.example.com or *."), alone=True)
    path = PathText()
    strip_path = Bool()
    deploy = Of(Deploy)
    mirror = Either(Of(Mirror), _mirror, {"type": "boolean"})
    sticky = Bool()
    rate_limit = Of(RateLimit)
    timeouts = Of(Timeouts)
    http = Of(Http)
    backup = Of(AppBackup)


class Retain(Block):
    days = Num(0, above=True)
    bytes = Size()


class Bucket(Block):
    endpoint = Str(allow_none=True)
    bucket = Str(required=True)
    region = Str(allow_none=True)
    prefix = Str()
    access_key = Str(allow_none=True)
    secret_key = Str(allow_none=True)


class Logs(Block):
    class Rotate(Block):
        size = Size()
        files = Int(1, 1000)

    class Archive(Block):
        class S3(Bucket):
            endpoint = Target("https?", "Not a valid URL; write it like https://host.", path=True, allow_none=True)
            bucket = Str(r"[^\s/]+", "Not a valid bucket name.", required=True)

        s3 = Of(S3)

    class Forward(Block):
        syslog = Target(
            "tcp|udp|tls",
            "Not a valid address; write it like tcp://host:514, udp://host:514 or tls://host:6514.",
            path=False,
            allow_none=True,
        )
        http = Target("https?", "Not a valid URL; write it like https://host/path.", path=True, allow_none=True)
        headers = MapOf(Str(r"[\x20-\x7e]*", "Must be printable ASCII."), FIELD_NAME, "Not a header name.")

        @validates_schema
        def _one_receiver(self, data: dict[str, Any], **_: Any) -> None:
            if bool(data.get("syslog")) == bool(data.get("http")):
                raise ValidationError("Give `syslog` or `http`, and one of them only.")
            if data.get("headers") and not data.get("http"):
                raise ValidationError({"headers": ["Headers are for `http`."]})
            own = [name for name in data.get("headers") or () if name.lower() in FORWARDERS_OWN]
            if own:
                raise ValidationError({"headers": {name: ["This field is set already."] for name in own}})

    level = Word("debug", "info", "warning", "error", "critical")
    rotate = Of(Rotate)
    retain = Of(Retain)
    archive = Of(Archive)
    forward = ListOf(Of(Forward))


class Requests(Block):
    retain = Of(Retain)
    export = Str(URL, "Not a valid URL.", allow_none=True)


KINDS = (
    *("crash", "oom", "healthcheck_failed", "failover", "high_cpu", "high_memory", "high_disk", "anomaly"),
    *("deploy", "error", "budget", "certificate", "job", "backup", "self", "port"),
)


class Monitoring(Block):
    class Thresholds(Block):
        cpu = Num(0, 100)
        memory = Num(0, 100)
        disk = Num(0, 100)
        swap = Num(0, 100)

    class Anomaly(Block):
        sigma = Num(0, above=True)
        window = Duration(above_zero=True, most="28d")

    class Alert(Block):
        class Email(Block):
            to = ListOf(Str(MAILBOX, MAILBOX_HINT), alone=True, required=True, validate=Length(1, 50))
            sender = Str(SENDER, MAILBOX_HINT, data_key="from", required=True)
            smtp = Address(required=True)
            username = Str(allow_none=True)
            password = Str(allow_none=True)
            starttls = Bool()

        webhook = ListOf(Receiver(), alone=True)
        webhook_secret = SigningKey(allow_none=True)
        slack_webhook = Receiver(allow_none=True)
        email = Of(Email)
        apprise = ListOf(Str(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", "Not a valid Apprise URL."), alone=True)
        notify_on = ListOf(Word(*KINDS))

    interval = Duration(above_zero=True, most="30s")
    thresholds = Of(Thresholds)
    anomaly = Of(Anomaly)
    alert = Of(Alert)


class Usage(Block):
    class Prices(Block):
        ram_gib_hour = Num()
        cpu_hour = Num()
        egress_gib = Num()
        million_requests = Num()

    prices = Of(Prices)
    caps = MapOf(Num())


class Ssl(Block):
    enabled = OrAuto(Bool())
    provider = Word("letsencrypt", "custom")
    email = Str(allow_none=True)
    directory = Str(URL, "Not a valid URL.", allow_none=True)
    redirect = Bool()
    cert = Str(allow_none=True)
    key = Str(allow_none=True)
    dns = MapOf(Str(), allow_none=True)


class Database(Block):
    type = Word("postgres", "mysql")
    host = Str()
    port = Int(1, 65535, allow_none=True)
    username = Str(allow_none=True)
    password = Str(allow_none=True)
    name = Str(required=True)
    migrate_on_deploy = Migration()


class Backup(Block):
    class Storage(Bucket):
        provider = Word("s3", "local")
        path = Str(allow_none=True)
        bucket = Str(allow_none=True)

    enabled = Bool()
    frequency = Cron(
        "Not a valid frequency; write daily, weekly or a schedule.", "hourly", "daily", "weekly", "monthly"
    )
    retention_days = Int(1)
    storage = Of(Storage)


class Webhook(Block):
    on_success = ListOf(Hook())
    on_failure = ListOf(Hook())


class Overlay(Field):
    """Any part of the file; merged before anything is checked."""

    schema = {"type": ["object", "null"]}

    def convert(self, value: Any) -> Any:
        return value


class Project(Block):
    """What a project's own file may hold."""

    version = Str(r"1(?:\.0)?", "Must be 1.0.")
    project = Str(NAME, NAME_HINT)
    server = Str(r"(?:ssh|https)://\S+", "Not a valid server; write ssh://user@host or https://host.", allow_none=True)
    apps = MapOf(Of(App), NAME, NAME_HINT)
    environments = MapOf(Overlay())


class Server(Project):
    """What the server's file may hold."""

    class Geoip(Block):
        database = Str(allow_none=True)

    state_dir = Str(allow_none=True)
    engine = Word("auto", "docker", "process", "swarm")
    edge = Of(Edge)
    geoip = Of(Geoip)
    admin = Of(Admin)
    registries = MapOf(Of(Registry))
    allow = Of(Allow)
    logs = Of(Logs)
    requests = Of(Requests)
    monitoring = Of(Monitoring)
    usage = Of(Usage)
    ssl = Of(Ssl)
    database = Of(Database)
    backup = Of(Backup)
    webhook = Of(Webhook)

"""From a checked tree to ``Settings``: defaults, inheritance, shorthands, and the rules that span several keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from marshmallow import ValidationError

from ..errors import ConfigurationError, Problem
from . import model, schema
from .database import with_database
from .environments import Document, Path
from .forwarding import name_of
from .redirects import compile_redirects
from .unbuilt import unbuilt_warnings

T = TypeVar("T")
Role = Literal["server", "project"]
SCHEMAS = {"server": schema.Server(), "project": schema.Project()}


@dataclass(frozen=True)
class Loaded:
    """``effective`` is the merged tree as written, for showing; ``warnings`` are lines for the user."""

    settings: model.Settings
    effective: dict[str, Any]
    warnings: tuple[str, ...]


def settings_of(
    document: Document,
    *,
    source: str,
    environment: str,
    role: Role,
    folder_name: str,
    env_files: Mapping[Path, Mapping[str, str]],
    warnings: tuple[Problem, ...] = (),
) -> Loaded:
    """``env_files``: what the `env_file` at each path held. ``ConfigurationError`` with everything that is wrong."""
    problems: list[Problem] = []
    try:
        tree = document.tree if role == "server" else _without_server_keys(document, problems)
        data = SCHEMAS[role].load(tree)
    except ValidationError as error:
        problems += [_located(document, path, words) for path, words in _flat(error.messages)]
        data = error.valid_data if isinstance(error.valid_data, dict) else {}
    problems += [document.problem(path, words) for path, words in _rules(data, document.tree)]
    if problems:
        raise ConfigurationError(source, problems)
    settings = _settings(data, environment, folder_name, env_files, document.templates)
    told = [*warnings, *unbuilt_warnings(document)]
    lines = ConfigurationError(source, told).lines()
    return Loaded(settings, document.tree, tuple(lines))


SERVER_KEYS = frozenset(SCHEMAS["server"].load_fields) - frozenset(SCHEMAS["project"].load_fields)


def _without_server_keys(document: Document, problems: list[Problem]) -> dict[str, Any]:
    words = "Only the server's own file may have this key."
    problems += [document.problem((key,), words, at_key=True) for key in document.tree if key in SERVER_KEYS]
    return {key: value for key, value in document.tree.items() if key not in SERVER_KEYS}


def _located(document: Document, path: Path, words: str) -> Problem:
    return document.problem(path, words, at_key=words.startswith("Unknown key"))


def _flat(messages: Any, path: Path = ()) -> list[tuple[Path, str]]:
    """marshmallow's nested messages as paths and sentences."""
    if isinstance(messages, dict):
        found = []
        for key, below in messages.items():
            found += _flat(below, path if key == "_schema" else (*path, key))
        return found
    return [(path, "A value is missing." if "Missing data" in str(words) else str(words)) for words in messages]


# -- rules that span keys --------------------------------------------------------------------------


def _rules(data: dict[str, Any], tree: Mapping[str, Any]) -> list[tuple[Path, str]]:
    wrong: list[tuple[Path, str]] = []
    places: dict[tuple[str, str], str] = {}
    for name, app in (data.get("apps") or {}).items():
        if not isinstance(app, dict):
            continue
        at: Path = ("apps", name)
        wrong += [((*at, *path), words) for path, words in _app_rules(app)]
        for index, domain in enumerate(app.get("domains") or []):
            place = (domain.lower(), (app.get("path") or "/").rstrip("/") or "/")
            other = places.setdefault(place, name)
            if other != name:
                wrong.append(((*at, "domains", index), f"`{domain}{place[1]}` is served by the app `{other}` already."))
    if (data.get("ssl") or {}).get("provider") == "custom":
        for key in ("cert", "key"):
            if not data["ssl"].get(key):
                wrong.append((("ssl",), f"The provider `custom` needs `{key}`."))
    wrong += [(("logs", *path), words) for path, words in _log_rules(data.get("logs") or {})]
    return wrong


def _log_rules(logs: dict[str, Any]) -> list[tuple[Path, str]]:
    wrong: list[tuple[Path, str]] = []
    bucket = (logs.get("archive") or {}).get("s3") or {}
    if bool(bucket.get("access_key")) != bool(bucket.get("secret_key")):
        wrong.append((("archive", "s3"), "Give `access_key` and `secret_key`, or neither."))
    outlets = [outlet for outlet in logs.get("forward") or [] if isinstance(outlet, dict)]
    names = [
        name_of(model.Forward(syslog=outlet.get("syslog"), http=outlet.get("http")))
        for outlet in outlets
        if outlet.get("syslog") or outlet.get("http")
    ]
    for name in sorted({name for name in names if names.count(name) > 1}):
        wrong.append((("forward",), f"`{name.split()[1]}` is there twice."))
    return wrong


def _app_rules(app: dict[str, Any]) -> list[tuple[Path, str]]:
    wrong: list[tuple[Path, str]] = []
    if app.get("image") and app.get("build"):
        wrong.append((("build",), "Give `image` or `build`, not both."))
    processes = app.get("processes") or {"web": {}}
    host_app = not app.get("image") and not app.get("build")
    for name, process in processes.items():
        at: Path = ("processes", name) if app.get("processes") else ()
        own = {
            **{k: v for k, v in app.items() if v is not None},
            **{k: v for k, v in (process or {}).items() if v is not None},
        }
        if host_app and not own.get("command"):
            wrong.append((at, "Give `image`, `build` or `command`: there is nothing to run."))
        replicas = own.get("replicas", 1) if name == "web" else (process or {}).get("replicas", 1)
        port = own.get("port") if name == "web" else (process or {}).get("port")
        if host_app and port and replicas > 1:
            wrong.append(
                ((*at, "port"), "On the host one port is for one replica; without `port` each gets a free one.")
            )
        check = own.get("healthcheck") or {}
        if check.get("tcp") and check.get("command"):
            wrong.append(((*at, "healthcheck"), "Give `tcp` or `command`, not both."))
        wrong += [((*at, *path), words) for path, words in _schedule_rules(name, process or {}, app)]
        scale = own.get("scale") or {}
        if scale and scale.get("min", 1) > scale.get("max", 5):
            wrong.append(((*at, "scale", "min"), "Must not be greater than `max`."))
    wrong += _http_rules(app.get("http") or {})
    stateful = bool(app.get("volumes")) and not app.get("domains")
    if stateful:
        if (app.get("replicas") or 1) > 1:
            wrong.append((("replicas",), "An app with volumes and no domain keeps state: it runs once."))
        if app.get("scale"):
            wrong.append((("scale",), "An app with volumes and no domain keeps state: it cannot scale."))
        if (app.get("deploy") or {}).get("strategy") == "canary":
            wrong.append((("deploy", "strategy"), "An app with volumes and no domain keeps state: no canary."))
    targets: dict[str, int] = {}
    for index, text in enumerate(app.get("volumes") or []):
        target = text.split(":")[1].rstrip("/")
        if target in targets:
            wrong.append((("volumes", index), f"`{target}` is mounted twice."))
        targets[target] = index
    for index, path in enumerate((app.get("mirror") or {}).get("sync") or []):
        if path.rstrip("/") in targets:
            wrong.append((("mirror", "sync", index), f"`{path}` is shared through `volumes`: it cannot be synced too."))
    return wrong


def _schedule_rules(name: str, process: dict[str, Any], app: dict[str, Any]) -> list[tuple[Path, str]]:
    if not process.get("schedule"):
        return [(("timezone",), "Give `schedule` too: it is for jobs.")] if process.get("timezone") else []
    wrong: list[tuple[Path, str]] = []
    if name == "web" and app.get("domains"):
        wrong.append((("schedule",), "The process `web` has the visitors of `domains`: it cannot be a job."))
    for key in ("replicas", "scale"):
        if process.get(key) not in (None, 1, {}):
            wrong.append(((key,), "A job runs once at a time: this is for processes without `schedule`."))
    return wrong


_FRAMING = frozenset(
    ("connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id")
)


def _http_rules(http: dict[str, Any]) -> list[tuple[Path, str]]:
    wrong: list[tuple[Path, str]] = []
    for source, target in (http.get("redirects") or {}).items():
        try:
            compile_redirects({source: target})
        except ValueError as error:
            wrong.append((("http", "redirects", source), f"{error}."))
    for name, value in (http.get("headers") or {}).items():
        if name.lower() in _FRAMING:
            wrong.append((("http", "headers", name), "This field belongs to the edge."))
        elif not value.isprintable() or not value.isascii():
            wrong.append((("http", "headers", name), "Must be printable ASCII."))
    for user, hash in (http.get("basic_auth") or {}).items():
        if ":" in user or not hash.startswith("$argon2"):
            wrong.append(
                (("http", "basic_auth", user), "Must be a user without a colon, and a hash that starts with $argon2.")
            )
    return wrong


# -- building --------------------------------------------------------------------------------------


def _struct(kind: type[T], data: Mapping[str, Any] | None, /, **more: Any) -> T:
    """A record of the model; what is not given keeps its default."""
    return msgspec.convert(_given({**(data or {}), **more}), kind)


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _given(below) for key, below in value.items() if below is not None}
    return [_given(item) for item in value] if isinstance(value, (list, tuple)) else value


def _settings(
    data: dict[str, Any],
    environment: str,
    folder_name: str,
    env_files: Mapping[Path, Mapping[str, str]],
    templates: Collection[Path],
) -> model.Settings:
    monitoring = dict(data.get("monitoring") or {})
    archive = ((data.get("logs") or {}).get("archive") or {}).get("s3")
    storage = (data.get("backup") or {}).get("storage")
    backup = dict(data.get("backup") or {})
    if storage:
        place = {k: v for k, v in storage.items() if k not in ("provider", "path")}
        backup["storage"] = {
            "provider": storage.get("provider", "local"),
            "path": storage.get("path"),
            "s3": place if place.get("bucket") else None,
        }
    apps = {
        name: _app(
            name,
            app or {},
            {p[2:]: v for p, v in env_files.items() if p[:2] == ("apps", name)},
            {p[2:] for p in templates if p[:2] == ("apps", name)},
        )
        for name, app in (data.get("apps") or {}).items()
    }
    project = data.get("project") or folder_name
    apps = {name: msgspec.structs.replace(app, project=project) for name, app in apps.items()}
    database = _struct(model.Database, data["database"]) if data.get("database") else None
    if database is not None:
        apps = with_database(apps, database)
    return model.Settings(
        project=project,
        environment=environment,
        server=data.get("server"),
        state_dir=data.get("state_dir"),
        engine=data.get("engine") or "auto",
        edge=_struct(model.Edge, data.get("edge")),
        geoip_database=(data.get("geoip") or {}).get("database"),
        admin=_struct(model.Admin, data.get("admin")),
        registries={name: _struct(model.Registry, row) for name, row in (data.get("registries") or {}).items()},
        allow=_struct(model.Allow, data.get("allow")),
        apps=apps,
        logs=_struct(model.Logs, data.get("logs"), archive=archive),
        requests=_struct(model.Requests, data.get("requests")),
        monitoring=_struct(model.Monitoring, monitoring),
        usage=_struct(model.Usage, data.get("usage")),
        ssl=_struct(model.Ssl, data.get("ssl")),
        database=database,
        backup=_struct(model.Backup, backup),
        webhook=_struct(model.Webhook, data.get("webhook")),
    )


_OWN = frozenset(schema.ProcessKeys().load_fields)


def _app(
    name: str, data: dict[str, Any], env_files: Mapping[Path, Mapping[str, str]], templates: Collection[Path]
) -> model.App:
    inherited = {key: value for key, value in data.items() if key in _OWN and value is not None}
    # these say how the app meets its visitors, so they are the web process's alone
    visitors = {key: inherited.pop(key) for key in ("healthcheck", "replicas", "scale", "port") if key in inherited}
    base_env = [(env_files.get(("env_file",), {}), None), (data.get("env") or {}, ("env",))]
    processes = {}
    for process, own in (data.get("processes") or {"web": {}}).items():
        own = {key: value for key, value in (own or {}).items() if value is not None}
        merged = {**inherited, **(visitors if process == "web" else {}), **own}
        at: Path = ("processes", process)
        own_env = [(env_files.get((*at, "env_file"), {}), None), (own.get("env") or {}, (*at, "env"))]
        merged["env"], merged["templates"] = _variables([*base_env, *own_env], templates)
        processes[process] = _process(
            process, merged, given_check="healthcheck" in merged, inner=not data.get("domains")
        )
    stateful = bool(data.get("volumes")) and not data.get("domains")
    deploy = dict(data.get("deploy") or {})
    deploy["strategy"] = deploy.get("strategy") or ("recreate" if stateful else "rolling")
    mirror = data.get("mirror")
    return model.App(
        name=name,
        image=data.get("image"),
        build=_struct(model.Build, data["build"]) if data.get("build") else None,
        domains=tuple(data.get("domains") or ()),
        path="/" + (data.get("path") or "/").strip("/"),
        strip_path=bool(data.get("strip_path")),
        processes=processes,
        deploy=_struct(model.Deploy, deploy),
        mirror=_struct(model.Mirror, mirror) if mirror is not None and "off" not in mirror else None,
        sticky=bool(data.get("sticky")),
        rate_limit=_struct(model.RateLimit, data["rate_limit"]) if data.get("rate_limit") else None,
        timeouts=_struct(model.Timeouts, data.get("timeouts")),
        http=_struct(model.Http, data.get("http")),
        backup=_struct(model.AppBackup, data["backup"], command=_argv(data["backup"]["command"]))
        if data.get("backup")
        else None,
    )


def _variables(
    layers: Iterable[tuple[Mapping[str, str], Path | None]], templates: Collection[Path]
) -> tuple[dict[str, str], dict[str, str]]:
    """Variables and templates, later layers first. With each layer goes the place that ``templates`` knows it by."""
    env: dict[str, str] = {}
    filled_in: dict[str, str] = {}
    for values, at in layers:
        for name, value in values.items():
            is_template = at is not None and (*at, name) in templates
            (env if is_template else filled_in).pop(name, None)
            (filled_in if is_template else env)[name] = value
    return env, filled_in


def _process(name: str, data: dict[str, Any], *, given_check: bool, inner: bool) -> model.Process:
    signal = str(data.get("stop_signal") or "SIGTERM")
    return _struct(
        model.Process,
        data,
        name=name,
        secrets=[_secret(text) for text in data.get("secrets") or ()],
        volumes=[_volume(text) for text in data.get("volumes") or ()],
        healthcheck=_healthcheck(name, data.get("healthcheck"), given=given_check, inner=inner),
        stop_signal=signal if signal.isdigit() or signal.startswith("SIG") else f"SIG{signal}",
    )


def _healthcheck(process: str, data: dict[str, Any] | None, *, given: bool, inner: bool) -> model.Healthcheck:
    if not given:
        if process != "web":
            return model.Healthcheck(kind="none")
        # any answer will do: only a process that reads and answers is alive. An inner service may speak anything
        return model.Healthcheck(kind="tcp") if inner else model.Healthcheck(status=(100, 599))
    data = dict(data or {})
    command, tcp = data.pop("command", None), data.pop("tcp", False)
    kind = "command" if command else "tcp" if tcp else "http"
    return _struct(model.Healthcheck, data, kind=kind, command=_argv(command) if command else ())


def _argv(command: str | tuple[str, ...]) -> tuple[str, ...]:
    return ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)


def _secret(text: str) -> model.SecretRef:
    name, _, store = text.partition(":")
    return model.SecretRef(name=name, store_name=store or name)


def _volume(text: str) -> model.Volume:
    source, target, *mode = text.split(":")
    return model.Volume(source=source, target=target, read_only=mode == ["ro"])

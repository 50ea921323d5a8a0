"""What kind of project a folder holds, from its files: and so which Dockerfile it gets. Nothing of it is run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_READ = 256 * 1024
NODE = "22"
PYTHON = "3.13"
SKIPPED = {"node_modules", "venv", ".venv", "env", "build", "dist", "tests", "test", "docs", "migrations"}


@dataclass(frozen=True)
class Detected:
    """``template`` is the Dockerfile's, ``values`` what is filled into it. ``processes`` are lines of the project file
    besides `web`. ``notes`` are for the user; ``ignore`` what the build need not see."""

    title: str
    template: str
    values: dict[str, str]
    ignore: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def detect(folder: Path) -> Detected | None:
    """None: it is not known what this is."""
    if (folder / "package.json").is_file():
        return _node(folder, _json(folder / "package.json"))
    python = ("requirements.txt", "pyproject.toml", "Pipfile", "setup.py", "manage.py")
    if any((folder / name).is_file() for name in python) or _entry(folder) is not None:
        return _python(folder)
    return _static(folder)


# -- Node ------------------------------------------------------------------------------------------

NODE_IGNORED = ("node_modules", ".next", "out", "dist", "coverage", "npm-debug.log*")


def _node(folder: Path, about: dict[str, Any]) -> Detected:
    needs = {**_mapping(about.get("dependencies")), **_mapping(about.get("devDependencies"))}
    scripts = {str(k): str(v) for k, v in _mapping(about.get("scripts")).items()}
    values = {"version": _node_version(folder, about), **_package_manager(folder, about)}
    run = values.pop("run")
    if "next" in needs:
        return _next(folder, scripts, values, run, keeps_all="next" not in _mapping(about.get("dependencies")))
    start = _start(folder, about, scripts)
    output = _output(needs) if start is None else None
    if output is not None and "build" in scripts:
        values |= {"title": "Static pages, built by Node.js", "build": f"{run} build", "output": output}
        values["fallback"] = "/index.html"
        return Detected(values["title"], "node-static", values, NODE_IGNORED)
    build = f"RUN {run} build\n" if "build" in scripts else ""
    notes = () if start else ("package.json has no `start` script: set CMD in the Dockerfile",)
    command = start or ["node", "index.js"]
    runtime = values["prepare"] if command[0] == "bun" else ""
    values |= {"title": "A Node.js app", "build": build, "runtime": runtime, "command": json.dumps(command)}
    return Detected("A Node.js app", "node", values, NODE_IGNORED, notes=notes)


def _next(folder: Path, scripts: dict[str, str], values: dict[str, str], run: str, *, keeps_all: bool) -> Detected:
    config = "".join(_text(path) for path in sorted(folder.glob("next.config.*"))[:2])
    kind = re.search(r"""output\s*:\s*['"](standalone|export)['"]""", config)
    build = f"{run} build" if "build" in scripts else "npx next build"
    values |= {"title": "A Next.js app", "build": build}
    if kind is not None and kind[1] == "export":
        values |= {"title": "Static pages, built by Next.js", "output": "out", "fallback": "/404.html"}
        return Detected(values["title"], "node-static", values, NODE_IGNORED)
    if kind is not None:
        return Detected("A Next.js app (standalone)", "next-standalone", values, NODE_IGNORED)
    if keeps_all or (folder / "next.config.ts").is_file():
        values["prune"] = ""  # what it starts with is among what only the build should need
    note = "with `output: 'standalone'` in next.config the image gets much smaller; then run init again"
    return Detected("A Next.js app", "next", values, NODE_IGNORED, notes=(note,))


def _package_manager(folder: Path, about: dict[str, Any]) -> dict[str, str]:
    """How packages are installed, which files that takes, and how scripts are run."""
    has = {path.name for path in folder.iterdir()}
    said = str(about.get("packageManager") or "").partition("@")[0]
    prepare = "RUN corepack enable\n"
    if "pnpm-lock.yaml" in has or said == "pnpm":
        lock = "pnpm-lock.yaml* pnpm-workspace.yaml* .npmrc*"
        install = "pnpm install" + (" --frozen-lockfile" if "pnpm-lock.yaml" in has else "")
        prune, run = "RUN CI=true pnpm prune --prod\n", "pnpm run"
    elif "yarn.lock" in has or said == "yarn":
        lock, run = "yarn.lock* .yarnrc*", "yarn run"
        prepare += "COPY .yarn ./.yarn\n" if ".yarn" in has else ""
        if ".yarnrc.yml" in has:
            install, prune = "yarn install --immutable", ""
        else:
            install = "yarn install" + (" --frozen-lockfile" if "yarn.lock" in has else "")
            prune = f"RUN {install} --production --ignore-scripts --prefer-offline\n"
    elif has & {"bun.lock", "bun.lockb"}:
        prepare, lock, run = "RUN npm install --global bun\n", "bun.lock* bunfig.toml*", "bun run"
        install = "bun install --frozen-lockfile"
        prune = f"RUN rm -rf node_modules && {install} --production\n"
    else:
        prepare, lock, run = "", "package-lock.json* npm-shrinkwrap.json* .npmrc*", "npm run"
        install = "npm ci" if has & {"package-lock.json", "npm-shrinkwrap.json"} else "npm install"
        prune = "RUN npm prune --omit=dev\n"
    return {"prepare": prepare, "manifests": f"package.json {lock}", "install": install, "prune": prune, "run": run}


def _node_version(folder: Path, about: dict[str, Any]) -> str:
    said = [_text(folder / name) for name in (".nvmrc", ".node-version")]
    said.append(str(_mapping(about.get("engines")).get("node") or ""))
    for text in said:
        found = re.search(r"(?<![\d.])v?(\d{2})(?:\.|\b)", text)
        if found is not None and 18 <= int(found[1]) <= 40:
            return found[1]
    return NODE


RUNNERS = ("npm", "npx", "pnpm", "yarn")
_PLAIN = re.compile(r"[\w./@-]+(?:\s+[\w./=@:,-]+)*")


def _start(folder: Path, about: dict[str, Any], scripts: dict[str, str]) -> list[str] | None:
    """Directly where that can be seen: then signals reach the app, not a runner of scripts."""
    text = scripts.get("start", "").strip()
    if text:
        words = text.split()
        return words if _PLAIN.fullmatch(text) and words[0] not in RUNNERS else ["npm", "run", "start"]
    for name in (about.get("main"), "server.js", "index.js", "app.js", "src/index.js"):
        if isinstance(name, str) and re.fullmatch(r"[\w./-]+", name) and (folder / name).is_file():
            return ["node", name]
    return None


def _output(needs: dict[str, Any]) -> str | None:
    """Where a bundler puts its pages."""
    for name, output in (("react-scripts", "build"), ("astro", "dist"), ("vite", "dist"), ("@vue/cli-service", "dist")):
        if name in needs:
            return output
    return None


# -- Python ----------------------------------------------------------------------------------------


def _python(folder: Path) -> Detected:
    needs = " ".join(_text(folder / name) for name in ("requirements.txt", "pyproject.toml", "Pipfile", "setup.py"))
    packages = set(re.findall(r"[a-z0-9][a-z0-9._-]*", needs.lower().replace("_", "-")))
    values = {"version": _python_version(folder), "after": ""}
    ignore = ("__pycache__", "*.pyc", ".venv", "venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", "*.sqlite3")
    if (folder / "manage.py").is_file():
        return _django(folder, packages, values, ignore)
    entry = _entry(folder)
    if entry is not None and entry.kind in ("fastapi", "asgi"):
        words = f"uvicorn {entry.app} --host 0.0.0.0 --port ${{PORT}}"
        values |= {"title": "A FastAPI app", "install": _install(folder, _lacking(packages, "uvicorn"))}
        values["command"] = _shell(words)
        return Detected("A FastAPI app", "python", values, ignore, _workers(packages, entry.app))
    if entry is not None and entry.kind in ("flask", "factory"):
        app = f"'{entry.app}'" if "(" in entry.app else entry.app
        words = f"gunicorn {app} --bind 0.0.0.0:${{PORT}} --workers 2 --threads 4"
        values |= {"title": "A Flask app", "install": _install(folder, _lacking(packages, "gunicorn"))}
        values["command"] = _shell(words)
        return Detected("A Flask app", "python", values, ignore, _workers(packages, entry.app))
    script = next((name for name in SCRIPTS if (folder / name).is_file()), None)
    values |= {"title": "A Python app", "install": _install(folder, [])}
    values["command"] = json.dumps(["python", script or "main.py"])
    notes = ["it has to listen on 0.0.0.0 and the port in $PORT"]
    notes += [] if script else ["there is no main.py: set CMD in the Dockerfile"]
    return Detected("A Python app", "python", values, ignore, notes=tuple(notes))


def _django(folder: Path, packages: set[str], values: dict[str, str], ignore: tuple[str, ...]) -> Detected:
    found = re.search(r"DJANGO_SETTINGS_MODULE['\"]\s*,\s*['\"]([\w.]+)", _text(folder / "manage.py"))
    settings = found[1] if found is not None else ""
    package = settings.partition(".")[0]
    wsgi = next((p for p in sorted(folder.glob("*/wsgi.py")) if package in ("", p.parent.name)), None)
    module = f"{wsgi.parent.name}.wsgi" if wsgi is not None else f"{package or 'config'}.wsgi"
    extra = _lacking(packages, "gunicorn")
    text = "".join(_text(path) for path in sorted(folder.glob(f"{package or '*'}/settings*"))[:4] if path.is_file())
    text += "".join(_text(path) for path in sorted(folder.glob(f"{package or '*'}/settings/*.py"))[:8])
    notes = ["ALLOWED_HOSTS must have the app's domains"]
    if re.search(r"^\s*STATIC_ROOT\s*=", text, re.MULTILINE):
        values["after"] = (
            "RUN SECRET_KEY=of-the-build DJANGO_SECRET_KEY=of-the-build python manage.py collectstatic --noinput\n"
        )
        if "whitenoise" not in packages:
            notes.append("nothing serves STATIC_ROOT yet: add whitenoise")
    words = f"gunicorn {module}:application --bind 0.0.0.0:${{PORT}} --workers 2 --threads 4"
    values |= {"title": "A Django app", "install": _install(folder, extra), "command": _shell(words)}
    release = 'release: {command: python manage.py migrate --noinput, schedule: "@deploy"}'
    return Detected(
        "A Django app", "python", values, ignore, (release, *_workers(packages, package)), notes=tuple(notes)
    )


@dataclass(frozen=True)
class Entry:
    """``app`` is ``module:variable``, or a factory's call."""

    kind: str
    app: str


SCRIPTS = ("main.py", "app.py", "server.py", "run.py", "bot.py", "worker.py")
_APPS = (
    ("fastapi", re.compile(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:fastapi\.)?FastAPI\(", re.MULTILINE)),
    ("asgi", re.compile(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:Starlette|Litestar)\(", re.MULTILINE)),
    ("flask", re.compile(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:flask\.)?Flask\(", re.MULTILINE)),
    ("factory", re.compile(r"^def (create_app|make_app)\(\s*[^)]*\)[^:]*:", re.MULTILINE)),
    ("flask", re.compile(r"^(\w+)\s*=\s*create_app\(", re.MULTILINE)),
)


def _entry(folder: Path) -> Entry | None:
    names = ("main.py", "app.py", "wsgi.py", "asgi.py", "server.py", "api.py", "application.py")
    places = [folder / name for name in names]
    packages = sorted(p for p in folder.glob("*/__init__.py") if p.parent.name not in SKIPPED)[:20]
    for package in [folder / "app", folder / "src", *(path.parent for path in packages)]:
        places += [package / name for name in (*names, "__init__.py")]
    for kind, pattern in _APPS:
        for place in dict.fromkeys(places):
            found = pattern.search(_text(place))
            if found is not None:
                parts = place.relative_to(folder).with_suffix("").parts
                module = ".".join(part for part in parts if part != "__init__")
                return Entry(kind, f"{module}:{found[1]}" + ("()" if kind == "factory" else ""))
    return None


def _install(folder: Path, extra: list[str]) -> str:
    """Dependencies before the code, so that a change of code does not install them again. Tools that install are kept
    out of what they install into."""
    has = {path.name for path in folder.iterdir()}
    more = f"RUN pip install {' '.join(extra)}\n" if extra else ""
    tool = "RUN /usr/local/bin/pip install"
    if "uv.lock" in has:
        sync = "UV_PROJECT_ENVIRONMENT=/venv uv sync --frozen --no-dev --no-install-project --inexact"
        return f"{tool} uv\nCOPY pyproject.toml uv.lock ./\nRUN {sync}\n{more}"
    if "poetry.lock" in has:
        sync = "poetry install --only main --no-root --no-interaction"
        return f"{tool} poetry\nCOPY pyproject.toml poetry.lock ./\nRUN {sync}\n{more}"
    if "requirements.txt" in has:
        return f"COPY requirements*.txt ./\nRUN pip install -r requirements.txt\n{more}"
    if "Pipfile.lock" in has:
        sync = "pipenv requirements > /tmp/requirements.txt && pip install -r /tmp/requirements.txt"
        return f"{tool} pipenv\nCOPY Pipfile Pipfile.lock ./\nRUN {sync}\n{more}"
    if has & {"pyproject.toml", "setup.py"}:
        return f"COPY . .\nRUN pip install .\n{more}"
    return more


def _lacking(packages: set[str], name: str) -> list[str]:
    return [] if name in packages else [name]


def _workers(packages: set[str], app: str) -> tuple[str, ...]:
    if "celery" not in packages:
        return ()
    return (f"worker: {{command: celery -A {app.partition(':')[0]} worker}}",)


def _python_version(folder: Path) -> str:
    said = [_text(folder / ".python-version"), _text(folder / "runtime.txt")]
    found = re.search(r"""requires-python\s*=\s*['"][^'"\d]*([\d.]+)""", _text(folder / "pyproject.toml"))
    for text in said:
        exact = re.search(r"\b3\.(\d{1,2})\b", text)
        if exact is not None:
            return f"3.{exact[1]}"
    least = re.fullmatch(r"3\.(\d{1,2})(?:\.\d+)?", found[1]) if found is not None else None
    return f"3.{least[1]}" if least is not None and int(least[1]) > int(PYTHON.partition(".")[2]) else PYTHON


def _shell(words: str) -> str:
    """A command in which $PORT means something; ``exec``, so that signals reach it."""
    return json.dumps(["sh", "-c", f"exec {words}"])


# -- static pages ----------------------------------------------------------------------------------


def _static(folder: Path) -> Detected | None:
    for name in ("", "public", "dist", "site", "_site", "build", "out"):
        if (folder / name / "index.html").is_file():
            fallback = "/404.html" if (folder / name / "404.html").is_file() else "=404"
            values = {"title": "Static pages", "folder": name or ".", "fallback": fallback}
            ignore = ("Dockerfile", ".dockerignore") if not name else ()
            return Detected("Static pages", "static", values, ignore)
    return None


# -- reading ---------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """The beginning of a file; nothing if it is none."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MAX_READ).decode("utf-8", "replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        return _mapping(json.loads(_text(path)))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

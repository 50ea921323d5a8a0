"""`nextdeploy init`: the right kind of project, and files that are fit to be deployed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ndactors.cli import project_file
from ndactors.cli.detecting import detect
from ndactors.cli.init import TEMPLATES, filled

FLASK = "import flask\napp = flask.Flask(__name__)\n"
DJANGO = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site1.settings')\n"
KINDS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    # files → what it is, what the Dockerfile must have
    "next": (
        {
            "package.json": '{"scripts": {"build": "next build"}, "dependencies": {"next": "15"}}',
            "package-lock.json": "{}",
        },
        "A Next.js app",
        ["RUN npm ci", "RUN npm run build", "npm prune --omit=dev", "next start -H 0.0.0.0 -p ${PORT}"],
    ),
    "next with TypeScript": (
        {"package.json": '{"dependencies": {"next": "15"}}', "next.config.ts": "export default {}"},
        "A Next.js app",
        ["RUN npm install", "RUN npx next build"],
    ),
    "next standalone": (
        {
            "package.json": '{"dependencies": {"next": "15"}}',
            "next.config.js": "module.exports = { output: 'standalone' }",
            "pnpm-lock.yaml": "",
        },
        "A Next.js app (standalone)",
        [
            "corepack enable",
            "pnpm install --frozen-lockfile",
            "HOSTNAME=0.0.0.0",
            ".next/standalone",
            '["node", "server.js"]',
        ],
    ),
    "next export": (
        {"package.json": '{"dependencies": {"next": "15"}}', "next.config.mjs": 'export default {output: "export"}'},
        "Static pages, built by Next.js",
        ["COPY --from=build /app/out", "listen ${PORT};"],
    ),
    "node": (
        {"package.json": '{"scripts": {"start": "node src/server.js --prod"}, "engines": {"node": ">=20"}}'},
        "A Node.js app",
        ["FROM node:20-slim", 'CMD ["node", "src/server.js", "--prod"]', "npm prune --omit=dev"],
    ),
    "node whose start is a shell line": (
        {"package.json": '{"scripts": {"start": "A=1 node x && y", "build": "tsc"}}', "yarn.lock": ""},
        "A Node.js app",
        ['CMD ["npm", "run", "start"]', "yarn install --frozen-lockfile", "RUN yarn run build"],
    ),
    "node without scripts": (
        {"package.json": "{}", "index.js": "", ".nvmrc": "v18.20"},
        "A Node.js app",
        ["FROM node:18-slim", 'CMD ["node", "index.js"]'],
    ),
    "yarn of today": (
        {
            "package.json": '{"main": "m.js"}',
            "m.js": "",
            "yarn.lock": "",
            ".yarnrc.yml": "",
            ".yarn/releases/y.cjs": "",
        },
        "A Node.js app",
        ["COPY .yarn ./.yarn", "yarn install --immutable"],
    ),
    "bun": (
        {"package.json": '{"scripts": {"start": "bun index.ts"}}', "bun.lock": ""},
        "A Node.js app",
        ["bun install --frozen-lockfile", 'CMD ["bun", "index.ts"]'],
    ),
    "vite": (
        {"package.json": '{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "6"}}'},
        "Static pages, built by Node.js",
        ["COPY --from=build /app/dist", "/index.html;"],
    ),
    "django": (
        {
            "manage.py": DJANGO,
            "site1/wsgi.py": "",
            "site1/settings.py": "STATIC_ROOT = 'x'\n",
            "requirements.txt": "Django==5.1\ncelery\n",
        },
        "A Django app",
        ["gunicorn site1.wsgi:application --bind 0.0.0.0:${PORT}", "RUN pip install gunicorn", "collectstatic"],
    ),
    "flask": (
        {"app.py": FLASK, "requirements.txt": "flask\ngunicorn\n"},
        "A Flask app",
        ["gunicorn app:app --bind 0.0.0.0:${PORT}", "pip install -r requirements.txt"],
    ),
    "flask factory": (
        {"shop/__init__.py": "def create_app(config=None):\n    pass\n", "pyproject.toml": "[project]\nname='shop'\n"},
        "A Flask app",
        ["gunicorn 'shop:create_app()'", "RUN pip install .", "RUN pip install gunicorn"],
    ),
    "fastapi": (
        {
            "app/main.py": "from fastapi import FastAPI\napi: FastAPI = FastAPI(title='x')\n",
            "uv.lock": "",
            "pyproject.toml": "",
        },
        "A FastAPI app",
        ["uvicorn app.main:api --host 0.0.0.0 --port ${PORT}", "uv sync --frozen"],
    ),
    "poetry": (
        {"main.py": "print()", "pyproject.toml": "[tool.poetry]\nrequires-python = '>=3.14'", "poetry.lock": ""},
        "A Python app",
        ["FROM python:3.14-slim", "poetry install --only main", 'CMD ["python", "main.py"]'],
    ),
    "python": (
        {"requirements.txt": "", "server.py": "", ".python-version": "3.12.4\n"},
        "A Python app",
        ["python:3.12-slim"],
    ),
    "static": ({"index.html": "hi"}, "Static pages", ["COPY . /usr/share/nginx/html", "listen ${PORT};", "=404;"]),
    "static below": (
        {"public/index.html": "", "public/404.html": ""},
        "Static pages",
        ["COPY public /usr", "/404.html;"],
    ),
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is_and_what_it_gets(kind, run, project):
    files, title, needed = KINDS[kind]
    write(project, files)
    done = run("init", "--domain", "shop.example.com")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{title}.\n")
    dockerfile = (project / "Dockerfile").read_text()
    for words in needed:
        assert words in dockerfile, dockerfile
    fit(dockerfile)
    settings = project_file.read(project / "nextdeploy.yml", "prod", {}).settings
    assert settings.project == "shop" and settings.apps["shop"].domains == ("shop.example.com",)
    assert settings.apps["shop"].build is not None
    ignored = (project / ".dockerignore").read_text().splitlines()
    assert ".env" in ignored
    checked = run("validate")
    assert checked.code == 0, checked.err


def fit(dockerfile: str) -> None:
    """No placeholder is left, every line is an instruction, the last stage runs as nobody special and says its port."""
    assert "{{" not in dockerfile
    joined = re.sub(r"\\\n\s*", " ", dockerfile)
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    words = ("FROM", "WORKDIR", "ENV", "RUN", "COPY", "USER", "EXPOSE", "CMD")
    assert all(line.split()[0] in words for line in lines), dockerfile
    last = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM")) :]
    user = next((line.split()[1] for line in last if line.startswith("USER")), None)
    assert user in ("node", "app") or "nginx-unprivileged" in last[0]
    assert "EXPOSE 8080" in last
    command = next((line.partition(" ")[2] for line in last if line.startswith("CMD")), None)
    if command is not None:
        argv = json.loads(command)
        assert argv and (argv[:2] != ["sh", "-c"] or argv[2].startswith("exec "))


def test_django_migrates_before_the_switch_and_has_its_worker(run, project):
    write(project, KINDS["django"][0])
    run("init")
    processes = project_file.read(project / "nextdeploy.yml", "dev", {}).settings.apps["shop"].processes
    assert processes["release"].schedule == "@deploy" and "migrate" in str(processes["release"].command)
    assert "celery" in str(processes["worker"].command) and "web" in processes


def test_what_is_there_stays(run, project):
    write(project, {"index.html": "", "Dockerfile": "FROM mine\n"})
    done = run("init")
    assert "kept Dockerfile" in done.out and "wrote nextdeploy.yml" in done.out
    assert (project / "Dockerfile").read_text() == "FROM mine\n"
    again = run("init", "--json")
    assert json.loads(again.out)["written"] == []
    run("init", "--force")
    assert (project / "Dockerfile").read_text() != "FROM mine\n"


def test_it_does_not_write_through_a_link(run, project, tmp_path):
    write(project, {"index.html": ""})
    (project / "nextdeploy.yml").symlink_to(tmp_path / "elsewhere")
    assert "kept nextdeploy.yml" in run("init").out
    assert not (tmp_path / "elsewhere").exists()


def test_a_dockerfile_of_ones_own_is_enough(run, project):
    write(project, {"Dockerfile": "FROM mine\n", "main.go": ""})
    done = run("init")
    assert done.code == 0 and (project / "nextdeploy.yml").exists()
    assert not (project / ".dockerignore").exists()


def test_nothing_known_is_said_so(run, project):
    done = run("init")
    assert done.code == 1 and "not clear what is in this folder" in done.err
    assert list(project.iterdir()) == []


def test_names(run, project, tmp_path):
    odd = tmp_path / "My Shop! (2)"
    write(odd, {"index.html": ""})
    assert run("init", str(odd)).code == 0
    assert list(project_file.read(odd / "nextdeploy.yml", "dev", {}).settings.apps) == ["my-shop-2"]
    assert run("init", "--name", "My Shop", str(odd)).code == 2
    assert run("init", "--domain", "no domain", str(odd)).code == 2
    assert run("init", "--domain", 'x"]\n    evil: ["', str(odd)).code == 2


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"scripts": 3, "dependencies": []}', "\x00", "[" * 50_000])
def test_a_package_json_that_is_none_stops_nobody(tmp_path, text):
    write(tmp_path, {"package.json": text})
    found = detect(tmp_path)
    assert found is not None and found.template == "node"


def test_every_template_is_used_and_complete(tmp_path):
    used = {"nextdeploy.yml", "dockerignore"}
    for number, (files, _, _) in enumerate(KINDS.values()):
        folder = tmp_path / str(number)
        write(folder, files)
        found = detect(folder)
        assert found is not None
        filled(f"Dockerfile.{found.template}", found.values)
        used.add(f"Dockerfile.{found.template}")
    assert used == {path.name for path in TEMPLATES.iterdir()}

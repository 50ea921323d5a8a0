"""`database:` becomes DATABASE_URL and a migration before each deploy."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.adapters.yaml_file import load, render
from ndactors.core.database import SCRIPT, database_url, with_database
from ndactors.core.model import App, Database, Process, SecretRef, Volume


def test_the_url():
    full = Database(host="db", username="ana", password="p", name="shop")
    assert database_url(full) == "postgresql://ana:p@db:5432/shop"
    assert database_url(Database(type="mysql", name="shop")) == "mysql://localhost:3306/shop"
    assert database_url(Database(host="::1", port=5, name="s")) == "postgresql://[::1]:5/s"
    assert database_url(Database(username="ana", name="s")) == "postgresql://ana@localhost:5432/s"


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(text, text, text)
def test_any_password_survives(user, password, name):
    url = urlsplit(database_url(Database(host="db.internal", username=user, password=password, name=name)))
    assert (unquote(url.username or ""), unquote(url.password or "")) == (user, password)
    assert (url.hostname, url.port, unquote(url.path[1:])) == ("db.internal", 5432, name)
    assert not url.query
    assert not url.fragment


def app(**fields) -> App:
    processes = fields.pop("processes", None) or {"web": Process(name="web", **fields.pop("process", {}))}
    return App(**{"name": "shop", "image": "shop:1", "domains": ("shop.test",), "processes": processes, **fields})


def made(app: App, migrate: object = False) -> App:
    return with_database({"shop": app}, Database(name="d", migrate_on_deploy=migrate))["shop"]  # type: ignore[arg-type]


URL = "postgresql://localhost:5432/d"


def test_every_process_gets_it_but_those_that_set_it_themselves():
    mine = {
        "web": Process(name="web", env={"A": "1"}),
        "own": Process(name="own", env={"DATABASE_URL": ""}),
        "secret": Process(name="secret", secrets=(SecretRef(name="DATABASE_URL", store_name="X"),)),
        "template": Process(name="template", templates={"DATABASE_URL": "x://${P}"}),
    }
    found = made(app(processes=mine)).processes
    assert found["web"].env == {"DATABASE_URL": URL, "A": "1"}
    assert [found[name] for name in ("own", "secret", "template")] == [mine["own"], mine["secret"], mine["template"]]


def test_the_migration_is_set_up_like_the_web_process():
    web = {"env": {"A": "1"}, "user": "app", "workdir": "/srv", "port": 80, "replicas": 3, "stop_grace": 5.0}
    migrate = made(app(process=web), ["alembic", "upgrade", "head"]).processes["migrate"]
    assert migrate.schedule == "@deploy"
    assert migrate.command == ["alembic", "upgrade", "head"]
    assert (migrate.env, migrate.user, migrate.workdir) == ({"DATABASE_URL": URL, "A": "1"}, "app", "/srv")
    assert (migrate.port, migrate.replicas, migrate.scale, migrate.healthcheck.kind) == (None, 1, None, "none")


def test_the_script_runs_in_place_of_the_images_entrypoint():
    migrate = made(app(process={"command": "gunicorn x", "entrypoint": "/entry"}), True).processes["migrate"]
    assert migrate.entrypoint == ("/bin/sh", "-c", SCRIPT)
    assert migrate.command is None


@pytest.mark.parametrize(
    "fields",
    [
        {"image": None},
        {"process": {"env": {"DATABASE_URL": "x"}}},
        {"process": {"volumes": (Volume(source="data", target="/data"),)}, "domains": ()},
    ],
    ids=["on the host", "its own database", "keeps state"],
)
def test_apps_without_a_migration(fields):
    assert "migrate" not in made(app(**fields), True).processes


def test_a_process_of_that_name_stays_as_it_is():
    own = {"web": Process(name="web"), "migrate": Process(name="migrate", command="x", schedule="@deploy")}
    assert made(app(processes=own), True).processes["migrate"].command == "x"


# -- in files --------------------------------------------------------------------------------------


def test_in_a_file_and_masked_when_shown(tmp_path: Path):
    path = tmp_path / "nextdeploy.yml"
    path.write_text(
        "database: {host: db, username: u, password: 'p@:s3cret', name: n, migrate_on_deploy: true}\n"
        "apps: {a: {image: x}, b: {command: y, env: {DATABASE_URL: 'other://'}}}\n"
    )
    loaded = load(path, environment="dev", variables={})
    apps = loaded.settings.apps
    assert apps["a"].processes["web"].env["DATABASE_URL"] == "postgresql://u:p%40%3As3cret@db:5432/n"
    assert list(apps["a"].processes) == ["web", "migrate"]
    assert apps["b"].processes["web"].env["DATABASE_URL"] == "other://"
    assert "s3cret" not in render(loaded)
    assert not any("database" in line for line in loaded.warnings)


def test_a_project_file_cannot_have_one(tmp_path: Path):
    path = tmp_path / "nextdeploy.yml"
    path.write_text("apps: {a: {image: x}}\n")
    loaded = load(path, environment="dev", variables={}, role="project")
    assert "DATABASE_URL" not in loaded.settings.apps["a"].processes["web"].env


# -- the script ------------------------------------------------------------------------------------

TOOLS = ("python3", "alembic", "npx", "ruby", "php", "npm")
SHELLS = [shell for shell in (["/bin/sh"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]


def run(folder: Path, shell: list[str], tools: tuple[str, ...] = TOOLS) -> subprocess.CompletedProcess[str]:
    """In ``folder``, where every tool of a framework only says how it was called."""
    bin = folder / "path"
    bin.mkdir(exist_ok=True)
    for tool in tools:
        (bin / tool).write_text(f'#!/bin/sh\necho "{tool} $*"\n')
        (bin / tool).chmod(0o755)
    program = shutil.which(shell[0])
    assert program is not None
    node = shutil.which("node")
    if node is not None and not (bin / "node").exists():
        os.symlink(node, bin / "node")
    return subprocess.run(
        [program, *shell[1:], "-c", SCRIPT], cwd=folder, env={"PATH": str(bin)}, capture_output=True, text=True
    )


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["manage.py"], "python3 manage.py migrate --noinput"),
        (["alembic.ini"], "alembic upgrade head"),
        (["prisma/schema.prisma"], "npx --no-install prisma migrate deploy"),
        (["bin/rails"], "ruby bin/rails db:migrate"),
        (["artisan"], "php artisan migrate --force"),
        (["manage.py", "alembic.ini"], "python3 manage.py migrate --noinput"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_it_finds_the_framework(tmp_path, shell, files, command):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    done = run(tmp_path, shell)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, command, "")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_it_says_when_there_is_none(tmp_path, shell):
    done = run(tmp_path, shell)
    assert done.returncode == 1
    assert done.stderr.startswith("migrate_on_deploy: no manage.py")
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_its_failure_is_the_migrations(tmp_path):
    (tmp_path / "manage.py").write_text("")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "python").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "path" / "python").chmod(0o755)
    assert run(tmp_path, ["/bin/sh"], tools=()).returncode == 7, "python, where there is no python3"


@pytest.mark.parametrize("scripts", [True, False])
def test_it_looks_into_package_json(tmp_path, scripts):
    """A stand-in for node evaluates the very expression by grep, where there is no node."""
    (tmp_path / "package.json").write_text('{"scripts": {"migrate": "x"}}' if scripts else '{"name": "migrate"}')
    (tmp_path / "path").mkdir()
    if shutil.which("node") is None:
        (tmp_path / "path" / "node").write_text(
            '#!/bin/sh\nread -r line < package.json\ncase "$line" in *\'"migrate":\'*) exit 0;; *) exit 1;; esac\n'
        )
        (tmp_path / "path" / "node").chmod(0o755)
    done = run(tmp_path, ["/bin/sh"])
    assert (done.returncode, done.stdout) == ((0, "npm run migrate\n") if scripts else (1, ""))

"""The `database:` block: what it means for the apps of the server's own file. The address is a secret: it has the password
in it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from msgspec.structs import replace

from .model import App, Database, Healthcheck, Process

VARIABLE = "DATABASE_URL"
MIGRATION = "migrate"
"""The name of the process that `migrate_on_deploy` adds."""
DEPLOY = "@deploy"
SCHEMES = {"postgres": ("postgresql", 5432), "mysql": ("mysql", 3306)}

SCRIPT = """\
set -eu
python() {
  if command -v python3 >/dev/null 2>&1; then exec python3 "$@"; else exec python "$@"; fi
}
if [ -f manage.py ]; then python manage.py migrate --noinput; fi
if [ -f alembic.ini ]; then
  if command -v alembic >/dev/null 2>&1; then exec alembic upgrade head; else python -m alembic upgrade head; fi
fi
if [ -f prisma/schema.prisma ]; then
  if [ -x node_modules/.bin/prisma ]; then exec node_modules/.bin/prisma migrate deploy; fi
  exec npx --no-install prisma migrate deploy
fi
if [ -f bin/rails ]; then exec ruby bin/rails db:migrate; fi
if [ -f artisan ]; then exec php artisan migrate --force; fi
if [ -f package.json ] && command -v node >/dev/null 2>&1; then
  script='process.exit((require("./package.json").scripts || {}).migrate ? 0 : 1)'
  if node -e "$script"; then exec npm run migrate; fi
fi
echo "migrate_on_deploy: no manage.py, alembic.ini, prisma/schema.prisma, bin/rails, artisan or package.json with a" \\
  "script 'migrate' in $(pwd); write the command in its place" >&2
exit 1
"""
"""POSIX sh: runs the migration of the framework it finds in the working folder, else fails and says so."""


def database_url(database: Database) -> str:
    """``postgresql://user:password@host:port/name``, whatever characters are in its parts."""
    scheme, port = SCHEMES[database.type]
    host = f"[{database.host}]" if ":" in database.host else quote(database.host, safe="")
    user = quote(database.username, safe="") if database.username else ""
    password = f":{quote(database.password, safe='')}" if database.password else ""
    who = f"{user}{password}@" if user or password else ""
    return f"{scheme}://{who}{host}:{database.port or port}/{quote(database.name, safe='')}"


def with_database(apps: Mapping[str, App], database: Database) -> dict[str, App]:
    """``apps`` with the variable in every process that does not set one itself, and with the migration in every app that
    uses it, has an image, and keeps no state of its own (it may be the database)."""
    return {name: _migrated(app, _connected(app, database_url(database)), database) for name, app in apps.items()}


def _connected(app: App, url: str) -> App:
    processes = {
        name: process if _has_own(process) else replace(process, env={VARIABLE: url, **process.env})
        for name, process in app.processes.items()
    }
    return replace(app, processes=processes)


def _has_own(process: Process) -> bool:
    return (
        VARIABLE in process.env
        or VARIABLE in process.templates
        or any(secret.name == VARIABLE for secret in process.secrets)
    )


def _migrated(before: App, app: App, database: Database) -> App:
    command = database.migrate_on_deploy
    base = before.processes.get("web") or next(iter(before.processes.values()))
    stateful = bool(base.volumes) and not app.domains
    if not command or app.on_host or _has_own(base) or stateful or MIGRATION in app.processes:
        return app
    how: dict[str, object] = {"command": command}
    if command is True:
        # an image's own entrypoint may be the app itself, which would start and never end
        how = {"entrypoint": ("/bin/sh", "-c", SCRIPT), "command": None}
    process = replace(
        app.processes[base.name],
        name=MIGRATION,
        schedule=DEPLOY,
        healthcheck=Healthcheck(kind="none"),
        port=None,
        replicas=1,
        scale=None,
        **how,
    )
    return replace(app, processes={**app.processes, MIGRATION: process})

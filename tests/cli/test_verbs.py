"""Every verb against a server that answers like the API: what it asks, what it shows, how it ends."""

from __future__ import annotations

import json
import os
import re
import stat

import pytest
from double import problem

ENDED = {"state": "succeeded", "steps": [], "log": "", "revisions": {"shop": 8}}


@pytest.fixture
def accepts(double, local):
    """Everything that changes an app is operation ``op1``, which succeeds at once."""
    for verb in ("rollback", "scale", "restart", "stop", "start", "run"):
        double.on(f"POST /api/v1/apps/*/{verb}", {"operation": "op1"}, 202)
    double.on("PATCH /api/v1/apps/*/env", {"operation": "op1"}, 202)
    double.on("PUT /api/v1/apps/*/secrets/*", {"operation": "op1"}, 202)
    double.on("DELETE /api/v1/apps/*/secrets/*", {"operation": None}, 202)
    double.operation("op1", ENDED)
    return double


@pytest.mark.parametrize(
    ("words", "asked", "body"),
    [
        (["rollback", "shop"], "POST /api/v1/apps/shop/rollback", {"steps": 1}),
        (["rollback", "shop", "--steps", "3"], "POST /api/v1/apps/shop/rollback", {"steps": 3}),
        (["rollback", "shop", "--to", "12"], "POST /api/v1/apps/shop/rollback", {"to": 12}),
        (["scale", "shop", "3"], "POST /api/v1/apps/shop/scale", {"process": "web", "replicas": 3}),
        (["scale", "shop", "worker=0"], "POST /api/v1/apps/shop/scale", {"process": "worker", "replicas": 0}),
        (["restart", "shop"], "POST /api/v1/apps/shop/restart", {}),
        (["stop", "shop"], "POST /api/v1/apps/shop/stop", {}),
        (["start", "shop"], "POST /api/v1/apps/shop/start", {}),
        (["env", "shop", "set", "A=1", "B=x=y", "C="], "PATCH /api/v1/apps/shop/env", {"set": {"A": "1", "B": "x=y", "C": ""}}),
        (["env", "shop", "unset", "A", "B"], "PATCH /api/v1/apps/shop/env", {"unset": ["A", "B"]}),
        (["env", "shop", "set", "A=1", "--process", "worker"], "PATCH /api/v1/apps/shop/env", {"process": "worker", "set": {"A": "1"}}),
        (["secrets", "shop", "unset", "KEY"], "DELETE /api/v1/apps/shop/secrets/KEY", None),
    ],
)  # fmt: skip
def test_changes_are_asked_for_and_followed(accepts, run, words, asked, body):
    done = run(*words)
    assert done.code == 0, done.err
    assert accepts.calls(asked) == [body]
    if body is not None:
        assert "shop is at revision 8" in done.out
    as_json = run(*words, "--json")
    assert as_json.code == 0 and isinstance(json.loads(as_json.out), dict)
    assert run(*words, "--detach").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["rollback"],
        ["rollback", "shop", "--to", "1", "--steps", "1"],
        ["rollback", "shop", "--steps", "0"],
        ["scale", "shop"],
        ["scale", "shop", "many"],
        ["scale", "shop", "-1"],
        ["scale", "shop", "99999"],
        ["env", "shop", "set"],
        ["env", "shop", "set", "A"],
        ["env", "shop", "set", "1A=b"],
        ["env", "shop", "change", "A=b"],
        ["env", "shop", "list", "A"],
        ["secrets", "shop", "set"],
        ["secrets", "shop", "set", "KEY=value"],
        ["config", "rollback"],
        ["config", "show", "3"],
        ["config", "set"],
        ["token", "create"],
        ["token", "revoke"],
        ["operations", "--follow"],
        ["operations", "--limit", "0"],
        ["run", "shop"],
        ["deploy", "--build", "elsewhere"],
        ["nonsense"],
        ["--nonsense"],
        [],
    ],
)
def test_wrong_usage_is_2_and_asks_nobody(accepts, run, words):
    done = run(*words)
    assert done.code == 2
    assert "Traceback" not in done.err and (done.err or not words)
    assert accepts.asked == []


def test_a_typing_mistake_in_a_verb_is_understood(run):
    assert "did you mean `rollback`?" in run("rolback").err


# -- status and ps ---------------------------------------------------------------------------------

CONTAINER = {
    "name": "nd-shop-web-7-1",
    "app": "shop",
    "process": "web",
    "state": "running",
    "health": "healthy",
    "restarts": 1,
    "uptime": 7321.0,
    "cpu": 3.4,
    "memory": 64 * 1024**2,
    "reason": "",
}
APP = {
    "name": "shop",
    "project": "acme",
    "state": "degraded",
    "reason": "nd-shop-worker-7-1: exited 1",
    "revision": 7,
    "image": "shop:7",
    "routes": ["shop.example.com"],
    "processes": [
        {"name": "web", "desired": 2, "running": 2, "routed": 2},
        {"name": "worker", "desired": 1, "running": 0, "routed": 0},
    ],
    "containers": [CONTAINER],
}
STATUS = {
    "version": "1.2",
    "env": "prod",
    "uptime": 90061.0,
    "engine": {"name": "docker", "version": "20.10", "reachable": True},
    "edge": {"http": ["[::]:80"]},
    "host": {"cpu_percent": 12.4, "memory_used": 1024**3, "memory_total": 4 * 1024**3},
}


def test_status(double, local, run):
    double.on("GET /api/v1/status", STATUS)
    double.on("GET /api/v1/apps", {"items": [APP], "next": None})
    done = run("status")
    assert done.code == 0
    assert done.out.split("\n", 1)[1] == (
        "nextdeploy 1.2, prod, up 1 d 1 h\n"
        "engine  docker 20.10\n"
        "edge    [::]:80\n"
        "host    cpu 12 %, memory 1.0 GiB of 4.0 GiB\n"
        "\n"
        "APP   STATE     REVISION  RUNNING             SERVES            WHY\n"
        "shop  degraded  7         web 2/2 worker 0/1  shop.example.com  nd-shop-worker-7-1: exited 1\n"
    )
    assert json.loads(run("status", "--json").out) == STATUS


def test_status_of_one_app(double, local, run):
    double.on("GET /api/v1/apps/shop", APP)
    assert run("status", "shop").out == (
        "shop: degraded (nd-shop-worker-7-1: exited 1)\n"
        "project   acme\n"
        "revision  7\n"
        "image     shop:7\n"
        "serves    shop.example.com\n"
        "\n"
        "CONTAINER        PROCESS   STATE    HEALTH   RESTARTS  UP        CPU  MEMORY  WHY\n"
        "nd-shop-web-7-1  shop/web  running  healthy  1         2 h 2 min  3 %  64 MiB  –\n"
    ).replace("UP        CPU", "UP         CPU")
    double.on("GET /api/v1/apps/gone", problem(404, "There is no app called gone."), 404)
    gone = run("status", "gone")
    assert gone.code == 1 and gone.err == "nextdeploy: There is no app called gone.\n"


def test_ps(double, local, run):
    double.on("GET /api/v1/containers?", {"items": [CONTAINER], "next": None})
    assert "nd-shop-web-7-1" in run("ps", "shop").out
    assert double.asked[-1][1] == "/api/v1/containers?app=shop"
    assert json.loads(run("ps", "--json").out)["items"] == [CONTAINER]


def test_what_the_server_says_cannot_steer_the_terminal(double, local, run):
    double.on("GET /api/v1/apps/shop", {**APP, "reason": "\x1b[2Jboo\x07", "containers": []})
    out = run("status", "shop").out
    assert "\x1b" not in out and "\x07" not in out and "boo" in out


# -- plan ------------------------------------------------------------------------------------------

PLAN = {
    "project": "acme",
    "apps": [
        {
            "app": "shop",
            "action": "change",
            "changes": [
                {"path": "processes.web.env.LEVEL", "before": "info", "after": "debug"},
                {"path": "domains", "before": None, "after": ["a.example.com"]},
            ],
            "drift": [{"path": "processes.web.replicas", "before": 2, "after": 5}],
        },
        {"app": "blog", "action": "create", "changes": [], "drift": []},
        {"app": "old", "action": "remove", "changes": [], "drift": []},
        {"app": "same", "action": "none", "changes": [], "drift": []},
    ],
    "missing_blobs": 3,
    "missing_bytes": 4096,
    "warnings": [],
}


def test_plan_of_a_project_sends_no_files(double, local, run, project):
    (project / "nextdeploy.yml").write_text("project: acme\napps: {shop: {image: a, env_file: .env}}\n")
    (project / ".env").write_text("A=1\n")
    double.on("POST /api/v1/projects/acme/plan", PLAN)
    done = run("plan", "--prune")
    assert done.code == 0, done.err
    assert done.out == (
        "~ shop: changes\n"
        "    processes.web.env.LEVEL: info → debug\n"
        '    domains: – → ["a.example.com"]\n'
        "    changed live:\n"
        "      processes.web.replicas: 2 → 5\n"
        "+ blog: new\n"
        "- old: goes\n"
        "  same: as it is\n"
        "to send: 3 files, 4.0 KiB\n"
    )
    assert double.received == 0
    body = double.calls("POST .*")[0]
    assert body["prune"] is True and [file["path"] for file in body["bundle"]["files"]] == [".env"]
    assert run("plan", "--exit-code").code == 1
    assert run("plan", "same", "--exit-code").code == 0
    assert json.loads(run("plan", "--json").out) == PLAN


def test_drift_needs_no_project(double, local, run):
    double.on("GET /api/v1/plan?", {"items": [PLAN["apps"][0]], "next": None})
    assert "processes.web.replicas: 2 → 5" in run("plan").out
    assert run("plan", "shop", "--drift", "--exit-code").code == 1
    assert double.asked[-1][1] == "/api/v1/plan?app=shop"


# -- run -------------------------------------------------------------------------------------------


def test_run_prints_the_output_as_it_is_and_ends_with_its_code(accepts, run):
    log = "one\ntwo \x1b[31mred\x1b[0m\nno newline"
    accepts.operation("op1", {"log": "one\n"}, {"log": log[:9]}, {"state": "failed", "log": log, "exit_code": 7})
    done = run("run", "shop", "--process", "worker", "--timeout", "60", "--", "sh", "-c", "exit 7")
    assert (done.code, done.out, done.err) == (7, log, "")
    body = {"command": ["sh", "-c", "exit 7"], "process": "worker", "timeout": 60.0}
    assert accepts.calls("POST /api/v1/apps/shop/run") == [body]


def test_a_run_that_never_began_says_why(accepts, run):
    accepts.operation("op1", {"state": "failed", "reason": "no such process"})
    done = run("run", "shop", "--", "true")
    assert done.code == 1 and done.err == "nextdeploy: the command failed: no such process\n"
    accepts.operation("op1", {"state": "succeeded", "exit_code": 0, "log": "x"})
    assert json.loads(run("run", "shop", "--json", "--", "true").out)["exit_code"] == 0


# -- env, secrets ----------------------------------------------------------------------------------


def test_env_list(double, local, run):
    rows = [
        {"name": "LEVEL", "value": "info", "process": "web", "source": "file"},
        {"name": "KEY", "value": "********", "process": "worker", "source": "secret"},
    ]
    double.on("GET /api/v1/apps/shop/env", {"items": rows, "next": None})
    assert run("env", "shop").out == (
        "NAME   VALUE     PROCESS  FROM\nLEVEL  info      web      file\nKEY    ********  worker   secret\n"
    )
    assert "LEVEL" not in run("env", "shop", "--process", "worker").out
    assert json.loads(run("env", "shop", "list", "--json").out)["items"] == rows


@pytest.mark.parametrize(
    ("given", "value"), [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("a\nb\n\n", "a\nb\n"), ("x\r\n", "x")]
)
def test_a_secret_comes_from_stdin(accepts, run, given, value):
    done = run("secrets", "shop", "set", "KEY", input=given)
    assert done.code == 0, done.err
    assert accepts.calls("PUT /api/v1/apps/shop/secrets/KEY") == [{"value": value}]
    assert "s3cret" not in done.out + done.err


def test_no_secret_is_no_secret(accepts, run):
    assert run("secrets", "shop", "set", "KEY").code == 2
    assert accepts.asked == []


def test_a_secret_is_asked_for_on_a_terminal_and_not_shown(accepts, terminal):
    term = terminal("secrets", "shop", "set", "KEY", "--detach")
    term.read_until("KEY (it is not shown): ")
    term.write("hunter2\n")
    term.read_until("Repeat for confirmation: ")
    term.write("hunter2\n")
    assert "hunter2" not in term.rest()
    assert term.process.returncode == 0
    assert accepts.calls("PUT .*") == [{"value": "hunter2"}]


def test_secrets_list(double, local, run):
    double.on(
        "GET /api/v1/apps/shop/secrets", {"items": [{"name": "KEY", "set_at": "2026-01-01T00:00:00Z"}], "next": None}
    )
    assert re.fullmatch(r"NAME  SET\nKEY   .* ago\n", run("secrets", "shop").out)


# -- revisions, operations -------------------------------------------------------------------------

REVISION = {
    "app": "shop",
    "number": 7,
    "at": "2026-01-01T00:00:00Z",
    "by": "api:admin",
    "kind": "deploy",
    "state": "current",
    "git": {"sha": "0123456789abcdef-dirty", "message": "A subject"},
    "diff": [{"path": "image", "before": "shop:6", "after": "shop:7"}],
}


def test_revisions(double, local, run):
    double.on("GET /api/v1/apps/shop/revisions?", {"items": [REVISION], "next": "7"})
    lines = run("revisions", "shop", "--diff", "--limit", "1").out.splitlines()
    assert lines[0].split() == ["REVISION", "STATE", "WHEN", "BY", "HOW", "COMMIT", "ABOUT"]
    assert "0123456789-dirty" in lines[1] and "A subject" in lines[1] and "api:admin" in lines[1]
    assert lines[2:] == ["    image: shop:6 → shop:7", "more: --cursor 7"]
    assert double.asked[-1][1] == "/api/v1/apps/shop/revisions?limit=1"


def test_operations(double, local, run):
    row = {
        "id": "op1",
        "kind": "deploy",
        "apps": ["shop"],
        "state": "failed",
        "started": "",
        "by": "hook",
        "reason": "no",
    }
    double.on("GET /api/v1/operations?", {"items": [row], "next": None})
    assert run("operations", "--app", "shop", "--state", "failed").out == (
        "ID   KIND    APPS  STATE   STARTED  BY    WHY\nop1  deploy  shop  failed  –        hook  no\n"
    )
    assert double.asked[-1][1] == "/api/v1/operations?app=shop&state=failed&limit=20"
    step = {"name": "build", "state": "succeeded", "seconds": 61.0, "detail": ""}
    double.operation("op1", {**ENDED, "steps": [step], "log": "text\n"})
    assert run("operations", "op1").out == (
        "deploy of shop: succeeded\n  build: succeeded in 1 min 1 s\n  | text\nshop is at revision 8\n"
    )
    assert run("operations", "op1", "--follow").code == 0
    double.operation("op1", {"state": "cancelled", "reason": "by admin"})
    assert run("operations", "op1", "--follow").code == 1
    double.on("POST /api/v1/operations/op1/cancel", {"operation": "op1"}, 202)
    assert run("operations", "op1", "--cancel").out == "operation op1 is being cancelled\n"
    double.on("POST /api/v1/operations/op1/cancel", problem(409, "It has ended."), 409)
    assert run("operations", "op1", "--cancel").code == 3


# -- tokens ----------------------------------------------------------------------------------------


def test_tokens(double, local, run):
    double.on("POST /api/v1/tokens", lambda body: {"id": "4f2c", "token": "ndt_once", **body}, 201)
    done = run("token", "create", "ci", "--role", "operator", "--app", "shop", "--app", "blog")
    assert done.out == "ndt_once\n" and "only once" in done.err
    assert double.calls("POST .*") == [{"name": "ci", "role": "operator", "apps": ["shop", "blog"], "kind": "api"}]
    run("token", "create", "git", "--kind", "hook", "--app", "shop")
    assert double.calls("POST .*")[-1]["kind"] == "hook"
    rows = [{"id": "4f2c", "name": "ci", "kind": "api", "role": "operator", "apps": None, "created_at": None}]
    double.on("GET /api/v1/tokens", {"items": rows, "next": None})
    assert run("token", "list").out == "ID    NAME  KIND  ROLE      APPS  MADE\n4f2c  ci    api   operator  all   –\n"
    double.on("DELETE /api/v1/tokens/4f2c", {"id": "4f2c"})
    assert run("token", "revoke", "4f2c").out == "4f2c is revoked\n"


# -- config ----------------------------------------------------------------------------------------

YAML = 'version: "1.0"\nproject: acme\n'


@pytest.fixture
def config(double, local):
    found = {"version": 3, "etag": '"e3"', "yaml": YAML, "effective": "project: acme\nkey: '********'\n"}
    double.on("GET /api/v1/config", found, headers={"ETag": '"e3"'})
    double.on("PUT /api/v1/config", {"version": 4, "operation": None}, 202)
    return double


def test_config_show(config, run):
    assert run("config").out == YAML
    assert run("config", "show", "--effective").out == "project: acme\nkey: '********'\n"
    assert json.loads(run("config", "show", "--json").out)["version"] == 3


def test_config_set(config, run, project):
    (project / "new.yml").write_text("a: 1\n")
    assert run("config", "set", "-f", "new.yml", "-m", "why").out == "version 4 is in force\n"
    assert run("config", "set", "-f", "-", input="b: 2\n").code == 0
    assert config.calls("PUT .*") == [{"yaml": "a: 1\n", "message": "why"}, {"yaml": "b: 2\n"}]
    assert run("config", "set", "-f", "gone.yml").code == 2
    errors = ["nextdeploy.yml:1:1: a: Unknown key.", "nextdeploy.yml:2:1: b: Unknown key."]
    config.on("PUT /api/v1/config", problem(422, "Invalid", errors=errors), 422)
    done = run("config", "set", "-f", "new.yml")
    assert (done.code, done.err) == (2, "\n".join(errors) + "\n")


def editor(project, script):
    path = project / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"EDITOR": str(path), "VISUAL": ""}


def test_config_edit_sends_what_was_edited_and_which_version_it_was(config, run, project):
    done = run("config", "edit", env=editor(project, 'echo "# more" >> "$1"; stat -c %a "$1" "$(dirname "$1")" > seen'))
    assert done.code == 0, done.err
    assert config.calls("PUT .*") == [{"yaml": YAML + "# more\n"}]
    assert config.headers[-1]["If-Match"] == '"e3"'
    modes = (project / "seen").read_text().split()
    assert int(modes[1], 8) == 0o700 and not int(modes[0], 8) & 0o022


def test_config_edit_that_changes_nothing_sends_nothing(config, run, project):
    done = run("config", "edit", env=editor(project, "true"))
    assert done.code == 0 and "nothing was changed" in done.err
    assert config.calls("PUT .*") == []


@pytest.mark.parametrize(("status", "code"), [(422, 2), (409, 3), (500, 1)])
def test_a_refused_edit_is_not_lost(config, run, project, status, code):
    config.on("PUT /api/v1/config", problem(status, "no", errors=["nextdeploy.yml:1:1: no"]), status)
    done = run("config", "edit", env=editor(project, 'echo "# precious" >> "$1"'))
    assert done.code == code
    place = re.search(r"your text is in (\S+)", done.err)[1]
    with open(place) as file:
        assert file.read() == YAML + "# precious\n"
    assert stat.S_IMODE(os.stat(os.path.dirname(place)).st_mode) == 0o700
    os.unlink(place)
    os.rmdir(os.path.dirname(place))


def test_an_editor_that_fails_sends_nothing(config, run, project):
    done = run("config", "edit", env=editor(project, 'echo x >> "$1"; exit 3'))
    assert done.code == 1 and "ended with 3" in done.err
    assert config.calls("PUT .*") == []


def test_config_history_and_rollback(config, run):
    row = {"version": 3, "at": "2026-01-01T00:00:00Z", "by": "api:admin", "message": "why", "diff": "-a: 1\n+a: 2\n"}
    config.on("GET /api/v1/config/history?", {"items": [row], "next": None})
    lines = run("config", "history").out.splitlines()
    assert re.fullmatch(r"version 3, .* ago, by api:admin: why", lines[0])
    assert lines[1:] == ["    -a: 1", "    +a: 2"]
    config.on("POST /api/v1/config/rollback", lambda body: {"version": 5, "operation": "op9", "was": body}, 202)
    assert run("config", "rollback", "2").out == (
        "version 5 is in force; follow it: nextdeploy operations op9 --follow\n"
    )
    assert config.calls("POST .*") == [{"to": 2}]


# -- validate --------------------------------------------------------------------------------------


def test_validate_needs_no_daemon(run, project):
    (project / "nextdeploy.yml").write_text(
        "apps: {shop: {image: a, env: {A: '${SECRET}', B: '${HERE}', C: '${D:-d}'}}}\n"
    )
    done = run("validate", env={"HERE": "1"})
    assert (done.code, done.out) == (0, "nextdeploy.yml is valid: shop\n")
    assert "${SECRET} is not set here" in done.err and "HERE" not in done.err and "{D" not in done.err
    assert json.loads(run("validate", "--json").out)["valid"] is True


def test_validate_tells_every_mistake(run, project):
    (project / "nextdeploy.yml").write_text("apps:\n  shop: {image: a, port: many}\nedge: {}\n")
    done = run("validate")
    assert done.code == 2 and done.out == ""
    assert (
        done.err.splitlines()
        == [
            "nextdeploy.yml:2:27: apps.shop.port: Not a valid integer.",
            "nextdeploy.yml:3:1: edge: Unknown key.",
        ]
        or len(done.err.splitlines()) == 2
    )
    answer = json.loads(run("validate", "--json").out)
    assert answer["valid"] is False and len(answer["errors"]) == 2
    assert run("validate", "-f", "gone.yml").code == 2
    assert "nextdeploy init" in run("validate", "-f", "gone.yml").err


def test_validate_of_a_servers_file(run, project):
    (project / "nextdeploy.yml").write_text("edge: {http: ':8080'}\n")
    assert run("validate").code == 2
    assert run("validate", "--server-file").out == "nextdeploy.yml is valid: no apps\n"


def test_validate_looks_whether_the_files_are_there(run, project):
    (project / "nextdeploy.yml").write_text("apps: {shop: {build: web}}\n")
    done = run("validate")
    assert done.code == 2 and "there is no `web`" in done.err

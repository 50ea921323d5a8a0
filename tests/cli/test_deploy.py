"""`nextdeploy deploy` from a folder to a server: what is sent, what is not sent again, how it is followed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest
from double import TOKEN, problem, serving

RECEIPT = {
    "requests": {"before": 1204, "during": 388, "after": 512},
    "failed": 0,
    "held": 0,
    "held_max_ms": 0.0,
    "p95_before_ms": 12.0,
    "p95_after_ms": 11.0,
    "websockets_drained": 2,
    "seconds": 4.21,
}
STEPS = [
    {"name": "build", "state": "succeeded", "started": "2026-01-01T00:00:00Z", "seconds": 3.2, "detail": "cached"},
    {"name": "switch", "state": "succeeded", "started": "2026-01-01T00:00:03Z", "seconds": 1.0, "detail": ""},
]
SUCCESS = {
    "state": "succeeded",
    "steps": STEPS,
    "log": "Step 1/2\nStep 2/2\n",
    "receipt": RECEIPT,
    "revisions": {"shop": 7},
}


@pytest.fixture
def shop(project, double):
    (project / "nextdeploy.yml").write_text('version: "1.0"\nproject: acme\napps:\n  shop: {build: .}\n')
    (project / "Dockerfile").write_text("FROM scratch\n")
    (project / ".dockerignore").write_text("*.log\nDockerfile\nnextdeploy.yml\n")
    (project / "app.py").write_text("print('hello')\n")
    (project / "noise.log").write_text("noise")
    (project / "lib").mkdir()
    (project / "lib" / "run.sh").write_text("#!/bin/sh\n")
    (project / "lib" / "run.sh").chmod(0o755)
    (project / "lib" / "current").symlink_to("run.sh")
    double.on("POST /api/v1/projects/*/deploy", {"operation": "op1", "apps": ["shop"], "warnings": []}, 202)
    double.operation(
        "op1",
        {"steps": [{"name": "build", "state": "running", "seconds": 0.1}], "log": "Step 1/2\n"},
        {"steps": [{"name": "build", "state": "running", "seconds": 0.3}], "log": "Step 1/2\nStep 2"},
        SUCCESS,
    )
    return project


def sent(double) -> dict:
    return double.calls(r"POST /api/v1/projects/\w+/deploy")[-1]


def test_sends_the_context_less_what_is_ignored_and_shows_the_receipt(shop, double, local, run):
    done = run("deploy", "-m", "first")
    assert done.code == 0, done.err
    body = sent(double)
    files = {file["path"]: file for file in body["bundle"]["files"]}
    assert set(files) == {"Dockerfile", ".dockerignore", "app.py", "lib/run.sh", "lib/current"}
    assert files["lib/run.sh"]["executable"] and not files["app.py"]["executable"]
    assert files["lib/current"]["link"] == "run.sh"
    assert files["app.py"]["sha256"] == hashlib.sha256(b"print('hello')\n").hexdigest()
    assert body["message"] == "first"
    assert body["bundle"]["environment"] == "dev"
    assert body["bundle"]["text"] == (shop / "nextdeploy.yml").read_text()
    assert set(double.blobs) == {file["sha256"] for file in files.values() if file["sha256"]}
    assert done.out == (
        "sent 4 files, 70 B\n"
        "build: running\n"
        "  | Step 1/2\n"
        "  | Step 2/2\n"
        "build: succeeded in 3.2 s (cached)\n"
        "switch: succeeded in 1.0 s\n"
        "shop is at revision 7\n"
        "requests 1,204 before · 388 during · 512 after, 0 failed, 0 held, p95 12 ms → 11 ms, 2 WebSockets drained, 4.2 s\n"
    )
    assert done.err == ""


def test_a_second_deploy_sends_only_what_changed(shop, double, local, run):
    assert run("ship").code == 0
    before = double.received
    (shop / "app.py").write_text("print('hello again')\n")
    done = run("deploy")
    assert "sent 1 file, 21 B; 3 files were there already" in done.out
    assert double.received - before == 21 + 40


def test_json_is_the_ended_operation_and_nothing_else(shop, double, local, run):
    done = run("deploy", "--json")
    operation = json.loads(done.out)
    assert operation["state"] == "succeeded" and operation["receipt"] == RECEIPT
    assert operation["log"] == "Step 1/2\nStep 2/2\n"


def test_detach_does_not_wait(shop, double, local, run):
    done = run("deploy", "--detach")
    assert done.code == 0
    assert "nextdeploy operations op1 --follow" in done.out
    assert double.calls(r"GET /api/v1/operations/.*") == []
    assert json.loads(run("deploy", "--detach", "--json").out)["operation"] == "op1"


def test_a_failure_is_1_with_the_reason_and_the_last_lines(shop, double, local, run):
    log = "".join(f"line {n}\n" for n in range(50))
    reason = "shop: exited 1 after 0.4 s"
    step = {"name": "gate", "state": "failed", "seconds": 0.4, "detail": "exited 1"}
    double.operation("op1", {"state": "failed", "reason": reason, "log": log, "steps": [step]})
    done = run("deploy")
    assert done.code == 1
    assert done.err.endswith(f"nextdeploy: deploy of shop failed: {reason}\n")
    assert "  | line 49\n" in done.out and "gate: failed in 0.4 s (exited 1)\n" in done.out
    as_json = run("deploy", "--json")
    assert as_json.code == 1 and json.loads(as_json.out)["reason"] == reason


def test_require_clean_makes_failed_requests_a_failure(shop, double, local, run):
    double.operation("op1", {**SUCCESS, "receipt": {**RECEIPT, "failed": 3}})
    assert run("deploy").code == 0
    done = run("deploy", "--require-clean")
    assert done.code == 1 and "3 requests failed during the switch" in done.err
    double.operation("op1", SUCCESS)
    assert run("deploy", "--require-clean").code == 0


def test_options_reach_the_server(shop, double, local, run):
    assert run("deploy", "--prune", "--rebuild", "--pull", "--env", "prod").code == 0
    body = sent(double)
    assert (body["prune"], body["rebuild"], body["pull"]) == (True, True, True)
    assert body["bundle"]["environment"] == "prod"


def test_only_variables_that_the_file_names_are_sent(shop, double, local, run):
    text = (shop / "nextdeploy.yml").read_text()
    (shop / "nextdeploy.yml").write_text(
        text.replace(
            "{build: .}", '{build: ., env: {A: "${NAMED}", B: "${WITH:-x}", C: "$${NOT}", D: "${FROM_STORE}"}}'
        )
    )
    done = run("deploy", env={"NAMED": "n", "WITH": "w", "NOT": "no", "OTHER": "o"})
    assert done.code == 0, done.err
    assert sent(double)["bundle"]["variables"] == {"NAMED": "n", "WITH": "w"}


def test_blobs_that_went_meanwhile_are_sent_again(shop, double, local, run):
    rounds = []

    def answer(body, project):
        rounds.append(body)
        if len(rounds) == 1:
            gone = hashlib.sha256(b"print('hello')\n").hexdigest()
            del double.blobs[gone]
            return problem(409, "1 blobs are missing; upload them first", missing=[gone])
        return {"operation": "op1", "apps": ["shop"], "warnings": []}

    double.answers["POST /api/v1/projects/*/deploy"] = lambda body, name: (
        (409 if not rounds else 202),
        answer(body, name),
        {},
    )
    assert run("deploy").code == 0
    assert len(rounds) == 2 and hashlib.sha256(b"print('hello')\n").hexdigest() in double.blobs


@pytest.mark.parametrize(
    ("status", "more", "code", "words"),
    [
        (401, {}, 3, "NEXTDEPLOY_TOKEN"),
        (403, {}, 3, "the detail"),
        (409, {}, 3, "the detail"),
        (422, {"errors": ["nextdeploy.yml:4:3: apps.shop: no"]}, 2, "nextdeploy.yml:4:3: apps.shop: no\n"),
        (413, {}, 1, "the detail"),
        (500, {}, 1, "the detail"),
    ],
)
def test_refusals_have_exit_codes_and_plain_words(shop, double, local, run, status, more, code, words):
    double.on("POST /api/v1/projects/*/deploy", problem(status, "the detail", **more), status)
    done = run("deploy")
    assert done.code == code
    assert words in done.err and "Traceback" not in done.err


def test_git_data_goes_along(shop, double, local, run, variables):
    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(["git", *identity, *words], cwd=shop, check=True, capture_output=True, env=variables)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "A subject\n\nand more")
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=shop, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert run("deploy").code == 0
    assert sent(double)["git"] == {"sha": sha, "ref": "main", "message": "A subject"}
    assert not any(file["path"].startswith(".git/") for file in sent(double)["bundle"]["files"])
    (shop / "app.py").write_text("changed")
    assert run("deploy").code == 0
    assert sent(double)["git"]["sha"] == f"{sha}-dirty"


def test_an_image_for_the_only_app_of_the_file(shop, double, local, run):
    double.on("POST /api/v1/apps/*/deploy", lambda body, app: {"operation": "op1"}, 202)
    assert run("deploy", "--image", "shop:2", "--message", "m").code == 0
    assert double.calls("POST /api/v1/apps/shop/deploy") == [{"message": "m", "image": "shop:2"}]
    assert not double.blobs
    assert run("deploy", "other", "--image", "shop:3", cwd=shop.parent).code == 0
    assert double.calls("POST /api/v1/apps/other/deploy") == [{"image": "shop:3"}]
    assert run("deploy", "--image", "shop:3", cwd=shop.parent).code == 2
    assert run("deploy", "shop").code == 2


def test_over_tcp_with_a_token(shop, double, run):
    double.token = TOKEN
    with serving(double) as address:
        assert run("deploy", "--server", address).code == 3
        assert run("--server", address, "deploy", env={"NEXTDEPLOY_TOKEN": TOKEN}).code == 0
        assert run("deploy", "--server", address, "--token", TOKEN).code == 0


def test_a_daemon_that_is_away_for_a_while_is_waited_for(shop, double, local, run):
    double.operation("op1", {"state": "running"}, SUCCESS)
    inner = double.answers["GET /api/v1/operations/op1?"]
    asked = []

    def away(body, query):
        asked.append(query)
        if len(asked) in (1, 2):
            return 503, problem(503, "the daemon is away"), {}
        return inner(body, query)

    double.answers["GET /api/v1/operations/op1?"] = away
    done = run("deploy")
    assert done.code == 0 and "is away; waiting for it" in done.out


def test_what_cannot_be_sent_is_named(shop, double, local, run):
    os.mkfifo(shop / "pipe")
    (shop / "out").symlink_to("/etc/passwd")
    (shop / "up").symlink_to("../elsewhere")
    done = run("deploy")
    assert done.code == 2
    assert "pipe: it is a pipe, not a file" in done.err
    assert "out: a symbolic link that leaves" in done.err and "up: a symbolic link" in done.err
    assert double.asked == []


def test_a_project_without_a_dockerfile_is_told_how_to_get_one(shop, run, local):
    (shop / "Dockerfile").unlink()
    done = run("deploy")
    assert done.code == 2 and "`nextdeploy init` writes one" in done.err


def test_no_daemon_is_said_in_words(shop, run, tmp_path):
    done = run("deploy", "--state-dir", str(tmp_path / "nowhere"))
    assert done.code == 1
    assert done.err == f"nextdeploy: no daemon runs here: there is no {tmp_path}/nowhere/control.sock\n"

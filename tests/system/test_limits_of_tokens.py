"""What a token that is limited to one app can do on a real daemon, by the client; and the server's file, changed while it
runs."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from daemon import ROOT, Daemon, until

FILE = """
version: "1.0"
project: mine
apps:
  mine:
    image: IMAGE
    domains: [mine.test]
"""


@pytest.fixture
def server(on_docker) -> Daemon:
    return on_docker(replicas=1, env={"HIDDEN": "theirs"}, domains=["shop.test"])


@pytest.fixture
def token(server: Daemon) -> str:
    return str(server.post("/api/v1/tokens", {"name": "ci", "role": "operator", "apps": ["mine"]})["token"])


@pytest.fixture
def client(server: Daemon, token: str, tmp_path: Path):
    project = tmp_path / "project"
    project.mkdir()

    def call(text: str, *words: str) -> tuple[int, str]:
        (project / "nextdeploy.yml").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "ndactors.cli", *words],
            cwd=project,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(project),
                "PYTHONPATH": str(ROOT),
                "NEXTDEPLOY_SERVER": server.admin,
                "NEXTDEPLOY_TOKEN": token,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    return call


def test_what_a_limited_token_cannot_have(server: Daemon, client, token: str, test_image: str):
    file = FILE.replace("IMAGE", test_image)
    code, said = client(file, "deploy")
    assert code == 0, said
    refused = {
        '    volumes: ["/etc:/x"]': "does not give this path",
        '    volumes: ["/var/run/docker.sock:/x"]': "does not give this path",
        '    volumes: ["./../../etc:/x"]': "not in the project's folder",
        "    cap_add: [SYS_ADMIN]": "does not give the capability",
        "    networks: [host]": "network `host`",
        "    env_file: /proc/self/environ": "not in the project's folder",
        '    env: {A: "${NEXTDEPLOY_ADMIN_PASSWORD}"}': "NEXTDEPLOY_ADMIN_PASSWORD",
    }
    for line, words in refused.items():
        code, said = client(f"{file}{line}\n", "deploy")
        assert code == 2, (line, said)
        assert words in said, line
    for text in (
        file.replace("  mine:\n", "  shop:\n"),  # another's name
        file.replace("  mine:\n", "  more:\n"),  # one that is not there yet
        file.replace("project: mine", "project: test"),  # the project of others
    ):
        code, said = client(text, "deploy")
        assert code != 0
        assert server.api("/api/v1/apps/shop")["revision"] == 1
    assert {row["name"] for row in server.api("/api/v1/apps")["items"]} == {"mine", "shop"}

    def status(path: str) -> tuple[int, str]:
        request = urllib.request.Request(server.admin + path, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    for path in ("apps/shop", "apps/shop/env", "apps/shop/revisions", "apps/shop/secrets", "requests?app=shop"):
        assert status(f"/api/v1/{path}")[0] == 404, path
    for path in ("config", "config/history", "tokens", "engine", "tree"):
        assert status(f"/api/v1/{path}")[0] in (403, 404), path
    for path in ("apps", "containers", "events", "operations", "requests", "plan"):
        code, body = status(f"/api/v1/{path}")
        assert code == 200, path
        assert "shop" not in body, path
    assert "theirs" not in client(file, "env", "shop")[1]
    assert client(file, "run", "shop", "--", "id")[0] != 0
    assert client(file, "exec", "shop", "-T", "--", "id")[0] != 0
    id = server.post("/api/v1/apps/mine/deploy", {"image": "nextdeploy/other/app:1"}, token=token)["operation"]
    until(lambda: server.api(f"/api/v1/operations/{id}")["state"] == "failed", 20, "the end")
    assert server.api(f"/api/v1/operations/{id}")["reason"] == "This image was built for another project."


def test_the_servers_file_is_changed_while_it_runs(on_docker):
    daemon = on_docker(replicas=1)
    before = daemon.api("/api/v1/config")
    file = yaml.safe_load(before["yaml"])
    file["apps"]["shop"]["env"] = {"NEW": "value"}
    first = {row["id"] for row in daemon.containers().values()}
    written = daemon.post("/api/v1/config", {"yaml": yaml.safe_dump(file), "message": "NEW"}, method="PUT")
    until(lambda: daemon.api("/api/v1/apps/shop")["revision"] == 2, 30, "the next revision")
    until(
        lambda: len(daemon.containers()) == 1 and not first & {row["id"] for row in daemon.containers().values()},
        30,
        "the new container alone",
    )
    assert daemon.api("/api/v1/config")["version"] == written["version"] == before["version"] + 1
    second = {row["id"] for row in daemon.containers().values()}
    with pytest.raises(urllib.error.HTTPError) as told:
        daemon.post("/api/v1/config", {"yaml": "apps: ["}, method="PUT")
    assert told.value.code == 422
    assert json.loads(told.value.read())["errors"]
    file["logs"] = {"level": "debug"}
    daemon.post("/api/v1/config", {"yaml": yaml.safe_dump(file)}, method="PUT")
    until(lambda: not daemon.api("/api/v1/operations?state=running")["items"], 30, "the end of all operations")
    assert {row["id"] for row in daemon.containers().values()} == second, "nothing of it concerns the app"
    history = daemon.api("/api/v1/config/history")["items"]
    assert [row["by"] for row in history] == ["api:admin", "api:admin", "file"]
    assert "NEW: value" in history[1]["diff"]
    daemon.post("/api/v1/config/rollback", {"to": before["version"]})
    until(lambda: not daemon.api("/api/v1/apps/shop/env")["items"], 30, "the variables of before")
    assert daemon.api("/api/v1/apps/shop")["revision"] == 3

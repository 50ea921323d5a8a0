"""A laptop and a server, with no registry between them: the laptop is a network of its own with nothing but a cable. What
crosses the cable is counted."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import docker
import dockerd as ground_dockerd
import pytest
from daemon import Daemon, until

ROOT = Path(__file__).parents[2]
SERVER, LAPTOP = "10.213.7.1", "10.213.7.2"

WEB = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        notes = pathlib.Path("/notes/ran")
        words = [VERSION, os.environ.get("GREETING", "-"), os.environ.get("DATABASE_URL", "-"),
                 pathlib.Path("/etc/app.conf").read_text().strip() if os.path.exists("/etc/app.conf") else "-"]
        body = "|".join(words).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
STORE = """
import os, pathlib, socketserver
DATA = pathlib.Path("/data/rows")
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            with DATA.open("ab") as file:
                file.write(line)
            self.wfile.write(b"%d\\n" % len(DATA.read_bytes().splitlines()))
socketserver.ThreadingTCPServer(("0.0.0.0", 5432), Handler).serve_forever()
"""
WORKER = """
import socket, time
while True:
    try:
        with socket.create_connection(("store", 5432), 2) as sock:
            sock.sendall(b"row\\n")
            print("rows:", sock.makefile().readline().strip(), flush=True)
    except OSError as error:
        print("waiting:", error, flush=True)
    time.sleep(0.3)
"""


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def cable() -> Iterator[str]:
    """The name of the laptop's network."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("ssh") is None:
        words = "two networks take root, `ip` and `ssh`"
        if os.environ.get("NEXTDEPLOY_REQUIRE_ENGINE") == "1":
            pytest.fail(words)
        pytest.skip(words)
    name = f"nd{secrets.token_hex(3)}"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "link", "add", f"{name}s", "type", "veth", "peer", "name", f"{name}l", "netns", name)
        sh("ip", "addr", "add", f"{SERVER}/30", "dev", f"{name}s")
        sh("ip", "link", "set", f"{name}s", "up")
        for words in (["addr", "add", f"{LAPTOP}/30", "dev", f"{name}l"], ["link", "set", f"{name}l", "up"]):
            sh("ip", "-n", name, *words)
        sh("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        sh("ip", "netns", "del", name)


class Laptop:
    def __init__(self, network: str, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.home = folder / "home"
        self.home.mkdir()
        self.variables: dict[str, str] = {}

    def nextdeploy(self, project: Path, *words: str, code: int = 0, stdin: str = "") -> str:
        """What it says. All it has of the server is the cable."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.network, sys.executable, "-m", "ndactors.cli", *words],
            cwd=project,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.home), "PYTHONPATH": str(ROOT), **self.variables},
            capture_output=True,
            text=True,
            input=stdin,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sent(self) -> int:
        """Bytes that it sent over the cable so far."""
        return int(Path(f"/sys/class/net/{self.network}s/statistics/rx_bytes").read_text())


@pytest.fixture
def server(cable: str, start_daemon, engine_address: str, tmp_path: Path) -> Iterator[Daemon]:
    daemon = start_daemon({"engine": "docker", "apps": {}, "admin": {"listen": f"{SERVER}:0"}}, ready=False)
    try:
        yield daemon
    finally:
        identity = json.loads((tmp_path / "state" / "state" / "daemon.json").read_text())["data"]["id"]
        daemon.close()
        ground_dockerd.remove_all(engine_address, identity)
        client = docker.APIClient(base_url=engine_address, timeout=60)
        for volume in client.volumes(filters={"label": f"nextdeploy.daemon={identity}"})["Volumes"] or []:
            client.remove_volume(volume["Name"], force=True)
        for image in client.images(filters={"label": f"nextdeploy.daemon={identity}"}):
            client.remove_image(image["Id"], force=True)
        client.close()


@pytest.fixture(params=["ssh", "api"])
def laptop(request: pytest.FixtureRequest, cable: str, server: Daemon, tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop(cable, tmp_path)
    if request.param == "api":
        token = server.post("/api/v1/tokens", {"name": "laptop", "role": "admin"})["token"]
        made.variables = {"NEXTDEPLOY_SERVER": server.admin, "NEXTDEPLOY_TOKEN": token}
        yield made
        return
    keys, programs = tmp_path / "keys", tmp_path / "programs"
    keys.mkdir()
    programs.mkdir()
    for name in ("host", "client"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(keys / name)
        key.write_public_key(keys / f"{name}.pub")
        (keys / name).chmod(0o600)
    program = programs / "nextdeploy"
    state = tmp_path / "state"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} NEXTDEPLOY_STATE_DIR={state} exec {sys.executable} -m ndactors.cli "$@"\n'
    )
    program.chmod(0o755)
    ssh = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "ssh_server.py"), SERVER, str(keys), str(programs)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert ssh.stdout is not None
        port = int(ssh.stdout.readline())
        (keys / "known").write_text(f"[{SERVER}]:{port} {(keys / 'host.pub').read_text()}")
        options = f"-i {keys}/client -o UserKnownHostsFile={keys}/known -o StrictHostKeyChecking=yes -F none"
        made.variables = {"NEXTDEPLOY_SERVER": f"ssh://root@{SERVER}:{port}", "NEXTDEPLOY_SSH_OPTIONS": options}
        yield made
    finally:
        ssh.kill()
        ssh.wait()


def get(daemon: Daemon, host: str) -> str:
    request = urllib.request.Request(daemon.http, headers={"Host": host})
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(response.read().decode())


def operation_of(said: str) -> dict[str, Any]:
    """Behind it may be warnings."""
    return dict(json.JSONDecoder().raw_decode(said, said.index("{"))[0])


def test_a_project_with_much_that_is_not_sent(laptop: Laptop, server: Daemon, test_image: str):
    project = laptop.folder / "node-like"
    (project / "node_modules" / "big").mkdir(parents=True)
    (project / "node_modules" / "big" / "index.js").write_bytes(os.urandom(5_000_000))
    (project / "src").mkdir()
    for number in range(200):
        (project / "src" / f"part{number}.txt").write_text(secrets.token_hex(500))
    (project / "asset.bin").write_bytes(os.urandom(1_000_000))
    (project / ".dockerignore").write_text("node_modules\n")
    (project / "server.py").write_text("VERSION = 'first'\n" + WEB)
    (project / "Dockerfile").write_text(f'FROM {test_image}\nCOPY . /srv\nCMD ["python3", "/srv/server.py"]\n')
    (project / "nextdeploy.yml").write_text(
        'version: "1.0"\nproject: front\napps:\n  front:\n    build: {context: .}\n    domains: [front.test]\n'
    )
    before = laptop.sent()
    said = laptop.nextdeploy(project, "deploy", "--require-clean")
    first = laptop.sent() - before
    assert "front is at revision 1" in said
    assert get(server, "front.test").startswith("first|")
    assert 1_200_000 < first < 2_200_000, "the asset and the sources once, and node_modules not at all"

    before = laptop.sent()
    said = laptop.nextdeploy(project, "deploy")
    assert "nothing to build" in said
    assert laptop.sent() - before < 100_000

    (project / "server.py").write_text("VERSION = 'second'\n" + WEB)
    before = laptop.sent()
    said = laptop.nextdeploy(project, "deploy", "--require-clean")
    assert "sent 1 file" in said
    changed = laptop.sent() - before
    print(
        f"{laptop.variables['NEXTDEPLOY_SERVER'].partition(':')[0]}: sent {first:,} B, one changed file {changed:,} B"
    )
    assert changed < 150_000, "one file changed"
    assert get(server, "front.test").startswith("second|")
    laptop.nextdeploy(project, "rollback", "front")
    assert get(server, "front.test").startswith("first|")


@pytest.mark.parametrize("laptop", ["ssh"], indirect=True)
def test_a_project_with_a_worker_a_store_and_what_it_mounts(laptop: Laptop, server: Daemon, test_image: str):
    project = laptop.folder / "shop"
    project.mkdir()
    (project / "web.py").write_text("VERSION = 'v1'\n" + WEB)
    (project / "worker.py").write_text(WORKER)
    (project / "store.py").write_text(STORE)
    (project / "app.conf").write_text("mode=shop\n")
    (project / ".env.prod").write_text("GREETING=hello\n")
    (project / "Dockerfile").write_text(f"FROM {test_image}\nCOPY *.py /srv/\n")
    (project / "nextdeploy.yml").write_text(
        """
version: "1.0"
project: shop
apps:
  web:
    build: {context: .}
    domains: [shop.test]
    env_file: .env.prod
    env: {DATABASE_URL: "tcp://user:${STORE_PASSWORD}@store:5432/shop"}
    secrets: [STORE_PASSWORD]
    volumes: ["./app.conf:/etc/app.conf:ro"]
    processes:
      web: {command: "python3 /srv/web.py"}
      worker: {command: "python3 -u /srv/worker.py"}
      migrate: {command: "python3 -c 'print(\\"migrated the rows\\")'", schedule: "@deploy"}
  store:
    build: {context: .}
    volumes: ["rows:/data"]
    command: "python3 /srv/store.py"
    port: 5432
    deploy: {strategy: recreate}
"""
    )
    assert "not set: STORE_PASSWORD" in laptop.nextdeploy(project, "deploy", code=1)
    laptop.nextdeploy(project, "secrets", "web", "set", "STORE_PASSWORD", stdin="hunter2\n")
    said = laptop.nextdeploy(project, "deploy", "--json")
    operation = operation_of(said)
    assert operation["state"] == "succeeded", operation
    assert get(server, "shop.test") == "v1|hello|tcp://user:hunter2@store:5432/shop|mode=shop"
    apps = {row["name"]: row for row in server.api("/api/v1/apps")["items"]}
    assert {name: row["state"] for name, row in apps.items()} == {"web": "healthy", "store": "healthy"}

    def rows() -> int:
        count = "print(len(open('/data/rows').readlines()))"
        return int(laptop.nextdeploy(project, "exec", "store", "-T", "--", "python3", "-c", count).split()[0])

    until(lambda: rows() > 1, 30, "the worker's rows in the store")
    count = rows()
    (project / "web.py").write_text("VERSION = 'v2'\n" + WEB)
    (project / "app.conf").write_text("mode=sale\n")
    said = laptop.nextdeploy(project, "deploy", "--require-clean")
    assert "migrated the rows" in said
    assert get(server, "shop.test").startswith("v2|hello|")
    assert get(server, "shop.test").endswith("|mode=sale")
    assert rows() >= count, "the store's volume outlives its containers"
    assert "hunter2" not in said + json.dumps(server.api("/api/v1/operations?limit=100"))
    assert "hunter2" not in json.dumps(server.api("/api/v1/apps/web/revisions"))

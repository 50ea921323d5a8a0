"""The ways to a daemon, and what is said when there is none."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import threading
import time

import pytest
from double import TOKEN, Double, problem, serving

from ndactors.cli import logins
from ndactors.cli.connection import HttpServer, LocalServer, SshServer, api, server_at
from ndactors.cli.failures import WRONG, Failure, Refused, Unreachable


@pytest.fixture
def double():
    made = Double()
    made.on("GET /api/v1/status", {"version": "1"})
    return made


# -- addresses -------------------------------------------------------------------------------------


def test_addresses():
    ssh = server_at("ssh://deploy@example.com:2222", None, {"NEXTDEPLOY_SSH_OPTIONS": "-i 'a key' -o Ciphers=x"})
    assert isinstance(ssh, SshServer)
    assert ssh.command[:6] == ["ssh", "-T", "-i", "a key", "-o", "Ciphers=x"]
    assert ssh.command[-6:] == ["-p", "2222", "--", "deploy@example.com", "nextdeploy", "stdio"]
    assert isinstance(server_at("https://ops.example.com", "t", {}), HttpServer)
    assert isinstance(server_at("http://127.0.0.1:8090", None, {}), HttpServer)
    assert isinstance(server_at("http://[::1]:8090", None, {}), HttpServer)
    assert isinstance(server_at("unix:///run/control.sock", None, {}), LocalServer)


@pytest.mark.parametrize(
    "address",
    [
        "example.com",
        "ftp://example.com",
        "ssh://-oProxyCommand=evil",
        "ssh://-oProxyCommand=evil@host",
        "ssh://host:port",
        "ssh://user:password@host",
        "ssh://host/path",
        "https://user:password@host",
        "https://user@host",
        "https://host/prefix",
        "https://",
        "ssh://a b",
        "ssh://host\nx",
        "unix://host/path",
        "",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(Failure) as failure:
        server_at(address, None, {})
    assert failure.value.code == WRONG
    assert "password" not in failure.value.message


def test_a_token_that_would_split_a_header_is_refused():
    for token in ("a\r\nX: y", "a b", "ä"):
        with pytest.raises(Failure):
            server_at("https://host", token, {})


def test_paths_are_quoted():
    assert api("apps", "a/../b", "env") == "/api/v1/apps/a%2F..%2Fb/env"
    assert api("plan", app=None) == "/api/v1/plan"
    assert api("plan", app="a&b=c", limit=3) == "/api/v1/plan?app=a%26b%3Dc&limit=3"


# -- requests --------------------------------------------------------------------------------------


def test_one_connection_is_kept(double, tmp_path):
    with serving(double, tmp_path / "s") as address:
        server = server_at(address, None, {})
        for _ in range(3):
            assert server.ask("GET", "/api/v1/status") == {"version": "1"}
        server.close()
    assert double.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced_even_for_a_post(double, tmp_path):
    double.on("POST /api/v1/x", {"ok": True})
    with serving(double, tmp_path / "s") as address:
        server = server_at(address, None, {})
        server.ask("GET", "/api/v1/status")
    with serving(double, tmp_path / "s"):
        server._kept.sock.shutdown(socket.SHUT_RDWR)  # what a daemon that ends does
        assert server.ask("POST", "/api/v1/x", {}) == {"ok": True}
        server.close()
    assert len(double.calls("POST /api/v1/x")) == 1


def test_a_get_is_repeated_once_and_a_post_never(double, tmp_path):
    double.on("POST /api/v1/x", {"ok": True})
    with serving(double, tmp_path / "s") as address:
        server = server_at(address, None, {})
        double.break_before_answer = 1
        assert server.ask("GET", "/api/v1/status") == {"version": "1"}
        double.break_before_answer = 2
        with pytest.raises(Unreachable):
            server.ask("GET", "/api/v1/status")
        double.break_before_answer = 1
        with pytest.raises(Unreachable):
            server.ask("POST", "/api/v1/x", {})
        assert len(double.calls("POST /api/v1/x")) == 1
        server.close()


def test_an_early_answer_to_a_large_body_is_read(tmp_path):
    """A server that refuses closes before it has read everything."""
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def refuse():
        sock, _ = listener.accept()
        sock.recv(1000)
        body = json.dumps(problem(413, "too much")).encode()
        head = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + body)
        sock.shutdown(socket.SHUT_RD)
        time.sleep(0.2)
        sock.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    server = LocalServer(path)
    answer = server.request("PUT", "/api/v1/blobs/x", bytes(20_000_000))
    assert answer.status == 413
    thread.join()
    listener.close()


def test_an_answer_that_is_no_json_is_said_so(tmp_path):
    with serving(Double(), tmp_path / "s") as address:
        server = server_at(address, None, {})
        with pytest.raises(Refused) as refused:
            server.ask("GET", "/nowhere")
        assert "nothing at /nowhere" in refused.value.message and refused.value.code == 1
        server.close()


def test_a_server_that_stays_silent_is_not_waited_for_endlessly(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    server = LocalServer(tmp_path / "s")
    server.seconds = 0.2
    with pytest.raises(Unreachable, match="did not answer within"):
        server.request("GET", "/api/v1/status")
    listener.close()


def test_connect_gives_a_socket_of_its_own(double, tmp_path):
    with serving(double, tmp_path / "s") as address:
        server = server_at(address, "t0ken", {})
        server.ask("GET", "/api/v1/status")
        sock = server.connect()
        fields = "".join(f"{name}: {value}\r\n" for name, value in server.headers.items())
        sock.sendall(f"GET /api/v1/status HTTP/1.1\r\nHost: {server.host}\r\n{fields}\r\n".encode())
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        sock.close()
        server.close()
    assert double.connections == 2


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


def test_tls_is_verified(double, certificate, run):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    double.token = TOKEN
    double.on("GET /api/v1/apps", {"items": [], "next": None})
    with serving(double, wrap=lambda sock: context.wrap_socket(sock, server_side=True)) as address:
        secret = {"NEXTDEPLOY_TOKEN": TOKEN}
        refused = run("status", "--server", address, env=secret)
        assert refused.code == 1 and "certificate is not to be trusted" in refused.err
        assert double.headers == []
        trusted = {**secret, "SSL_CERT_FILE": str(certificate / "cert.pem")}
        assert run("status", "--server", address, env=trusted).code == 0
        wrong_name = address.replace("localhost", "127.0.0.1")
        assert run("status", "--server", wrong_name, env=trusted).code == 1


# -- ssh -------------------------------------------------------------------------------------------

SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$SEEN"
{body}
"""
RELAY = """exec {python} -c '
import os, socket, sys, threading
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["DAEMON"])
def up():
    while (d := os.read(0, 65536)): s.sendall(d)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while (d := s.recv(65536)): os.write(1, d)
'"""


@pytest.fixture
def fake_ssh(tmp_path, variables):
    """``fake_ssh(script)`` puts an `ssh` on the PATH; returns where its arguments are seen."""
    (tmp_path / "bin").mkdir()
    variables["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    variables["SEEN"] = str(tmp_path / "seen")

    def make(body):
        (tmp_path / "bin" / "ssh").write_text(SSH.format(body=body))
        (tmp_path / "bin" / "ssh").chmod(0o755)
        return tmp_path / "seen"

    return make


def test_over_ssh(double, fake_ssh, run, tmp_path):
    import sys

    double.on("GET /api/v1/apps", {"items": [], "next": None})
    with serving(double, tmp_path / "far"):
        seen = fake_ssh(RELAY.format(python=sys.executable))
        done = run("status", "--server", "ssh://me@far.example", env={"DAEMON": str(tmp_path / "far")})
    assert done.code == 0, done.err
    assert seen.read_text().splitlines()[-4:] == ["--", "me@far.example", "nextdeploy", "stdio"]
    assert double.connections == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'far: Permission denied (publickey).' >&2; exit 255", "ssh://far: far: Permission denied (publickey)."),
        ("echo 'sh: nextdeploy: not found' >&2; exit 127", "there is no `nextdeploy` on its PATH"),
        ("echo 'nextdeploy: no daemon runs here' >&2; exit 1", "ssh://far: nextdeploy: no daemon runs here"),
        ("exit 3", "ssh://far: ssh ended with 3"),
        ("printf 'evil \\033[31m\\n' >&2; exit 255", "evil \N{REPLACEMENT CHARACTER}[31m"),
    ],
)
def test_what_ssh_says_when_it_fails_is_shown(fake_ssh, run, body, words):
    fake_ssh(body)
    done = run("status", "--server", "ssh://far")
    assert done.code == 1
    assert words in done.err and "Traceback" not in done.err


# -- which server ----------------------------------------------------------------------------------


def named(double, name):
    double.on("GET /api/v1/status", {"version": name, "env": "prod"})
    double.on("GET /api/v1/apps", {"items": [], "next": None})
    return double


def test_the_order_in_which_a_server_is_looked_for(run, tmp_path, project, variables, home):
    places = ["flag", "folder", "address", "env_folder", "file", "login", "default"]
    paths = {name: tmp_path / name / "control.sock" for name in places}
    paths["default"] = home / ".local" / "state" / "nextdeploy" / "control.sock"
    if os.geteuid() == 0:
        places.remove("default")  # the system's own folder
    import contextlib

    with contextlib.ExitStack() as stack:
        at = {name: stack.enter_context(serving(named(Double(), name), paths[name])) for name in places}
        (project / "nextdeploy.yml").write_text(f"version: '1.0'\nstate_dir: {tmp_path}/file\n")
        (home / ".config" / "nextdeploy").mkdir(parents=True)
        stored = home / ".config" / "nextdeploy" / "logins.json"
        stored.write_text(json.dumps({"current": at["login"], "servers": {at["login"]: {}}}))
        stored.chmod(0o600)
        flags = ["--server", at["flag"], "--state-dir", str(tmp_path / "folder")]
        env = {"NEXTDEPLOY_SERVER": at["address"], "NEXTDEPLOY_STATE_DIR": str(tmp_path / "env_folder")}

        def answers(*words):
            done = run("status", *words, env=env)
            assert done.code == 0, done.err
            return done.out.splitlines()[1].split()[1].rstrip(",")

        assert answers(*flags) == "flag"
        assert answers(*flags[2:]) == "folder"
        assert answers() == "address"
        del env["NEXTDEPLOY_SERVER"]
        assert answers() == "env_folder"
        del env["NEXTDEPLOY_STATE_DIR"]
        assert answers() == "file"
        (project / "nextdeploy.yml").unlink()
        assert answers() == "login"
        stored.unlink()
        if "default" in places:
            assert answers() == "default"


def test_the_server_of_a_project_file_may_differ_by_environment(run, project, double):
    named(double, "prod")
    with serving(double) as address:
        # the schema takes ssh:// and https:// here; which one is asked is decided before
        (project / "nextdeploy.yml").write_text(
            f"server: ssh://nowhere.invalid\nenvironments: {{prod: {{server: '{address}'}}}}\n"
        )
        assert run("status", "--env", "prod").code == 0


def test_a_broken_file_is_no_reason_to_ask_another_server(run, project, local):
    (project / "nextdeploy.yml").write_text("apps: [\n")
    done = run("status", env={"NEXTDEPLOY_STATE_DIR": ""})
    assert done.code == 2 and done.err.startswith("nextdeploy.yml:2:1: ")


# -- login -----------------------------------------------------------------------------------------


def test_login_remembers_a_token_for_that_server_only(run, double, home):
    other = named(Double(), "other")
    named(double, "one")
    double.token = TOKEN
    with serving(double) as address, serving(other) as elsewhere:
        assert run("login", address, input="wrong\n").code == 3
        assert run("login", address, input=f"{TOKEN}\n").code == 0
        stored = home / ".config" / "nextdeploy" / "logins.json"
        assert stat.S_IMODE(stored.stat().st_mode) == 0o600
        assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
        assert run("status").code == 0
        assert run("status", "--server", elsewhere).code == 0
        assert all("Authorization" not in fields for fields in other.headers)
        stored.chmod(0o644)
        refused = run("status")
        assert refused.code == 2 and "chmod 600" in refused.err
        stored.chmod(0o600)
        assert run("login", address, "--forget").code == 0
        assert run("status", "--server", address).code == 3


def test_login_with_a_password_has_a_token_made(run, double, home):
    named(double, "one")
    double.on("POST /api/v1/tokens", lambda body: {"id": "1", "token": "ndt_made", **body}, 201)
    with serving(double) as address:
        done = run("login", address, "--user", "admin", input="password\n")
    assert done.code == 0, done.err
    assert "password" not in done.out + done.err
    rows = json.loads((home / ".config" / "nextdeploy" / "logins.json").read_text())
    assert rows["servers"][address] == {"token": "ndt_made"}
    assert double.headers[0]["Authorization"].startswith("Basic ")
    assert double.headers[-1]["Authorization"] == "Bearer ndt_made"


def test_a_user_who_may_not_make_tokens_is_signed_in_for_an_hour(run, double):
    named(double, "one")
    double.on("POST /api/v1/tokens", problem(403, "no"), 403)
    double.on("POST /api/v1/token", {"token": "jwt", "expires_at": "2026-01-01T00:00:00Z"})
    with serving(double) as address:
        done = run("login", address, "--user", "viewer", input="password\n")
    assert done.code == 0 and "ends at 2026-01-01" in done.err


def test_a_damaged_file_of_logins_is_said_so(tmp_path):
    variables = {"XDG_CONFIG_HOME": str(tmp_path)}
    logins.remember("https://a", "t", variables)
    for content in (b"", b"{", b"[]", b'{"servers": 1}', b'{"servers": {"a": 1}}', b"[" * 100_000):
        logins.path(variables).write_bytes(content)
        with pytest.raises(Failure, match="damaged"):
            logins.token_for("https://a", variables)


class There:
    """A connection to somewhere."""

    def __init__(self, address: str) -> None:
        self.address, self.closed = address, False

    def setsockopt(self, *_: object) -> None: ...

    def settimeout(self, seconds: float) -> None: ...

    def getpeername(self) -> tuple[str, int]:
        return self.address, 80

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("address", "refused", "warned"),
    [
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("10.1.2.3", False, True),
        ("172.17.0.2", False, True),
        ("100.64.0.9", False, True),
        ("fd00::1", False, True),
        ("93.184.215.14", True, False),
        ("2606:4700::1111", True, False),
    ],
)
def test_without_tls_nobody_in_the_internet_is_asked(monkeypatch, capsys, address, refused, warned):
    there = There(address)
    monkeypatch.setattr("socket.create_connection", lambda *_: there)
    server = server_at("http://shop.example:8090", "ndt_secret", {})
    if refused:
        with pytest.raises(Failure, match="without TLS"):
            server.connect()
        assert there.closed
    else:
        server.connect()
        server.connect()
    assert capsys.readouterr().err.count("no TLS") == int(warned)

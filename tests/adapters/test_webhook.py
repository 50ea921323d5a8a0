"""Webhooks to real servers that accept, refuse, hang and lie; and to real commands."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ndactors.adapters.webhook import HookClient

BODY = b'{"event": "deploy.succeeded"}'
HEADERS = {"X-NextDeploy-Event": "deploy.succeeded", "X-NextDeploy-Delivery": "d1"}


class Server:
    """Answers each connection with the next of ``answers`` (bytes), or calls it with the socket."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/services/S3CRET"
        self.answers: list = []
        self.requests: list[bytes] = []
        self.over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            threading.Thread(target=self._serve, args=(sock, answer), daemon=True).start()

    def _serve(self, sock, answer) -> None:
        with sock:
            self.requests.append(read_request(sock))
            if callable(answer):
                answer(sock)
            else:
                sock.sendall(answer)

    def close(self) -> None:
        self.over.set()
        self.listener.close()


def read_request(sock) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client() -> HookClient:
    return HookClient(post_seconds=5.0, run_seconds=5.0)


def status(code: int, *more: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} X", "Content-Length: 0", *more, "", ""]).encode()


def test_what_is_sent(server, client):
    answer = client.post(server.url, BODY, HEADERS)
    assert (answer.good, answer.words) == (True, "answered 200")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == BODY
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /services/S3CRET HTTP/1.1"
    assert "Content-Type: application/json" in lines
    assert "X-NextDeploy-Event: deploy.succeeded" in lines
    assert "X-NextDeploy-Delivery: d1" in lines


@pytest.mark.parametrize(("code", "again"), [(500, True), (503, True), (429, True), (404, False), (400, False)])
def test_refusals(server, client, code, again):
    server.answers = [status(code, "Retry-After: 7")]
    answer = client.post(server.url, BODY, HEADERS)
    assert (answer.good, answer.again, answer.words) == (False, again, f"answered {code}")
    assert answer.wait == (7 if again else 0)


def test_one_that_hangs(server):
    server.answers = [lambda sock: server.over.wait(10)]
    began = time.monotonic()
    answer = HookClient(post_seconds=0.5).post(server.url, BODY, HEADERS)
    assert time.monotonic() - began < 3
    assert (answer.good, answer.again, answer.words) == (False, True, "no answer within 0.5 s")


def test_one_that_closes(server, client):
    server.answers = [lambda sock: None]
    answer = client.post(server.url, BODY, HEADERS)
    assert (answer.good, answer.again) == (False, True)
    assert "S3CRET" not in answer.words


def test_one_that_speaks_no_http(server, client):
    server.answers = [b"220 mail.test ESMTP\r\n"]
    answer = client.post(server.url, BODY, HEADERS)
    assert (answer.good, answer.again) == (False, True)


def test_nobody_there(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = client.post(f"http://u:S3CRET@127.0.0.1:{port}/S3CRET?S3CRET", BODY, HEADERS)
    assert (answer.good, answer.again, answer.words) == (False, True, "cannot be reached: Connection refused")


def test_a_name_that_nobody_has(client):
    answer = client.post("http://nobody.invalid/S3CRET", BODY, HEADERS)
    assert (answer.good, answer.again) == (False, True)
    assert "S3CRET" not in answer.words


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1/", "http://a b/", "http://\udc80/", "http://x:99999999/", "http:///x"]
)
def test_addresses_that_make_no_sense(client, url):
    answer = client.post(url, BODY, HEADERS)
    assert not answer.good


def test_a_server_without_tls(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")
                sock.recv(65536)

        threading.Thread(target=answer, daemon=True).start()
        found = client.post(f"https://127.0.0.1:{listener.getsockname()[1]}/S3CRET", BODY, HEADERS)
    assert (found.good, found.again) == (False, True)
    assert found.words.startswith("TLS failed: ")


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, by itself; with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *form) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_must_be_good(client, tmp_path, monkeypatch):
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(2):
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
                    read_request(sock)
                    sock.sendall(status(200))

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/S3CRET"
        refused = client.post(url, BODY, HEADERS)
        assert (refused.good, refused.again) == (False, True)
        assert refused.words == "its certificate is not good: self-signed certificate"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
        assert client.post(url, BODY, HEADERS).good


def test_it_follows_only_to_the_same_host_and_sends_the_same(server, client):
    other = Server()
    try:
        server.answers = [status(307, "Location: /there"), status(200)]
        assert client.post(server.url, BODY, HEADERS).good
        assert server.requests[1].startswith(b"POST /there HTTP/1.1")
        assert server.requests[1].endswith(BODY)
        server.answers = [status(308, f"Location: http://localhost:{other.port}/x")]
        answer = client.post(server.url, BODY, HEADERS)
        assert (answer.good, answer.again) == (False, False)
        assert "moved" in answer.words
        server.answers = [status(308, f"Location: http://127.0.0.1:{other.port}/x")]
        assert not client.post(server.url, BODY, HEADERS).good
        assert other.requests == []
    finally:
        other.close()


def test_other_redirects_are_told(server, client):
    server.answers = [status(302, "Location: /there")]
    answer = client.post(server.url, BODY, HEADERS)
    assert (answer.good, answer.again, len(server.requests)) == (False, False, 1)


def test_a_circle_ends(server, client):
    server.answers = [status(307, "Location: /a")] * 10
    assert not client.post(server.url, BODY, HEADERS).good
    assert len(server.requests) == 4


def test_no_passwords_from_home(server, client, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ana password S3CRET\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    client.post(server.url, BODY, HEADERS)
    assert b"Authorization" not in server.requests[0]


# -- commands --------------------------------------------------------------------------------------


def test_a_command_gets_body_and_variables_and_little_else(client, tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTDEPLOY_ADMIN_PASSWORD", "S3CRET")
    script = "cat > $1; env > $2; echo told; echo $0 >&2"
    argv = ("sh", "-c", script, "$(touch no)", str(tmp_path / "body"), str(tmp_path / "env"))
    answer = client.run(argv, BODY, {"NEXTDEPLOY_EVENT": "deploy.failed"})
    assert (answer.good, answer.words, answer.output) == (True, "exited 0", ("told", "$(touch no)"))
    assert (tmp_path / "body").read_bytes() == BODY
    env = (tmp_path / "env").read_text()
    assert "NEXTDEPLOY_EVENT=deploy.failed" in env
    assert "S3CRET" not in env
    names = {line.partition("=")[0] for line in env.splitlines()}
    assert names <= {"PATH", "HOME", "LANG", "TZ", "NEXTDEPLOY_EVENT", "PWD", "OLDPWD", "SHLVL", "_"}


def test_a_command_that_fails(client):
    answer = client.run(("sh", "-c", "echo why; echo token=abcdefgh; exit 3"), BODY, {})
    assert (answer.good, answer.again, answer.words) == (False, False, "exited 3")
    assert answer.output == ("why", "token=********")
    assert client.run(("sh", "-c", "kill -9 $$"), BODY, {}).words == "was killed by signal 9"


@pytest.mark.parametrize("argv", [("/no/such/program",), ("",), ("a\0b",), ("/",)])
def test_a_command_that_cannot_be_run(client, argv):
    answer = client.run(argv, BODY, {})
    assert not answer.good
    assert answer.words.startswith("cannot be run")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path):
    pid = tmp_path / "pid"
    began = time.monotonic()
    argv = ("sh", "-c", f"echo begun; sleep 60 & echo $! > {pid}; trap '' TERM; wait")
    answer = HookClient(run_seconds=1.0).run(argv, BODY, {})
    assert time.monotonic() - began < 5
    assert (answer.good, answer.words, answer.output) == (False, "did not end within 1 s", ("begun",))
    child = int(pid.read_text())
    deadline = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < deadline


def test_a_command_that_closes_its_output_and_stays_is_killed():
    assert (
        HookClient(run_seconds=1.0).run(("sh", "-c", "exec >&- 2>&-; sleep 60"), BODY, {}).words
        == "did not end within 1 s"
    )


def test_a_flood_is_bounded(client):
    answer = client.run(("sh", "-c", "yes 0123456789 | head -n 2000000; echo end"), BODY, {})
    assert answer.good
    assert answer.output[-1] == "end"
    assert len(answer.output) == 20


def test_one_that_reads_nothing(client):
    assert client.run(("true",), json.dumps({"x": "y" * 1_000_000}).encode(), {}).good

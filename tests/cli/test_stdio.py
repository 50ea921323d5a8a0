"""`stdio`: bytes between stdin, stdout and a control socket, as they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest


class Echo:
    """A control socket that sends back what it hears, then ``last``; or does what ``serve`` says."""

    def __init__(self, path, serve=None):
        path.parent.mkdir(exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.heard = 0
        self.ended = threading.Event()
        self._serve = serve or self._echo
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            sock, _ = self.listener.accept()
            with sock:
                self._serve(sock)
        self.ended.set()

    def _echo(self, sock):
        while data := sock.recv(65536):
            self.heard += len(data)
            sock.sendall(data)
        sock.sendall(b"=%d" % self.heard)

    def close(self):
        self.listener.close()


@pytest.fixture
def echo(tmp_path, variables):
    made = []

    def make(serve=None):
        variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path / "state")
        made.append(Echo(tmp_path / "state" / "control.sock", serve))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def start(variables, project):
    made = []

    def call(*words, **more):
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "ndactors.cli", "stdio", *words],
                env=variables,
                cwd=project,
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
            )
        )
        return made[-1]

    yield call
    for each in made:
        if each.poll() is None:
            each.kill()
        each.communicate()


def test_bytes_both_ways_and_the_end_of_stdin(echo, start):
    echo()
    data = os.urandom(1 << 20) * 30
    client = start()
    out, err = client.communicate(data, timeout=60)
    assert (client.returncode, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data + b"=%d" % len(data)).digest()


def test_bytes_pass_at_once(echo, start):
    echo()
    client = start()
    for word in (b"one\n", b"two\n"):
        client.stdin.write(word)
        client.stdin.flush()
        assert client.stdout.readline() == word


def test_it_ends_with_the_daemon_though_stdin_is_open(echo, start):
    echo(lambda sock: sock.sendall(b"bye"))
    client = start()
    assert client.wait(20) == 0
    assert client.stdout.read() == b"bye"


def test_what_a_daemon_says_before_it_hangs_up_arrives(echo, start):
    """It refuses in the middle of a large upload."""

    def refuse(sock):
        sock.recv(1000)
        sock.sendall(b"no" * 1000)

    echo(refuse)
    client = start()
    out, _ = client.communicate(bytes(5 << 20), timeout=30)
    assert out == b"no" * 1000


def test_a_reader_that_leaves_ends_it(echo, start):
    there = echo(lambda sock: sock.recv(1))
    client = start()
    client.stdout.close()
    assert client.wait(20) == 1
    assert there.ended.wait(10)
    assert client.stderr.read() == b""
    client.stdout = None


def test_memory_is_bounded_when_the_daemon_does_not_read(echo, start):
    go = threading.Event()
    echo(lambda sock: go.wait(30))
    client = start()
    os.set_blocking(client.stdin.fileno(), False)
    sent, quiet = 0, time.monotonic()
    while time.monotonic() - quiet < 1:
        try:
            sent += os.write(client.stdin.fileno(), bytes(65536))
            quiet = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)
        assert sent < 8 << 20
    go.set()


def test_one_descriptor_for_both(echo, start):
    """As sshd has it when it uses a socket pair."""
    echo()
    ours, theirs = socket.socketpair()
    client = start(stdin=theirs, stdout=theirs)
    theirs.close()
    with ours:
        ours.settimeout(20)
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: ours.recv(100), b"")) == b"hello=5"
    assert client.wait(10) == 0


def test_no_daemon(process, variables, tmp_path):
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path / "none")
    done = process("stdio")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"nextdeploy: no daemon runs here: there is no {tmp_path}/none/control.sock\n"


def test_no_daemon_over_ssh(process, variables, tmp_path, fake_ssh):
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path / "none")
    for verb in (["status"], ["exec", "shop"], ["forward", "shop", "80"]):
        done = process(*verb, "--server", "ssh://example.com")
        assert done.code == 1 and done.err.startswith(
            "nextdeploy: ssh://example.com: nextdeploy: no daemon runs here: "
        )


def test_it_looks_for_this_machines_daemon_only(echo, process, variables, project, tmp_path):
    echo()
    (project / "nextdeploy.yml").write_text("server: ssh://elsewhere\nstate_dir: /nowhere\n")
    variables["NEXTDEPLOY_SERVER"] = "https://elsewhere"
    assert process("stdio", input="x").out == "x=1"


def test_the_folder_may_be_given(echo, process, variables, tmp_path):
    echo()
    del variables["NEXTDEPLOY_STATE_DIR"]
    assert process("stdio", "--state-dir", str(tmp_path / "state"), input="x").out == "x=1"


def test_a_server_is_wrong_usage(process):
    done = process("stdio", "--server", "https://example.com")
    assert done.code == 2 and "--server" in done.err


def test_verbs_over_ssh_reach_a_whole_daemon(at_real, process, fake_ssh):
    done = process("ps", "--server", "ssh://deploy@example.com:2222", env={"NEXTDEPLOY_SSH_OPTIONS": "-i key"})
    assert done.code == 0 and "shop" in done.out
    assert fake_ssh.read_text().split()[:3] == ["-T", "-i", "key"]

"""`forward` against a whole daemon: real connections to a real port."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from ndactors.cli.forward import parsed


class Forwarding:
    def __init__(self, process):
        self.process = process
        self.first = process.stdout.readline().decode()
        found = re.search(r"^127\.0\.0\.1:(\d+) is port (\d+) of (\S+); ", self.first)
        assert found, self.first + process.stderr.read().decode()
        self.port = int(found[1])

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), 20)
        sock.settimeout(20)
        return sock

    def echo(self, data: bytes) -> bytes:
        """Send it, end our side, and read to the other's end."""
        with self.connect() as sock:
            sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
            sender.start()
            found = b"".join(iter(lambda: sock.recv(65536), b""))
            sender.join()
            return found


@pytest.fixture
def forward(variables, project):
    made = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "ndactors.cli", "forward", *words],
            env=variables,
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        made.append(process)
        return Forwarding(process)

    yield start
    for process in made:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def port(at_real):
    """The app's own."""
    (row,) = at_real.containers().values()
    return str(row["port"])


def test_both_ways_and_half_closed(forward, port):
    there = forward("shop", f"0:{port}")
    assert there.echo(b"hello") == b"hello=5"
    data = os.urandom(1 << 20) * 8
    assert there.echo(data) == data + b"=%d" % len(data)


def test_several_at_once(forward, port):
    there = forward("shop/web", f"0:{port}")
    socks = [there.connect() for _ in range(20)]
    for number, sock in enumerate(socks):
        sock.sendall(b"number %d" % number)
    for number, sock in enumerate(socks):
        assert sock.recv(100) == b"number %d" % number
        sock.close()
    assert there.echo(b"x") == b"x=1"


def test_ctrl_c_ends_it_and_is_no_mistake(forward, port):
    there = forward("shop", f"0:{port}")
    with there.connect() as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        there.process.send_signal(signal.SIGINT)
        assert there.process.wait(10) == 0
        assert sock.recv(1) == b""
    assert there.process.stderr.read() == b""


def test_only_this_machine_can_connect(forward, port):
    there = forward("shop", f"0:{port}")
    with open("/proc/net/tcp") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    assert [row for row in listening if row.endswith(f":{there.port:04X}")] == [f"0100007F:{there.port:04X}"]


def test_a_mistake_of_one_connection_is_told_and_ends_no_other(forward, at_real, port):
    there = forward("shop", "0:1")
    for _ in range(2):
        with there.connect() as sock:
            name = "{}:{}".format(*sock.getsockname())
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        line = there.process.stderr.readline().decode()
        assert line.startswith(f"nextdeploy: {name}: ") and f"its own port {port} can be reached, not 1" in line


def test_a_connection_that_the_container_resets_is_reset_here(forward, port):
    there = forward("shop", f"0:{port}")
    with there.connect() as sock:
        sock.sendall(b"reset")
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            line = there.process.stderr.readline().decode()
            assert "the connection broke" in line
    assert there.echo(b"x") == b"x=1"


def test_a_local_client_that_leaves_is_no_mistake(forward, port):
    there = forward("shop", f"0:{port}")
    for _ in range(3):
        sock = there.connect()
        sock.sendall(bytes(100_000))
        sock.recv(1)
        sock.close()  # with bytes unread: a reset
    assert there.echo(b"x") == b"x=1"
    there.process.send_signal(signal.SIGINT)
    there.process.wait(10)
    assert there.process.stderr.read() == b""


def test_over_ssh(forward, port, fake_ssh):
    there = forward("shop", f"0:{port}", "--server", "ssh://example.com")
    data = os.urandom(500_000)
    assert there.echo(data) == data + b"=500000"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing", "80"], 1, "nothing"),
        (["shop/", "80"], 2, "write APP or APP/PROCESS"),
        (["shop"], 2, "[LOCAL:]PORT"),
        (["shop", "x"], 2, "is no [LOCAL:]PORT"),
    ],
)
def test_refusals(at_real, process, words, code, said):
    done = process("forward", *words)
    assert done.code == code and said in done.err and done.out == ""


def test_a_local_port_that_is_taken(at_real, process):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        done = process("forward", "shop", f"{number}:80")
    assert done.code == 1 and f"127.0.0.1:{number} cannot be listened on: Address already in use" in done.err


def test_no_daemon(process, variables, tmp_path):
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path)
    done = process("forward", "shop", "80")
    assert done.code == 1 and "no daemon runs here" in done.err


def test_ports():
    assert parsed("80") == (80, 80)
    assert parsed("0:80") == (0, 80)
    assert parsed("65535:65535") == (65535, 65535)
    for wrong in ("", "0", ":80", "80:", "1:2:3", "65536", "80:0", "-1", "+1", "٣", "1e3", "000080"):
        with pytest.raises(Exception, match="LOCAL"):
            parsed(wrong)

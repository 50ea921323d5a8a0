"""`exec` against a whole daemon, in a pipe and in a terminal; and against a server that misbehaves."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from ndactors.cli.window import Window


@pytest.fixture
def start(variables, project):
    """``start(*words)``: the client with pipes, as bytes."""
    made = []

    def call(*words, **more):
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "ndactors.cli", "exec", *words],
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


# -- in a pipe -------------------------------------------------------------------------------------


def test_output_errors_and_exit_code_are_the_commands(at_real, process):
    done = process("exec", "shop", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")


def test_stdin_and_its_end_are_passed_on(at_real, process):
    done = process("exec", "shop/web", "-T", "--replica", "1", "--", "cat", input="x\n")
    assert (done.code, done.out, done.err) == (0, "x\n", "")


def test_bytes_pass_as_they_are_both_ways_however_many(at_real, start):
    data = os.urandom(1 << 20) * 20
    client = start("shop", "--", "cat")
    out, err = client.communicate(data, timeout=60)
    assert client.returncode == 0 and err == b""
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_words_reach_the_command_as_they_are(at_real, process):
    words = ["a b", "&command=x", "ü€", "100%", "", "-T", "*"]
    done = process("exec", "shop", "--", "printf", "%s\\n", *words)
    assert done.out.splitlines() == words


def test_without_a_command_a_shell_reads_stdin(at_real, process):
    assert process("exec", "shop", input="echo $((6 * 7)); exit 3\n").out == "42\n"


def test_it_ends_with_the_command_though_stdin_is_open(at_real, start):
    client = start("shop", "--", "true")
    assert client.wait(20) == 0


def test_a_closed_stdin_is_its_end(at_real, variables, project):
    words = f"exec {sys.executable} -m ndactors.cli exec shop -- cat <&-"
    assert subprocess.run(["sh", "-c", words], env=variables, cwd=project, timeout=30, check=False).returncode == 0


def test_memory_is_bounded_when_nobody_reads(at_real, start):
    """A command that prints for ever is slowed down to its reader: with none it stands still."""
    client = start("shop", "--", "yes")
    client.stdout.read(1 << 20)

    def peak() -> int:
        with open(f"/proc/{client.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    first = peak()
    time.sleep(1)
    assert peak() - first < 4096
    client.stdout.read(1 << 20)


def test_a_command_that_reads_nothing_stops_the_sender(at_real, start):
    reader, writer = os.pipe()
    start("shop", "--", "sleep", "60", stdin=reader)
    os.close(reader)
    os.set_blocking(writer, False)
    sent, quiet = 0, time.monotonic()
    while time.monotonic() - quiet < 1.5:
        try:
            sent += os.write(writer, bytes(65536))
            quiet = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)
        assert sent < 64 << 20
    os.close(writer)


def test_a_reader_that_has_enough_ends_it_and_the_command(at_real, start):
    mark = f"sleep 98{os.getpid()}"
    client = start("shop", "--", "sh", "-c", f"yes & {mark}; :")
    client.stdout.read(1000)
    _until(lambda: _runs(mark))
    client.stdout.close()
    assert client.wait(20) == 1
    assert client.stderr.read() == b""
    _until(lambda: not _runs(mark))
    client.stdout = None


def test_the_command_ends_when_the_client_is_killed(at_real, start):
    mark = f"sleep 97{os.getpid()}"
    client = start("shop", "--", "sh", "-c", f"echo on; {mark}; :")
    assert client.stdout.readline() == b"on\n"
    _until(lambda: _runs(mark))  # the shell starts it after it has spoken
    client.kill()
    _until(lambda: not _runs(mark))


def test_a_program_that_is_not_there(at_real, process):
    done = process("exec", "shop", "--", "no-such-program")
    assert done.code in (126, 127) and "no-such-program" in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 1, "There is no app nothing."),
        (["shop/nothing"], 1, "shop has no process nothing; it has web."),
        (["shop", "--replica", "9"], 3, "No container of shop/web runs as replica 9."),
        (["shop/"], 2, "write APP or APP/PROCESS"),
        (["a/b/c"], 2, "write APP or APP/PROCESS"),
        (["/web"], 2, "write APP or APP/PROCESS"),
        (["shop", "--replica", "0"], 2, "--replica"),
        ([], 2, "APP[/PROCESS]"),
    ],
)
def test_refusals(at_real, process, words, code, said):
    done = process("exec", *words)
    assert done.code == code and said in done.err and done.out == ""


def test_no_daemon(process, variables, tmp_path):
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path)
    done = process("exec", "shop", "--", "true")
    assert done.code == 1 and "no daemon runs here" in done.err


def test_over_http_with_a_token(at_real, process):
    made = at_real.post("/api/v1/tokens", {"name": "exec", "role": "operator"})
    address = ["--server", at_real.admin]
    done = process("exec", "shop", *address, "--", "cat", input="x", env={"NEXTDEPLOY_TOKEN": made["token"]})
    assert (done.code, done.out, done.err) == (0, "x", "")
    done = process("exec", "shop", *address, "--", "cat", env={"NEXTDEPLOY_TOKEN": "ndt_" + "a" * 52})
    assert done.code == 3 and done.out == ""


def test_over_ssh(at_real, fake_ssh, start):
    data = os.urandom(3 << 20)
    client = start("shop", "--server", "ssh://deploy@example.com", "--", "sh", "-c", "cat; exit 5")
    out, err = client.communicate(data, timeout=60)
    assert (client.returncode, err) == (5, b"") and out == data
    assert fake_ssh.read_text().endswith("-- deploy@example.com nextdeploy stdio\n")


# -- in a terminal ---------------------------------------------------------------------------------


def _is_raw(master: int) -> bool:
    return not termios.tcgetattr(master)[3] & (termios.ICANON | termios.ECHO)


def _set_size(master: int, rows: int, columns: int) -> None:
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def test_a_terminal_its_sizes_and_its_exit_code(at_real, terminal):
    here = terminal(
        "exec", "shop", "--", "sh", "-c", "stty size; trap 'stty size' WINCH; echo rea''dy; read x; read x; exit 9"
    )
    before = termios.tcgetattr(here.master)
    assert "24 80" in here.read_until("ready")  # what a terminal has that does not know its size
    assert _is_raw(here.master)
    _set_size(here.master, 33, 101)
    here.read_until("33 101")
    here.write("a\rb\r")
    here.rest()
    assert here.process.returncode == 9
    assert termios.tcgetattr(here.master) == before


def test_ctrl_c_and_ctrl_d_belong_to_the_other_side(at_real, terminal):
    here = terminal("exec", "shop", "--", "sh", "-c", "trap 'echo caught' INT; echo on; cat; cat; echo over; exit 4")
    here.read_until("on")
    here.write("w\r")
    here.read_until("w\r\nw")  # the first one reads by now
    here.write("\x03")
    here.read_until("caught")
    here.write("x\r")
    here.read_until("x\r\nx")
    here.write("\x04")
    assert "over" in here.rest()
    assert here.process.returncode == 4


def test_without_tty_the_terminal_stays_as_it_is(at_real, terminal):
    here = terminal("exec", "-T", "shop", "--", "sh", "-c", "tty; cat")
    here.read_until("not a tty")
    assert not _is_raw(here.master)
    here.write("\x04")
    here.rest()
    assert here.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(at_real, terminal, number):
    here = terminal("exec", "shop", "--", "sh", "-c", "echo on; sleep 60")
    before = termios.tcgetattr(here.master)
    here.read_until("on")
    assert _is_raw(here.master)
    here.process.send_signal(number)
    here.rest()
    assert here.process.returncode == 128 + number
    assert termios.tcgetattr(here.master) == before


def test_a_daemon_that_is_lost_puts_the_terminal_back(misbehaving, terminal):
    misbehaving.after = [b"\x82\x02on"]
    here = terminal("exec", "shop")
    before = termios.tcgetattr(here.master)
    here.read_until("on")
    _until(lambda: _is_raw(here.master))
    misbehaving.go.set()
    assert "the connection to" in here.rest()
    assert here.process.returncode == 1
    assert termios.tcgetattr(here.master) == before


def test_no_window_is_nothing():
    with Window(None) as window:
        window.make_raw()
        assert window.size() is None and not window.exists


# -- a server that misbehaves ----------------------------------------------------------------------


class Misbehaving:
    """Takes one WebSocket, answers with ``after`` in the same piece as its handshake, and hangs up at ``go``."""

    def __init__(self, path):
        self.after: list[bytes] = []
        self.head: bytes | None = None
        self.go = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        path.parent.mkdir(exist_ok=True)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            sock, _ = self.listener.accept()
            with sock:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += sock.recv(65536)
                key = asked.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
                accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                head += b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                sock.sendall((head if self.head is None else self.head) + b"".join(self.after))
                self.go.wait(20)


@pytest.fixture
def misbehaving(tmp_path, variables):
    made = Misbehaving(tmp_path / "state" / "control.sock")
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path / "state")
    yield made
    made.go.set()
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    made.thread.join(5)


def text(words: bytes) -> bytes:
    return bytes([0x81, len(words)]) + words


@pytest.mark.parametrize(
    ("after", "code", "out", "said"),
    [
        ([b"\x82\x02ok", text(b'{"exit":6}')], 6, "ok", ""),
        ([b"\x82\x02ok", text(b'{"exit":null}')], 1, "ok", "its exit code is not known"),
        ([b"\x82\x02ok", text(b'{"error":"the engine left"}')], 1, "ok", "the engine left"),
        ([b"\x82\x02ok", b"\x88\x06\x03\xe9stop"], 1, "ok", "the daemon ended it: stop"),
        ([b"\x82\x02ok"], 1, "ok", "broke: "),
        ([text(b'{"exit":3000}')], 1, "", ""),
        ([text(b"[")], 1, "", "broke: "),
        ([b"\x82\x82abcdok"], 1, "", "a server masks no frames"),
        ([b"\x82\x7f" + (1 << 40).to_bytes(8, "big")], 1, "", "at most 1048576 bytes"),
        ([b"\x89\x01p", text(b'{"new": 1}'), text(b'{"exit":0}')], 0, "", ""),
    ],
)
def test_whatever_the_daemon_says(misbehaving, process, after, code, out, said):
    misbehaving.after = after
    misbehaving.go.set()
    done = process("exec", "shop")
    assert (done.code, done.out) == (code, out)
    assert said in done.err if said else done.err == ""


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_whoever_is_no_daemon(misbehaving, process, head):
    misbehaving.head = head
    misbehaving.go.set()
    done = process("exec", "shop")
    assert done.code == 1 and done.err.startswith("nextdeploy: ") and "fault of nextdeploy" not in done.err


def _runs(words: str) -> bool:
    wanted = words.replace(" ", "\0").encode() + b"\0"
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                if file.read() == wanted:
                    return True
    return False


def _until(condition, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)

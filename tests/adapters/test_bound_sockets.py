"""Sockets and their owners, on this machine and on a made-up one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.adapters import bound_sockets
from ndactors.adapters.bound_sockets import BoundSockets, _parsed, ssh_ports
from ndactors.adapters.process_table import ProcessTable
from ndactors.adapters.sock_diag import _messages

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, state: str, inode: int, remote: str = "00000000:0000") -> str:
    return f"   0: {address} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0\n"


class Machine:
    """A /proc of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files(net__tcp=HEAD, net__udp=HEAD, sys__net__ipv4__ip_local_port_range="32768\t60999\n")

    def files(self, **content: str) -> None:
        for name, text in content.items():
            path = self.root / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def process(self, pid: int, name: str, *inodes: int, parent: int = 1, started: int = 5, words: str = "") -> None:
        folder = self.root / str(pid)
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        for number, inode in enumerate(inodes):
            link = folder / "fd" / str(number)
            if not link.is_symlink():
                link.symlink_to(f"socket:[{inode}]")
        zeros = " ".join(["0"] * 15)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} {zeros} {started} 0 1 {zeros}\n")
        (folder / "cgroup").write_text("0::/user.slice\n")
        (folder / "cmdline").write_text(words.replace(" ", "\0") + "\0")

    def sockets(self) -> BoundSockets:
        return BoundSockets(Path("/state"), ProcessTable(str(self.root)), proc=str(self.root))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    look = ProcessTable.look
    monkeypatch.setattr(ProcessTable, "look", lambda self, fresh=-1.0: look(self, -1.0))
    return Machine(tmp_path)


def named(seen) -> dict[int, str | None]:
    return {each.port: each.owner.name if each.owner is not None else None for each in seen.sockets}


def test_a_socket_of_ours_is_found_with_its_process():
    with socket.create_server(("0.0.0.0", 0)) as one:
        port = one.getsockname()[1]
        seen = BoundSockets(Path("/state"), ProcessTable()).look()
        (found,) = [each for each in seen.sockets if each.port == port]
    assert found.address == "0.0.0.0"
    assert found.owner.pid == os.getpid()
    assert found.owner.role == "daemon"


def test_the_kernel_answers_what_its_files_say(monkeypatch):
    def seen() -> set:
        found = BoundSockets(Path("/state"), ProcessTable())._rows()
        return {(row.address, row.port, row.inode) for row in found if row.port in ports}

    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::", 0), family=socket.AF_INET6) as two,
        socket.create_server(("::ffff:127.0.0.1", 0), family=socket.AF_INET6, dualstack_ipv6=True) as three,
    ):
        ports = {each.getsockname()[1] for each in (one, two, three)}
        answered = seen()
        assert {address for address, _, _ in answered} == {"127.0.0.1", "::"}
        monkeypatch.setattr(bound_sockets, "listening", lambda family: None)
        assert seen() == answered
        assert len(answered) == 3


def test_udp_counts_with_a_fixed_port_only():
    first, last = (int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_port, socket.socket(type=socket.SOCK_DGRAM) as fixed:
        any_port.bind(("0.0.0.0", 0))
        chosen = next(port for port in range(first - 1, first - 2000, -1) if _bind(fixed, port))
        ports = {(each.protocol, each.port) for each in BoundSockets(Path("/state"), ProcessTable()).look().sockets}
        assert first <= any_port.getsockname()[1] <= last
        assert ("udp", any_port.getsockname()[1]) not in ports
        assert ("udp", chosen) in ports


def _bind(sock: socket.socket, port: int) -> bool:
    try:
        sock.bind(("0.0.0.0", port))
    except OSError:
        return False
    return True


def test_descriptors_are_looked_through_for_new_sockets_only(machine, monkeypatch):
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11))
    machine.process(7, "web", 11)
    sockets, passes = machine.sockets(), []
    own = BoundSockets._owners
    monkeypatch.setattr(BoundSockets, "_owners", lambda self, wanted: passes.append(wanted) or own(self, wanted))
    for _ in range(3):
        assert named(sockets.look()) == {8080: "web"}
    assert passes == [{11}]
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11) + row("00000000:1F91", "0A", 12))
    machine.process(8, "new", 12)
    assert named(sockets.look()) == {8080: "web", 8081: "new"}
    assert passes == [{11}, {12}]


def test_a_socket_that_outlives_its_process_gets_the_one_that_has_it_now(machine):
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11))
    machine.process(7, "parent", 11)
    machine.process(9, "child", 11)
    sockets = machine.sockets()
    assert named(sockets.look()) == {8080: "parent"}
    machine.process(7, "another", started=99)
    (machine.root / "7" / "fd" / "0").unlink()
    assert named(sockets.look()) == {8080: "child"}


def test_what_has_no_owner_is_told_at_the_second_look_and_not_looked_for_for_ever(machine, monkeypatch):
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11))
    sockets, passes = machine.sockets(), []
    own = BoundSockets._owners
    monkeypatch.setattr(BoundSockets, "_owners", lambda self, wanted: passes.append(wanted) or own(self, wanted))
    assert named(sockets.look()) == {}
    for _ in range(10):
        assert named(sockets.look()) == {8080: None}
    assert len(passes) == bound_sockets.TRIES


def test_process_one_has_what_nobody_else_has(machine):
    machine.files(net__tcp=HEAD + row("00000000:0016", "0A", 11) + row("00000000:1F90", "0A", 12))
    machine.process(1, "systemd", 11, 12, parent=0)
    machine.process(50, "edge", 12)
    assert named(machine.sockets().look()) == {22: "systemd", 8080: "edge"}


def test_our_own_processes_are_known_by_command_line_and_user(machine, monkeypatch):
    line = "python -m ndactors --role=edge --state-dir=/state"
    machine.files(net__tcp=HEAD + "".join(row(f"00000000:{port:04X}", "0A", port) for port in (1, 2, 3)))
    machine.process(7, "edge", 1, words=line)
    machine.process(8, "other", 2, words=line.replace("/state", "/theirs"))
    machine.process(9, "worker", 3, parent=7, words=line.replace("edge", "edge-worker"))
    roles = {each.port: each.owner.role for each in machine.sockets().look().sockets}
    assert roles == {1: "edge", 2: "", 3: "edge-worker"}
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    roles = {each.port: each.owner.role for each in machine.sockets().look().sockets}
    assert roles == {1: "", 2: "", 3: ""}, "anybody may claim to be one of ours"


def test_a_process_in_a_container_is_told_with_its_id(machine):
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11))
    machine.process(7, "web", 11)
    (machine.root / "7" / "cgroup").write_text(f"0::/system.slice/docker-{'3f' * 32}.scope\n")
    assert machine.sockets().look().sockets[0].owner.container == "3f" * 32


def test_connections_after_those_that_listen_are_not_read(machine):
    crowd = "".join(row("0100007F:1F90", "01", 0, "0100007F:0001") for _ in range(100_000))
    machine.files(net__tcp=HEAD + row("00000000:1F90", "0A", 11) + crowd)
    machine.process(7, "web", 11)
    assert named(machine.sockets().look()) == {8080: "web"}
    assert len(bound_sockets._listening_part(str(machine.root / "net/tcp"))) <= 65536


def test_a_machine_without_proc_shows_nothing(tmp_path):
    assert BoundSockets(Path("/state"), ProcessTable(str(tmp_path)), proc=str(tmp_path)).look() is None


@given(st.binary(max_size=200))
def test_random_bytes_are_no_sockets(noise):
    for data in (noise, b"0: " + noise, row("00000000:1F90", "0A", 1).encode()[:-20] + noise):
        for _, port, inode in _parsed(data, "0A"):
            assert isinstance(port + inode, int)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_messages(noise):
    for kind, data in _messages(noise):
        assert isinstance(kind, int)
        assert len(data) <= len(noise)


def test_the_ports_of_sshd_are_those_of_its_own_file(tmp_path):
    (tmp_path / "sshd_config").write_text("#Port 22\nPort 2222\n  port 2200 \nPort 99999\nPortable 5\n")
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config.d" / "own.conf").write_text("Port 2022\n")
    assert ssh_ports(tmp_path) == (2022, 2200, 2222)
    assert ssh_ports(tmp_path / "none") == ()


def test_another_process_is_found_by_its_descriptors():
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        seen = BoundSockets(Path("/state"), ProcessTable()).look()
        (found,) = [each for each in seen.sockets if each.port == port]
        assert found.owner.pid == process.pid
        assert found.owner.role == ""
        assert os.getpid() in found.owner.lineage
        process.stdin.close()

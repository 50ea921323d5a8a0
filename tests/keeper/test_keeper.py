"""The keeper: nothing that an app prints is lost, whoever is killed; nobody else's process is ever touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reaping import reap

from ndactors.adapters.process_engine import ProcessEngine
from ndactors.core import containers as labels
from ndactors.core.containers import ContainerSpec
from ndactors.core.model import Resources, Rotate
from ndactors.errors import EngineUnreachable

OWN = {labels.DAEMON: "testkeeper01", labels.PROJECT: "test", labels.APP: "t", labels.PROCESS: "web"}
ROOT = Path(__file__).parents[2]


def until(condition, seconds: float = 15.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except EngineUnreachable:
            value = None  # between two keepers
        if value:
            return value
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


@pytest.fixture
def engine(tmp_path):
    made = ProcessEngine(tmp_path, "testkeeper01")
    yield made
    for container in made.containers():
        made.remove(container.id)
    made.shutdown()
    reap()


def script(text: str, name: str = "nd-t-web-1-1", **fields) -> ContainerSpec:
    return ContainerSpec(name=name, labels=OWN, command=("sh", "-c", text), **fields)


def run(engine, spec: ContainerSpec):
    return engine.start(engine.create(spec).id)


def keeper_pid(folder: Path) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--role=keeper" in words and f"--state-dir={folder}".encode() in words:
                return int(entry.name)
    return 0


def printed(status) -> list[str]:
    """Every line in its files, oldest first, pieces joined."""
    path = Path(status.log_path)
    numbered = [p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()]
    files = [*sorted(numbered, key=lambda p: -int(p.suffix[1:])), path]
    text = "".join(json.loads(line)["log"] for file in files for line in file.read_bytes().splitlines() if line)
    return text.splitlines()


NUMBERS = "i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); {pause} done; exit 7"


def test_the_daemon_is_killed_while_an_app_prints_and_ends(engine, tmp_path):
    """The asker dies right after the start; the next one finds every line and the exit code."""
    code = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from ndactors.adapters.process_engine import ProcessEngine\n"
        "from ndactors.core.containers import ContainerSpec\n"
        f"engine = ProcessEngine(Path({str(tmp_path)!r}), 'testkeeper01')\n"
        f"spec = ContainerSpec(name='nd-t-web-1-1', labels={OWN!r}, command=('sh', '-c', {NUMBERS.format(count=3000, pause='')!r}))\n"
        "engine.start(engine.create(spec).id)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    (status,) = engine.containers()
    until(lambda: engine.inspect(status.id).state == "exited")
    status = engine.inspect(status.id)
    assert status.exit_code == 7
    assert printed(status) == [f"line {n}" for n in range(3000)]


def test_the_keeper_is_killed_while_an_app_prints(engine, tmp_path):
    status = run(engine, script(NUMBERS.format(count=400, pause="sleep 0.005;")))
    first = until(lambda: keeper_pid(tmp_path))
    until(lambda: len(engine.output(status.id, 100)) >= 50)
    os.kill(first, signal.SIGKILL)
    until(lambda: engine.containers() and keeper_pid(tmp_path) not in (0, first))
    assert until(lambda: engine.inspect(status.id)).pid == status.pid, "the app lives, and is known"
    assert keeper_pid(tmp_path) not in (0, first)
    until(lambda: engine.inspect(status.id).state == "exited")
    ended = engine.inspect(status.id)
    assert ended.exit_code is None, "who was not its parent cannot know"
    assert printed(ended) == [f"line {n}" for n in range(400)]


def test_a_line_begun_before_the_keepers_death_is_whole_after_it(engine, tmp_path):
    status = run(engine, script("printf 'one '; sleep 1; echo two; sleep 60"))
    rest = Path(status.log_path + ".stdout")
    until(lambda: rest.exists() and rest.read_bytes() == b"one ")
    os.kill(keeper_pid(tmp_path), signal.SIGKILL)
    until(lambda: engine.output(status.id, 5) == ["one two"])


def test_one_that_ends_while_no_keeper_runs_is_found_ended(engine, tmp_path):
    status = run(engine, script("sleep 0.5; echo last words"))
    os.kill(until(lambda: keeper_pid(tmp_path)), signal.SIGKILL)
    until(lambda: not keeper_pid(tmp_path) and not Path(f"/proc/{status.pid}").exists())
    ended = until(lambda: engine.inspect(status.id))
    assert (ended.state, ended.exit_code) == ("exited", None)


@pytest.mark.parametrize("file", ["state.json", "spec.json"])
def test_damaged_files_are_set_aside_and_the_others_are_served(engine, tmp_path, file):
    good = engine.create(script("sleep 60", "good"))
    bad = engine.create(script("sleep 60", "bad"))
    path = tmp_path / "keeper" / "apps" / bad.id / file
    content = path.read_bytes()
    for cut in (0, 1, len(content) // 2, len(content) - 1):
        os.kill(until(lambda: keeper_pid(tmp_path)), signal.SIGKILL)
        until(lambda: not keeper_pid(tmp_path))
        if not path.exists():
            aside = next((tmp_path / "keeper" / "apps").glob(f"{bad.id}.damaged-*"))
            aside.rename(path.parent)
        path.write_bytes(content[:cut])
        assert [c.id for c in until(engine.containers)] == [good.id]
    assert list((tmp_path / "keeper" / "apps").glob(f"{bad.id}.damaged-*"))
    assert "is damaged" in (tmp_path / "keeper" / "keeper.log").read_text()


def test_a_number_that_another_process_has_now_is_never_signalled(engine, tmp_path):
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        made = engine.create(script("sleep 60"))
        os.kill(until(lambda: keeper_pid(tmp_path)), signal.SIGKILL)
        until(lambda: not keeper_pid(tmp_path))
        path = tmp_path / "keeper" / "apps" / made.id / "state.json"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state = {"state": "running", "pid": stranger.pid, "ticks": 1, "boot": boot, "port": 1, "started": 1.0}
        path.write_text(json.dumps(state))
        assert until(lambda: engine.inspect(made.id)).state == "exited"
        engine.stop(made.id, signal="SIGKILL", grace=0)
        engine.remove(made.id)
        assert stranger.poll() is None
        (made,) = [engine.create(script("sleep 60", "second"))]
        os.kill(until(lambda: keeper_pid(tmp_path)), signal.SIGKILL)
        until(lambda: not keeper_pid(tmp_path))
        path = tmp_path / "keeper" / "apps" / made.id / "state.json"
        path.write_text(json.dumps({**state, "boot": "another boot"}))
        assert until(lambda: engine.inspect(made.id)).state == "exited"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_line_without_an_end_and_bytes_that_are_no_text(engine, tmp_path):
    code = "import sys; w=sys.stdout.buffer; [w.write(b'x'*65536) for _ in range(512)]; w.write(b'\\xff\\xfe\\n'); w.flush()"
    spec = ContainerSpec(
        name="big", labels=OWN, command=(sys.executable, "-c", code), rotate=Rotate(size=8 * 1024 * 1024, files=10)
    )
    status = run(engine, spec)
    until(lambda: engine.inspect(status.id).state == "exited", 60)
    (line,) = printed(engine.inspect(status.id))
    assert line == "x" * (512 * 65536) + "��"
    rows = Path(status.log_path).read_bytes().splitlines()
    assert max(map(len, rows)) < 17 * 1024
    memory = int(Path(f"/proc/{keeper_pid(tmp_path)}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert memory < 64 * 1024 * 1024


VFORK = """
import ctypes, os, platform, signal
number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
if ctypes.CDLL(None).syscall(number, 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:  # CLONE_VFORK
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
print("over", flush=True)
"""


def test_who_waits_for_a_child_that_has_stopped_is_frozen(engine):
    """As a shell that is stopped while it starts a program: the kernel does not stop it before the child goes on."""
    spec = ContainerSpec(name="nd-t-web-1-1", labels=OWN, command=(sys.executable, "-c", VFORK))
    status = run(engine, spec)
    until(lambda: engine.inspect(status.id).state == "paused")
    engine.kill(status.id, "SIGCONT")
    until(lambda: engine.inspect(status.id).state == "exited")
    assert printed(engine.inspect(status.id)) == ["over"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk takes root to mount")
def test_a_full_disk_loses_lines_and_nothing_else(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=True)
    engine = ProcessEngine(disk, "testkeeper01")
    try:
        loop = "i=0; while :; do echo line $i 0123456789012345678901234567890123456789; i=$((i+1)); done"
        status = run(engine, script(loop, rotate=Rotate(size=50 * 1024 * 1024, files=2)))
        log = disk / "keeper" / "keeper.log"
        until(lambda: os.statvfs(disk).f_bavail == 0 or "lines are dropped" in log.read_text())
        assert engine.inspect(status.id).state == "running"
        Path(status.log_path).write_bytes(b"")  # somebody makes room
        until(lambda: len(Path(status.log_path).read_bytes()) > 10_000)
    finally:
        try:
            for container in engine.containers():
                engine.remove(container.id)
            engine.shutdown()
            until(lambda: not keeper_pid(disk))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups take root")
def test_a_fork_bomb_stays_in_its_box(engine):
    status = run(engine, script("bomb() { bomb | bomb & }; bomb; sleep 60", resources=Resources(pids=50)))
    time.sleep(1)  # it may grow for a second; there is nothing to wait for
    mark = f"NEXTDEPLOY_CONTAINER={status.id}".encode()
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += mark in (entry / "environ").read_bytes()
            except OSError:
                continue
    assert count <= 50
    engine.stop(status.id, signal="SIGKILL", grace=1)
    assert engine.inspect(status.id).state == "exited"


def test_malformed_requests_close_that_peer_only(engine, tmp_path):
    status = run(engine, script("sleep 60"))
    for data in (b"\0\0\0\0garbage\n", b"[]\n", b'{"do": "fly", "id": 1}\n', b"[" * 100_000 + b"\n", b"x" * 5_000_000):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(10)
            peer.connect(str(tmp_path / "keeper" / "keeper.sock"))
            try:
                peer.sendall(data)
                assert peer.recv(100) == b""
            except (BrokenPipeError, ConnectionResetError):
                continue
    assert engine.inspect(status.id).state == "running"


def test_who_does_not_listen_is_dropped(engine, tmp_path):
    status = run(engine, script("sleep 60"))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(tmp_path / "keeper" / "keeper.sock"))
        request = {"do": "list", "id": 1, "daemon": OWN[labels.DAEMON]}
        deaf.setblocking(False)
        sent = 0
        while sent < 200_000:
            try:
                sent += deaf.send(json.dumps(request).encode() + b"\n")
            except BlockingIOError:
                break
            except (BrokenPipeError, ConnectionResetError):
                break
        assert engine.inspect(status.id).state == "running"


def test_a_frozen_app_is_told_of(engine):
    status = run(engine, script("sleep 60"))
    events = engine.events(time.time() - 5)
    assert next(events).kind == "started"
    engine.kill(status.id, "SIGSTOP")
    assert next(events).kind == "paused"
    engine.kill(status.id, "SIGCONT")
    assert next(events).kind == "unpaused"


def test_an_idle_keeper_costs_little(engine, tmp_path):
    run(engine, script("sleep 60"))
    pid = until(lambda: keeper_pid(tmp_path))
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 16 * 1024, f"{pss} kB"
    loaded = Path(f"/proc/{pid}/maps").read_text()
    assert "gevent" not in loaded
    assert "msgspec" not in loaded

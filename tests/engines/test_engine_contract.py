"""What every engine must do, asked of each of them: memory, process, docker."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from reaping import reap

from ndactors.adapters.docker_engine import DockerEngine
from ndactors.adapters.memory_engine import MemoryEngine
from ndactors.adapters.process_engine import ProcessEngine
from ndactors.core import containers as labels
from ndactors.core.containers import ContainerSpec
from ndactors.core.model import Resources, Rotate, Volume
from ndactors.errors import Conflict, ContainerNotFound, EngineUnreachable, ImageNotFound

TESTAPP = Path(__file__).parents[1] / "ground" / "testapp.py"
_names = itertools.count(1)

OWN = 100_000_000 + 10 * os.getpid()
"""So long sleeps what is looked for in the list of processes: another run of these tests looks for its own."""


class Ground:
    """One engine under test, and how its containers are written."""

    def __init__(self, engine, daemon: str, image: str | None, state: Path) -> None:
        self.engine, self.daemon, self.image, self.state = engine, daemon, image, state

    def spec(self, command=None, **fields) -> ContainerSpec:
        name = fields.pop("name", f"nd-t{self.daemon[4:10]}-web-1-{next(_names)}")
        own = {
            labels.DAEMON: fields.pop("daemon", self.daemon),
            labels.PROJECT: "test",
            labels.APP: "t",
            labels.PROCESS: "web",
            labels.REVISION: "1",
            labels.REPLICA: "1",
        }
        if command is None and self.image is None:
            command = ("python3", str(TESTAPP))
        network = f"nd-test-{self.daemon[:10]}" if self.engine.name == "docker" else None
        return ContainerSpec(name=name, labels=own, image=self.image, command=command, network=network, **fields)

    def shell(self, script: str, **fields) -> ContainerSpec:
        return self.spec(("sh", "-c", script), **fields)

    def run(self, spec: ContainerSpec):
        return self.engine.start(self.engine.create(spec).id)

    def ended(self, container: str, seconds: float = 10.0):
        until(lambda: self.engine.inspect(container).state == "exited", seconds)
        return self.engine.inspect(container)


def until(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except (OSError, ValueError):
            value = None
        if value:
            return value
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


def get(status, path: str = "/"):
    with urllib.request.urlopen(f"http://{status.address}:{status.port}{path}", timeout=5) as response:
        return json.loads(response.read())


@pytest.fixture
def ground(request, tmp_path):
    if request.param == "memory":
        yield Ground(MemoryEngine("testmemory01"), "testmemory01", None, tmp_path)
        return
    if request.param == "process":
        engine = ProcessEngine(tmp_path, "testprocess1")
        yield Ground(engine, "testprocess1", None, tmp_path)
        for container in engine.containers():
            engine.remove(container.id)
        engine.shutdown()
        reap()
        return
    daemon = request.getfixturevalue("daemon_id")
    engine = DockerEngine(tmp_path, daemon, base_url=request.getfixturevalue("engine_address"))
    yield Ground(engine, daemon, request.getfixturevalue("test_image"), tmp_path)
    engine.close()


@pytest.fixture
def real(ground):
    """An engine with real processes: the memory engine has none to look into."""
    return ground


def pytest_generate_tests(metafunc):
    """Where real processes are needed the memory engine is left out, so that no skip stands for it."""
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("ground", ["process", "docker"], indirect=True)
    elif "ground" in metafunc.fixturenames:
        metafunc.parametrize("ground", ["memory", "process", "docker"], indirect=True)


def test_info_names_it(ground):
    info = ground.engine.info()
    assert info.name == ground.engine.name
    assert info.version


def test_a_life(ground):
    engine = ground.engine
    created = engine.create(ground.shell("sleep 60"))
    assert created.state == "created"
    assert [c.id for c in engine.containers()] == [created.id]
    running = engine.start(created.id)
    assert running.state == "running"
    assert running.pid
    assert abs(running.started_at - time.time()) < 30
    assert engine.start(created.id).started_at == running.started_at, "starting a running one changes nothing"
    engine.stop(created.id, signal="SIGKILL", grace=5)
    ended = engine.inspect(created.id)
    assert (ended.state, ended.exit_code, ended.address, ended.pid) == ("exited", 137, None, None)
    assert ended.finished_at >= ended.started_at
    engine.stop(created.id, signal="SIGTERM", grace=1)
    again = engine.start(created.id)
    assert again.state == "running"
    assert again.started_at > running.started_at
    engine.remove(created.id)
    engine.remove(created.id)
    assert engine.containers() == []


def test_labels_and_name_come_back(ground):
    spec = ground.shell("sleep 60")
    status = ground.engine.create(spec)
    assert status.name == spec.name
    assert spec.labels.items() <= status.labels.items()


def test_what_is_not_there_is_said_so(ground):
    for call in (ground.engine.inspect, ground.engine.start, ground.engine.kill):
        with pytest.raises(ContainerNotFound):
            call("0123456789abcdef")
    with pytest.raises(ContainerNotFound):
        ground.engine.stop("0123456789abcdef", signal="SIGTERM", grace=1)
    ground.engine.remove("0123456789abcdef")


def test_a_name_is_given_once(ground):
    spec = ground.shell("sleep 60")
    ground.engine.create(spec)
    with pytest.raises(Conflict):
        ground.engine.create(spec)


def test_an_image_that_is_not_there(ground):
    spec = ground.spec(("true",))
    with pytest.raises(ImageNotFound):
        ground.engine.create(ContainerSpec(**{**_fields(spec), "image": "nextdeploy-none:1"}))
    assert ground.engine.containers() == []


def _fields(spec: ContainerSpec) -> dict:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def test_events_tell_of_start_and_end(ground):
    engine, seen = ground.engine, []

    def watch():
        try:
            for event in engine.events(time.time() - 1):
                seen.append(event)
                if event.kind == "removed":
                    return
        except EngineUnreachable:
            return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    status = ground.run(ground.shell("sleep 60"))
    until(lambda: any(e.kind == "started" for e in seen))
    engine.kill(status.id)
    until(lambda: any(e.kind == "died" for e in seen))
    engine.remove(status.id)
    watcher.join(10)
    assert [e.kind for e in seen] == ["started", "died", "removed"]
    assert {e.container for e in seen} == {status.id}
    assert seen[1].exit_code == 137
    assert seen[0].labels[labels.APP] == "t"


def test_the_past_is_told_to_who_asks(ground):
    began = time.time() - 0.5
    status = ground.run(ground.shell("sleep 60"))
    first = next(ground.engine.events(began))
    assert (first.kind, first.container) == ("started", status.id)


def test_only_ones_own_are_seen_and_touched(ground):
    other = ground.engine.create(ground.shell("sleep 60"))
    stranger = _other(ground)
    assert stranger.containers() == []
    for call in (stranger.inspect, stranger.start, stranger.kill):
        with pytest.raises(ContainerNotFound):
            call(other.id)
    stranger.remove(other.id)
    assert ground.engine.inspect(other.id).state == "created"


def _other(ground):
    if ground.engine.name == "memory":
        return ground.engine.as_daemon("testother001")
    if ground.engine.name == "process":
        return ProcessEngine(ground.state, "testother001")
    return DockerEngine(ground.state, "testother001", base_url=ground.engine._base_url)


# -- what takes real processes ---------------------------------------------------------------------


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 5", 137)])
def test_exit_codes(real, script, code):
    status = real.run(real.shell(script))
    assert real.ended(status.id).exit_code == code


def test_output_of_both_streams_in_order(real):
    status = real.run(real.shell("echo one; echo two >&2; printf 'no newline'"))
    real.ended(status.id)
    lines = until(lambda: (out := real.engine.output(status.id, 10)) and len(out) == 3 and out)
    assert sorted(lines) == ["no newline", "one", "two"]
    assert real.engine.output(status.id, 1) == lines[-1:]


def test_environment_port_and_folder(real):
    spec = real.shell("echo $PORT $A; pwd", env={"A": "b c"}, port=18123, workdir="/tmp")
    status = real.run(spec)
    real.ended(status.id)
    assert until(lambda: real.engine.output(status.id, 10)) == ["18123 b c", "/tmp"]


def test_the_daemons_own_environment_stays_its_own(real, monkeypatch):
    monkeypatch.setenv("DAEMON_SECRET", "hush")
    status = real.run(real.shell("env"))
    real.ended(status.id)
    assert not [line for line in real.engine.output(status.id, 100) if "DAEMON_SECRET" in line]


def test_its_address_answers(real):
    status = real.run(real.spec())
    assert until(lambda: get(status))["path"] == "/"
    real.engine.stop(status.id, signal="SIGTERM", grace=5)
    again = real.engine.start(status.id)
    assert until(lambda: get(again))["path"] == "/"


def test_one_that_ignores_the_signal_is_killed_after_its_grace(real):
    status = real.run(real.shell("trap '' TERM; while :; do sleep 0.1; done"))
    began = time.monotonic()
    real.engine.stop(status.id, signal="SIGTERM", grace=1.0)
    assert 0.9 < time.monotonic() - began < 8
    assert real.engine.inspect(status.id).exit_code == 137


def test_a_signal_of_its_choice(real):
    status = real.run(real.shell("trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"))
    until(lambda: real.engine.output(status.id, 1) == ["ready"])
    real.engine.stop(status.id, signal="SIGUSR1", grace=5)
    assert real.engine.inspect(status.id).exit_code == 9


@pytest.mark.parametrize("signal", ["SIGINT", "SIGHUP"])
def test_no_signal_is_ignored_from_birth(real, signal):
    status = real.run(real.shell("trap 'exit 8' INT HUP; echo ready; while :; do sleep 0.05; done"))
    until(lambda: real.engine.output(status.id, 1) == ["ready"])
    real.engine.stop(status.id, signal=signal, grace=5)
    assert real.engine.inspect(status.id).exit_code == 8


def test_a_frozen_one_is_seen_and_can_be_stopped(real):
    status = real.run(real.shell("trap 'exit 4' TERM; while :; do sleep 0.05; done"))
    freeze(real, status)
    until(lambda: real.engine.inspect(status.id).state == "paused")
    real.engine.stop(status.id, signal="SIGTERM", grace=5)
    assert real.engine.inspect(status.id).state == "exited"


def freeze(real, status):
    if real.engine.name == "docker":
        real.engine._ask(lambda api: api.pause(status.id))
    else:
        real.engine.kill(status.id, "SIGSTOP")


def test_execute(real):
    status = real.run(real.shell("sleep 60", env={"A": "b"}))
    engine = real.engine
    result = engine.execute(status.id, ("sh", "-c", "echo $A; echo x >&2; exit 3"), 5)
    assert (result.exit_code, sorted(result.output.split())) == (3, ["b", "x"])
    began = time.monotonic()
    assert engine.execute(status.id, ("sleep", "30"), 0.3).exit_code == 124
    assert time.monotonic() - began < 5
    big = engine.execute(
        status.id, ("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done"), 30
    )
    assert big.exit_code == 0
    assert len(big.output) <= 64 * 1024


def terminal(real, container: str, *argv: str, tty: bool = False, rows: int = 24, columns: int = 80):
    return real.engine.terminal(container, argv, tty=tty, rows=rows, columns=columns)


def printed(opened) -> tuple[bytes, bytes]:
    """All that comes until the end, by stream."""
    streams = {False: b"", True: b""}
    while True:
        data, is_error = opened.receive()
        if not data:
            return streams[False], streams[True]
        streams[is_error] += data


def printed_until(opened, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        data, _ = opened.receive()
        assert data, seen
        seen += data
    return seen


def test_a_terminal_echoes_and_ends(ground):
    status = ground.run(ground.shell("sleep 60"))
    opened = terminal(ground, status.id, "cat")
    opened.send(b"hello")
    assert printed_until(opened, b"hello") == b"hello"
    opened.end_input()
    assert printed(opened) == (b"", b"")
    assert opened.exit_code() == 0
    opened.close()
    opened.close()


def test_no_terminal_in_what_does_not_run_or_is_not_there(ground):
    created = ground.engine.create(ground.shell("sleep 60"))
    with pytest.raises(Conflict):
        terminal(ground, created.id, "cat")
    with pytest.raises(ContainerNotFound):
        terminal(ground, "0123456789abcdef", "cat")
    ground.engine.start(created.id)
    with pytest.raises(ContainerNotFound):
        _other(ground).terminal(created.id, ("cat",), tty=False, rows=1, columns=1)


def test_a_terminal_has_two_streams_and_the_containers_surroundings(real):
    status = real.run(real.shell("sleep 60", env={"A": "b c"}, workdir="/tmp", port=18124))
    opened = terminal(real, status.id, "sh", "-c", "echo $A $PORT; pwd; echo wrong >&2; exit 7")
    assert printed(opened) == (b"b c 18124\n/tmp\n", b"wrong\n")
    assert opened.exit_code() == 7
    opened.close()


def test_a_terminal_with_a_tty(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "sh", tty=True, rows=33, columns=101)
    opened.send(b"stty size; echo $TERM; test -t 0 && test -t 2 && echo 'a t''ty'\n")
    assert b"33 101" in printed_until(opened, b"a tty")
    opened.resize(41, 133)
    opened.send(b"stty size; echo do''ne\n")
    assert b"41 133" in printed_until(opened, b"done")
    opened.send(f"sleep {OWN + 5}\n".encode())
    until(lambda: _sleepers(OWN + 5))
    opened.send(b"\x03")
    until(lambda: not _sleepers(OWN + 5))
    opened.send(b"exit 5\n")
    printed(opened)
    assert opened.exit_code() == 5
    opened.close()


def test_the_end_of_input_ends_a_shell_with_a_tty(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "sh", tty=True)
    opened.send(b"PS1='rea''dy> '\n")
    printed_until(opened, b"ready> ")  # it reads by now, in the way of its own that it has for lines
    opened.end_input()
    printed(opened)
    assert opened.exit_code() == 0
    opened.close()


@pytest.mark.parametrize("program", ["/no/such/program", "/etc/passwd"])
def test_a_program_that_cannot_be_started_says_so(real, program):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, program)
    said = b"".join(printed(opened))
    assert program.encode() in said
    assert opened.exit_code() in (126, 127)
    opened.close()


@pytest.mark.parametrize("tty", [False, True])
def test_closing_a_terminal_ends_all_of_its_processes(real, tty):
    status = real.run(real.shell("sleep 60"))
    long = OWN + 1
    script = f"trap '' HUP; sleep {long} & sleep {long} & echo rea''dy; sleep {long}"
    opened = terminal(real, status.id, "sh", "-c", script, tty=tty)
    printed_until(opened, b"ready")
    until(lambda: len(_sleepers(OWN + 1)) >= 3)
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 5
    until(lambda: not _sleepers(OWN + 1))
    assert real.engine.inspect(status.id).state == "running"


def test_a_terminal_that_is_closed_at_once_leaves_nothing(real):
    status = real.run(real.shell("sleep 60"))
    for _ in range(5):
        terminal(real, status.id, "sleep", str(OWN + 2)).close()
    until(lambda: not _sleepers(OWN + 2))


def test_what_reads_no_more_ends_nobody(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "sh", "-c", "exec <&-; echo closed; sleep 0.3; exit 4")
    printed_until(opened, b"closed")
    for _ in range(5):
        opened.send(b"x" * 1000)
    printed(opened)
    opened.send(b"x")
    opened.end_input()
    assert opened.exit_code() == 4
    opened.close()


def test_ten_megabytes_there_and_back(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "cat")
    sent = os.urandom(1 << 20) * 10

    def type_it():
        for start in range(0, len(sent), 100_000):
            opened.send(sent[start : start + 100_000])
        opened.end_input()

    typist = threading.Thread(target=type_it)
    typist.start()
    out, wrong = printed(opened)
    typist.join(10)
    assert (out == sent, wrong) == (True, b"")
    assert opened.exit_code() == 0
    opened.close()


def test_a_frozen_container_does_not_hold_a_terminal(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "sleep", str(OWN + 3))
    until(lambda: _sleepers(OWN + 3))
    freeze(real, status)
    until(lambda: real.engine.inspect(status.id).state == "paused")
    with pytest.raises(Conflict):
        terminal(real, status.id, "true")
    began = time.monotonic()
    opened.close()
    assert time.monotonic() - began < 5
    real.engine.stop(status.id, signal="SIGKILL", grace=1)
    until(lambda: not _sleepers(OWN + 3))


def test_the_end_of_a_container_is_the_end_of_its_terminals(real):
    status = real.run(real.shell("sleep 60"))
    opened = terminal(real, status.id, "sleep", str(OWN + 4))
    until(lambda: _sleepers(OWN + 4))
    real.engine.stop(status.id, signal="SIGKILL", grace=1)
    assert printed(opened) == (b"", b"")
    assert opened.exit_code() in (137, 129)
    opened.close()


def test_a_named_volume_outlives_its_container(real):
    where = "$VOLUME_DATA" if real.engine.name == "process" else "/data"
    volume = (Volume(source="data", target="/data"),)
    first = real.run(real.shell(f"echo kept > {where}/file", volumes=volume))
    assert real.ended(first.id).exit_code == 0
    real.engine.remove(first.id)
    second = real.run(real.shell(f"cat {where}/file", volumes=volume))
    real.ended(second.id)
    assert until(lambda: real.engine.output(second.id, 1)) == ["kept"]
    assert (real.state / "volumes" / "test" / "data" / "file").read_text() == "kept\n"


def test_more_memory_than_it_may_have(real):
    script = "i=0; x=a; while [ $i -lt 28 ]; do x=$x$x; i=$((i+1)); done; echo done"
    status = real.run(real.shell(script, resources=Resources(memory=32 * 1024 * 1024)))
    ended = real.ended(status.id, 30)
    assert ended.exit_code != 0
    assert "done" not in real.engine.output(status.id, 5)


def test_its_log_is_a_file_in_the_engines_format_and_rotates(real):
    spec = real.shell(
        "i=0; while [ $i -lt 3000 ]; do echo line $i 0123456789012345678901234567890123456789; i=$((i+1)); done",
        rotate=Rotate(size=100_000, files=3),
    )
    status = real.run(spec)
    real.ended(status.id, 30)
    path = Path(real.engine.inspect(status.id).log_path)
    until(lambda: "line 2999" in path.read_text())
    record = json.loads(path.read_text().splitlines()[0])
    assert set(record) == {"log", "stream", "time"}
    assert record["log"].endswith("\n")
    assert record["stream"] == "stdout"
    files = sorted(path.parent.glob(f"{path.name}*"))
    assert 2 <= len([f for f in files if f.suffix not in (".stdout", ".stderr")]) <= 3
    assert path.stat().st_size <= 110_000


def test_no_process_of_it_is_left(real):
    status = real.run(real.shell(f"setsid sleep {OWN} & sleep {OWN} & sleep {OWN}"))
    until(lambda: len(_sleepers()) >= 3)
    real.engine.stop(status.id, signal="SIGTERM", grace=2)
    until(lambda: not _sleepers())


def _sleepers(seconds: int = OWN) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"sleep\0{seconds}".encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found

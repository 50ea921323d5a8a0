"""Jobs on real engines, by daemons that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import dockerd
import pytest
from daemon import until
from msgspec.structs import replace

from ndactors.adapters.docker_engine import DockerEngine
from ndactors.adapters.job_output import ContainerOutputs
from ndactors.adapters.process_engine import ProcessEngine
from ndactors.core.containers import ContainerSpec

SCRIPT = Path(__file__).parent / "jobs.py"
ROOT = Path(__file__).parents[2]


class Runner:
    """One daemon process, and what it tells."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        self.rows: list[dict] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.rows.append(json.loads(line))

    def say(self, **command) -> None:
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def run(self, script: str, key: str = "release-3", env: dict | None = None, **fields) -> None:
        process = {"command": ["sh", "-c", script], "stop_grace": 1.0, "env": env or {}}
        self.say(processes={"migrate": process}, run={"key": key, "process": "migrate", **fields})

    @property
    def ends(self) -> list[dict]:
        return [row for row in self.rows if row["type"] == "JobEnded"]

    @property
    def output(self) -> str:
        return "".join(row["text"] for row in self.rows if row["type"] == "JobOutput")

    def jobs(self) -> dict:
        changes = [row for row in self.rows if row["type"] == "JobsChanged"]
        return changes[-1] if changes else {"idle": False, "jobs": []}

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        else:
            self.process.stdin.close()
        self.process.wait(20)


@pytest.fixture(params=["docker", "process"])
def ground(request, tmp_path):
    """``ground()`` starts a daemon; ``ground.engine`` is another view of the same engine."""
    if request.param == "docker":
        address = request.getfixturevalue("engine_address")
        image, daemon = request.getfixturevalue("test_image"), request.getfixturevalue("daemon_id")
        engine = DockerEngine(tmp_path, daemon, base_url=address)
    else:
        address, image, daemon = "", "", "testjobs0001"
        engine = ProcessEngine(tmp_path, daemon)
    made: list[Runner] = []

    def start(speed: int = 1) -> Runner:
        made.append(Runner(request.param, address, str(tmp_path), daemon, image, str(speed)))
        return made[-1]

    start.engine = engine
    yield start
    for each in made:
        if each.process.poll() is None:
            each.end(kill=True)
    if request.param == "docker":
        # the Engine may still be removing one for the daemon that was killed
        until(lambda: (dockerd.remove_all(address, daemon), True)[1], what="the removal")
    else:
        engine.shutdown()
    engine.close()


def test_output_end_and_cleaning_up(ground):
    daemon = ground()
    daemon.run("for n in 1 2 3; do echo line $n $WHO; done; echo to stderr >&2; exit 4", env={"WHO": "me"})
    until(lambda: daemon.ends, what="the end")
    end = daemon.ends[0]
    assert (end["exit_code"], end["reason"]) == (4, "exited 4")
    assert sorted(daemon.output.splitlines()) == ["line 1 me", "line 2 me", "line 3 me", "to stderr"]
    assert 0 <= end["seconds"] < 5
    until(lambda: not ground.engine.containers(), what="the removal")
    until(lambda: daemon.jobs()["idle"], what="quiet")


def test_output_comes_while_it_runs(ground):
    daemon = ground()
    daemon.run("echo first; sleep 3; echo last")
    until(lambda: "first\n" in daemon.output, what="the first line")
    assert not daemon.ends
    until(lambda: daemon.ends, what="the end")
    assert daemon.output.endswith("last\n")


def test_a_release_goes_on_over_a_killed_daemon_and_runs_once(ground, tmp_path):
    first = ground()
    first.run("echo begun; sleep 4; echo done", operation="op9")
    until(lambda: "begun" in first.output, what="the start")
    (before,) = ground.engine.containers()
    first.end(kill=True)
    second = ground()
    second.run("echo begun; sleep 4; echo done", operation="op9")
    until(lambda: second.ends, 20, "the end")
    assert second.ends[0]["exit_code"] == 0
    assert second.output == "[the daemon was restarted; from the start:]\nbegun\ndone\n"
    assert before.labels["nextdeploy.operation"] == "op9"
    until(lambda: not ground.engine.containers(), what="the removal")


def test_an_end_without_a_daemon_is_read_from_the_engine(ground):
    first = ground()
    first.run("echo begun; sleep 1; echo done; exit 3")
    until(lambda: "begun" in first.output, what="the start")
    first.end(kill=True)
    until(lambda: [c.state for c in ground.engine.containers()] == ["exited"], what="the end of the job")
    second = ground()
    second.run("echo begun; sleep 1; echo done; exit 3")
    until(lambda: second.ends, what="the end")
    assert second.ends[0]["exit_code"] == 3
    assert second.ends[0]["tail"] == ["begun", "done"]
    until(lambda: not ground.engine.containers(), what="the removal")


def test_daemons_killed_all_the_time_start_it_once(ground):
    """Killed after a little longer each time, until one lives to see the end."""
    script = "echo begun; sleep 1.5; echo done; exit 7"
    seconds, daemon = 0.3, None
    for _ in range(40):
        daemon = ground()
        daemon.run(script)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not daemon.ends:
            time.sleep(0.01)
        if daemon.ends:
            break
        daemon.end(kill=True)
        seconds += 0.1
    assert daemon is not None
    assert daemon.ends[0]["exit_code"] == 7
    assert daemon.output.count("begun") <= 1
    until(lambda: not ground.engine.containers(), what="the removal")


def test_a_timeout_ends_it_also_if_it_ignores_the_signal(ground):
    daemon = ground()
    daemon.run("trap '' TERM; echo begun; while :; do sleep 0.1; done", timeout=1.0)
    until(lambda: daemon.ends, 20, "the end")
    end = daemon.ends[0]
    assert end["reason"] == "took longer than 1 s"
    assert end["exit_code"] == 137
    assert 1.9 <= end["seconds"] < 6


def test_it_is_cancelled(ground):
    daemon = ground()
    daemon.run("trap 'echo bye; exit 0' TERM; echo begun; while :; do sleep 0.1; done")
    until(lambda: "begun" in daemon.output, what="the start")
    daemon.say(cancel="release-3")
    until(lambda: daemon.ends, what="the end")
    assert (daemon.ends[0]["exit_code"], daemon.ends[0]["reason"]) == (143, "cancelled")
    assert daemon.output.endswith("bye\n")


def test_a_flood_of_output_is_bounded_and_holds_nothing_up(ground):
    daemon = ground()
    # about 30 MB through logs that hold 3 MB
    daemon.run(
        "i=0; while [ $i -lt 30 ]; do yes 0123456789012345678901234567890 | head -c 1000000; i=$((i+1)); done; echo end"
    )
    until(lambda: daemon.ends, 60, "the end")
    assert daemon.ends[0]["exit_code"] == 0
    assert daemon.ends[0]["tail"][-1] == "end"
    assert len(daemon.output) < 1_100_000


def test_a_schedule_runs_every_minute_and_not_twice_at_once(ground):
    """A minute is six seconds here; the first run outlasts the second's time."""
    daemon = ground(speed=10)
    row = {"command": ["sh", "-c", "sleep 9"], "schedule": "* * * * *", "stop_grace": 0.2}
    daemon.say(processes={"tick": row}, active=True)
    until(lambda: daemon.jobs()["jobs"] and daemon.jobs()["jobs"][0]["running"], 10, "the first run")
    until(lambda: daemon.jobs()["jobs"][0]["skipped"] == 1, 10, "the second's time")
    assert len(ground.engine.containers()) == 1
    until(lambda: daemon.jobs()["jobs"][0]["last_success"], 10, "the first one's end")
    until(lambda: daemon.jobs()["jobs"][0]["running"], 10, "the third run")
    daemon.say(processes={}, active=False)
    until(lambda: daemon.jobs()["idle"], 20, "quiet")
    assert not ground.engine.containers()


@pytest.mark.parametrize("ground", ["docker"], indirect=True)
def test_a_job_is_as_the_contract_says_containers_are(ground, docker_client):
    daemon = ground()
    daemon.run("sleep 30")
    until(lambda: ground.engine.containers(), what="the container")
    (status,) = ground.engine.containers()
    facts = docker_client.inspect_container(status.id)
    own = facts["Config"]["Labels"]
    for label in ("project", "app", "process", "revision", "role", "replica", "config", "daemon"):
        assert own.get(f"nextdeploy.{label}"), label
    assert own["nextdeploy.role"] == "job"
    assert status.name.startswith("nd-shop-migrate-3-d")
    host = facts["HostConfig"]
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert host["Init"] is True
    assert "no-new-privileges" in host["SecurityOpt"]
    assert not host["PortBindings"]
    (network,) = facts["NetworkSettings"]["Networks"].values()
    assert not {"shop", "shop-migrate"} & set(network["Aliases"] or ()), "no name leads to it"
    daemon.say(cancel="release-3")
    until(lambda: daemon.ends, what="the end")


def test_where_logs_cannot_be_read_the_engine_is_asked(engine_address, daemon_id, test_image, tmp_path):
    engine = DockerEngine(tmp_path, daemon_id, base_url=engine_address)
    own = {"nextdeploy.daemon": daemon_id, "nextdeploy.project": "jobs", "nextdeploy.app": "shop"}
    script = "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; echo -n no end"
    spec = ContainerSpec(name=f"nd-{daemon_id}", labels=own, image=test_image, command=("sh", "-c", script))
    status = engine.start(engine.create(spec).id)
    output = ContainerOutputs(engine, lambda call: call()).open(replace(status, log_path=None))
    found = output.read()
    until(lambda: engine.inspect(status.id).state == "exited", what="the end")
    found += output.read()
    assert output.read() == ""
    expected = [f"{stream} {number}" for stream in ("err", "out") for number in range(300)]
    assert sorted(found.splitlines()) == sorted([*expected, "no end"])
    engine.close()

"""The whole system on host processes: a fixed port, stops and starts of the daemon, its state."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from daemon import PASSWORD, ROOT, until

TESTAPP = Path(__file__).parents[1] / "ground" / "testapp.py"
CHECK = {"path": "/health", "interval": "300ms", "timeout": "500ms", "retries": 2}
ROLES = ("edge", "edge-worker", "keeper", "logs")


def app(**fields) -> dict:
    return {"command": ["python3", str(TESTAPP)], "domains": ["*"], "healthcheck": CHECK, "stop_grace": "2s", **fields}


def config(**fields) -> dict:
    return {"engine": "process", "apps": {"shop": app(**fields)}}


def get(daemon, path: str = "/") -> dict:
    with urllib.request.urlopen(f"{daemon.http}{path}", timeout=20) as response:
        return json.loads(response.read())


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_fixed_port_is_replaced_stop_first_while_requests_wait(start_daemon, load):
    daemon = start_daemon(config(port=free_port()))
    first = get(daemon)["pid"]
    sending = load(daemon.http, 50)
    time.sleep(1)
    daemon.config["apps"]["shop"]["env"] = {"VERSION": "2"}
    daemon.write()
    daemon.signal(signal.SIGHUP)
    until(lambda: get(daemon)["version"] == "2", 30, "the new version")
    time.sleep(0.5)
    result = sending.stop()
    assert result["failed"] == 0, result
    assert get(daemon)["pid"] != first


def test_sigterm_stops_what_runs_and_the_next_start_counts_nothing(start_daemon):
    daemon = start_daemon(config(replicas=2))
    pids = [row["pid"] for row in daemon.containers().values()]
    assert daemon.stop() == 0
    assert not any(daemon.pids(role) for role in ROLES)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    daemon.start()
    daemon.wait_ready()
    assert [row["restarts"] for row in daemon.containers().values()] == [0, 0]


def test_leave_edge_leaves_everything_and_it_is_adopted(start_daemon, load):
    daemon = start_daemon(config(replicas=2), "--leave-edge")
    sending = load(daemon.http, 100)
    before = {name: row["pid"] for name, row in daemon.containers().items()}
    others = [daemon.pids(role) for role in ROLES]
    assert daemon.stop() == 0
    time.sleep(1)
    daemon.start()
    daemon.wait_ready()
    result = sending.stop()
    assert result["failed"] == 0, result
    assert {name: row["pid"] for name, row in daemon.containers().items()} == before
    assert [daemon.pids(role) for role in ROLES] == others


def test_a_killed_daemon_is_followed_by_one_that_adopts(start_daemon, load):
    daemon = start_daemon(config(replicas=2))
    sending = load(daemon.http, 100)
    before = {name: row["pid"] for name, row in daemon.containers().items()}
    daemon.kill()
    time.sleep(1)
    daemon.start()
    daemon.wait_ready()
    result = sending.stop()
    assert result["failed"] == 0, result
    assert {name: row["pid"] for name, row in daemon.containers().items()} == before


def test_one_that_exits_comes_back_with_its_reason(start_daemon):
    daemon = start_daemon(config(replicas=2))
    victim = get(daemon)["pid"]
    try:
        get(daemon, "/exit?code=7")
    except OSError as error:
        assert "50" in str(error) or "Remote" in str(error)
    died = until(lambda: daemon.events("container.died"), what="the event")
    assert died[-1]["reason"] == "exited 7"
    until(lambda: all(row["routed"] for row in daemon.containers().values()))
    assert sum(row["restarts"] for row in daemon.containers().values()) >= 1
    assert victim


def test_a_second_daemon_on_the_same_state_is_refused(start_daemon):
    daemon = start_daemon(config())
    second = subprocess.run(
        [sys.executable, "-m", "ndactors", f"--config={daemon.folder}/nextdeploy.yml"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    assert second.returncode == 3
    assert f"another daemon (pid {daemon.process.pid}) runs on" in second.stderr
    assert daemon.status_of("/healthz") == 200


def test_a_damaged_record_is_set_aside_reported_and_its_last_good_copy_used(start_daemon):
    daemon = start_daemon(config())
    identity = daemon.api("/api/v1/status")["daemon_id"]
    daemon.stop()
    path = daemon.folder / "state" / "state" / "daemon.json"
    path.write_bytes(path.read_bytes()[:-20])
    daemon.start()
    daemon.wait_ready()
    assert daemon.api("/api/v1/status")["daemon_id"] == identity
    assert "is damaged" in daemon.events("state.corrupt")[0]["reason"]
    assert list(path.parent.glob("daemon.json.damaged-*"))


def test_the_password_reaches_no_app_and_no_log(start_daemon):
    daemon = start_daemon(config())
    for row in daemon.containers().values():
        assert PASSWORD.encode() not in Path(f"/proc/{row['pid']}/environ").read_bytes()
    for role in ROLES:
        for pid in daemon.pids(role):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert PASSWORD not in (daemon.folder / "log").read_text()


def test_an_app_that_hangs_is_restarted(start_daemon):
    daemon = start_daemon(config(healthcheck={**CHECK, "restart_after": "500ms"}))
    try:
        urllib.request.urlopen(f"{daemon.http}/hang", timeout=1)
    except OSError as error:
        assert "timed out" in str(error)
    until(
        lambda: [row["restart_reasons"] for row in daemon.containers().values()] == [{"unhealthy": 1}],
        40,
        "the restart",
    )
    until(lambda: get(daemon)["path"] == "/", 30)


def test_a_crash_loop_is_given_up_visibly(start_daemon):
    restart = {"max_restarts": 2, "backoff": "50ms", "backoff_max": "100ms"}
    daemon = start_daemon(config(env={"EXIT_AT_START": "3"}, restart=restart))
    (row,) = daemon.containers().values()
    assert (row["state"], row["restarts"]) == ("failed", 2)
    assert row["reason"].startswith("exited 3; 2 restarts")
    assert daemon.status_of("/readyz") == 200
    try:
        get(daemon)
        raise AssertionError("nothing runs that could answer")
    except urllib.error.HTTPError as error:
        assert error.code == 503
        assert error.headers["X-NextDeploy-Error"] == "no_backend"


def test_what_host_processes_print_is_kept_over_stops(start_daemon):
    script = "trap 'echo goodbye >&2; exit 0' TERM; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.05; done"
    count = {"command": ["sh", "-c", script], "stop_grace": "2s"}
    daemon = start_daemon({"engine": "process", "apps": {"shop": {"processes": {"count": count}}}})

    def messages(stream: str = "stdout") -> list[str]:
        return [row["message"] for row in daemon.api(f"/api/v1/logs?app=shop&stream={stream}&limit=10000")["items"]]

    until(lambda: "line 10" in messages(), what="ten lines")
    assert daemon.stop() == 0
    daemon.start()
    until(lambda: messages().count("line 1") == 2, 30, "the first line of the next one")
    found = messages()
    again = found.index("line 1", 1)
    assert found[:again] == [f"line {n}" for n in range(1, again + 1)]
    assert "goodbye" in messages("stderr")

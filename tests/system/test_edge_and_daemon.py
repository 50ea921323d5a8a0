"""The edge as its users meet it: behind a real daemon, on the process engine."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from daemon import PASSWORD, ROOT, Daemon, until

APP = Path(__file__).parents[1] / "ground" / "testapp.py"


def config(**more) -> dict:
    shop = {"command": [sys.executable, str(APP)], "domains": ["*"], "replicas": 2, **more.pop("shop", {})}
    return {"engine": "process", "apps": {"shop": shop}, **more}


def get(daemon, path="/") -> int:
    try:
        with urllib.request.urlopen(f"{daemon.http}{path}", timeout=20) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def counted(daemon) -> int:
    request = urllib.request.Request(f"{daemon.admin}/metrics")
    with urllib.request.urlopen(request, timeout=10) as response:
        text = response.read().decode()
    return int(
        sum(float(n) for n in re.findall(r'^nextdeploy_requests_total\{app="shop".*\} ([\d.e+]+)$', text, re.MULTILINE))
    )


def test_records_outlive_an_absence_of_the_daemon(start_daemon):
    daemon = start_daemon(config())
    for n in range(5):
        assert get(daemon, f"/before/{n}") == 200
    until(lambda: len(daemon.api("/api/v1/requests?path=/before/*")["items"]) == 5)
    daemon.kill()
    for n in range(20):
        assert get(daemon, f"/away/{n}?token=secret") == 200
    daemon.start()
    daemon.wait_ready()
    rows = until(lambda: (r := daemon.api("/api/v1/requests?path=/away/*")["items"]) and len(r) == 20 and r)
    assert {row["path"] for row in rows} == {f"/away/{n}" for n in range(20)}
    assert {row["query"] for row in rows} == {"token=[redacted]"}
    assert all(row["app"] == "shop" and row["status"] == 200 and row["container"] for row in rows)
    assert len({row["id"] for row in daemon.api("/api/v1/requests?limit=1000")["items"]}) == len(
        daemon.api("/api/v1/requests?limit=1000")["items"]
    )
    # the last ones of an edge that ends with its daemon are not lost either
    get(daemon, "/last")
    assert daemon.stop() == 0
    daemon.start()
    daemon.wait_ready()
    assert len(daemon.api("/api/v1/requests?path=/last")["items"]) == 1


def test_counters_never_fall(start_daemon, load):
    daemon = start_daemon(config())
    sending = load(daemon.http)
    time.sleep(1)
    seen = [counted(daemon)]
    for what in ("worker", "daemon", "upgrade", "both"):
        if what == "worker":
            os.kill(daemon.pids("edge-worker")[0], signal.SIGKILL)
        if what in ("upgrade", "both"):
            os.kill(daemon.pids("edge")[-1], signal.SIGUSR2)
        if what in ("daemon", "both"):
            daemon.kill()
            daemon.start()
            daemon.wait_ready()
        until(lambda: counted(daemon) > seen[-1], what=f"more requests after {what}")
        seen.append(counted(daemon))
    result = sending.stop()
    assert seen == sorted(seen)
    # a worker that is killed takes the requests with it that it has at that moment
    assert result["failed"] <= 20, result
    until(lambda: len(daemon.pids("edge-worker")) == 2, 60)


def test_an_upgrade_while_the_daemon_is_killed_loses_nothing(start_daemon, load):
    daemon = start_daemon(config())
    sending = load(daemon.http)
    for _ in range(3):
        time.sleep(0.5)
        masters = daemon.pids("edge")
        os.kill(masters[-1], signal.SIGUSR2)
        daemon.kill()
        until(lambda masters=masters: set(daemon.pids("edge")) - set(masters))
        daemon.start()
        daemon.wait_ready()
    result = sending.stop()
    assert result["failed"] == 0, result
    assert result["sent"] > 300


def test_address_and_workers_change_while_it_runs(start_daemon, load):
    daemon = start_daemon(config())
    sending = load(daemon.http)
    daemon.config["edge"]["workers"] = 1
    daemon.write()
    daemon.signal(signal.SIGHUP)
    until(lambda: len(daemon.api("/api/v1/status")["edge"]["workers"]) == 1, 60)
    time.sleep(0.5)
    result = sending.stop()
    assert result["failed"] == 0, result
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon.config["edge"]["http"] = f"127.0.0.1:{port}"
    daemon.write()
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.api("/api/v1/status")["edge"]["http"] == [f"127.0.0.1:{port}"], 60)
    daemon.http = f"http://127.0.0.1:{port}"
    assert get(daemon) == 200


def test_a_daemon_of_another_version_brings_its_own_edge(start_daemon, tmp_path):
    daemon = start_daemon(config())
    before = daemon.pids("edge")
    assert get(daemon) == 200
    daemon.kill()
    # the same program that says it is newer
    other = tmp_path / "other"
    (other / "web").parent.mkdir()
    for folder in ("ndactors", "web"):
        subprocess.run(["cp", "-r", str(ROOT / folder), str(other / folder)], check=True)
    version = other / "ndactors" / "__init__.py"
    version.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.9.9"', version.read_text()))
    newer = Daemon(daemon.folder, daemon.config, environment={"PYTHONPATH": str(other)})
    newer.start()
    try:
        newer.wait_ready()
        assert newer.api("/api/v1/status")["version"] == "9.9.9"
        until(lambda: newer.pids("edge") and not set(newer.pids("edge")) & set(before), 60)
        assert get(newer) == 200
    finally:
        newer.close()


def test_maintenance_is_switched_and_stays(start_daemon):
    daemon = start_daemon(config())

    def switch(on: bool, app: str = "shop") -> int:
        request = urllib.request.Request(
            f"{daemon.admin}/api/v1/apps/{app}/maintenance", json.dumps({"on": on}).encode()
        )
        request.add_header("Content-Type", "application/json")

        request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert switch(True) == 202
    until(lambda: get(daemon) == 503)
    assert switch(True, "nobody") == 404
    daemon.stop()
    daemon.start()
    daemon.wait_ready()
    assert get(daemon) == 503, "also after a restart"
    assert switch(False) == 202
    until(lambda: get(daemon) == 200)
    assert [
        event["kind"] for event in daemon.api("/api/v1/events?app=shop")["items"] if "maintenance" in event["kind"]
    ] == [
        "maintenance.off",
        "maintenance.on",
    ]


def test_rules_of_the_file_hold_at_once(start_daemon, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "503.html").write_text("<h1>Back soon</h1>")
    daemon = start_daemon(config())
    shop = daemon.config["apps"]["shop"]
    shop["rate_limit"] = {"per_ip": "2/min", "burst": 2}
    shop["http"] = {"headers": {"X-Own": "yes"}, "redirects": {"/old": "/new"}, "error_pages": "./pages"}
    pids = {row["pid"] for row in daemon.containers().values()}
    daemon.write()
    daemon.signal(signal.SIGHUP)

    def ask(path="/"):
        try:
            return urllib.request.urlopen(f"{daemon.http}{path}", timeout=10)
        except urllib.error.HTTPError as error:
            return error

    until(lambda: ask().headers.get("X-Own") == "yes")
    until(lambda: ask().status == 429)
    assert {row["pid"] for row in daemon.containers().values()} == pids, "no new process for that"


def test_sockets_of_systemd_go_through_the_daemon(tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    starter = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    daemon = Daemon(tmp_path, config())
    daemon.inside = [sys.executable, "-c", starter, str(listener.fileno())]
    original = subprocess.Popen

    def popen(*arguments, **options):
        return original(*arguments, pass_fds=(listener.fileno(),), **options)

    subprocess.Popen = popen  # type: ignore[misc,assignment]
    try:
        daemon.start()
    finally:
        subprocess.Popen = original  # type: ignore[misc]
    daemon.inside = []
    try:
        daemon.wait_ready()
        assert daemon.http == f"http://127.0.0.1:{port}"
        assert get(daemon) == 200
        keeper = daemon.pids("keeper")
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for pid in keeper for fd in os.listdir(f"/proc/{pid}/fd")}
        assert os.readlink(f"/proc/self/fd/{listener.fileno()}") not in held, "nobody but the edge has it"
        daemon.stop()
        queued = socket.create_connection(("127.0.0.1", port), 5)
        queued.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        queued.close()
    finally:
        daemon.close()
        listener.close()

"""A real Prometheus scrapes a real daemon: what it counts is what was sent, and no counter ever steps back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from daemon import PASSWORD, ROOT, until
from prometheus_client.openmetrics.parser import text_string_to_metric_families

APP = Path(__file__).parents[1] / "ground" / "testapp.py"
BEGIN_WITH_THE_DAEMON = ("nextdeploy_actor_restarts", "nextdeploy_hub_lag", "nextdeploy_host_", "nextdeploy_container_")
"""Restarts of actors and the lateness of the loop are of this process, as docs/metrics.md says; the others are the kernel's."""


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        words = f"there is no {program}: packaging/test-prometheus.sh installs it"
        if os.environ.get("NEXTDEPLOY_REQUIRE_ENGINE") == "1":
            pytest.fail(words)
        pytest.skip(words)
    return found


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    def __init__(self, folder: Path, target: str) -> None:
        folder.mkdir()
        (folder / "password").write_text(PASSWORD)
        config = yaml.safe_load((ROOT / "conf" / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        (scrape,) = config["scrape_configs"]
        del scrape["authorization"]
        scrape["basic_auth"] = {"username": "admin", "password_file": str(folder / "password")}
        scrape["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"127.0.0.1:{free_port()}"
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(needed("prometheus"), f"--config.file={folder}/prometheus.yml"),
                    *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self.address}"),
                ],
                stdout=log,
                stderr=log,
            )

    def ask(self, query: str) -> list[dict]:
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return list(json.loads(response.read())["data"]["result"])

    def number(self, query: str) -> float | None:
        rows = self.ask(query)
        return float(rows[0]["value"][1]) if rows else None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def prometheus(tmp_path) -> Iterator:
    made: list[Prometheus] = []

    def start(daemon) -> Prometheus:
        made.append(Prometheus(tmp_path / "prometheus", daemon.admin.removeprefix("http://")))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def daemon(start_daemon):
    shop = {"command": [sys.executable, str(APP)], "domains": ["*"], "replicas": 2}
    chatty = {"command": ["sh", "-c", "while :; do echo hello; sleep 0.2; done"]}
    return start_daemon(
        {
            "engine": "process",
            "apps": {"shop": shop, "chat": {"processes": {"worker": chatty}}},
            "edge": {"http": f"127.0.0.1:{free_port()}", "workers": 2},
            "admin": {"listen": f"127.0.0.1:{free_port()}", "metrics_auth": True},
        }
    )


def send(daemon, count: int) -> int:
    """How many were answered."""
    done = 0
    for n in range(count):
        with urllib.request.urlopen(f"{daemon.http}/{n}", timeout=20) as response:
            response.read()
            done += response.status == 200
    return done


def scraped(daemon, accept: str) -> str:
    import base64

    request = urllib.request.Request(f"{daemon.admin}/metrics", headers={"Accept": accept})
    request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


REQUESTS = 'sum(nextdeploy_requests_total{app="shop"})'


def test_what_prometheus_counts_is_what_was_sent_whoever_is_killed(daemon, prometheus):
    server = prometheus(daemon)
    until(lambda: server.ask("up == 1"), 30, "the first scrape")
    sent = send(daemon, 40)
    assert sent == 40
    until(lambda: server.number(REQUESTS) == sent, 20, "all requests at Prometheus")
    until(lambda: server.number('nextdeploy_request_duration_seconds_count{app="shop"}') == sent, 20, "their durations")
    until(lambda: (server.number('sum(nextdeploy_log_lines_total{app="chat"})') or 0) > 5, 20, "lines of the other app")
    for victim in ("edge", "logs", "daemon", "edge and daemon"):
        if "edge" in victim:
            before = daemon.pids("edge")
            for pid in before:
                os.kill(pid, signal.SIGKILL)
        if victim == "logs":
            before = daemon.pids("logs")
            for pid in before:
                os.kill(pid, signal.SIGKILL)
        if "daemon" in victim:
            daemon.kill()
            daemon.start()
        role = "logs" if victim == "logs" else "edge"
        if victim != "daemon":
            until(
                lambda role=role, before=before: (now := daemon.pids(role)) and not set(now) & set(before), 30, victim
            )
        daemon.wait_ready()
        until(lambda: send(daemon, 1), 30, "an answer through the edge")
        sent += 1 + send(daemon, 10)
        until(lambda sent=sent: server.number(REQUESTS) == sent, 20, f"all requests after {victim} was killed")
        lines = server.number('sum(nextdeploy_log_lines_total{app="chat"})') or 0
        until(
            lambda lines=lines: (server.number('sum(nextdeploy_log_lines_total{app="chat"})') or 0) > lines,
            20,
            f"more lines after {victim} was killed",
        )
    assert no_step_back(server) > 50


def no_step_back(server: Prometheus) -> int:
    """Every sample of every counter that there was; how many series these are."""
    rows = server.ask('{__name__=~"nextdeploy_.*_(total|count|sum|bucket)"}[10m]')
    checked = 0
    for row in rows:
        name = row["metric"]["__name__"]
        if name.startswith(BEGIN_WITH_THE_DAEMON):
            continue
        values = [float(value) for _, value in row["values"]]
        assert values == sorted(values), (row["metric"], values)
        checked += 1
    return checked


def test_what_is_scraped_is_clean(daemon):
    send(daemon, 3)
    until(lambda: 'nextdeploy_requests_total{app="shop"' in scraped(daemon, ""), 20, "a request in the metrics")
    checked = subprocess.run(
        [needed("promtool"), "check", "metrics"], input=scraped(daemon, ""), capture_output=True, text=True, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    text = scraped(daemon, "application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["nextdeploy_requests"].samples and families["process_cpu_seconds"].samples


def test_the_history_has_what_was_sent_and_a_daemon_that_is_killed_loses_nothing_of_it(daemon):
    def found() -> int:
        path = "/api/v1/metrics/query?name=nextdeploy_requests_total&app=shop&since=5m&step=10"
        return round(sum(value * 10 for row in daemon.api(path)["series"] for _, value in row["points"]))

    def names() -> set[str]:
        return {row["name"] for row in daemon.api("/api/v1/metrics/names")["items"]}

    # what is there when the edge is first heard is what later ones are compared with
    until(lambda: "nextdeploy_requests_in_flight" in names(), 40, "the edge in the history")
    sent = send(daemon, 20)
    until(lambda: "nextdeploy_requests_total" in names() and found() == sent, 40, "the requests in the history")
    lag = daemon.api("/api/v1/metrics/query?name=nextdeploy_hub_lag_seconds")
    assert (lag["kind"], len(lag["series"])) == ("histogram", 1)
    # what comes while there is no daemon is counted by the next
    daemon.kill()
    sent += send(daemon, 50)
    daemon.start()
    daemon.wait_ready()
    until(lambda: found() == sent, 60, "what came while there was no daemon")


def test_the_configuration_that_comes_along_is_right(tmp_path):
    text = (ROOT / "conf" / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text("ndt_x")
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/etc/prometheus/nextdeploy-token", str(token)))
    checked = subprocess.run(
        [needed("promtool"), "check", "config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def test_prometheus_understands_what_the_dashboard_asks(tmp_path):
    dashboard = json.loads((ROOT / "conf" / "grafana" / "nextdeploy.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [each["expr"] for each in dashboard["annotations"]["list"]]
    rules = [
        {"record": f"dashboard:{n}", "expr": expr.replace("$__rate_interval", "1m").replace("$app", "shop")}
        for n, expr in enumerate(asked)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        [needed("promtool"), "check", "rules", str(path)], capture_output=True, text=True, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout

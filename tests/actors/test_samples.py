from __future__ import annotations

from ndactors.actors.samples import app_samples, daemon_samples, edge_samples, log_samples
from ndactors.messages.edge import LATENCY_BUCKETS, EdgeReport, Histogram, ServiceTotals, WorkerState
from ndactors.messages.logs import LineCounts, LogsReport
from ndactors.messages.queries import AppView, ContainerView, ProcessView
from web.metrics import FAMILIES

REST = (0,) * (len(LATENCY_BUCKETS) - 1)
"""``4xx`` below is of another version of the edge, which had other buckets."""
TOTALS = ServiceTotals(
    app="shop",
    process="web",
    requests={"GET 200": 7, "POST 200": 2, "GET 500": 1},
    durations={
        "2xx": Histogram(counts=(3, 4, *REST), total=0.5),
        "4xx": Histogram(counts=(5, 5), total=77.0),
        "5xx": Histogram(counts=(0, 1, *REST), total=9.0),
    },
    bytes_in=10,
    bytes_out=20,
    rate_limited=3,
    in_flight={"a": 1, "b": 2},
    held=4,
)
EDGE = EdgeReport(
    epoch=1, master_pid=1, dropped=5, services={"shop": TOTALS}, workers=(WorkerState(pid=1, index=0, connections=6),)
)
LOGS = LogsReport(pid=1, counts=(LineCounts(app="shop", process="web", levels=(0, 7, 0, 1, 0)),))


def found(samples) -> dict:
    return {(sample.name.removeprefix("nextdeploy_"), *sample.labels.values()): sample for sample in samples}


def test_methods_and_classes_are_added_up():
    rows = found(edge_samples(EDGE))
    assert rows["requests_total", "shop", "web", "200"].value == 9.0
    assert rows["requests_total", "shop", "web", "500"].value == 1.0
    duration = rows["request_duration_seconds", "shop", "web"]
    assert (duration.kind, duration.counts, duration.value) == ("histogram", (3, 5, *REST), 9.5)
    values = {key[0]: sample.value for key, sample in rows.items()}
    assert (values["request_bytes_total"], values["response_bytes_total"], values["rate_limited_total"]) == (10, 20, 3)
    assert (values["requests_in_flight"], values["requests_held"], values["edge_connections"]) == (3, 4, 6)
    assert rows[("requests_dropped_total",)].value == 5


def test_an_app_without_requests_has_no_durations():
    quiet = EdgeReport(epoch=1, master_pid=1, services={"shop": ServiceTotals(app="shop", process="web")})
    names = {sample.name for sample in edge_samples(quiet)}
    assert "nextdeploy_request_duration_seconds" not in names
    assert "nextdeploy_requests_in_flight" in names


def test_every_level_is_there():
    rows = found(log_samples(LOGS))
    assert rows["log_lines_total", "shop", "web", "info"].value == 7.0
    assert rows["log_lines_total", "shop", "web", "debug"].value == 0.0
    assert rows["log_dropped_total", "shop"].value == 0.0


APP = AppView(
    name="shop",
    project="p",
    state="healthy",
    processes=(ProcessView(name="web", desired=3, running=2, routed=2, restarts_by_reason={"oom": 4}),),
    containers=tuple(
        ContainerView(id=str(n), name=str(n), app="shop", process="web", state="running" if n else "failed")
        for n in range(3)
    ),
)


def test_containers_by_state_and_restarts_by_reason():
    rows = {key: sample.value for key, sample in found(app_samples([APP])).items()}
    assert rows == {
        ("containers", "shop", "web", "failed"): 1,
        ("containers", "shop", "web", "running"): 2,
        ("replicas_desired", "shop", "web"): 3,
        ("container_restarts_total", "shop", "web", "oom"): 4,
    }


def test_names_are_those_of_prometheus():
    kinds = {"c": "counter", "g": "gauge", "h": "histogram"}
    families = {name + ("_total" if kind == "c" else ""): (kinds[kind], labels) for name, kind, _, labels in FAMILIES}
    own = daemon_samples(Histogram(counts=(1, 0), total=0.1), {"events": 3}, {"apps": 61.0})
    for sample in (*edge_samples(EDGE), *log_samples(LOGS), *app_samples([APP]), *own):
        kind, labels = families[sample.name]
        assert sample.kind == kind, sample.name
        assert set(sample.labels) <= set(labels), sample.name

"""What figures cost: rendering /metrics for 100 apps with 3 containers each, and a slot of the history:
`python tests/bench/metrics.py`. The event loop's share is what a timer of 1 ms is late by while it happens."""

from gevent import monkey

monkey.patch_all()

import sys
import tempfile
import time
from pathlib import Path

import gevent
from gevent.hub import get_hub
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from ndactors.actors.samples import edge_samples, log_samples
from ndactors.adapters.sqlite_metrics import SqliteMetrics
from ndactors.daemon import SWITCH_SECONDS, settle_memory
from ndactors.messages.edge import LATENCY_BUCKETS, EdgeReport, Histogram, ServiceTotals, WorkerState
from ndactors.messages.logs import LineCounts, LogsReport
from ndactors.messages.metrics import GetMetrics, Sampled
from ndactors.messages.queries import AppView, ContainerView, ProcessView
from ndactors.runtime.tree import ActorNode
from web.metrics import Answered, _actors, _apps, _edge, _logs

APPS, CONTAINERS = 100, 3
ROUNDS = 5 if "--short" in sys.argv else 20


def service(name: str, n: int) -> ServiceTotals:
    histogram = Histogram(counts=(n, *[n // 2] * len(LATENCY_BUCKETS)), total=n * 0.1)
    return ServiceTotals(
        app=name, process="web", requests={f"{m} {c}": n for m in ("GET", "POST") for c in (200, 302, 404, 500)},
        durations={"2xx": histogram, "4xx": histogram, "5xx": histogram}, bytes_in=n, bytes_out=n,
    )  # fmt: skip


def edge(n: int) -> EdgeReport:
    services = {f"app{i}": service(f"app{i}", n + i) for i in range(APPS)}
    return EdgeReport(epoch=1, master_pid=1, services=services, workers=(WorkerState(pid=1, index=0),))


def logs(n: int) -> LogsReport:
    return LogsReport(
        pid=1, counts=tuple(LineCounts(app=f"app{i}", process="web", levels=(0, n, i, 0, 0)) for i in range(APPS))
    )


def app(i: int) -> AppView:
    name = f"app{i}"
    containers = tuple(
        ContainerView(
            id=f"{i}-{n}", name=f"nd-{name}-web-1-{n}", app=name, process="web", state="running", started_at=1.0
        )
        for n in range(CONTAINERS)
    )
    process = ProcessView(name="web", desired=3, running=3, routed=3, restarts_by_reason={"exit": 1, "oom": 2})
    return AppView(name=name, project="p", state="healthy", processes=(process,), containers=containers)


def tree() -> ActorNode:
    def node(name: str, *children: ActorNode) -> ActorNode:
        return ActorNode(
            name=name, cls="A", state="running", mailbox=0, handled=0, dropped=0, restarts=0, children=children
        )

    groups = [
        node(f"group:app{i}", *(node(f"{k}:app{i}") for k in ("deploy", "app", "jobs")),
             node(f"containers:app{i}", *(node(f"container:app{i}:{n}") for n in range(CONTAINERS))))
        for i in range(APPS)
    ]  # fmt: skip
    return node("root", *groups)


class Lateness:
    """How late a timer of 1 ms is at the worst."""

    def __enter__(self) -> "Lateness":
        self.worst, self.running = 0.0, True
        self.greenlet = gevent.spawn(self._tick)
        gevent.sleep(0.02)
        self.worst = 0.0
        return self

    def _tick(self) -> None:
        while self.running:
            due = time.perf_counter() + 0.001
            gevent.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - due)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.greenlet.join()


def middle(values: list[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2] * 1000:6.2f} ms, at the worst {ordered[-1] * 1000:6.2f} ms"


def off_loop(call):
    return get_hub().threadpool.apply(call)


def rendering() -> None:
    encode, _ = choose_encoder("")
    answers = [(_edge, edge(9)), (_apps, tuple(map(app, range(APPS)))), (_actors, tree()), (_logs, logs(5))]
    process = ProcessCollector(namespace="", registry=None)
    text = encode(Answered(answers, process))
    print(
        f"/metrics of {APPS} apps with {CONTAINERS} containers: {text.count(bytes([10])):,} lines, {len(text):,} bytes"
    )
    direct, late, took = [], [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        encode(Answered(answers, process))
        direct.append(time.perf_counter() - began)
    for _ in range(ROUNDS):
        with Lateness() as lateness:
            began = time.perf_counter()
            off_loop(lambda: encode(Answered(answers, process)))
            took.append(time.perf_counter() - began)
        late.append(lateness.worst)
    idle = []
    for _ in range(ROUNDS):
        with Lateness() as lateness:
            gevent.sleep(0.06)
        idle.append(lateness.worst)
    print(f"  with nothing to do, the loop is late by:      {middle(idle)}")
    print(f"  rendered on the event loop, it stands still:  {middle(direct)}")
    print(f"  rendered beside it, the loop is late by:      {middle(late)}  (it takes {middle(took)})")


def history() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteMetrics(Path(folder) / "metrics.db", lambda *_: None, off_loop)
        written, late, at = [], [], 1_800_000_000.0
        series = 0
        for n in range(ROUNDS * 6):
            batches = [
                Sampled(source="edge", at=at, samples=edge_samples(edge(n)), from_zero=True),
                Sampled(source="logs", at=at, samples=log_samples(logs(n)), from_zero=True),
            ]
            series = sum(len(batch.samples) for batch in batches)
            with Lateness() as lateness:
                began = time.perf_counter()
                store.append(batches)
                took = time.perf_counter() - began
            if n > 1:
                written.append(took)
                late.append(lateness.worst)
            at += 10
        print(
            f"a slot of {series:,} series, every 10 s: written in {middle(written)}; the loop is late by {middle(late)}"
        )
        found_in = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            found = store.query(
                GetMetrics(name="nextdeploy_requests_total", since=at - 3600, until=at, step=10, labels={"app": "app7"})
            )
            found_in.append(time.perf_counter() - began)
        assert found.series
        print(f"  one app's requests of these slots are found in {middle(found_in)}")
        store.close()


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_SECONDS)
    settle_memory()
    rendering()
    history()

"""The app over refs that answer from a dictionary."""

from __future__ import annotations

import hashlib
import time

import argon2
import pytest
from werkzeug.security import generate_password_hash

import web
from ndactors.core.model import User
from ndactors.errors import NotFound
from ndactors.messages.access import TokenIdentity, VerifyToken
from ndactors.messages.alerts import GetAlerts
from ndactors.messages.control import WebSettings
from ndactors.messages.edge import EdgeReport, Histogram, ServiceTotals, WorkerState
from ndactors.messages.jobs import GetJobs, JobView
from ndactors.messages.logs import GetLogReport, GetLogs, LineCounts, LogPage, LogsReport
from ndactors.messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName
from ndactors.messages.operations import DEPLOY_BUCKETS, BeginOperation, DeployTotals, GetDeploys
from ndactors.messages.queries import (
    AppView,
    ContainerView,
    DaemonView,
    EngineView,
    Event,
    EventPage,
    GetApps,
    GetDaemon,
    GetEdge,
    GetEdgeTotals,
    GetEngine,
    GetEvents,
    GetHost,
    GetReadiness,
    GetTree,
    HostView,
    ProcessView,
    Readiness,
)
from ndactors.messages.secrets import EnvItem, EnvView, GetEnv
from ndactors.messages.sources import GetSource, SourceView
from ndactors.messages.stats import ContainerUsage, GetPorts, GetUsage, PortView
from ndactors.runtime.tree import ActorNode, RestartActor


def container(number: int, app: str = "shop") -> ContainerView:
    return ContainerView(
        id=f"c{number}",
        name=f"nd-{app}-web-1-{number}",
        app=app,
        process="web",
        replica=number,
        state="running",
        health="healthy",
        restarts={"exit": 2},
        started_at=time.time() - 60,
    )


def app_view(name: str = "shop") -> AppView:
    process = ProcessView(name="web", desired=2, running=2, routed=2, restarts=2, restarts_by_reason={"exit": 2})
    return AppView(
        name=name,
        project="test",
        state="healthy",
        domains=("a.test",),
        processes=(process,),
        containers=(container(1, name), container(2, name)),
    )


def node(name: str, *children: ActorNode) -> ActorNode:
    return ActorNode(
        name=name, cls="Actor", state="running", mailbox=0, handled=3, dropped=0, restarts=1, children=children
    )


class FakeRef:
    """Answers each kind of question from ``answers``; a function is called with the question."""

    def __init__(self) -> None:
        self.asked: list = []
        counts = (1, *([0] * 15))
        deploys = Histogram(counts=(1, *([0] * len(DEPLOY_BUCKETS))), total=0.5)
        totals = ServiceTotals(
            app="shop",
            process="web",
            requests={"GET 200": 7},
            durations={"2xx": Histogram(counts=counts, total=0.5)},
            in_flight={"c1": 1},
        )
        self.answers = {
            GetAlerts: (),
            GetTree: node("root", node("apps", node("app:shop"))),
            GetApps: (app_view(),),
            GetReadiness: Readiness(ready=True),
            GetEvents: EventPage(
                items=(Event(id=5, ts="2026-01-01T00:00:00.000000Z", kind="container.died", app="shop", reason="<b>"),),
                next=5,
            ),
            GetDeploys: (DeployTotals(app="shop", results={"succeeded": 2}, durations=deploys),),
            GetJobs: (JobView(app="shop", process="tidy", schedule="@hourly", timezone="UTC", last_success=7.0),),
            GetHost: HostView(
                cpu_percent=5.0,
                load=(0.1, 0.2, 0.3),
                memory_used=1,
                memory_total=2,
                swap_used=0,
                swap_total=0,
                disks={"/": (1, 2)},
            ),
            GetPorts: (PortView(protocol="tcp", address="127.0.0.1", port=80, reachable=False),),
            GetUsage: (
                ContainerUsage(
                    container="c1",
                    name="nd-shop-web-1-1",
                    app="shop",
                    process="web",
                    source="cgroup",
                    at=1.0,
                    cpu_seconds=3.5,
                    cpu_percent=12.5,
                    memory=1000,
                    network_receive=7,
                    network_transmit=8,
                ),
            ),
            GetEngine: EngineView(name="docker", version="1", reachable=True),
            GetDaemon: DaemonView(
                version="1",
                environment="dev",
                project="test",
                daemon_id="d",
                epoch=1,
                pid=1,
                started_at=time.time() - 9,
                config_path="/c",
                state_dir="/s",
                hub_lag=Histogram(counts=counts, total=0.1),
            ),
            GetEdge: EdgeReport(
                epoch=1,
                master_pid=2,
                http=("127.0.0.1:80",),
                workers=(WorkerState(pid=3, index=0),),
                services={"shop": totals},
            ),
            RestartActor: self._restart,
            VerifyToken: self._verify,
            BeginOperation: "op1",
            GetLogs: LogPage(),
            GetLogReport: LogsReport(pid=4, counts=(LineCounts(app="shop", process="web", levels=(0, 7, 0, 1, 0)),)),
            GetEnv: EnvView(items=(EnvItem(name="MODE", value="dev", process="web"),)),
            GetSource: SourceView(context="https://git.test/acme/shop.git#main"),
        }
        self.answers[GetMetrics] = MetricHistory(name="nextdeploy_requests_total", kind="counter", step=10.0)
        self.answers[GetMetricNames] = (MetricName(name="nextdeploy_requests_total", kind="counter", series=1),)
        self.answers[GetEdgeTotals] = self.answers[GetEdge]
        self.tokens: dict[str, TokenIdentity] = {}
        """Identities by digest and kind, as ``token`` makes them."""

    def token(self, secret: str = "ndt_" + "a" * 52, *, role: str = "operator", apps=("shop",)) -> dict[str, str]:
        """Make a token; the headers that send it."""
        kind = "hook" if secret.startswith("ndh_") else "api"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        self.tokens[f"{kind} {digest}"] = TokenIdentity(id="t1", name="ci", role=role, apps=apps)
        return {"Authorization": f"Bearer {secret}"}

    def _verify(self, message):
        found = self.tokens.get(f"{message.kind} {message.digest}")
        if found is None:
            raise NotFound("There is no such token.")
        return found

    def asked_for(self, *kinds: type) -> list:
        return [message for message in self.asked if isinstance(message, kinds)]

    def _restart(self, message):
        if message.name != "app:shop":
            raise NotFound("there is no such actor")

    def ask(self, message, timeout=5.0):
        self.asked.append(message)
        answer = self.answers[type(message)]
        if isinstance(answer, Exception):
            raise answer
        return answer(message) if callable(answer) else answer


USERS = (
    User(
        name="ana",
        password_hash=argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret"),
        role="admin",
    ),
    User(name="vic", password_hash=generate_password_hash("secret", "pbkdf2:sha256:1000"), role="viewer"),
    User(name="oli", password_hash=generate_password_hash("secret", "scrypt:1024:8:1"), role="operator"),
)


@pytest.fixture
def ref():
    return FakeRef()


@pytest.fixture
def make_client(ref):
    def make(**changes):
        given = {
            "users": USERS,
            "key": b"k" * 32,
            "metrics_open": True,
            "project": "test",
            "environment": "dev",
            **changes,
        }
        app = web.create_app(web.Refs(*[ref] * len(web.Refs._fields)), WebSettings(**given))
        return app.test_client()

    return make


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def ana():
    return ("ana", "secret")

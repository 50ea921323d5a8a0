"""Changes of an app as operations: what is prepared, run before the switch, refused, rolled back, cancelled, resumed."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gevent
import pytest
from msgspec.structs import replace

from ndactors.actors.operation import _in_buckets, _seconds_since
from ndactors.core.model import Canary, Deploy, Process, SecretRef
from ndactors.errors import Conflict, NotFound
from ndactors.messages.edge import Histogram
from ndactors.messages.operations import (
    CancelOperation,
    ChangeEnv,
    DeployApp,
    DeployTotals,
    GetDeploys,
    RefreshApp,
    RestartApp,
    RollbackApp,
    RunCommand,
    ScaleApp,
    StartApp,
    StopApp,
)
from ndactors.messages.records import Traffic, TrafficSummary


def ended(d, id: str):
    operation = d.operation(id)
    return operation if operation.state != "running" else None


@pytest.fixture
def done(until):
    def wait(d, id: str):
        until(lambda: ended(d, id))
        return d.operation(id)

    return wait


def idle(d) -> bool:
    return all(o.state != "running" for o in d.operations())


def test_the_first_version_is_an_operation_with_a_revision(daemon, make_app, until):
    d = daemon(make_app())
    until(lambda: idle(d))
    (operation,) = d.operations()
    assert (operation.kind, operation.state, operation.by, operation.revisions) == (
        "deploy",
        "succeeded",
        "file",
        {"shop": 1},
    )
    assert [step.name for step in operation.steps] == ["prepare", "start", "drain", "receipt"]
    assert all(step.state == "succeeded" for step in operation.steps)
    (revision,) = d.revisions()
    assert (revision.number, revision.state, revision.image, revision.spec) == (1, "current", "shop:1", None)


def counted(succeeded: int) -> dict[str, int]:
    return {"succeeded": succeeded, "failed": 0, "cancelled": 0}


def test_an_image_by_the_api_and_back(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    operation = done(d, d.begin(DeployApp(image="shop:2")))
    assert operation.state == "succeeded", operation
    assert operation.receipt is not None
    assert {s.image for s in engine.now.values()} == {"shop:2"}
    assert [(r.number, r.state) for r in d.revisions()] == [(2, "current"), (1, "former")]
    assert any(row.path == "image" and row.after == "shop:2" for row in d.revisions()[0].diff)
    operation = done(d, d.begin(RollbackApp()))
    assert operation.kind == "rollback"
    assert operation.state == "succeeded"
    assert {s.image for s in engine.now.values()} == {"shop:1"}
    assert d.app().revision == 3
    (totals,) = d.refs.operations.ask(GetDeploys())
    assert (totals.app, totals.results, sum(totals.durations.counts)) == ("shop", counted(3), 3)
    assert d.revisions()[0].message == "back to revision 1"
    operation = done(d, d.begin(RollbackApp(to=2)))
    assert {s.image for s in engine.now.values()} == {"shop:2"}


def test_deploys_are_counted_on_by_the_next_daemon(daemon, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    done(d, d.begin(DeployApp(image="shop:2")))
    before = d.refs.operations.ask(GetDeploys())
    assert before[0].results == counted(2)
    d.kill()
    after = daemon(make_app())
    until(lambda: idle(after))
    assert after.refs.operations.ask(GetDeploys()) == before
    done(after, after.begin(RollbackApp()))
    assert after.refs.operations.ask(GetDeploys())[0].results == counted(3)


@pytest.mark.parametrize(("change", "words"), [(RollbackApp(steps=3), "0 older"), (RollbackApp(to=9), "no revision 9")])
def test_there_is_nothing_to_go_back_to(daemon, make_app, until, done, change, words):
    d = daemon(make_app())
    until(lambda: idle(d))
    operation = done(d, d.begin(change))
    assert operation.state == "failed"
    assert words in operation.reason


def test_what_was_changed_live_survives_the_file_unless_that_key_changed(daemon, engine, make_app, until, done):
    d = daemon(make_app(replicas=1))
    until(lambda: idle(d))
    done(d, d.begin(DeployApp(image="shop:2")))
    done(d, d.begin(ScaleApp(replicas=3)))
    done(d, d.begin(ChangeEnv(set={"A": "live"})))
    d.apply(make_app(replicas=1, process={"env": {"B": "file"}}))
    until(lambda: d.app().revision == 5 and idle(d))
    spec = d.ledger.revision("shop", 5).spec
    assert (spec.image, spec.processes["web"].replicas) == ("shop:2", 3)
    assert spec.processes["web"].env == {"A": "live", "B": "file"}
    d.apply(make_app("shop:2", replicas=2, process={"env": {"B": "file"}}))
    until(lambda: d.app().revision == 6 and idle(d))
    assert d.ledger.revision("shop", 6).spec.processes["web"].replicas == 2


def test_one_change_at_a_time(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    first = d.begin(DeployApp(image="shop:2"))
    with pytest.raises(Conflict, match=first):
        d.begin(RestartApp())
    with pytest.raises(NotFound):
        d.begin(RestartApp(), app="nobody")
    assert done(d, first).state == "succeeded"
    assert done(d, d.begin(RestartApp())).state == "succeeded"


def test_a_restart_makes_every_container_anew_and_traffic_goes_on(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    before = set(engine.now)
    d.history.clear()
    assert done(d, d.begin(RestartApp())).state == "succeeded"
    assert not before & set(engine.now)
    assert all(service.backends for service in d.history)


def test_stopped_is_a_state_that_nobody_fights(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    assert done(d, d.begin(StopApp())).state == "succeeded"
    assert not engine.now
    assert (d.app().state, d.ready()) == ("stopped", True)
    d.apply(make_app(process={"env": {"A": "1"}}))
    until(lambda: d.app().revision == 3 and idle(d))
    assert not engine.now
    assert done(d, d.begin(StartApp())).state == "succeeded"
    assert len(d.backends()) == 2


def test_nothing_changed_is_said_so(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    calls = list(engine.calls)
    operation = done(d, d.begin(DeployApp()))
    assert operation.state == "succeeded"
    assert "nothing changed: revision 1" in operation.reason
    assert engine.calls == calls


def test_a_version_that_fails_names_its_cause_and_can_be_tried_again(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    before = d.backends()
    engine.exits_at_once.add("shop:2")
    for number in (2, 3):
        operation = done(d, d.begin(DeployApp(image="shop:2")))
        assert operation.state == "failed"
        assert operation.reason.startswith("exited 1 after"), operation.reason
        assert operation.revisions == {"shop": number}
        until(lambda: d.backends() == before and len(engine.now) == 2)
    assert d.app().revision == 1
    assert [(r.number, r.state) for r in d.revisions()] == [(3, "refused"), (2, "refused"), (1, "current")]
    assert [hook.event for hook in d.hooks][-1] == "deploy.failed"


def test_a_project_that_is_told_again_is_not_deployed_again(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    d.apply(make_app("shop:2"), operation="op-from-client")
    until(lambda: d.revisions()[0].number == 2 and d.revisions()[0].state == "current")
    done(d, d.begin(RollbackApp()))
    done(d, d.begin(StopApp()))
    many, revision = len(d.operations()), d.app().revision
    for _ in range(2):
        d.apply(make_app("shop:2"), operation="op-from-client")
    done(d, d.begin(ScaleApp(replicas=1)))
    assert (len(d.operations()), d.app().revision) == (many + 1, revision + 1)
    assert not engine.now
    done(d, d.begin(StartApp()))
    assert {s.image for s in engine.now.values()} == {"shop:1"}
    d.apply(make_app("shop:2", process={"env": {"A": "1"}}), operation="another")
    until(lambda: idle(d) and d.app().revision == revision + 3)


def test_a_first_version_that_never_came_up_is_tried_anew(daemon, engine, make_app, until, done):
    engine.exits_at_once.add("shop:1")
    d = daemon(make_app(), settled=False)
    until(lambda: d.operations() and idle(d))
    assert d.operations()[0].state == "failed"
    operation = done(d, d.begin(DeployApp()))
    assert operation.state == "failed", "nothing serves: it must not be called a success"
    engine.exits_at_once.clear()
    operation = done(d, d.begin(DeployApp()))
    assert operation.state == "succeeded", operation
    assert len(d.backends()) == 2
    assert "nothing changed" in done(d, d.begin(DeployApp())).reason


def test_a_first_version_whose_release_job_failed_runs_nowhere(daemon, engine, make_app, until, done):
    app = make_app()
    migrate = Process(name="migrate", command="migrate", schedule="@deploy")
    app = replace(app, processes={**app.processes, "migrate": migrate})
    d = daemon(app, settled=False, codes={"migrate": 3})
    until(lambda: d.operations() and idle(d))
    assert d.operations()[0].state == "failed"
    assert not engine.now
    d.codes.clear()
    operation = done(d, d.begin(DeployApp()))
    assert operation.state == "succeeded", operation
    assert [job.process.name for job in d.jobs] == ["migrate", "migrate"]
    assert len(d.backends()) == 2


def test_bound_to_loopback_is_recognised(daemon, engine, make_app, until, done):
    d = daemon(make_app(deploy=Deploy(timeout=0.3)))
    until(lambda: idle(d))
    d.listening = [("127.0.0.11", 39999), ("127.0.0.1", 8080)]
    addresses = {f"10.0.0.{n}": "nothing listens on it" for n in range(3, 20)}
    d.prober.failing.update(addresses)
    operation = done(d, d.begin(DeployApp(image="shop:2")))
    assert operation.reason == "listens on 127.0.0.1:8080; bind 0.0.0.0"
    assert d.app().revision == 1


def test_release_jobs_run_before_the_switch_and_stop_it_when_they_fail(daemon, engine, make_app, until, done):
    app = make_app()
    migrate = Process(name="migrate", command="migrate", schedule="@deploy")
    app = replace(app, processes={**app.processes, "migrate": migrate})
    d = daemon(app)
    until(lambda: idle(d))
    assert [job.process.name for job in d.jobs] == ["migrate"]
    d.codes["migrate"] = 3
    before = set(engine.now)
    operation = done(d, d.begin(DeployApp(image="shop:2")))
    assert operation.state == "failed"
    assert "`migrate`, which runs before the switch, failed: exited 3" in operation.reason
    assert set(engine.now) == before
    assert d.jobs[-1].app.image == "shop:2"
    assert len(d.jobs) == 2
    done(d, d.begin(ScaleApp(replicas=3)))
    assert len(d.jobs) == 2, "only a deploy runs them"


def test_a_secret_that_is_missing_stops_it_and_one_that_changes_rolls_who_uses_it(
    daemon, engine, make_app, until, done
):
    app = make_app(process={"secrets": (SecretRef(name="KEY", store_name="KEY"),)}, worker={"replicas": 1})
    d = daemon(app, settled=False)
    until(lambda: d.app() is not None and d.app().state == "failed")
    assert "these secrets are not set: KEY" in d.app().reason
    d.secrets["KEY"] = "one"
    d.apply(app)
    until(lambda: d.ready() and idle(d))
    worker = engine.named("nd-shop-worker-1-1").id
    d.secrets["KEY"] = "second-value"
    operation = done(d, d.begin(RefreshApp()))
    assert (operation.state, operation.kind) == ("succeeded", "secrets")
    assert engine.named("nd-shop-worker-1-1").id == worker, "it does not use the secret"
    assert "nd-shop-web-2-1" in d.states()
    assert "second-value" not in repr(d.ledger.numbers)


def test_a_one_off_runs_beside_whatever_changes(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    d.codes["web"] = 7
    operation = done(d, d.begin(RunCommand(command=("echo", "hi"))))
    assert (operation.kind, operation.state, operation.exit_code) == ("run", "failed", 7)
    assert d.jobs[-1].process.command == ("echo", "hi")
    d.codes["web"] = 0
    assert done(d, d.begin(RunCommand(command="true"))).exit_code == 0


def test_cancelled_while_it_starts(daemon, engine, make_app, until, done):
    d = daemon(make_app(deploy=Deploy(timeout=60)))
    until(lambda: idle(d))
    before = d.backends()
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(3, 20)})
    id = d.begin(DeployApp(image="shop:2"))
    until(lambda: "nd-shop-web-2-1" in d.states())
    d.refs.operations.ask(CancelOperation(id=id))
    operation = done(d, id)
    assert operation.state == "cancelled"
    until(lambda: set(d.states()) == {"nd-shop-web-1-1", "nd-shop-web-1-2"})
    assert d.backends() == before
    with pytest.raises(Conflict):
        d.refs.operations.ask(CancelOperation(id=id))


def test_the_file_changes_while_a_version_starts(daemon, engine, make_app, until):
    d = daemon(make_app(deploy=Deploy(timeout=60)))
    until(lambda: idle(d))
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(3, 4)})
    d.apply(make_app("shop:2", deploy=Deploy(timeout=60)))
    until(lambda: "nd-shop-web-2-1" in d.states())
    d.apply(make_app("shop:1", deploy=Deploy(timeout=60)))
    until(lambda: idle(d) and set(d.states()) == {"nd-shop-web-1-1", "nd-shop-web-1-2"})
    assert next(o.state for o in d.operations()) == "cancelled"


@pytest.mark.parametrize("phase", ["prepare", "release", "switch", "canary", "count"])
def test_whatever_phase_a_daemon_ends_in_the_next_one_goes_on(
    daemon, engine, make_app, until, done, phase, monkeypatch
):
    from ndactors.actors.deploy import DeployActor

    deploy = Deploy(strategy="canary", canary=Canary(steps=(50,), hold=0.02)) if phase == "canary" else Deploy()
    app = make_app(deploy=deploy)
    app = replace(app, processes={**app.processes, "go": Process(name="go", command="x", schedule="@deploy")})
    d = daemon(app)
    until(lambda: idle(d))
    reached = gevent.event.Event()
    save = DeployActor._save

    def ends_there(self):
        save(self)
        pending = self._record.pending
        at = "count" if pending and pending.outcome else pending.phase if pending else ""
        if at == phase and not reached.is_set():
            reached.set()
            gevent.sleep(60)  # nothing more happens in this life

    monkeypatch.setattr(DeployActor, "_save", ends_there)
    id = d.begin(DeployApp(image="shop:2"))
    assert reached.wait(5)
    d.kill()
    monkeypatch.setattr(DeployActor, "_save", save)
    again = daemon(app)
    operation = done(again, id)
    assert operation.state == "succeeded", operation
    assert {s.image for s in engine.now.values() if s.state == "running"} == {"shop:2"}
    assert len(again.backends()) == 2
    assert again.app().revision == 2


CANARY = Deploy(strategy="canary", canary=Canary(steps=(10, 50, 100), hold=0.05, max_error_rate=1.0))


def traffic(old: Traffic, new: Traffic, d):
    def answer(query):
        current = {c.id: c.revision for c in d.app().containers}
        newest = max(current.values(), default=1)
        rows = {id: new if revision == newest and newest > 1 else old for id, revision in current.items()}
        return TrafficSummary(all=old, containers=rows)

    return answer


def test_a_canary_that_is_well_is_promoted_step_by_step(daemon, engine, make_app, until, done):
    d = daemon(make_app(replicas=4, deploy=CANARY))
    until(lambda: idle(d))
    well = Traffic(requests=1000, failed=1, p95_ms=10.0)
    d.traffic = traffic(well, well, d)
    d.history.clear()
    operation = done(d, d.begin(DeployApp(image="shop:2")))
    assert operation.state == "succeeded"
    names = [step.name for step in operation.steps]
    assert "canary 10 %" in names
    assert "canary 50 %" in names
    shares = [(s.canary_percent, sum(b.role == "canary" for b in s.backends)) for s in d.history]
    assert (10.0, 1) in shares
    assert (50.0, 2) in shares
    assert shares[-1] == (0.0, 0)
    assert {s.image for s in engine.now.values()} == {"shop:2"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Traffic(requests=200, failed=10, p95_ms=10.0), "10 of 200 requests failed"),
        (Traffic(requests=200, p95_ms=100.0, over=60), "took longer than"),
    ],
)
def test_a_canary_that_is_not_is_rolled_back_and_the_evidence_kept(daemon, engine, make_app, until, done, bad, words):
    d = daemon(make_app(replicas=2, deploy=CANARY))
    until(lambda: idle(d))
    before = d.backends()
    d.traffic = traffic(Traffic(requests=2000, failed=1, p95_ms=10.0), bad, d)
    operation = done(d, d.begin(DeployApp(image="shop:2")))
    assert operation.state == "failed"
    assert words in operation.reason
    assert operation.evidence["shop"]["new"]["requests"] == 200
    until(lambda: d.backends() == before and len(engine.now) == 2)
    assert "canary.rolled_back" in d.kinds()


def test_old_containers_stay_aside_for_their_visitors(daemon, engine, make_app, until, done):
    skew = Deploy(skew=0.6)
    d = daemon(make_app(deploy=skew))
    until(lambda: idle(d))
    old = d.backends()
    done(d, d.begin(DeployApp(image="shop:2")))
    roles = {b.id: b.role for b in d.services["shop"].backends}
    assert {roles[id] for id in old} == {"aside"}
    assert len(roles) == 4
    until(lambda: len(engine.now) == 2)
    assert {s.image for s in engine.now.values()} == {"shop:2"}
    assert not old & d.backends()


def test_a_clock_that_is_put_back_shortens_no_deploy(daemon, make_app, until, done, monkeypatch):
    d = daemon(make_app())
    until(lambda: idle(d))
    (before,) = d.refs.operations.ask(GetDeploys())
    back = iter(range(0, 10**9, 3600))
    clock = SimpleNamespace(time=lambda: time.time() - next(back), monotonic=time.monotonic)
    monkeypatch.setattr("ndactors.actors.operation.time", clock)
    done(d, d.begin(DeployApp(image="shop:2")))
    (after,) = d.refs.operations.ask(GetDeploys())
    assert 0 <= after.durations.total - before.durations.total < 60


def test_a_new_daemon_counts_a_deploy_from_where_it_began():
    assert _seconds_since("2026-01-31T12:00:00.000000Z", 1769860800.0 + 90) == 90
    assert _seconds_since("2026-01-31T12:00:00.000000Z", 1769860800.0 - 90) == 0
    assert _seconds_since("", 1769860800.0) == 0


def test_durations_in_other_buckets_begin_anew():
    old = DeployTotals(app="shop", results={"succeeded": 3}, durations=Histogram(counts=(1, 2), total=99.0))
    new = _in_buckets(old)
    assert (new.results, sum(new.durations.counts), new.durations.total) == ({"succeeded": 3}, 0, 0)
    assert _in_buckets(new) == new

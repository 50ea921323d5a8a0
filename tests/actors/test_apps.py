"""Changes of the configuration, crashes of actors, restarts of the daemon, an engine that goes away."""

from __future__ import annotations

import gevent
import pytest
from msgspec.structs import replace

from ndactors.core.model import Http, Timeouts


def test_a_change_rolls_and_traffic_always_has_a_container(daemon, engine, make_app, until):
    d = daemon(make_app())
    d.history.clear()
    d.apply(make_app("shop:2"))
    until(lambda: set(d.states()) == {"nd-shop-web-2-1", "nd-shop-web-2-2"} and d.ready())
    assert all(service.backends for service in d.history)
    assert {status.image for status in engine.now.values()} == {"shop:2"}
    assert d.app().revision == 2
    until(lambda: "deploy.succeeded" in d.kinds())


def test_a_version_that_does_not_come_up_is_refused_and_the_old_one_stays(daemon, engine, make_app, until):
    d = daemon(make_app())
    before = d.backends()
    d.history.clear()
    engine.exits_at_once.add("shop:2")
    d.apply(make_app("shop:2"))
    until(lambda: "deploy.failed" in d.kinds())
    until(lambda: set(d.states()) == {"nd-shop-web-1-1", "nd-shop-web-1-2"})
    assert d.backends() == before
    assert next(e for e in d.events if e.kind == "deploy.failed").reason.startswith("revision 2: exited 1")
    assert all(before <= {b.id for b in service.backends} for service in d.history)
    calls = list(engine.calls)
    d.apply(make_app("shop:2"))
    gevent.sleep(0.05)
    assert engine.calls == calls, "the same version is not tried again"
    engine.exits_at_once.clear()
    d.apply(make_app("shop:1", process={"env": {"A": "1"}}))
    until(lambda: "nd-shop-web-3-2" in d.states() and len(d.states()) == 2 and d.ready())


def test_scaling_keeps_what_runs(daemon, engine, make_app, until):
    d = daemon(make_app(replicas=1))
    first = engine.named("nd-shop-web-1-1").id
    d.apply(make_app(replicas=3))
    until(lambda: len(d.backends()) == 3)
    d.apply(make_app(replicas=1))
    until(lambda: len(engine.now) == 1)
    assert set(engine.now) == {first}
    assert d.app().revision == 3, "every change is a revision"


def test_only_the_process_that_changed_is_replaced(daemon, engine, make_app, until):
    d = daemon(make_app(worker={"replicas": 1}))
    web = {engine.named(f"nd-shop-web-1-{n}").id for n in (1, 2)}
    d.apply(make_app(worker={"replicas": 1, "command": "other"}))
    until(lambda: "nd-shop-worker-2-1" in d.states() and "nd-shop-worker-1-1" not in d.states())
    assert d.backends() == web


def test_live_settings_need_no_new_container(daemon, engine, make_app, until):
    d = daemon(make_app())
    engine.calls.clear()
    changed = replace(make_app(), timeouts=Timeouts(response=5.0), http=Http(headers={"X": "y"}))
    d.apply(changed)
    d.apply(replace(changed, processes={"web": replace(changed.processes["web"], replicas=3)}))
    until(lambda: d.ready() and len(d.states()) == 3)
    assert [call for call, *_ in engine.calls].count("create") == 1
    assert not [call for call, *_ in engine.calls if call in ("stop", "remove")]


def test_recreate_stops_the_old_one_first_and_requests_wait(daemon, engine, make_app, until):
    from ndactors.core.model import Deploy

    recreate = Deploy(strategy="recreate")
    d = daemon(make_app(replicas=1, deploy=recreate))
    d.history.clear()
    d.apply(make_app("shop:2", replicas=1, deploy=recreate))
    until(lambda: set(d.states()) == {"nd-shop-web-2-1"} and d.ready())
    order = [call for call in engine.calls if call in (("remove", "nd-shop-web-1-1"), ("create", "nd-shop-web-2-1"))]
    assert order == [("remove", "nd-shop-web-1-1"), ("create", "nd-shop-web-2-1")]
    assert all(service.hold_seconds > 0 for service in d.history)


def test_an_app_that_is_gone_from_the_file_is_removed(daemon, engine, make_app, until):
    d = daemon(make_app(), make_app(name="blog"))
    d.apply(make_app(name="blog"))
    until(lambda: d.app() is None)
    assert {status.labels["nextdeploy.app"] for status in engine.now.values()} == {"blog"}
    assert daemon.state.names("apps") == ["apps/blog@docker"]


def test_the_next_daemon_adopts_the_very_same_containers(daemon, engine, make_app, until):
    first = daemon(make_app(worker={"replicas": 1}))
    engine.exits(engine.named("nd-shop-web-1-1").id, 1)
    until(lambda: first.containers()["nd-shop-web-1-1"].restarts == {"exit": 1} and first.ready())
    before, calls = set(engine.now), list(engine.calls)
    first.stop()
    second = daemon(make_app(worker={"replicas": 1}))
    assert set(engine.now) == before
    assert engine.calls == calls
    assert second.containers()["nd-shop-web-1-1"].restarts == {"exit": 1}, "counters are durable"
    assert all(service.backends for service in second.history), "adopted ones have traffic at once"


def test_one_that_died_while_nobody_watched_is_restarted(daemon, engine, make_app, until):
    first = daemon(make_app())
    first.stop()
    engine.exits(engine.named("nd-shop-web-1-2").id, 1)
    second = daemon(make_app())
    assert second.containers()["nd-shop-web-1-2"].restarts == {"exit": 1}


def test_what_was_given_up_stays_given_up_in_the_next_daemon(daemon, engine, make_app, until):
    engine.exits_at_once.add("shop:1")
    first = daemon(make_app(replicas=1), settled=False)
    until(lambda: first.states().get("nd-shop-web-1-1") == "failed")
    first.stop()
    calls = list(engine.calls)
    second = daemon(make_app(replicas=1))
    assert second.states() == {"nd-shop-web-1-1": "failed"}
    assert second.containers()["nd-shop-web-1-1"].reason == "exited 1; 3 restarts in 600 s did not help"
    assert engine.calls == calls


def test_a_change_made_while_no_daemon_ran_is_applied(daemon, engine, make_app, until):
    daemon(make_app()).stop()
    d = daemon(make_app("shop:2"), settled=False)
    until(lambda: set(d.states()) == {"nd-shop-web-2-1", "nd-shop-web-2-2"} and d.ready())


def test_a_daemon_that_died_in_the_middle_of_a_change_is_followed_by_one_that_finishes_it(
    daemon, engine, make_app, until
):
    first = daemon(make_app())
    first.apply(make_app("shop:2"))
    until(lambda: ("start", "nd-shop-web-2-1") in engine.calls)
    first.stop()
    d = daemon(make_app("shop:2"), settled=False)
    until(lambda: set(d.states()) == {"nd-shop-web-2-1", "nd-shop-web-2-2"} and d.ready())
    assert len(engine.now) == 2


def test_containers_without_state_are_adopted_by_their_labels(daemon, engine, make_app):
    daemon(make_app()).stop()
    daemon.state.records.clear()
    daemon.state.ledger.all.clear()
    daemon.state.ledger.numbers.clear()
    before = set(engine.now)
    d = daemon(make_app())
    assert set(engine.now) == before
    assert d.app().revision == 1


def test_containers_of_an_app_nobody_knows_any_more_are_removed(daemon, engine, make_app, until):
    daemon(make_app(), make_app(name="old")).stop()
    daemon.state.records.clear()
    daemon(make_app())
    until(lambda: {status.labels["nextdeploy.app"] for status in engine.now.values()} == {"shop"})


@pytest.mark.parametrize("victim", ["engine:docker", "apps", "app:shop", "container:shop:web-1-1", "containers:shop"])
def test_whichever_actor_crashes_no_container_notices_and_traffic_stays(daemon, engine, make_app, until, victim):
    d = daemon(make_app())
    before, calls = set(engine.now), list(engine.calls)
    d.history.clear()
    ref = d._ref(victim)
    restarts = ref.restarts
    for _ in range(3):
        d.crash(victim)
        gevent.sleep(0.02)
    until(lambda: d._ref(victim) is not None and (d._ref(victim) is not ref or ref.restarts > restarts))
    until(d.ready)
    assert set(engine.now) == before
    assert engine.calls == calls
    assert all(len(service.backends) == 2 for service in d.history)
    engine.exits(engine.named("nd-shop-web-1-1").id, 1)
    until(lambda: ("start", "nd-shop-web-1-1") in engine.calls[len(calls) :])
    until(lambda: len(d.backends()) == 2)


def test_an_engine_that_goes_away_and_comes_back(daemon, engine, make_app, until):
    d = daemon(make_app())
    before = d.backends()
    engine.goes_away()
    until(lambda: "engine.lost" in d.kinds())
    gevent.sleep(0.05)
    assert d.backends() == before, "containers serve on without it"
    engine.exits(engine.named("nd-shop-web-1-2").id, 0)
    engine.comes_back()
    until(lambda: "engine.found" in d.kinds())
    until(lambda: d.containers()["nd-shop-web-1-2"].restarts == {"exit": 1} and len(d.backends()) == 2)


def test_an_engine_that_is_away_at_the_start(daemon, engine, make_app, until):
    engine.goes_away()
    d = daemon(make_app(), settled=False)
    until(lambda: d.app() is not None and d.app().reason == "the engine does not answer")
    assert not d.ready()
    engine.comes_back()
    until(d.ready, seconds=10)


def test_a_removal_that_the_engine_interrupts_is_finished_later(daemon, engine, make_app, until):
    d = daemon(make_app())
    engine.goes_away()
    until(lambda: "engine.lost" in d.kinds())
    d.apply()
    gevent.sleep(0.05)
    assert len(engine.now) == 2
    engine.comes_back()
    until(lambda: not engine.now, seconds=10)
    until(lambda: d.app() is None)


def test_addresses_that_changed_are_believed(daemon, engine, make_app, until):
    d = daemon(make_app(replicas=1))
    status = engine.named("nd-shop-web-1-1")
    engine._change(status.id, "started", address="10.9.9.9")
    until(lambda: [b.address for b in d.services["shop"].backends] == ["10.9.9.9"])


def test_figures_of_apps_go_to_the_history_once_all_have_told(daemon, make_app, until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.apps.until_sampling", lambda now: 0.005)
    d = daemon(make_app())
    until(lambda: d.refs.metrics.mailbox.items)
    first = d.refs.metrics.mailbox.items[0]
    assert (first.source, first.at, first.from_zero) == ("apps", 1000.0, True)
    assert {s.labels["app"] for s in first.samples} == {"shop"}
    until(
        lambda: any(
            (s.name, s.labels.get("state"), s.value) == ("nextdeploy_containers", "running", 2.0)
            for s in d.refs.metrics.mailbox.items[-1].samples
        )
    )

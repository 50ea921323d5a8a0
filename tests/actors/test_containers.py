"""From the configuration to running containers, and what happens when they do not stay that way."""

from __future__ import annotations

import gevent

from ndactors.core.model import Healthcheck


def test_the_configuration_becomes_containers_and_traffic(daemon, engine, make_app):
    d = daemon(make_app(worker={"replicas": 1}))
    assert d.states() == {
        "nd-shop-web-1-1": "running",
        "nd-shop-web-1-2": "running",
        "nd-shop-worker-1-1": "running",
    }
    assert d.app().state == "healthy"
    assert len(d.backends()) == 2
    status = engine.named("nd-shop-web-1-2")
    assert status.labels["nextdeploy.daemon"] == "d1"
    assert status.labels["nextdeploy.replica"] == "2"
    assert status.id in d.backends()


def test_one_that_never_answers_gets_no_traffic_and_the_reason_is_shown(daemon, engine, make_app, until):
    d = daemon(make_app(replicas=1), settled=False)
    d.prober.failing["10.0.0.1"] = "/ answered 500"
    until(lambda: "10.0.0.1" in d.prober.failing and d.states().get("nd-shop-web-1-1") in ("starting", "unhealthy"))
    assert not d.ready()
    assert d.backends() == set()
    assert d.services["shop"].hold_seconds > 0
    until(lambda: d.containers()["nd-shop-web-1-1"].reason.endswith("/ answered 500"))


def test_one_that_dies_is_restarted_and_the_reason_recorded(daemon, engine, make_app, until):
    d = daemon(make_app())
    victim = engine.named("nd-shop-web-1-1").id
    engine.exits(victim, 137)
    until(lambda: d.containers()["nd-shop-web-1-1"].restarts == {"exit": 1})
    until(lambda: len(d.backends()) == 2)
    assert engine.named("nd-shop-web-1-1").id == victim
    died = next(e for e in d.events if e.kind == "container.died")
    assert died.reason == "exited 137 (SIGKILL)"
    assert died.detail["exit_code"] == 137
    assert died.detail["uptime_seconds"] >= 0
    restarted = next(e for e in d.events if e.kind == "container.restarted")
    assert restarted.reason == "exited 137 (SIGKILL)"
    assert any(victim not in {b.id for b in s.backends} and len(s.backends) == 1 for s in d.history)


def test_an_oom_event_names_the_reason(daemon, engine, make_app, until):
    d = daemon(make_app(replicas=1))
    victim = engine.named("nd-shop-web-1-1").id
    engine._change(victim, "oom")
    until(lambda: "container.oom" in d.kinds())
    engine.exits(victim, 137)
    until(lambda: d.containers()["nd-shop-web-1-1"].restarts == {"oom": 1})
    assert next(e for e in d.events if e.kind == "container.died").reason == "exited 137 (out of memory)"


def test_one_that_keeps_dying_is_given_up_visibly_and_never_removed(daemon, engine, make_app, until):
    engine.exits_at_once.add("shop:1")
    d = daemon(make_app(replicas=1), settled=False)
    until(lambda: d.states().get("nd-shop-web-1-1") == "failed")
    container = d.containers()["nd-shop-web-1-1"]
    assert container.restarts == {"exit": 3}
    assert container.reason == "exited 1; 3 restarts in 600 s did not help"
    assert d.app().state == "failed"
    assert d.ready(), "a visible failure does not keep the whole server unready"
    assert engine.named("nd-shop-web-1-1").state == "exited"
    assert d.services["shop"].hold_seconds == 0.0
    assert "container.gave_up" in d.kinds()


def test_restart_no_and_on_failure(daemon, engine, make_app, until):
    from ndactors.core.model import Restart

    d = daemon(
        make_app(replicas=1, process={"restart": Restart(policy="no")}),
        make_app(name="job", replicas=1, process={"restart": Restart(policy="on-failure", backoff=0.001)}),
    )
    engine.exits(engine.named("nd-shop-web-1-1").id, 0)
    until(lambda: d.states()["nd-shop-web-1-1"] == "stopped")
    job = engine.named("nd-job-web-1-1").id
    engine.exits(job, 3)
    until(lambda: d.app("job").containers[0].restarts == {"exit": 1} and d.app("job").containers[0].state == "running")
    engine.exits(job, 0)
    until(lambda: d.app("job").containers[0].state == "stopped")
    assert ("remove", "nd-job-web-1-1") not in engine.calls


def test_an_unhealthy_one_is_ejected_then_restarted(daemon, engine, make_app, until):
    d = daemon(make_app())
    sick = engine.named("nd-shop-web-1-1")
    d.prober.failing[sick.address] = "no answer"
    until(lambda: d.backends() == {engine.named("nd-shop-web-1-2").id})
    assert d.containers()["nd-shop-web-1-1"].health == "unhealthy"
    until(lambda: ("stop", "nd-shop-web-1-1") in engine.calls)
    d.prober.failing.clear()
    until(lambda: len(d.backends()) == 2)
    assert d.containers()["nd-shop-web-1-1"].restarts == {"unhealthy": 1}
    assert d.kinds().count("container.unhealthy") == 1


def test_when_all_are_unhealthy_they_still_get_traffic_and_restart_one_at_a_time(daemon, engine, make_app, until):
    d = daemon(make_app(replicas=3))
    for number in (1, 2, 3):
        d.prober.failing[engine.named(f"nd-shop-web-1-{number}").address] = "no answer"
    until(lambda: set(d.states().values()) == {"unhealthy"} or ("stop", "nd-shop-web-1-1") in engine.calls)
    down_together = 0
    for _ in range(300):
        running = sum(status.state == "running" for status in engine.now.values())
        down_together = max(down_together, 3 - running)
        assert len(d.services["shop"].backends) >= 1
        gevent.sleep(0.001)
    assert down_together == 1
    d.prober.failing.clear()
    until(d.ready)


def test_a_probe_that_our_own_lag_delayed_says_nothing(daemon, engine, make_app):
    d = daemon(make_app())

    def slow(target, check, host):
        d.lag.seconds += 10
        gevent.sleep(0)
        return "no answer"

    d.prober.http = slow
    gevent.sleep(0.1)
    assert len(d.backends()) == 2
    assert "container.unhealthy" not in d.kinds()


def test_a_probe_that_outlasted_its_time_says_nothing(daemon, engine, make_app, until):
    """It ends in time by itself, so it was we who were stopped, and the machine with us."""
    check = Healthcheck(interval=0.01, timeout=0.05, retries=2, start_period=0.3)
    d, asked = daemon(make_app(process={"healthcheck": check})), []

    def stopped(target, check, host):
        asked.append(target)
        gevent.sleep(check.timeout * 1.3)
        return "no answer"

    d.prober.http = stopped
    until(lambda: len(asked) > 8)
    assert len(d.backends()) == 2
    assert "container.unhealthy" not in d.kinds()


def test_one_removed_behind_our_back_is_made_again(daemon, engine, make_app, until):
    d = daemon(make_app())
    engine.remove(engine.named("nd-shop-web-1-1").id)
    until(lambda: "container.vanished" in d.kinds() and len(d.backends()) == 2)
    assert engine.named("nd-shop-web-1-1").state == "running"


def test_an_image_that_is_not_there_fails_visibly_and_at_once(daemon, engine, make_app, until):
    d = daemon(make_app("none:1", replicas=1))
    assert d.states() == {}
    assert (d.app().state, d.app().reason) == ("failed", "there is no image none:1, and no registry has it")
    assert d.operations()[0].state == "failed"
    engine.images.add("none:1")
    d.apply(make_app("none:1", replicas=1))
    until(lambda: d.app().state == "healthy")


def test_one_that_cannot_start_is_retried_then_given_up_and_can_be_removed(daemon, engine, make_app, until):
    from ndactors.errors import EngineError

    engine.start_error = EngineError("exec: no such file")
    d = daemon(make_app(replicas=1), settled=False)
    until(lambda: d.states().get("nd-shop-web-1-1") == "failed")
    assert d.containers()["nd-shop-web-1-1"].restarts == {"start_failed": 3}
    d.apply()
    until(lambda: not engine.now)


def test_somebody_starts_a_stopped_one_by_hand(daemon, engine, make_app, until):
    engine.exits_at_once.add("shop:1")
    d = daemon(make_app(replicas=1), settled=False)
    until(lambda: d.states().get("nd-shop-web-1-1") == "failed")
    engine.exits_at_once.clear()
    engine.start(engine.named("nd-shop-web-1-1").id)
    until(lambda: d.app().state == "healthy")
    assert "by somebody else" in [event.reason for event in d.events if event.kind == "container.started"]

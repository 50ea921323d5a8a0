"""Histories that a fake clock drives through all the rules: what fires when, and what does not."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator

import pytest
from msgspec import Struct

from ndactors.core.alert_watch import EventWatch, Happened, LevelWatch
from ndactors.core.alerts import AlertBook
from ndactors.core.model import Anomaly, Monitoring
from ndactors.core.signals import SignalMaker

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
START = 1_800_000_000.0 // DAY * DAY
GB = 1e9
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Figure(Struct, frozen=True, kw_only=True):
    name: str
    labels: dict[str, str] = {}
    value: float = 0.0
    counts: tuple[int, ...] = ()


class Server:
    """A machine with one app. Each quantity is a function of time; totals are summed up from them."""

    def __init__(self, seed: int = 1, noise: float = 0.0) -> None:
        self.source, self.noise = random.Random(seed), noise
        self.cpu: Callable[[float], float] = lambda t: 20.0
        self.memory: Callable[[float], float] = lambda t: 2 * GB
        self.disk: Callable[[float], float] = lambda t: 40 * GB
        self.own_memory: Callable[[float], float] = lambda t: 0.2 * GB
        self.own_cpu: Callable[[float], float] = lambda t: 5.0
        self.rate: Callable[[float], float] = lambda t: 10.0
        self.errors: Callable[[float], float] = lambda t: 0.0
        self.slow: Callable[[float], float] = lambda t: 0.0
        self.totals: dict[str, float] = {}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.at = 0.0

    def restart(self) -> None:
        """Whoever counts begins anew."""
        self.totals.clear()
        self.buckets = [0] * (len(BOUNDS) + 1)

    def _noisy(self, value: float) -> float:
        return max(0.0, value * self.source.gauss(1.0, self.noise)) if self.noise else value

    def _grow(self, name: str, by: float) -> float:
        self.totals[name] = self.totals.get(name, 0.0) + by
        return self.totals[name]

    def figures(self, t: float, seconds: float) -> Iterator[tuple[str, list[Figure]]]:
        own = {"app": "shop", "process": "web"}
        yield (
            "host",
            [
                Figure(name="nextdeploy_host_cpu_percent", value=min(100.0, self._noisy(self.cpu(t)))),
                Figure(name="nextdeploy_host_memory_used_bytes", value=min(4 * GB, self._noisy(self.memory(t)))),
                Figure(name="nextdeploy_host_memory_total_bytes", value=4 * GB),
                Figure(
                    name="nextdeploy_host_disk_used_bytes", labels={"mount": "/"}, value=min(100 * GB, self.disk(t))
                ),
                Figure(name="nextdeploy_host_disk_total_bytes", labels={"mount": "/"}, value=100 * GB),
            ],
        )
        where = {**own, "container": "nd-shop-web-1-1"}
        cpu = self._grow("cpu", self._noisy(self.own_cpu(t)) / 100 * seconds)
        yield (
            "containers",
            [
                Figure(name="nextdeploy_container_cpu_seconds_total", labels=where, value=cpu),
                Figure(name="nextdeploy_container_memory_bytes", labels=where, value=self._noisy(self.own_memory(t))),
                Figure(name="nextdeploy_container_memory_limit_bytes", labels=where, value=0.5 * GB),
            ],
        )
        count = round(self._noisy(self.rate(t)) * seconds)
        bad = min(count, round(count * self.errors(t)))
        slow = round(count * self.slow(t))
        self.buckets[3] += count - slow
        self.buckets[8] += slow
        yield (
            "edge",
            [
                Figure(
                    name="nextdeploy_requests_total",
                    labels={**own, "code": "200"},
                    value=self._grow("good", count - bad),
                ),
                Figure(name="nextdeploy_requests_total", labels={**own, "code": "502"}, value=self._grow("bad", bad)),
                Figure(name="nextdeploy_request_duration_seconds", labels=own, counts=tuple(self.buckets)),
            ],
        )


class Daemon:
    """The rules and their book, as the actor has them."""

    def __init__(
        self, monitoring: Monitoring | None = None, before: Daemon | None = None, now: float = START, renew: bool = True
    ) -> None:
        self.monitoring = monitoring or Monitoring()
        self.maker, self.levels, self.events = SignalMaker(BOUNDS), LevelWatch(), EventWatch()
        ids = itertools.count(1 if before is None else 1000)
        self.book = AlertBook(lambda: f"a{next(ids)}", before.book.saved() if before is not None else None)
        self.log: list[tuple[float, str, str]] = before.log if before is not None else []
        """When, what became of it, which rule."""
        if before is not None:
            alerts = [self.book.alerts[id] for id in self.book.open.values()]
            self.levels.resume((a for a in alerts if not self.events.resume(a, now, renew=renew)), now)
            self.levels.restore_seasons(before.levels.seasons(now), self.monitoring.anomaly.window)

    def see(self, server: Server, t: float, seconds: float) -> None:
        for source, figures in server.figures(t, seconds):
            signals = self.maker.signals(source, figures, t)
            self._write(self.levels.look(source, signals, self.monitoring, t), t)
        self._write(self.levels.tick(self.monitoring, t), t)
        self._write(self.events.tick(t), t)

    def tick(self, begin: float, end: float, step: float = 5.0) -> None:
        """Time passes, and nothing comes."""
        while begin < end:
            begin = min(end, begin + step)
            self._write(self.levels.tick(self.monitoring, begin), begin)
            self._write(self.events.tick(begin), begin)

    def hear(self, kind: str, t: float, **more) -> None:
        self._write(self.events.hear(Happened(kind=kind, **more), t), t)

    def _write(self, decisions, t: float) -> None:
        for decision in decisions:
            if hasattr(decision, "key") and hasattr(decision, "rule"):
                alert = self.book.bad(decision, t)
                if alert is not None:
                    self.log.append((t, alert.severity, alert.rule))
            elif (alert := self.book.over(decision, t)) is not None:
                self.log.append((t, "over", alert.rule))

    def fired(self, rule: str) -> list[float]:
        return [t for t, what, own in self.log if own == rule and what != "over"]

    def ended(self, rule: str) -> list[float]:
        return [t for t, what, own in self.log if own == rule and what == "over"]


class Run:
    def __init__(self, server: Server, daemon: Daemon | None = None, step: float = 10.0) -> None:
        self.server, self.daemon, self.step, self.t = server, daemon or Daemon(), step, START

    def go(self, seconds: float, step: float | None = None) -> Run:
        step = step or self.step
        end = self.t + seconds
        while self.t < end - step / 2:
            self.t += step
            self.daemon.see(self.server, self.t, step)
        return self

    def rules(self) -> set[str]:
        return {rule for _, _, rule in self.daemon.log}


def rhythm(low: float, high: float) -> Callable[[float], float]:
    return lambda t: low + (high - low) * (0.5 - 0.5 * math.cos(2 * math.pi * t / DAY))


def daily(server: Server) -> Server:
    server.cpu, server.rate, server.own_cpu = rhythm(5, 55), rhythm(1, 40), rhythm(2, 30)
    server.memory, server.own_memory = rhythm(1.8 * GB, 2.2 * GB), rhythm(0.2 * GB, 0.25 * GB)
    return server


# -- nothing ---------------------------------------------------------------------------------------


def test_a_month_of_noise_at_rest_fires_nothing():
    run = Run(Server(1, noise=0.25), step=60.0).go(31 * DAY)
    assert run.daemon.log == []


def test_a_month_of_noise_over_a_daily_rhythm_fires_nothing():
    run = Run(daily(Server(3, noise=0.2)), step=60.0).go(31 * DAY)
    assert run.daemon.log == []


def test_short_peaks_fire_nothing():
    server = Server()
    server.cpu = lambda t: 100.0 if t % 600 < 120 else 10.0
    server.memory = lambda t: 3.99 * GB if t % 600 < 60 else 2 * GB
    assert Run(server).go(6 * HOUR).daemon.log == []


# -- thresholds ------------------------------------------------------------------------------------


def test_a_step_fires_after_its_time_and_ends_after_its_time():
    server = Server()
    server.cpu = lambda t: 97.0 if START + HOUR <= t < START + 2 * HOUR else 20.0
    run = Run(server).go(3 * HOUR)
    (fired,), (over,) = run.daemon.fired("host.cpu"), run.daemon.ended("host.cpu")
    assert fired == START + HOUR + 5 * MINUTE
    assert over == START + 2 * HOUR + 2 * MINUTE
    assert run.rules() == {"host.cpu"}


def test_a_slow_leak_is_a_warning_and_then_critical():
    server = Server()
    server.own_memory = lambda t: 0.1 * GB + 0.4 * GB * (t - START) / (10 * HOUR)
    run = Run(server, step=30.0).go(10.2 * HOUR)
    levels = [what for _, what, rule in run.daemon.log if rule == "container.memory"]
    assert levels == ["warning", "critical"]
    first, second = run.daemon.fired("container.memory")
    assert START + 8.7 * HOUR < first < START + 8.9 * HOUR < second < START + 9.9 * HOUR
    assert run.rules() == {"container.memory"}


def test_a_disk_that_fills_is_told_hours_before_it_is_full():
    server = Server()
    server.disk = lambda t: 40 * GB + max(0.0, t - START - HOUR) / HOUR * 6 * GB
    run = Run(server, step=30.0).go(11 * HOUR)
    filling, full = run.daemon.fired("disk.filling"), run.daemon.fired("disk.used")
    ends = START + HOUR + 10 * HOUR
    assert ends - 4.2 * HOUR < filling[0] < ends - 3.5 * HOUR
    assert ends - 1.1 * HOUR < filling[1] < ends - 0.8 * HOUR
    assert full[0] < ends
    assert run.rules() == {"disk.filling", "disk.used"}


def test_an_error_burst_is_told_within_half_a_minute():
    server = Server()
    server.errors = lambda t: 0.6 if START + HOUR <= t < START + HOUR + 5 * MINUTE else 0.0
    run = Run(server).go(2 * HOUR)
    fired, (over,) = run.daemon.fired("app.errors"), run.daemon.ended("app.errors")
    assert START + HOUR < fired[0] <= START + HOUR + 40.0
    assert {what for _, what, rule in run.daemon.log if rule == "app.errors"} == {"warning", "critical", "over"}
    assert START + HOUR + 7 * MINUTE < over < START + HOUR + 9 * MINUTE


def test_the_configured_threshold_counts():
    server = Server()
    server.cpu = lambda t: 60.0
    assert Run(server).go(HOUR).daemon.log == []
    from msgspec.structs import replace

    monitoring = Monitoring()
    monitoring = replace(monitoring, thresholds=replace(monitoring.thresholds, cpu=50.0))
    assert Run(server, Daemon(monitoring)).go(HOUR).daemon.fired("host.cpu") == [START + 10.0 + 5 * MINUTE]


# -- anomalies -------------------------------------------------------------------------------------


def test_the_day_s_load_at_night_is_an_anomaly_and_by_day_it_is_not():
    server = daily(Server(5, noise=0.05))
    run = Run(server, step=60.0).go(8 * DAY)
    assert run.daemon.log == []
    night = run.t
    server.rate = lambda t: 38.0
    run.go(2 * HOUR)
    (fired,) = run.daemon.fired("anomaly.app.requests")
    assert night + 14 * MINUTE < fired < night + 25 * MINUTE
    alert = next(alert for alert in run.daemon.book.alerts.values() if alert.rule == "anomaly.app.requests")
    assert alert.kind == "anomaly" and alert.app == "shop"
    assert re.fullmatch(r"shop gets \d\d requests/s; usual at this time are \d\.\d requests/s", alert.summary)
    server.rate = rhythm(1, 40)
    run.go(HOUR)
    assert run.daemon.ended("anomaly.app.requests")


def test_traffic_that_stops_by_day_is_an_anomaly():
    server = daily(Server(6, noise=0.05))
    run = Run(server, step=60.0).go(7.5 * DAY)
    server.rate = lambda t: 0.0
    run.go(HOUR)
    assert run.daemon.fired("anomaly.app.requests")


def test_answers_that_take_longer_than_usual_are_an_anomaly():
    server = daily(Server(7, noise=0.05))
    run = Run(server, step=60.0).go(6.5 * DAY)
    server.slow = lambda t: 0.2
    run.go(HOUR)
    assert run.daemon.fired("anomaly.app.p95")


def test_with_too_little_history_nothing_is_an_anomaly():
    server = daily(Server(8, noise=0.05))
    run = Run(server, step=60.0).go(2 * DAY)
    server.rate, server.slow = (lambda t: 400.0), (lambda t: 0.5)
    run.go(3 * HOUR)
    assert run.daemon.log == []


def test_sigma_of_the_configuration_counts():
    server = daily(Server(9, noise=0.05))
    run = Run(server, Daemon(Monitoring(anomaly=Anomaly(sigma=1000.0))), step=60.0).go(6.5 * DAY)
    server.slow = lambda t: 0.2
    assert run.go(HOUR).daemon.log == []


# -- gaps, restarts, clocks ------------------------------------------------------------------------


def test_a_gap_neither_fires_nor_ends_anything():
    server = Server()
    run = Run(server).go(HOUR)
    server.cpu = lambda t: 97.0
    run.go(MINUTE)
    run.t += 3 * DAY
    run.go(2 * MINUTE)
    assert run.daemon.fired("host.cpu") == []
    run.go(4 * MINUTE)
    assert len(run.daemon.fired("host.cpu")) == 1
    run.t += 3 * DAY
    run.go(MINUTE)
    assert run.daemon.ended("host.cpu") == []


def test_figures_that_do_not_come_are_told():
    run = Run(Server()).go(HOUR)
    for _ in range(12):
        run.t += 10.0
        run.daemon._write(run.daemon.levels.tick(run.daemon.monitoring, run.t), run.t)
    assert len(run.daemon.fired("figures.missing")) == 3  # of the host, the containers, the edge
    run.go(5 * MINUTE)
    assert len(run.daemon.ended("figures.missing")) == 3


def test_a_restart_of_who_counts_is_no_burst():
    server = daily(Server(10))
    run = Run(server).go(HOUR)
    for _ in range(5):
        server.restart()
        run.go(10 * MINUTE)
    assert run.daemon.log == []


def test_a_restart_of_the_daemon_keeps_what_fires_and_ends_what_is_over():
    server = Server()
    server.cpu, server.disk = (lambda t: 97.0), (lambda t: 95 * GB)
    run = Run(server).go(HOUR)
    before = {alert.id for alert in run.daemon.book.alerts.values()}
    run.daemon = Daemon(before=run.daemon, now=run.t)
    run.go(HOUR)
    assert {alert.id for alert in run.daemon.book.alerts.values()} == before  # nothing fired twice
    server.cpu = lambda t: 10.0
    run.daemon = Daemon(before=run.daemon, now=run.t)
    run.go(10 * MINUTE)
    assert run.daemon.ended("host.cpu") and not run.daemon.ended("disk.used")


def test_what_is_gone_after_a_restart_is_over():
    server = Server()
    server.own_memory = lambda t: 0.49 * GB
    run = Run(server).go(HOUR)
    assert run.daemon.fired("container.memory")
    run.daemon = Daemon(before=run.daemon, now=run.t)
    server.figures = lambda t, seconds: iter([])
    run.go(11 * MINUTE)
    (alert,) = run.daemon.book.alerts.values()
    assert alert.state == "resolved" and alert.summary.endswith("(it is not there any more)")


def test_a_container_that_goes_away_ends_its_alert():
    server = Server()
    server.own_memory = lambda t: 0.49 * GB
    run = Run(server).go(HOUR)
    real = server.figures
    server.figures = lambda t, seconds: ((s, [] if s == "containers" else f) for s, f in real(t, seconds))
    run.go(20.0)
    assert run.daemon.ended("container.memory")


@pytest.mark.parametrize("jump", [DAY, 400 * DAY, -DAY, -400 * DAY, HOUR, -HOUR])
def test_a_clock_that_jumps_fires_nothing_and_ends_nothing(jump):
    server = Server(11, noise=0.05)
    run = Run(server, step=60.0).go(6 * DAY)
    server.disk = lambda t: 95 * GB
    run.go(HOUR)
    fired = list(run.daemon.log)
    assert {rule for _, _, rule in fired} == {"disk.used"}
    run.t += jump
    run.go(2 * HOUR)
    run.t -= jump
    run.go(2 * HOUR)
    assert [row for row in run.daemon.log if row[2] != "figures.missing"] == fired


# -- events ----------------------------------------------------------------------------------------


def test_a_crash_fires_at_once_and_a_loop_is_critical():
    daemon = Daemon()
    for number in range(4):
        daemon.hear("container.died", START + number * 30, app="shop", process="web", reason="exited 1")
    (alert,) = daemon.book.alerts.values()
    assert daemon.fired("crash") == [START, START + 60]
    assert (alert.severity, alert.count, alert.summary) == ("critical", 4, "shop/web crashed: exited 1")
    daemon.tick(START + 90, START + 90 + 599)
    assert daemon.ended("crash") == []
    daemon.tick(START + 90 + 599, START + 90 + 600)
    assert daemon.ended("crash") == [START + 90 + 600]


def test_two_apps_are_two_alerts():
    daemon = Daemon()
    daemon.hear("container.oom", START, app="shop", process="web")
    daemon.hear("container.oom", START, app="blog", process="web")
    assert {alert.app for alert in daemon.book.alerts.values()} == {"shop", "blog"}


def test_what_clears_it_ends_it():
    daemon = Daemon()
    web = {"app": "shop", "process": "web"}
    daemon.hear("container.unhealthy", START, container="c1", reason="answered 500", **web)
    daemon.hear("container.unhealthy", START, container="c2", reason="answered 500", **web)
    daemon.hear("container.healthy", START + 5, container="c1", **web)
    assert {alert.container: alert.state for alert in daemon.book.alerts.values()} == {"c1": "resolved", "c2": "firing"}


def test_an_app_that_is_removed_ends_what_was_wrong_with_its_jobs():
    daemon = Daemon()
    daemon.hear("job.failed", START, app="shop", process="tidy", reason="exited 1")
    daemon.hear("job.failed", START, app="blog", process="tidy", reason="exited 1")
    daemon.hear("app.removed", START + 5, app="shop")
    assert {alert.app: alert.state for alert in daemon.book.alerts.values()} == {"shop": "resolved", "blog": "firing"}


def test_an_actor_that_restarts_once_is_no_alert_and_one_that_does_so_again_and_again_is():
    daemon = Daemon()
    for number in range(3):
        daemon.hear("actor.restarted", START + number, detail={"actor": "app:shop"}, reason="app:shop: boom")
        assert len(daemon.book.alerts) == (number == 2)
    daemon = Daemon()
    for number in range(10):
        daemon.hear("actor.restarted", START + number * HOUR, detail={"actor": "app:shop"})
    assert daemon.log == []


def test_events_that_no_rule_is_about_do_nothing():
    daemon = Daemon()
    daemon.hear("container.started", START, app="shop")
    daemon.hear("container.healthy", START, app="shop", process="web", container="c1")
    assert daemon.log == []


def test_what_fired_by_an_event_before_a_restart_can_end_after_it():
    daemon = Daemon()
    daemon.hear("failover.switched", START, app="shop", reason="the primary hangs")
    daemon.hear("container.died", START, app="shop", process="web")
    again = Daemon(before=daemon)
    again.hear("failover.returned", START + 60, app="shop")
    again.tick(START, START + 700)
    assert {alert.state for alert in again.book.alerts.values()} == {"resolved"}


def test_what_a_new_daemon_does_not_find_again_is_over():
    daemon = Daemon()
    daemon.hear("engine.lost", START, reason="gone", detail={"engine": "docker"})
    daemon.hear("container.unhealthy", START, app="shop", process="web", container="c1")
    daemon.hear("container.unhealthy", START, app="shop", process="web", container="c2")
    daemon.hear("deploy.failed", START, app="shop")
    again = Daemon(before=daemon)
    again.hear("container.unhealthy", START + 30, app="shop", process="web", container="c2")
    for begin, seconds in ((0, 599), (599, 600)):
        again.tick(START + begin, START + seconds)
        states = {alert.container or alert.kind: alert.state for alert in again.book.alerts.values()}
        engine = "firing" if seconds < 600 else "resolved"
        assert states == {"self": engine, "c1": engine, "c2": "firing", "deploy": "firing"}


def test_what_the_same_daemon_told_need_not_be_told_again():
    daemon = Daemon()
    daemon.hear("engine.lost", START, reason="gone", detail={"engine": "docker"})
    again = Daemon(before=daemon, renew=False)
    again.tick(START, START + HOUR)
    assert again.ended("engine") == []


def test_two_engines_are_two_alerts():
    daemon = Daemon()
    for engine in ("docker", "process"):
        daemon.hear("engine.lost", START, reason="gone", detail={"engine": engine})
    daemon.hear("engine.found", START + 5, detail={"engine": "process"})
    states = {alert.summary: alert.state for alert in daemon.book.alerts.values()}
    assert states == {
        "The engine docker does not answer: gone": "firing",
        "The engine process does not answer: gone": "resolved",
    }


def test_a_clock_that_jumps_forward_ends_no_event_s_alert_and_makes_no_figures_old():
    run = Run(Server()).go(MINUTE)
    daemon = run.daemon
    daemon.hear("container.died", run.t, app="shop", process="web")
    daemon.hear("engine.lost", run.t, detail={"engine": "docker"})
    before = list(daemon.log)
    run.daemon = again = Daemon(before=daemon, now=run.t)
    again.tick(run.t, run.t + 5)
    run.t += HOUR
    again.tick(run.t, run.t + 5)
    run.go(5 * MINUTE)
    assert again.log == before


def test_a_crash_that_goes_on_is_one_alert_over_a_restart():
    daemon = Daemon()
    for t in range(0, 3600, 60):
        daemon.hear("container.died", START + t, app="shop", process="web")
        daemon.tick(START + t, START + t + 60)
    again = Daemon(before=daemon, now=START + 3605)
    again.tick(START + 3605, START + 3605 + 500)
    again.hear("container.died", START + 4105, app="shop", process="web")
    (alert,) = again.book.alerts.values()
    assert alert.state == "firing" and alert.count == 61


def test_a_disk_that_goes_on_filling_is_one_alert_over_a_restart():
    server = Server()
    server.disk = lambda t: 40 * GB + (t - START) / HOUR * 20 * GB
    run = Run(server, step=30.0).go(1.5 * HOUR)
    run.daemon = Daemon(before=run.daemon, now=run.t)
    run.go(HOUR)
    (alert,) = [alert for alert in run.daemon.book.alerts.values() if alert.rule == "disk.filling"]
    assert (alert.state, alert.severity) == ("firing", "critical")


def test_a_disk_that_does_not_fill_any_more_after_a_restart_is_over_when_that_is_known():
    server = Server()
    server.disk = lambda t: 40 * GB + min(1.5, (t - START) / HOUR) * 20 * GB
    run = Run(server, step=30.0).go(1.5 * HOUR)
    run.daemon = Daemon(before=run.daemon, now=run.t)
    run.go(14 * MINUTE)
    assert run.daemon.ended("disk.filling") == []
    run.go(20 * MINUTE)
    assert len(run.daemon.ended("disk.filling")) == 1


def test_figures_that_were_missing_before_a_restart_and_still_are():
    run = Run(Server()).go(MINUTE)
    run.daemon.tick(run.t, run.t + 2 * MINUTE)
    missing = len(run.daemon.fired("figures.missing"))
    again = Daemon(before=run.daemon, now=run.t + 2 * MINUTE)
    again.tick(run.t + 2 * MINUTE, run.t + 30 * MINUTE)
    assert missing == len(again.fired("figures.missing")) == 3 and again.ended("figures.missing") == []


def test_figures_that_never_come_are_missing():
    daemon = Daemon()
    daemon.levels.expect(("host", "edge"), START)
    daemon.tick(START, START + 59)
    assert daemon.log == []
    daemon.tick(START + 59, START + 65)
    assert len(daemon.fired("figures.missing")) == 2


def test_dropped_records_are_summed_up_and_told_as_what_they_were():
    daemon = Daemon()

    def dropped(total, t):
        figures = [Figure(name="nextdeploy_requests_dropped_total", value=total)]
        signals = daemon.maker.signals("edge", figures, t)
        daemon._write(daemon.levels.look("edge", signals, daemon.monitoring, t), t)

    for place, total in enumerate((0, 0, 5000, 5000, 7500, 7500)):
        dropped(total, START + 10 * place)
    (alert,) = daemon.book.alerts.values()
    assert (alert.value, alert.summary) == (7500.0, "7,500 request records were dropped")
    before, daemon = daemon, Daemon(before=daemon, now=START + 60)
    daemon.maker = before.maker
    for place in range(70):
        dropped(7500 + (500 if place > 2 else 0), START + 60 + 10 * place)
    (alert,) = daemon.book.alerts.values()
    assert (alert.state, alert.value) == ("resolved", 8000.0)


def test_a_threshold_below_its_margin_can_end():
    from ndactors.core.model import Thresholds

    server = Server()
    server.cpu = lambda t: 4.0 if t < START + HOUR else 1.0
    run = Run(server, Daemon(Monitoring(thresholds=Thresholds(cpu=3.0)))).go(2 * HOUR)
    assert run.daemon.fired("host.cpu") and run.daemon.ended("host.cpu")


def test_a_threshold_of_nothing_is_never_reached():
    from ndactors.core.model import Thresholds

    run = Run(Server(), Daemon(Monitoring(thresholds=Thresholds(cpu=0.0, memory=0.0, disk=0.0, swap=0.0))))
    assert run.go(HOUR).daemon.log == []


def test_a_job_that_is_not_configured_any_more_ends_its_alert():
    daemon = Daemon()
    for job in ("tidy", "mail"):
        daemon.hear("job.failed", START, app="shop", process=job, reason="exited 1")
    daemon.hear("job.failed", START, app="gone", process="x", reason="exited 1")
    daemon._write(daemon.events.tick(START + 5, {"shop": {"web", "mail"}}), START + 5)
    states = {alert.process: alert.state for alert in daemon.book.alerts.values()}
    assert states == {"tidy": "resolved", "mail": "firing", "x": "firing"}


def test_it_began_when_the_first_of_those_that_count_happened():
    daemon = Daemon()
    restarted = {"detail": {"actor": "logs"}, "reason": "boom"}
    daemon.hear("actor.restarted", START, **restarted)
    for seconds in range(3):
        daemon.hear("actor.restarted", START + 160_000 + seconds, **restarted)
    (alert,) = daemon.book.alerts.values()
    assert alert.since == START + 160_000


def test_answers_that_stay_slow_with_pauses_between_are_an_anomaly():
    server = daily(Server(12, noise=0.05))
    run = Run(server, step=60.0).go(6.5 * DAY)
    server.slow, server.rate = (lambda t: 0.2), (lambda t: 0.0 if t % 400 < 60 else 20.0)
    run.go(HOUR)
    assert run.daemon.fired("anomaly.app.p95") and not run.daemon.ended("anomaly.app.p95")


def test_how_things_ended_is_said_as_it_is():
    daemon = Daemon()

    def look(t, *figures):
        signals = daemon.maker.signals("daemon", figures, t)
        daemon._write(daemon.levels.look("daemon", signals, daemon.monitoring, t), t)

    ended = Figure(
        name="nextdeploy_certificate_expiry_timestamp_seconds", labels={"domain": "x.de"}, value=START - 1.2 * DAY
    )
    look(START, Figure(name="nextdeploy_actor_silent_seconds", labels={"actor": "logs"}, value=70.0), ended)
    look(START + 10, ended)
    assert {alert.summary for alert in daemon.book.alerts.values()} == {
        "The actor logs has done nothing for 70 s though messages wait (it works again)",
        "The certificate of x.de ended 1.2 days ago",
    }


def test_subjects_can_be_written_and_are_bounded():
    from msgspec import json

    daemon = Daemon()
    for _ in range(2):
        daemon.hear("job.failed", START, app="a\ud800", process="p" * 10_000)
    (alert,) = daemon.book.alerts.values()
    assert alert.app == "a" and len(alert.process) == 200
    json.encode(daemon.book.saved())
    again = Daemon(before=daemon)
    again.hear("job.succeeded", START, app="a\ud800", process="p" * 10_000)
    assert again.ended("job")


@pytest.mark.parametrize("kind", ["container.healthy", "container.restarted", "container.started", "container.died"])
def test_a_container_that_is_started_again_is_looked_at_anew(kind):
    daemon = Daemon()
    web = {"app": "shop", "process": "web"}
    daemon.hear("container.unhealthy", START, container="c1", **web)
    daemon.hear(kind, START + 5, container="c1", **web)
    (alert,) = [alert for alert in daemon.book.alerts.values() if alert.rule == "unhealthy"]
    assert alert.state == "resolved"


def test_an_endless_stream_of_subjects_is_bounded():
    daemon = Daemon()
    for number in range(3000):
        daemon.hear("port.opened", START, detail={"port": number, "protocol": "tcp"}, reason="open")
    assert len(daemon.book.alerts) == 2000

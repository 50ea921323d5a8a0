"""A worker that nobody asks anything looks seldom; whoever comes wakes it at once."""

from __future__ import annotations

import gevent

from ndactors.edge.worker import REST_TICK_SECONDS, SLEEP_SECONDS, TICK_SECONDS

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_it_sleeps_while_nobody_is_there(ground, wait):
    wait(lambda: ground.worker._asleep)
    assert ground.worker._rest_seconds() == SLEEP_SECONDS
    client = ground.client()
    wait(lambda: ground.worker.clients and not ground.worker._asleep)
    assert ground.worker._rest_seconds() == REST_TICK_SECONDS, "a client that rests is looked after"
    client.close()
    wait(lambda: ground.worker._asleep)


def test_whoever_waits_is_not_kept_waiting_by_its_sleep(ground, wait):
    """A request that is held until the app has a container is given up after 0.2 s, by the clock."""
    ground.route(hold_seconds=0.2)
    wait(lambda: ground.worker._asleep)
    ticks = []
    tick = ground.worker._by_the_clock
    ground.worker._by_the_clock = lambda now: (ticks.append(now), tick(now))
    with gevent.Timeout(SLEEP_SECONDS / 2):
        assert ground.ask(REQUEST)[0] == 503
    assert ticks


def test_what_is_due_later_wakes_it(ground, wait):
    wait(lambda: ground.worker._asleep)
    called = []
    ground.worker.later(ground.worker.now() + TICK_SECONDS, lambda: called.append(True))
    with gevent.Timeout(SLEEP_SECONDS / 2):
        wait(lambda: called)


def test_a_snapshot_that_comes_while_it_sleeps_counts_at_once(ground, wait):
    wait(lambda: ground.worker._asleep)
    ground.route(ground.upstream().port)
    with gevent.Timeout(SLEEP_SECONDS / 2):
        assert ground.ask(REQUEST)[0] == 200


def test_it_tells_what_the_last_one_left_behind_before_it_sleeps(ground, wait):
    """Other workers must not count connections that are gone, nor the daemon miss what was answered."""
    counts, reports = [], []
    real, report = ground.worker.shared.count, ground.worker._report
    ground.worker.shared.count = lambda own: (counts.append(own), real(own))[1]
    ground.worker._report = lambda: (reports.append(len(ground.worker.clients)), report())
    wait(lambda: ground.worker._asleep)
    for _ in range(2):
        client = ground.client()
        wait(lambda: ground.worker.clients)
        client.close()
        wait(lambda: ground.worker._asleep)
        assert counts[-1] == 0
        assert reports[-1] == 0

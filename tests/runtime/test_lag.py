"""How late the loop is, with a real loop."""

import os
import signal
import subprocess
import sys
import time

import gevent
import pytest
from gevent.hub import get_hub

from ndactors.runtime.lag import NOTICEABLE_SECONDS, WINDOW_SECONDS, LagMeter


@pytest.fixture
def meter():
    seen: list[float] = []
    made = LagMeter(seen.append)
    made.start()
    made.seen = seen
    gevent.sleep(WINDOW_SECONDS)
    yield made
    made.stop()


def compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_what_is_computed_in_the_loop_makes_it_late(meter):
    before = meter.total()
    gevent.spawn(compute, 0.2)
    gevent.sleep(0.01)
    gevent.sleep(WINDOW_SECONDS * 2)
    assert meter.total() - before >= 0.2
    assert max(meter.seen) >= 0.2


def test_a_turn_that_is_going_on_counts(meter):
    before = meter.total()
    compute(0.1)
    assert meter.total() - before >= 0.1 - NOTICEABLE_SECONDS


def test_a_thread_that_keeps_the_interpreter_makes_it_late(meter):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.5)
    try:
        before = meter.total()
        computing = get_hub().threadpool.spawn(compute, 0.3)
        gevent.sleep(0.01)
        computing.get()
        gevent.sleep(WINDOW_SECONDS * 2)
        assert meter.total() - before >= 0.2
    finally:
        sys.setswitchinterval(interval)


def test_sleep_is_no_lateness_and_nobody_is_woken(meter):
    meter.seen.clear()
    gevent.sleep(1.0)
    assert len(meter.seen) <= 3, "each is a turn of the loop"


def test_it_stops(meter):
    meter.stop()
    meter.seen.clear()
    gevent.sleep(WINDOW_SECONDS * 2)
    assert meter.seen == []


def test_a_process_that_was_stopped_while_it_slept_was_late():
    """As a laptop that was closed, or a machine whose hypervisor gave its time to others."""
    code = (
        "import gevent, sys; from ndactors.runtime.lag import LagMeter; meter = LagMeter(lambda seconds: None); meter.start()\n"
        "gevent.sleep(0.1); print('sleeps', flush=True); gevent.sleep(1.5); print(meter.total(), flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "sleeps\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(process.pid, signal.SIGCONT)
    assert 1.0 < float(process.stdout.readline()) < 3.0
    process.stdout.close()
    process.wait(20)

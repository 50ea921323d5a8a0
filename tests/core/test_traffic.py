"""Totals of interfaces that come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.traffic import Traffic, outside


def row(bytes_: int) -> tuple[int, int]:
    return bytes_, 2 * bytes_


def test_it_begins_with_what_the_kernel_counted():
    assert Traffic().total({"eth0": (10, 20), "eth1": (1, 2)}) == (11, 22)


def test_an_interface_that_leaves_takes_nothing_with_it():
    traffic = Traffic()
    assert traffic.total({"eth0": row(1000), "eth1": row(400)}) == row(1400)
    assert traffic.total({"eth0": row(1001)}) == row(1401)
    assert traffic.total({}) == row(1401)
    assert traffic.total({"eth0": row(1005)}) == row(1401), "what it had before is not new"
    assert traffic.total({"eth0": row(1006)}) == row(1402)


def test_one_that_comes_counts_from_then_on():
    traffic = Traffic()
    traffic.total({"eth0": row(10)})
    assert traffic.total({"eth0": row(10), "eth1": row(10**12)}) == row(10)
    assert traffic.total({"eth0": row(10), "eth1": row(10**12 + 5)}) == row(15)


def test_one_that_begins_anew_adds_what_it_has():
    traffic = Traffic()
    traffic.total({"eth0": row(100)})
    assert traffic.total({"eth0": row(7)}) == row(107)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(st.integers(0, 99), st.integers(0, 99)))))
def test_it_never_falls(readings):
    traffic, before = Traffic(), (0, 0)
    for rows in readings:
        now = traffic.total(rows)
        assert now[0] >= before[0] and now[1] >= before[1]
        before = now


def test_bytes_that_several_interfaces_carry_count_once():
    rows = dict.fromkeys(("lo", "bond0", "eth0", "eth1", "bond0.100", "wg0", "tun0", "docker0", "veth1"), (1, 1))
    assert outside(rows, {"eth0": "bond0", "eth1": "bond0"}).keys() == {"eth0", "eth1"}


def test_a_part_of_another_device_is_counted_by_that():
    rows = dict.fromkeys(("eth0", "enP1s1", "eth1"), (1, 1))
    assert outside(rows, {"eth0": None, "enP1s1": "eth0", "eth1": None}).keys() == {"eth0", "eth1"}


def test_without_hardware_all_count_but_loopback_and_what_belongs_to_containers():
    rows = dict.fromkeys(("lo", "local0", "eth0", "wg0", "veth1", "br-1", "docker0"), (1, 1))
    assert outside(rows, {}).keys() == {"local0", "eth0", "wg0"}
    assert outside(rows, {"gone0": None}).keys() == {"local0", "eth0", "wg0"}

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.balancing import choose
from ndactors.core.routing import RoutingTable, normal_host

TABLE = RoutingTable(
    [
        ("shop.test", "/", False, "shop"),
        ("shop.test", "/api", True, "api"),
        ("shop.test", "/api/v2/", False, "v2"),
        ("*.shop.test", "/", False, "wild"),
        ("deep.x.shop.test", "/", False, "deep"),
        ("*", "/", False, "default"),
        ("only.test", "/path", False, "path"),
        ("[::1]", "/", False, "six"),
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "target"),
    [
        ("shop.test", "/", "shop"),
        ("SHOP.test.:8080", "/x", "shop"),
        ("shop.test", "/api", "api"),
        ("shop.test", "/api/", "api"),
        ("shop.test", "/api/x", "api"),
        ("shop.test", "/apix", "shop"),
        ("shop.test", "/api/v2", "v2"),
        ("shop.test", "/api/v2/y", "v2"),
        ("shop.test", "/api/v22", "api"),
        ("a.shop.test", "/", "wild"),
        ("a.b.shop.test", "/", "wild"),
        ("deep.x.shop.test", "/", "deep"),
        ("xshop.test", "/", "default"),
        ("", "/", "default"),
        ("only.test", "/path/x", "path"),
        ("only.test", "/other", "default"),
        ("[::1]:80", "/", "six"),
    ],
)
def test_the_most_specific_host_then_the_longest_path(host, path, target):
    assert TABLE.find(normal_host(host.encode()), path.encode()).target == target


def test_the_prefix_to_strip():
    assert TABLE.find(b"shop.test", b"/api/x").prefix == b"/api"
    assert TABLE.find(b"shop.test", b"/api/v2/x").prefix == b""


def test_nothing_fits():
    assert RoutingTable([("a.test", "/", False, 1)]).find(b"b.test", b"/") is None
    assert RoutingTable([]).find(b"", b"/") is None


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_host_and_path_have_an_answer(host, path):
    assert TABLE.find(normal_host(host), b"/" + path) is not None


def test_it_costs_the_same_with_ten_thousand_routes():
    def cost(count: int) -> float:
        table = RoutingTable([(f"app{n}.test", f"/p{n}", False, n) for n in range(count)])
        return min(timeit.repeat(lambda: table.find(b"app7.test", b"/p7/a/b"), number=2000, repeat=5))

    assert cost(10_000) < 5 * cost(10)


class Backend:
    def __init__(self, name: str, in_flight: int = 0, avoid_until: float = 0.0) -> None:
        self.name, self.in_flight, self.avoid_until = name, in_flight, avoid_until


def test_the_fewest_in_flight_and_in_turn_among_equals():
    a, b, c = Backend("a", 2), Backend("b", 1), Backend("c", 1)
    assert {choose([a, b, c], turn, 0.0).name for turn in range(6)} == {"b", "c"}
    idle = [Backend(name) for name in "abc"]
    assert [choose(idle, turn, 0.0).name for turn in range(4)] == ["a", "b", "c", "a"]


def test_one_that_failed_a_moment_ago_comes_last_and_one_that_was_tried_never():
    good, failed = Backend("good", 50), Backend("failed", 0, avoid_until=10.0)
    assert choose([failed, good], 0, 5.0) is good
    assert choose([failed], 0, 5.0) is failed
    assert choose([failed, good], 0, 11.0) is failed
    assert choose([failed, good], 0, 5.0, {good}) is failed
    assert choose([good], 0, 0.0, {good}) is None
    assert choose([], 0, 0.0) is None

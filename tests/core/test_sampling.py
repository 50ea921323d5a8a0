"""Readings as figures, pressure, and the Engine's own figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.pressure import pressure
from ndactors.core.sampling import container_figures, host_figures
from ndactors.core.usage import cpu_percent, of_engine
from ndactors.messages.queries import HostView
from ndactors.messages.stats import ContainerUsage

HOST = HostView(
    cpu_percent=5.0,
    load=(0.5, 0.2, 0.1),
    memory_used=1,
    memory_total=2,
    swap_used=3,
    swap_total=4,
    disks={"/": (5, 6)},
    inodes={"/": (7, 8)},
    pressure={"io": (1.5, 0.5)},
    zombie_count=9,
)


def test_only_what_is_known_is_a_figure():
    usage = ContainerUsage(
        container="c1", name="nd-shop-web-1", app="shop", process="web", source="engine", at=1.0, cpu_seconds=2.5
    )
    (figure,) = container_figures([usage])
    assert figure == (
        "nextdeploy_container_cpu_seconds_total",
        "counter",
        {"app": "shop", "process": "web", "container": "nd-shop-web-1"},
        2.5,
    )


def test_the_hosts_figures_have_their_labels():
    found = {(name, *labels.values()): value for name, _, labels, value in host_figures(HOST, 3)}
    assert found["nextdeploy_host_disk_used_bytes", "/"] == 5
    assert found["nextdeploy_host_inodes", "/"] == 8
    assert found["nextdeploy_host_pressure_percent", "io"] == 1.5
    assert found["nextdeploy_host_load1",] == 0.5
    assert found["nextdeploy_host_swap_used_bytes",] == 3
    assert found["nextdeploy_host_open_ports",] == 3
    assert found["nextdeploy_host_zombie_processes",] == 9
    assert "nextdeploy_host_open_ports" not in {row[0] for row in host_figures(HOST, None)}


def test_pressure_is_that_of_ten_seconds():
    text = b"some avg10=25.36 avg60=2.85 avg300=13.51 total=1\nfull avg10=1.50 avg60=0.00 avg300=0.00 total=0\n"
    assert pressure(text) == (25.36, 1.5)
    assert pressure(text.split(b"\n")[0] + b"\n") == (25.36, None), "older kernels have no full for the CPU"
    assert pressure(None) is None
    assert pressure(b"") is None
    assert pressure(b"some avg10=999.00 avg60=") is None


@given(st.binary(max_size=100))
def test_random_bytes_are_no_pressure(noise):
    for data in (noise, b"some avg10=" + noise):
        found = pressure(data)
        assert found is None or 0 <= found[0] <= 100


def test_cpu_needs_two_readings_and_is_never_negative():
    assert cpu_percent(None, 5.0, 10.0) is None
    assert cpu_percent((5.0, 10.0), 6.0, 14.0) == 25.0
    assert cpu_percent((5.0, 10.0), 1.0, 14.0) is None, "the container began anew"
    assert cpu_percent((5.0, 10.0), 6.0, 10.0) is None


FACTS = {
    "pids_stats": {"current": 3},
    "cpu_stats": {"cpu_usage": {"total_usage": 34_000_000}},
    "memory_stats": {"usage": 100, "limit": 1000, "stats": {"inactive_file": 1, "total_inactive_file": 30}},
    "networks": {"eth0": {"rx_bytes": 200, "tx_bytes": 5}, "eth1": {"rx_bytes": 1, "tx_bytes": 1}},
}


def test_the_engines_figures_are_counted_as_docker_stats_does():
    found = of_engine(FACTS, 2000)
    assert (found.cpu_seconds, found.memory, found.memory_limit, found.pids) == (0.034, 70, 1000, 3)
    assert found.network == (201, 6)
    assert of_engine(FACTS, 1000).memory_limit is None
    stopped = of_engine({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}, "networks": None}, 0)
    assert (stopped.cpu_seconds, stopped.memory, stopped.network) == (None, None, None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(
                ["cpu_stats", "cpu_usage", "total_usage", "memory_stats", "stats", "usage", "networks", "x"]
            ),
            inner,
        )
        | st.lists(inner, max_size=2)
    ),
)


@given(anything)
def test_whatever_the_engine_answers_nothing_breaks(facts):
    found = of_engine(facts, 100)
    assert found.memory is None or found.memory >= 0

"""Which ports something explains, and what is told of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.containers import ContainerStatus
from ndactors.core.listening import (
    MAX_NEWS,
    BoundSocket,
    Owner,
    Running,
    Told,
    Wanted,
    addresses_of,
    is_reachable,
    key_of,
    news,
    reason_for,
    running,
    words,
)
from ndactors.core.model import Admin, App, Edge, Process, Settings

SHOP = Running(id="c" * 64, name="nd-shop-web-1", app="shop", process="web", ports=(9000,), pid=50)
WANTED = Wanted(addresses=(("edge.http", 80), ("admin.listen", 8090)), containers=(SHOP,))


def bound(port: int, owner: Owner | None = None, protocol="tcp", address="0.0.0.0") -> BoundSocket:
    return BoundSocket(protocol=protocol, address=address, port=port, owner=owner)


def owner(name: str = "python3", pid: int = 12, **more) -> Owner:
    return Owner(pid=pid, name=name, **{"lineage": (pid, 1), **more})


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.1", True),
        ("fe80::1", True),
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("what is this", True),
    ],
)
def test_only_loopback_is_out_of_reach(address, reachable):
    assert is_reachable(address) is reachable


@pytest.mark.parametrize(
    ("socket", "reason"),
    [
        (bound(80, owner(role="edge")), "NextDeploy's edge (edge.http)"),
        (bound(5, owner(role="daemon")), "NextDeploy's daemon"),
        (bound(80), "edge.http"),
        (bound(80, protocol="udp"), ""),
        (bound(80, owner("nginx")), ""),
        (bound(8090, owner("python3")), ""),
        (bound(9000, owner(pid=51, lineage=(51, 50, 1))), "app shop (web)"),
        (bound(9001, owner(pid=51, lineage=(51, 50, 1))), ""),
        (bound(9000, owner(container="c" * 64)), "app shop (web)"),
        (bound(9000, owner(container="d" * 64)), ""),
        (bound(9000, owner()), ""),
        (bound(8080, owner("docker-proxy", parent_name="dockerd")), "published by a container"),
        (bound(8080, owner("docker-proxy", parent_name="bash")), ""),
        (bound(22, owner("sshd")), "usual on a server: sshd"),
        (bound(22, owner("sshd", container="d" * 64)), ""),
        (bound(2222, owner("sshd")), ""),
        (bound(22, owner("python3")), ""),
        (bound(68, owner("dhclient"), "udp"), "usual on a server: dhclient"),
        (bound(68, owner("dhclient"), "tcp"), ""),
        (bound(2377, owner("dockerd")), ""),
        (bound(4789, None, "udp"), ""),
        (bound(9100), ""),
    ],
)
def test_a_reason_takes_both_who_it_is_and_which_port(socket, reason):
    assert reason_for(socket, WANTED) == reason


def test_sshd_may_listen_where_its_own_file_says():
    assert reason_for(bound(2222, owner("sshd")), Wanted(ssh_ports=(2222,))) == "usual on a server: sshd"


def test_a_swarm_explains_its_ports():
    swarm = Wanted(swarm=True)
    assert reason_for(bound(2377, owner("dockerd")), swarm)
    assert reason_for(bound(7946, owner("dockerd"), "udp"), swarm)
    assert reason_for(bound(4789, None, "udp"), swarm)
    assert reason_for(bound(2375, owner("dockerd")), swarm) == ""


def test_addresses_are_those_of_the_configuration():
    settings = Settings(project="t", edge=Edge(http=":80", https=""), admin=Admin(listen="[::1]:8090"))
    assert addresses_of(settings) == (("edge.http", 80), ("admin.listen", 8090))


def test_containers_of_apps_that_are_not_configured_explain_nothing():
    def status(app: str, state="running", port=9000):
        return ContainerStatus(
            id=app, name=app, labels={"nextdeploy.app": app}, state=state, pid=5, port=port, address="127.0.0.1"
        )

    web = Process(name="web", port=9100)
    settings = Settings(project="t", apps={"shop": App(name="shop", processes={"web": web})})
    (found,) = running([status("shop"), status("gone"), status("shop", "exited")], settings, on_host=True)
    assert (found.ports, found.pid) == ((9000, 9100), 5)
    assert running([status("shop")], settings, on_host=False)[0].pid is None


# -- telling -----------------------------------------------------------------------------------------


def look(told: Told, suspects, *sockets: BoundSocket, wanted: Wanted = WANTED):
    return news(sockets, {socket: reason_for(socket, wanted) for socket in sockets}, told, suspects)


def settled(told: Told, *sockets: BoundSocket, wanted: Wanted = WANTED):
    """Two looks: the first suspects, the second tells."""
    first, told, suspects = look(told, frozenset(), *sockets, wanted=wanted)
    second, told, suspects = look(told, suspects, *sockets, wanted=wanted)
    return [*first, *second], told


def test_an_unexplained_port_is_told_at_the_second_look_and_once():
    stranger = bound(9100, owner())
    found, told, suspects = look(Told(), frozenset(), stranger)
    assert (found, told) == ((), Told())
    (one,), told, suspects = look(told, suspects, stranger)
    assert one.opened
    assert words(one) == (
        "0.0.0.0:9100 (tcp) is open to other machines: python3 (pid 12), which nothing in the configuration explains"
    )
    assert look(told, suspects, stranger)[0] == ()
    assert settled(told, bound(9100, owner(pid=13)))[0] == [], "the same process, started again"
    found, _ = settled(told, bound(9100, owner("ruby")))
    assert [each.opened for each in found] == [False, True]


def test_what_turns_out_to_be_ours_is_never_told():
    ours = bound(9000, owner(pid=50))
    _, told, suspects = look(Told(), frozenset(), ours, wanted=Wanted())
    assert look(told, suspects, ours) == ((), Told(), frozenset())


def test_the_end_of_what_was_told_is_told():
    _, told = settled(Told(), bound(9100, owner()))
    (end,), told, _ = look(told, frozenset())
    assert not end.opened
    assert words(end) == "0.0.0.0:9100 (tcp) is not open any more: it was python3"
    assert told == Told()


def test_a_port_that_the_configuration_explains_now_did_not_close():
    socket = bound(9000, owner(pid=50))
    _, told = settled(Told(), socket, wanted=Wanted())
    assert told.ports == (key_of(socket),)
    assert look(told, frozenset(), socket) == ((), Told(), frozenset())


def test_loopback_is_never_told():
    assert settled(Told(), bound(9100, owner(), address="127.0.0.1"))[0] == []


def test_who_cannot_be_seen_is_said_to_be_so():
    ((one,), told) = settled(Told(), bound(9100, address="::"))
    assert words(one).startswith("[::]:9100 (tcp) is open to other machines: a process that cannot be seen")
    assert told.ports == (("tcp", "::", 9100, ""),)


def test_a_crowd_is_told_bit_by_bit():
    crowd = [bound(port, owner()) for port in range(10_000, 10_100)]
    told, suspects, seen = Told(), frozenset(), []
    for _ in range(8):
        found, told, suspects = look(told, suspects, *crowd)
        assert len(found) <= 2 * MAX_NEWS
        seen += found
    assert len(seen) == 100
    assert len(told.ports) == 100


ports = st.builds(
    BoundSocket,
    protocol=st.sampled_from(["tcp", "udp"]),
    address=st.sampled_from(["0.0.0.0", "127.0.0.1", "::"]),
    port=st.integers(1, 4),
    owner=st.none() | st.builds(Owner, pid=st.integers(1, 3), name=st.sampled_from(["a", "sshd"])),
)


@given(st.lists(st.lists(ports, max_size=6), max_size=8))
def test_opened_and_closed_always_take_turns(looks):
    told, suspects, is_open = Told(), frozenset(), set()
    for sockets in looks:
        found, told, suspects = look(told, suspects, *sockets)
        for each in found:
            assert (each.key in is_open) is not each.opened
            is_open ^= {each.key}
        assert is_open == set(told.ports)
        assert not suspects & set(told.ports)

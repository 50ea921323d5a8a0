"""Canaries, sticky clients and pages of old revisions: over sockets, with real cookies."""

from __future__ import annotations

import re
from collections import Counter

import gevent
import pytest

GET = b"GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
COOKIE = re.compile(rb"set-cookie: (nd-app=[0-9a-f.]*); Path=([^;]*); HttpOnly; SameSite=Lax\r?\n?", re.IGNORECASE)


class Browser:
    """Keeps the cookie that it gets. ``path`` is where it was set for."""

    def __init__(self, ground) -> None:
        self.ground = ground
        self.cookie = self.path = b""
        self.sets = 0

    def ask(self, *, page=False, more=b"", method=b"GET") -> bytes:
        """The body of the answer."""
        mode = b"navigate" if page else b"cors"
        cookie = b"Cookie: theme=dark; %b\r\n" % self.cookie if self.cookie else b""
        status, head, body = self.ground.ask(
            b"%b /x HTTP/1.1\r\nHost: shop.test\r\nSec-Fetch-Mode: %b\r\n%b%b\r\n" % (method, mode, cookie, more)
        )
        assert status == 200
        found = COOKIE.search(head + b"\r\n")
        if found is not None:
            self.cookie, self.path = found.groups()
            self.sets += 1
        return body


@pytest.fixture
def named(ground):
    """``named(name)``: an app that answers with its name, or ``fails`` or ``hangs``."""

    def start(name: str, **how):
        def answer(sock, head, rest):
            if how.get("fails"):
                raise OSError
            if how.get("hangs"):
                gevent.sleep(60)
            if b"Upgrade: echo" in head:
                sock.sendall(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" + name.encode())
                sock.recv(1000)
                raise OSError
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name.encode()))
            return rest

        return ground.upstream(answer)

    return start


@pytest.fixture
def browser(ground):
    return lambda: Browser(ground)


# -- canary ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percent", "expected"), [(5.0, 50), (25.0, 250), (0.5, 5), (0.0, 0), (100.0, 1000)])
def test_a_canary_gets_exactly_its_share(ground, named, backend, percent, expected):
    old, other, new = named("old"), named("other"), named("new")
    parts = (backend(old.port, 1), backend(other.port, 1), backend(new.port, 2, "canary"))
    ground.route(*parts, canary_percent=percent)
    client = ground.client()
    seen = Counter(client.send(GET).answer()[2] for _ in range(1000))
    assert abs(seen[b"new"] - expected) <= 1
    assert abs(seen[b"old"] - seen[b"other"]) <= 1
    assert not client.pending


def test_a_share_is_kept_while_snapshots_come_and_go(ground, named, backend):
    old, new = named("old"), named("new")
    seen: Counter[bytes] = Counter()
    for _ in range(50):
        ground.route(backend(old.port, 1), backend(new.port, 2, "canary"), canary_percent=10.0)
        seen.update(ground.ask(GET)[2] for _ in range(4))
    assert seen[b"new"] == 20


def test_requests_of_a_canary_that_refuses_are_answered_by_the_others(ground, named, backend):
    old = named("old")
    gone = ground.upstream()
    gone.stop()
    ground.route(backend(old.port, 1), backend(gone.port, 2, "canary"), canary_percent=50.0)
    assert {ground.ask(GET)[2] for _ in range(20)} == {b"old"}
    assert ground.app.totals().requests == {"GET 200": 20}
    assert ground.app.totals().retries["connect_failed"] >= 5


def test_a_canary_that_hangs_loses_its_requests_to_the_others(ground, named, backend):
    old, new = named("old"), named("new", hangs=True)
    ground.route(backend(old.port, 1), backend(new.port, 2, "canary"), canary_percent=100.0)
    clients = [ground.client().send(GET) for _ in range(5)]
    assert {client.answer()[2] for client in clients} == {b"old"}
    assert ground.ask(GET)[2] == b"old", "while it hangs it has nobody left"


def test_a_canary_takes_all_where_it_is_alone(ground, named, backend):
    new = named("new")
    ground.route(backend(new.port, 2, "canary"), canary_percent=5.0)
    assert {ground.ask(GET)[2] for _ in range(10)} == {b"new"}


def test_a_post_of_a_canary_that_fails_is_not_sent_twice(ground, named, backend):
    old, new = named("old"), named("new", fails=True)
    ground.route(backend(old.port, 1), backend(new.port, 2, "canary"), canary_percent=100.0)
    assert ground.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")[0] == 502
    assert old.received == []


# -- sticky ----------------------------------------------------------------------------------------


def test_a_client_stays_on_its_container(ground, named, browser):
    apps = [named(name) for name in ("one", "two", "three")]
    ground.route(*(app.port for app in apps), sticky=True)
    clients = [browser() for _ in range(6)]
    places = [client.ask() for client in clients]
    assert set(places) == {b"one", b"two", b"three"}
    for _ in range(5):
        assert [client.ask() for client in clients] == places
    assert [client.sets for client in clients] == [1] * 6, "set once"
    assert {client.path for client in clients} == {b"/"}
    # every worker of every edge reads it so
    ground.worker.knowledge.services.clear()
    ground.route(*(app.port for app in reversed(apps)), sticky=True)
    assert [client.ask() for client in clients] == places


def test_a_container_that_leaves_gives_its_clients_away(ground, named, browser):
    one, two = named("one"), named("two")
    ground.route(one.port, two.port, sticky=True)
    client = browser()
    first = client.ask()
    left, stays = (one, two) if first == b"one" else (two, one)
    ground.route(stays.port, sticky=True)
    other = client.ask()
    assert (other, client.sets) == (b"two" if first == b"one" else b"one", 2)
    ground.route(left.port, stays.port, sticky=True)
    assert {client.ask() for _ in range(5)} == {other}, "and it stays there"


def test_a_container_that_dies_gives_its_clients_away_within_the_request(ground, named, browser):
    one, two = named("one"), named("two")
    ground.route(one.port, two.port, sticky=True)
    client = browser()
    first = client.ask()
    (one if first == b"one" else two).stop()
    for backend in ground.app.backends:
        backend.drop_idle()
    assert client.ask() != first
    assert client.sets == 2


def test_a_container_that_hangs_gives_its_clients_away(ground, named, browser):
    one, two = named("one", hangs=True), named("two")
    ground.route(one.port, two.port, sticky=True)
    mine = next(b for b in ground.app.backends if b.port == one.port)
    client = browser()
    client.cookie = b"nd-app=." + mine.mark
    assert client.ask() == b"two"
    assert client.sets == 1
    assert client.ask() == b"two"


def test_every_kind_of_answer_carries_the_cookie_once(ground, browser):
    def answer(sock, head, rest):
        kind = head.split(b" ")[1]
        if kind == b"/chunked":
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        elif kind == b"/none":
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif kind == b"/error":
            sock.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        elif kind == b"/own":
            sock.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: own=1\r\nContent-Length: 0\r\n\r\n")
        else:
            sock.sendall(OK)
        return rest

    ground.route(ground.upstream(answer).port, sticky=True)
    for _ in range(3):
        for path in (b"/chunked", b"/none", b"/error", b"/own", b"/"):
            client = ground.client().send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            head = client.head()
            assert len(COOKIE.findall(head + b"\r\n")) == 1, (path, head)
            assert (b"Set-Cookie: own=1" in head) == (path == b"/own")
            client.close()
    # what the edge answers itself has none
    ground.route(sticky=True)
    assert b"nd-app" not in ground.ask(GET)[1]


@pytest.mark.parametrize(
    "cookie", [b"nd-app=", b"nd-app=.", b"nd-app=" + b"f" * 5000, b"nd-app=ffffffffff.ffffffffff", b'nd-app="\x80\xff"']
)
def test_a_nonsense_cookie_does_no_harm(ground, named, browser, cookie):
    one = named("one")
    ground.route(one.port, sticky=True, skew=True)
    client = browser()
    client.cookie = cookie
    assert client.ask(page=True) == b"one"
    assert client.cookie != cookie
    assert b"theme=dark; " + cookie in one.received[0], "the app's cookies arrive as they were sent"


def test_the_cookie_is_for_the_paths_of_the_route(ground, named, browser):
    app = named("one")
    ground.route(app.port, path="/shop", strip_path=True, sticky=True)
    _, head, _ = ground.ask(b"GET /shop/x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert COOKIE.search(head + b"\r\n")[2] == b"/shop"
    assert app.received[0].startswith(b"GET /x ")


# -- skew protection -------------------------------------------------------------------------------


def test_pages_of_an_old_revision_keep_what_belongs_to_them(ground, named, backend, browser):
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1), skew=True)
    reader, other = browser(), browser()
    assert reader.ask(page=True) == b"old"
    # both are there for a while, then the old one is aside
    for role in ("", "aside"):
        ground.route(backend(old.port, 1, role), backend(new.port, 2), skew=True)
        assert {reader.ask() for _ in range(5)} == {b"old"}
        assert reader.ask(method=b"DELETE") == b"old"
        assert other.ask(page=True) == b"new"
        assert {other.ask() for _ in range(5)} == {b"new"}
    assert reader.sets == 1
    # the next page is a new one
    assert reader.ask(page=True) == b"new"
    assert (reader.ask(), reader.sets) == (b"new", 2)
    assert other.ask(page=True) == b"new"
    assert other.sets == 1, "only what changes is set"
    # a page from before stays with what there is once its revision is gone
    reader.cookie = b"nd-app=ffffffffff."
    ground.route(backend(new.port, 2), skew=True)
    assert reader.ask() == b"new"


def test_without_sec_fetch_fields_the_accept_field_tells(ground, named, backend):
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1), skew=True)
    _, head, _ = ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*;q=0.8\r\n\r\n")
    cookie = COOKIE.search(head + b"\r\n")[1]
    ground.route(backend(old.port, 1, "aside"), backend(new.port, 2), skew=True)

    def ask(accept):
        return ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: %b\r\nCookie: %b\r\n\r\n" % (accept, cookie))[2]

    assert ask(b"image/avif,*/*;q=0.8") == b"old"
    assert ask(b"text/html,application/xhtml+xml,*/*;q=0.8") == b"new"


def test_one_aside_gets_nothing_else(ground, named, backend, browser):
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1, "aside"), backend(new.port, 2), skew=True)
    for _ in range(10):
        assert browser().ask() == browser().ask(page=True) == ground.ask(GET)[2] == b"new"
    new.stop()
    for known in ground.app.backends:
        known.drop_idle()
    assert ground.ask(GET)[0] == 502, "not even when nobody else is left"
    assert old.received == []


def test_a_canary_and_its_pages(ground, named, backend, browser):
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1), backend(new.port, 2, "canary"), skew=True, canary_percent=20.0)
    readers = [browser() for _ in range(20)]
    pages = [reader.ask(page=True) for reader in readers]
    assert Counter(pages) == {b"old": 16, b"new": 4}
    for _ in range(3):
        assert [reader.ask() for reader in readers] == pages


def test_held_requests_keep_their_ties(ground, named, backend, browser, wait):
    """Requests that wait while a stateful app is replaced go where they belong once somebody is there."""
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1), skew=True, sticky=True, hold_seconds=5)
    reader = browser()
    reader.ask(page=True)
    ground.route(skew=True, sticky=True, hold_seconds=5)
    waiting = gevent.spawn(reader.ask)
    wait(lambda: ground.app.held)
    ground.route(backend(new.port, 2), backend(old.port, 1, "aside"), skew=True, sticky=True, hold_seconds=5)
    assert waiting.get(timeout=5) == b"old"
    assert reader.sets == 1


def test_rules_may_change_while_requests_wait(ground, named, backend, wait):
    """From a service where every container is like the other to one where they are not, and back."""
    old, new = named("old"), named("new")
    ground.route(hold_seconds=5)
    clients = [ground.client().send(GET) for _ in range(10)]
    wait(lambda: len(ground.app.held) == 10)
    ground.route(backend(old.port, 1), backend(new.port, 2, "canary"), canary_percent=50.0, hold_seconds=5)
    assert Counter(client.answer()[2] for client in clients) == {b"old": 5, b"new": 5}
    ground.route(backend(old.port, 1), hold_seconds=5)
    assert ground.app.steering is None
    assert ground.ask(GET)[2] == b"old"


# -- tunnels ---------------------------------------------------------------------------------------


def test_tunnels_follow_the_same_rules_and_are_counted(ground, named, backend, browser, wait):
    old, new = named("old"), named("new")
    ground.route(backend(old.port, 1), skew=True, sticky=True)
    reader = browser()
    reader.ask(page=True)
    ground.route(backend(old.port, 1, "aside"), backend(new.port, 2), skew=True, sticky=True)
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nSec-Fetch-Mode: websocket\r\n"
    mine = ground.client().send(upgrade + b"Cookie: %b\r\n\r\n" % reader.cookie)
    head = mine.head()
    assert head.startswith(b"HTTP/1.1 101")
    assert mine.body(3) == b"old"
    assert COOKIE.search(head + b"\r\n") is None
    strange = ground.client().send(upgrade + b"\r\n")
    head = strange.head()
    assert strange.body(3) == b"new"
    assert COOKIE.search(head + b"\r\n") is not None, "a browser takes it with the 101 too"
    ids = {f"b{old.port}": 1, f"b{new.port}": 1}
    assert ground.app.totals().tunnels == ground.app.totals().in_flight == ids
    # one that left counts until its tunnels are closed
    ground.route(backend(new.port, 2), skew=True, sticky=True)
    totals = ground.worker.knowledge.totals()["app"]
    assert totals.tunnels == totals.in_flight == ids
    mine.send(b"x")
    assert mine.rest() == b""
    mine.close()
    wait(lambda: ground.worker.knowledge.totals()["app"].tunnels == {f"b{new.port}": 1})
    strange.close()
    wait(lambda: not ground.worker.knowledge.totals()["app"].in_flight)
    assert not ground.worker.knowledge.totals()["app"].tunnels

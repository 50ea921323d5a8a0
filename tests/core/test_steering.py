"""Where a request may go by its cookie, by revision and by a canary's share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.balancing import Group, Share, choose, choose_in_order
from ndactors.core.steering import Steering, Ties, cookie_name, mark, prefers_html

PAGE = Ties(navigation=True)
CALL = Ties()


@dataclass(eq=False)
class Container:
    id: str
    revision: int = 1
    role: str = ""
    in_flight: int = 0
    avoid_until: float = 0.0

    @property
    def mark(self) -> bytes:
        return mark(self.id)


def steering(*containers: Container, sticky=False, skew=False, percent=0.0) -> Steering[Container]:
    return Steering("shop", containers, sticky=sticky, skew=skew, canary_percent=percent)


def pick(steered: Steering, ties: Ties = CALL, share: Share | None = None, tried=(), now=1.0) -> str | None:
    groups, _ = steered.order(ties, share or Share(), None)
    found = choose_in_order(groups, now, tried)
    return found.id if found is not None else None


def ties_to(steered: Steering, container: Container, *, navigation=False) -> Ties:
    """What a client has that was on this container, and does next."""
    got = steered.renewed(PAGE, container)
    assert got is not None
    return got._replace(navigation=navigation)


# -- a canary's share ------------------------------------------------------------------------------


@given(st.floats(0, 100), st.integers(1, 2000), st.integers(0, 500))
def test_a_share_is_exact_in_any_row_of_choices(percent, number, before):
    share = Share()
    for _ in range(before):
        share.take(percent)
    taken = sum(share.take(percent) for _ in range(number))
    assert abs(taken - number * percent / 100) < 1.0 + 1e-6


def test_a_canary_gets_its_share_and_the_others_the_rest():
    steered, share = steering(Container("a"), Container("b"), Container("c", 2, "canary"), percent=5), Share()
    seen = [pick(steered, share=share) for _ in range(1000)]
    assert seen.count("c") == 50
    assert abs(seen.count("a") - seen.count("b")) <= 1, "in turn, whatever the canary takes in between"
    half = steering(Container("a"), Container("b"), Container("c", 2, "canary"), percent=50)
    seen = [pick(half, share=share) for _ in range(1000)]
    assert (seen.count("c"), seen.count("a"), seen.count("b")) == (500, 250, 250)


@pytest.mark.parametrize(("percent", "to"), [(0, "a"), (100, "c")])
def test_all_or_nothing(percent, to):
    steered, share = steering(Container("a"), Container("c", 2, "canary"), percent=percent), Share()
    assert {pick(steered, share=share) for _ in range(100)} == {to}


def test_where_one_side_is_empty_the_other_takes_all():
    assert pick(steering(Container("c", 2, "canary"), percent=5)) == "c"
    assert {pick(steering(Container("a"), percent=100)) for _ in range(10)} == {"a"}


def test_a_request_leaves_its_side_only_if_nobody_is_left_there():
    a, c, d = Container("a"), Container("c", 2, "canary"), Container("d", 2, "canary")
    steered = steering(a, c, d, percent=100)
    assert pick(steered, tried=(c,)) == "d"
    assert pick(steered, tried=(c, d)) == "a"
    c.avoid_until = 99.0
    assert pick(steered, tried=(d,)) == "c", "one that failed a moment ago is still somebody"
    c.avoid_until = math.inf
    assert pick(steered, tried=(d,)) == "a", "one that hangs is not"
    a.avoid_until = d.avoid_until = math.inf
    assert pick(steered) in ("c", "d"), "if all hang they are asked anyway"


def test_what_was_decided_for_a_request_stays():
    steered, share = steering(Container("a"), Container("c", 2, "canary"), percent=50), Share()
    _, first = steered.order(CALL, share, None)
    assert first is True
    assert [steered.order(CALL, share, first)[1] for _ in range(3)] == [True] * 3, "another try takes no share"
    _, second = steered.order(CALL, share, None)
    assert second is False
    one_sided = steering(Container("a"), percent=50)
    assert one_sided.order(CALL, share, None)[1] is None, "nothing is decided where there is nothing to choose"


# -- aside -----------------------------------------------------------------------------------------


def test_one_aside_gets_nothing_without_a_cookie_of_its_revision():
    a, old = Container("a", 2), Container("old", 1, "aside")
    steered = steering(a, old, skew=True)
    assert {pick(steered, ties) for ties in (PAGE, CALL) for _ in range(10)} == {"a"}
    assert pick(steering(old, skew=True)) is None
    assert pick(steered, tried=(a,)) is None, "nor for want of another"
    assert pick(steered, ties_to(steered, old)) == "old"
    # without the protection nothing of a cookie leads there
    assert pick(steering(a, old, sticky=True), Ties(b"", old.mark)) == "a"


# -- sticky ----------------------------------------------------------------------------------------


def test_a_cookie_keeps_a_client_on_its_container():
    a, b, c = Container("a"), Container("b", in_flight=9), Container("c")
    steered = steering(a, b, c, sticky=True)
    ties = ties_to(steered, b)
    assert {pick(steered, ties) for _ in range(20)} == {"b"}, "however busy it is"
    assert steered.renewed(ties, b) is None
    assert pick(steered, ties, tried=(b,)) in ("a", "c")
    b.avoid_until = math.inf
    assert pick(steered, ties) in ("a", "c"), "one that hangs takes no requests"
    gone = steering(a, c, sticky=True)
    assert pick(gone, ties) in ("a", "c")
    renewed = gone.renewed(ties, a)
    assert renewed is not None
    assert renewed.container == a.mark


def test_a_cookie_outweighs_a_share():
    a, c = Container("a"), Container("c", 2, "canary")
    steered, share = steering(a, c, sticky=True, percent=50), Share()
    assert {pick(steered, ties_to(steered, a), share) for _ in range(20)} == {"a"}
    assert {pick(steered, ties_to(steered, c), share) for _ in range(20)} == {"c"}
    seen = [pick(steered, share=share) for _ in range(100)]
    assert seen.count("c") == 50, "and takes nothing of it"
    d = Container("d", 2, "canary")
    assert pick(steering(a, c, d, sticky=True), ties_to(steered, c), tried=(c,)) == "d", "its own before the others"


# -- skew protection -------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["", "aside"])
def test_pages_keep_their_revision_and_new_pages_come_from_the_newest(role):
    old, new, more = Container("old", 1, role), Container("new", 2), Container("more", 2)
    steered = steering(old, new, more, skew=True)
    assert {pick(steered, ties_to(steered, old)) for _ in range(10)} == {"old"}
    assert {pick(steered, ties_to(steered, new)) for _ in range(10)} == {"new", "more"}
    assert {pick(steered, ties_to(steered, old, navigation=True)) for _ in range(10)} == {"new", "more"}
    assert {pick(steered, PAGE) for _ in range(10)} == {"new", "more"}
    # what brings no cookie and opens no page goes to anybody
    assert {pick(steered) for _ in range(10)} == ({"old", "new", "more"} if not role else {"new", "more"})


def test_a_page_comes_from_an_older_revision_only_if_none_is_left_of_the_newest():
    old, new = Container("old", 1), Container("new", 2)
    steered = steering(old, new, skew=True)
    assert pick(steered, PAGE, tried=(new,)) == "old"
    assert pick(steered, ties_to(steered, old), tried=(old,)) == "new"


def test_the_cookie_changes_with_a_page_and_with_nothing_else():
    old, new = Container("old", 1, "aside"), Container("new", 2)
    steered = steering(old, new, skew=True)
    ties = ties_to(steered, old)
    assert steered.renewed(ties, new) is None, "an asset that only the new one has changes nothing"
    assert steered.renewed(ties._replace(navigation=True), new) == ties_to(steered, new, navigation=True)
    assert steered.renewed(CALL, new) is None
    assert steered.renewed(ties_to(steered, new, navigation=True), new) is None


def test_a_canary_keeps_its_pages_and_the_newest_of_the_others_is_no_canary():
    old, canary = Container("old", 1), Container("canary", 2, "canary")
    steered, share = steering(old, canary, skew=True, percent=25), Share()
    assert [pick(steered, PAGE, share) for _ in range(100)].count("canary") == 25
    assert {pick(steered, ties_to(steered, canary), share) for _ in range(10)} == {"canary"}
    assert {pick(steered, ties_to(steered, old), share) for _ in range(10)} == {"old"}


def test_sticky_within_the_revision():
    old, new, more = Container("old", 1, "aside"), Container("new", 2), Container("more", 2)
    steered = steering(old, new, more, sticky=True, skew=True)
    assert {pick(steered, ties_to(steered, more, navigation=True)) for _ in range(10)} == {"more"}
    assert {pick(steered, ties_to(steered, old, navigation=True)) for _ in range(10)} == {"new", "more"}
    assert {pick(steered, ties_to(steered, old)) for _ in range(10)} == {"old"}
    # a container of another revision than the page's: the page counts
    mixed = Ties(ties_to(steered, new).revision, old.mark)
    assert {pick(steered, mixed) for _ in range(10)} == {"new", "more"}


# -- what is read and written ----------------------------------------------------------------------


def read(*lines: bytes, method=b"GET", accept=b"", app="shop") -> Ties:
    steered = Steering(app, (Container("a"),), sticky=True, skew=True, canary_percent=0)
    return steered.read([line + b"\r\n" for line in lines], method, accept)


M, N = mark("one"), mark("two")


@pytest.mark.parametrize(
    ("cookie", "revision", "container"),
    [
        (b"nd-shop=%b.%b" % (M, N), M, N),
        (b"a=b; nd-shop=%b.; c=d" % M, M, b""),
        (b"a=b;nd-shop=.%b" % N, b"", N),
        (b'a="x nd-shop=%b.%b"' % (M, N), b"", b""),
        (b"xnd-shop=%b.%b" % (M, N), b"", b""),
        (b"nd-shop2=%b.%b" % (M, N), b"", b""),
        (b"nd-shop=%b" % M, b"", b""),
        (b"nd-shop=%b.%bff" % (M, N), b"", b""),
        (b"nd-shop=%b.%b" % (M.upper(), N), b"", b""),
        (b"nd-shop=../../etc/passwd", b"", b""),
        (b"nd-shop=", b"", b""),
        (b"nd-shop=nonsense; nd-shop=%b.%b" % (M, N), M, N),
    ],
)
def test_cookies(cookie, revision, container):
    assert read(b"Accept: */*", b"Cookie: " + cookie)[:2] == (revision, container)
    assert read(b"cookie: " + cookie)[:2] == (revision, container)


@given(st.binary(max_size=300).map(lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F)))
def test_any_cookie_is_read_or_passed_over(raw):
    ties = read(b"Cookie: " + raw, b"Cookie: nd-shop=" + raw)
    assert all(len(part) in (0, len(M)) for part in ties[:2])


def test_a_long_cookie_costs_little():
    import timeit

    hostile = b"Cookie: " + b"nd-shop=" * 4000
    assert timeit.timeit(lambda: read(hostile), number=20) / 20 < 0.005


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=40), st.integers(0, 10**9))
def test_what_is_set_is_read_again(app, revision):
    container = Container("c", revision)
    steered = Steering(app, (container,), sticky=True, skew=True, canary_percent=0)
    ties = steered.renewed(PAGE, container)
    assert ties is not None
    field = steered.set_cookie(ties, b"/x")
    value = field.removeprefix(b"Set-Cookie: ").partition(b";")[0]
    assert field.endswith(b"; Path=/x; HttpOnly; SameSite=Lax")
    assert read(b"Cookie: " + value, app=app)[:2] == ties[:2]


@pytest.mark.parametrize("path", [b"/a;b", b"/a b", "/ä".encode(), b"/\r\nX: y", b""])
def test_a_path_that_cannot_be_written_is_the_whole_site(path):
    steered = steering(Container("a"), sticky=True)
    assert b"; Path=/; " in steered.set_cookie(Ties(b"", M), path)


def test_each_app_has_a_cookie_of_its_own():
    assert cookie_name("shop") == b"nd-shop"
    assert read(b"Cookie: nd-other=%b.%b" % (M, N))[:2] == (b"", b"")


BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (BROWSER, True),
        (b"text/html", True),
        (b"TEXT/HTML;q=1.0", True),
        (b"*/*", False),
        (b"", False),
        (b"image/avif,image/webp,*/*;q=0.8", False),
        (b"application/json, text/html;q=0.9", False),
        (b"application/json, text/plain, */*", False),
        (b"text/html;q=0", False),
        (b"text/html;q=nonsense", False),
        (b"text/css,*/*;q=0.1", False),
        (b"x" * 30_000 + b",text/html", False),
    ],
)
def test_who_asks_for_a_page(accept, wanted):
    assert prefers_html(accept) is wanted
    assert read(accept=accept).navigation is wanted
    assert read(method=b"POST", accept=accept).navigation is False


@given(st.binary(max_size=1500))
def test_any_accept_field_is_understood_somehow(accept):
    assert prefers_html(accept) in (True, False)


def test_a_browser_says_what_it_does():
    assert read(b"Sec-Fetch-Mode: navigate", method=b"POST", accept=b"*/*").navigation
    assert not read(b"sec-fetch-mode: cors", accept=BROWSER).navigation
    assert not read(b"Sec-Fetch-Mode: websocket", accept=BROWSER).navigation


# -- groups ----------------------------------------------------------------------------------------


def test_one_that_hangs_is_asked_after_one_that_failed():
    failed, hangs = Container("failed", in_flight=5, avoid_until=9.0), Container("hangs", avoid_until=math.inf)
    assert choose([hangs, failed], 0, 1.0) is failed
    assert choose_in_order([Group([hangs, failed])], 1.0, ()) is failed
    assert choose_in_order([], 1.0, ()) is None

"""Blobs of others are not there: neither to be seen, nor to be had by knowing their digest."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from ndactors.adapters.claimed_blobs import UNUSED_SECONDS, BlobClaims, SharedBlobs
from ndactors.errors import Conflict, Invalid, TooLarge

SECRET = b"DB_PASSWORD=hunter2\n" * 50


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reading(data: bytes, piece: int = 7):
    parts = [data[at : at + piece] for at in range(0, len(data), piece)]
    return lambda count: parts.pop(0) if parts else b""


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    """The blobs as a daemon that starts now has them."""
    opened = []

    def made(**limits: int) -> SharedBlobs:
        claims = BlobClaims(tmp_path / "claims.db", lambda *_: None, lambda call: call(), clock)
        opened.append(claims)
        return SharedBlobs(tmp_path / "blobs", claims, lambda call: call(), **limits)

    yield made
    for claims in opened:
        claims.close()


def send(store, data: bytes) -> None:
    assert store.append(sha(data), 0, len(data), reading(data))


def test_all_blobs_together_are_bounded_whoever_sends_them(make, tmp_path):
    blobs = make(max_all=1000)
    for owner in range(2):
        send(blobs.seen_by((f"app{owner}",)), bytes([owner]) * 400)
    with pytest.raises(TooLarge):
        send(blobs.seen_by(("app2",)), b"z" * 400)
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and "claims" not in path.name)
    assert kept == 800
    assert blobs.seen_by(("app2",)).missing([sha(b"z" * 400)])


def test_what_was_sent_leaves_room_for_more(make):
    blobs = make(max_all=1000)
    shop = blobs.seen_by(("shop",))
    for number in range(2):
        send(shop, bytes([number]) * 450)  # what became one of all does not count for the sender twice
    assert not shop.missing([sha(bytes([number]) * 450) for number in range(2)])


def test_what_others_sent_is_not_there(make):
    blobs = make()
    send(blobs, SECRET)
    blobs.add([(sha(b"x"), b"x")])
    shop, blog = blobs.seen_by(("shop",)), blobs.seen_by(("blog",))
    send(blog, b"blog's")
    for data in (SECRET, b"x", b"blog's"):
        assert blobs.path(sha(data)) is not None
        assert shop.path(sha(data)) is None
        assert shop.offset(sha(data)) == 0
        assert shop.missing([sha(data)]) == [sha(data)]
    assert blobs.missing([sha(b"blog's")]) == []
    assert blog.missing([sha(b"blog's"), sha(SECRET)]) == [sha(SECRET)]


def test_it_answers_the_same_whether_somebody_has_it_or_nobody(make):
    blobs = make()
    send(blobs, SECRET)
    shop = blobs.seen_by(("shop",))
    for data in (SECRET, SECRET[::-1]):
        digest = sha(data)
        assert shop.append(digest, 0, len(data), reading(data[:100])) is False
        assert shop.offset(digest) == 100
        with pytest.raises(Conflict, match="100 bytes"):
            shop.append(digest, len(data) - 1, len(data), reading(data[-1:]))
        with pytest.raises(Invalid):
            shop.append(digest, 100, len(data), reading(b"?" * (len(data) - 100)))
        assert (shop.path(digest), shop.offset(digest)) == (None, 0)
        assert shop.append(digest, 0, len(data), reading(data)) is True
        assert shop.path(digest).read_bytes() == data
        assert shop.missing([digest]) == []
    assert blobs.path(sha(SECRET)).read_bytes() == SECRET


def test_the_end_of_it_is_not_enough(make):
    """Whoever has a digest and the last bytes does not get the first ones from an upload that somebody else broke off."""
    blobs = make()
    assert blobs.append(sha(SECRET), 0, len(SECRET), reading(SECRET[:-1])) is False
    shop = blobs.seen_by(("shop",))
    assert shop.offset(sha(SECRET)) == 0
    with pytest.raises(Conflict):
        shop.append(sha(SECRET), len(SECRET) - 1, len(SECRET), reading(SECRET[-1:]))
    assert blobs.offset(sha(SECRET)) == len(SECRET) - 1, "and nobody spoils another's upload"
    assert blobs.append(sha(SECRET), len(SECRET) - 1, len(SECRET), reading(SECRET[-1:])) is True


def test_small_ones(make):
    blobs = make()
    blobs.add([(sha(b"theirs"), b"theirs")])
    shop = blobs.seen_by(("shop",))
    assert shop.add([(sha(b"a"), b"a"), (sha(b"theirs"), b"theirs")]) == 2
    assert shop.missing([sha(b"a"), sha(b"theirs")]) == []
    assert shop.add([(sha(b"b"), b"b"), (sha(SECRET), b"a guess"), (sha(b"c"), b"c")]) == 1
    assert shop.missing([sha(b"b"), sha(SECRET), sha(b"c")]) == [sha(SECRET), sha(b"c")]


def test_nothing_is_sent_again_after_a_restart(make):
    send(make().seen_by(("shop", "blog")), SECRET)
    make().seen_by(("blog", "shop")).append(sha(b"part"), 0, 4, reading(b"pa"))
    again = make().seen_by(("blog", "shop"))
    assert again.missing([sha(SECRET)]) == []
    assert again.offset(sha(b"part")) == 2
    assert again.append(sha(b"part"), 2, 4, reading(b"rt")) is True
    assert make().seen_by(("shop",)).missing([sha(SECRET)]) == [sha(SECRET)], "other apps, other eyes"


def test_what_was_cleaned_away_is_missing_although_it_was_claimed(make):
    blobs = make()
    shop = blobs.seen_by(("shop",))
    send(shop, SECRET)
    blobs.clean((), time.time() + 8 * 86_400)
    assert shop.missing([sha(SECRET)]) == [sha(SECRET)]
    assert shop.path(sha(SECRET)) is None


def test_cleaning(make, clock, tmp_path):
    blobs = make()
    shop = blobs.seen_by(("shop",))
    send(shop, SECRET)
    shop.append(sha(b"part"), 0, 4, reading(b"pa"))
    clock.now += UNUSED_SECONDS - 10
    assert shop.missing([sha(SECRET)]) == []
    clock.now += UNUSED_SECONDS - 10
    blobs.clean([sha(SECRET)], time.time())
    assert shop.missing([sha(SECRET)]) == [], "it was used meanwhile"
    clock.now += UNUSED_SECONDS + 10
    blobs.clean([sha(SECRET)], time.time() + 2 * 86_400)
    assert blobs.path(sha(SECRET)) is not None
    assert shop.path(sha(SECRET)) is None
    assert not [path for path in (tmp_path / "blobs-limited").rglob("*") if path.is_file()]


def test_no_limits_is_everything(make):
    blobs = make()
    assert blobs.seen_by(None) is blobs


def test_what_is_no_digest(make):
    shop = make().seen_by(("shop",))
    for wrong in ("", "../x", "A" * 64, "a" * 63):
        assert shop.path(wrong) is None
        assert shop.offset(wrong) == 0
        for call in (lambda w=wrong: shop.missing([w]), lambda w=wrong: shop.append(w, 0, 1, reading(b"x"))):
            with pytest.raises(Invalid):
                call()


def test_many_digests_are_asked_quickly(make):
    shop = make().seen_by(("shop",))
    blobs = [(sha(os.urandom(8)), b"") for _ in range(5)]
    shop._blobs.claims.add("shop", [digest for digest, _ in blobs])
    digests = [f"{number:064x}" for number in range(50_000)]
    began = time.process_time()
    assert len(shop.missing(digests)) == 50_000
    assert time.process_time() - began < 5

"""Blobs on disk: only what is whole and right has a name, whatever senders do."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import subprocess
import threading
import time

import pytest

from ndactors.adapters import blob_store, trees
from ndactors.adapters.blob_store import BlobFiles
from ndactors.errors import Conflict, Invalid, StateError, TooLarge


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def at_once(call):
    return call()


@pytest.fixture
def store(tmp_path):
    return BlobFiles(tmp_path / "blobs", at_once)


def put(store, content: bytes, *, offset: int = 0, size: int | None = -1, digest: str | None = None) -> bool:
    whole = len(content) + offset if size == -1 else size
    return store.append(digest or sha(content), offset, whole, io.BytesIO(content).read)


def everything(store) -> set[str]:
    return {str(p.relative_to(store._folder)) for p in store._folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("content", [b"", b"x", b"y" * 3_000_001])
@pytest.mark.parametrize("told", [True, False])
def test_what_is_put_is_there(store, content, told):
    digest = sha(content)
    assert store.path(digest) is None
    assert put(store, content, size=-1 if told else None)
    path = store.path(digest)
    assert path.read_bytes() == content
    assert path == store._folder / digest[:2] / digest
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (store._folder, path.parent, store._folder / "partial"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert everything(store) == {f"{digest[:2]}/{digest}"}
    assert put(store, content)


def test_an_upload_goes_on_where_it_broke(store):
    content = os.urandom(1_000_000)
    digest = sha(content)
    assert not put(store, content[:300_000], size=len(content), digest=digest)
    assert store.offset(digest) == 300_000
    again = BlobFiles(store._folder, at_once)  # as after a restart: what it hashed so far is forgotten
    assert not put(again, content[300_000:700_000], offset=300_000, size=len(content), digest=digest)
    assert put(again, content[700_000:], offset=700_000, size=len(content), digest=digest)
    assert again.path(digest).read_bytes() == content
    assert again.offset(digest) == 0


def test_what_came_before_an_error_of_the_sender_stays(store):
    content = b"z" * 500_000
    stream = io.BytesIO(content)

    def read(count):
        if stream.tell() >= 400_000:
            raise ConnectionResetError("gone")
        return stream.read(min(count, 100_000))

    with pytest.raises(ConnectionResetError):
        store.append(sha(content), 0, len(content), read)
    assert store.offset(sha(content)) == 400_000
    assert put(store, content[400_000:], offset=400_000, size=len(content), digest=sha(content))


def test_a_wrong_digest_leaves_nothing(store):
    with pytest.raises(Invalid):
        put(store, b"abc", digest=sha(b"abd"))
    assert everything(store) == set()
    # begun with lies, ended with truth
    content = b"true" * 1000
    put(store, b"lie!" * 500, size=len(content), digest=sha(content))
    with pytest.raises(Invalid):
        put(store, content[2000:], offset=2000, size=len(content), digest=sha(content))
    assert everything(store) == set()
    assert put(store, content)


def test_wrong_offsets_and_sizes(store):
    content = b"a" * 1000
    digest = sha(content)
    put(store, content[:100], size=1000, digest=digest)
    for offset in (1, 99, 101, 1000):
        with pytest.raises(Conflict, match="100 bytes"):
            store.append(digest, offset, 1000, io.BytesIO(b"x").read)
    for offset, size in ((-1, 10), (11, 10), (0, -1)):
        with pytest.raises(Invalid):
            store.append(digest, offset, size, io.BytesIO(b"x").read)
    assert store.offset(digest) == 100
    with pytest.raises(TooLarge):  # more than was announced
        put(store, content[100:] + b"more", offset=100, size=1000, digest=digest)
    assert everything(store) == set()
    with pytest.raises(TooLarge):
        store.append(digest, 0, 2**63, io.BytesIO(content).read)
    with pytest.raises(TooLarge):
        put(store, b"x", size=0, digest=sha(b""))
    assert put(store, b"begun anew"[:5], size=1000, digest=digest) is False
    assert put(store, content)


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, "a" * 63, "a" * 65, "a" * 63 + "/", "/etc/passwd", "a\0"])
def test_what_is_no_digest_touches_nothing(store, digest):
    assert store.path(digest) is None
    assert store.offset(digest) == 0
    for call in (
        lambda: store.append(digest, 0, 1, io.BytesIO(b"x").read),
        lambda: store.missing([digest]),
        lambda: store.take(digest),
        lambda: store.add([(digest, b"x")]),
    ):
        with pytest.raises(Invalid):
            call()
    assert not store._folder.exists() or everything(store) == set()


def test_a_sender_that_never_ends_is_ended(store, monkeypatch):
    monkeypatch.setattr(blob_store, "MAX_BLOB", 1_000_000)
    with pytest.raises(TooLarge):
        store.append("0" * 64, 0, None, lambda count: b"x" * count)
    assert everything(store) == set()


def test_many_small_ones(store):
    blobs = [(sha(b"%d" % n), b"%d" % n) for n in range(300)]
    assert store.add(blobs) == 300
    assert store.missing([digest for digest, _ in blobs]) == []
    assert store.add(blobs[:3]) == 3
    assert store.add([(sha(b"good"), b"good"), (sha(b"bad"), b"worse"), (sha(b"after"), b"after")]) == 1
    assert store.missing([sha(b"good"), sha(b"bad"), sha(b"after")]) == [sha(b"bad"), sha(b"after")]
    assert not any(name.startswith("partial") for name in everything(store))


def test_everything_together_has_a_limit_and_what_was_not_used_makes_room(tmp_path):
    store = BlobFiles(tmp_path / "blobs", at_once, max_all=1000)
    assert put(store, b"a" * 600)
    with pytest.raises(TooLarge):
        put(store, b"b" * 401)
    with pytest.raises(TooLarge):
        store.add([(sha(b"c" * 401), b"c" * 401)])
    with pytest.raises(TooLarge):
        put(store, b"d" * 500, size=None)
    put(store, b"e" * 100, size=400, digest=sha(b"e" * 400))  # 700 are there, though 1000 were announced
    assert put(store, b"f" * 300)
    with pytest.raises(TooLarge):
        put(store, b"g")
    os.utime(store.path(sha(b"a" * 600)), (time.time() - 4000,) * 2)
    assert put(store, b"g" * 500)
    assert store.path(sha(b"a" * 600)) is None
    assert store.path(sha(b"f" * 300)) is not None
    counted = BlobFiles(tmp_path / "blobs", at_once, max_all=1000)
    with pytest.raises(TooLarge):
        put(counted, b"h" * 101)
    assert put(counted, b"h" * 100)


def test_two_at_once_cannot_both_have_the_last_room(tmp_path):
    store = BlobFiles(tmp_path / "blobs", at_once, max_all=1000)
    first = io.BytesIO(b"a" * 600)

    def read(count):
        if first.tell() == 0:
            with pytest.raises(TooLarge):
                put(store, b"b" * 600)
        return first.read(count)

    assert store.append(sha(b"a" * 600), 0, 600, read)


def test_half_of_the_free_disk_stays_free(store, monkeypatch):
    disk = os.statvfs("/")
    small = os.statvfs_result((*disk[:1], 1, *disk[2:4], 1000, *disk[5:]))
    store._make_folders()
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    with pytest.raises(TooLarge):
        put(store, b"x" * 501)
    monkeypatch.undo()
    assert put(store, b"x" * 501)


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_a_full_disk_says_so_and_keeps_nothing_half(store, monkeypatch, failing):
    content = b"x" * 600_000
    put(store, b"before")
    real = getattr(os, failing)

    def full(*args, **kwargs):
        if failing == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode):
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, full)
        with pytest.raises(StateError, match="full"):
            put(store, content)
        with pytest.raises(StateError, match="full"):
            store.add([(sha(b"small"), b"small")])
    assert everything(store) == {f"{sha(b'before')[:2]}/{sha(b'before')}"}
    assert put(store, content)
    assert store._used == 6 + len(content)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("inodes", range(2, 6))
def test_a_disk_that_is_really_full(tmp_path, inodes):
    """One with room for so many files and folders: the root, ours, a partial one, its place."""
    options = f"size=1m,nr_inodes={inodes}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        store = BlobFiles(tmp_path / "blobs", at_once)
        if inodes < 5:
            for attempt in (lambda: put(store, b"first"), lambda: store.add([(sha(b"first"), b"first")])):
                with pytest.raises(StateError, match="is full"):
                    attempt()
            assert everything(store) == set()
            return
        assert put(store, b"first")
        with pytest.raises(StateError, match="is full"):
            put(store, b"second")
        assert everything(store) == {f"{sha(b'first')[:2]}/{sha(b'first')}"}
        assert store.path(sha(b"first")).read_bytes() == b"first"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_two_uploads_of_one_blob_do_each_other_no_harm(store):
    content = os.urandom(900_000)
    digest = sha(content)
    seconds = []
    first = io.BytesIO(content)

    def read(count):
        if first.tell() == 400_000:  # the first is half through when a second one comes, and is done before it
            seconds.append(put(store, content))
        return first.read(min(count, 100_000))

    assert store.append(digest, 0, len(content), read)
    assert seconds == [True]
    assert store.path(digest).read_bytes() == content
    assert everything(store) == {f"{digest[:2]}/{digest}"}


def test_a_second_one_that_breaks_off_leaves_the_first_alone(store):
    content = os.urandom(900_000)
    first = io.BytesIO(content)

    def read(count):
        if first.tell() == 400_000:
            assert put(store, b"lies", size=len(content), digest=sha(content)) is False
            with pytest.raises(Invalid):
                put(store, b"lies", digest=sha(content))
        return first.read(min(count, 100_000))

    assert store.append(sha(content), 0, len(content), read)


def test_who_wants_to_go_on_waits_for_who_is_at_it(store, monkeypatch):
    content = b"c" * 1000
    digest = sha(content)
    put(store, content[:400], size=1000, digest=digest)
    descriptor = os.open(store._folder / "partial" / digest, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    monkeypatch.setattr(blob_store, "WAIT_SECONDS", 0.1)
    with pytest.raises(Conflict, match="somebody else"):
        put(store, content[400:], offset=400, size=1000, digest=digest)
    monkeypatch.setattr(blob_store, "WAIT_SECONDS", 10)
    waiter = threading.Thread(target=lambda: put(store, content[400:], offset=400, size=1000, digest=digest))
    waiter.start()
    os.close(descriptor)
    waiter.join(10)
    assert store.path(digest).read_bytes() == content


def test_many_threads_with_one_blob(store):
    content = os.urandom(2_000_000)
    digest = sha(content)
    done = []

    def send():
        done.append(put(BlobFiles(store._folder, at_once), content))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 8
    assert store.path(digest).read_bytes() == content
    assert everything(store) == {f"{digest[:2]}/{digest}"}


def test_what_nobody_uses_goes(store):
    now, day = time.time(), 86_400
    kept, used, old = b"kept", b"used", b"old"
    for content in (kept, used, old):
        put(store, content)
        os.utime(store.path(sha(content)), (now - 8 * day,) * 2)
    put(store, b"given u", size=8, digest=sha(b"given up"))
    put(store, b"recen", size=6, digest=sha(b"recent"))
    os.utime(store._folder / "partial" / sha(b"given up"), (now - 1.1 * day,) * 2)
    assert store.missing([sha(used), sha(b"never")]) == [sha(b"never")]  # asking is using
    assert store.clean([sha(kept)], now) == len(old) + 7
    assert store.path(sha(old)) is None
    assert store.path(sha(kept)) and store.path(sha(used))
    assert (store.offset(sha(b"given up")), store.offset(sha(b"recent"))) == (0, 5)
    os.utime(store.path(sha(used)), (now - 8 * day,) * 2)
    store.take(sha(used))
    assert store.clean([sha(kept)], now) == 0


def test_an_upload_that_goes_on_is_not_cleaned_away(store):
    content = b"slow" * 100
    digest = sha(content)
    stream = io.BytesIO(content)

    def read(count):
        if stream.tell() == 200:
            assert store.clean([], time.time() + 30 * 86_400) == 0
        return stream.read(min(count, 200))

    assert store.append(digest, 0, len(content), read)


def test_a_link_in_place_of_an_upload_is_not_followed(store, tmp_path):
    store._make_folders()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    digest = sha(b"new")
    (store._folder / "partial" / digest).symlink_to(victim)
    with pytest.raises(StateError):
        put(store, b"new")
    assert victim.read_text() == "precious"


def test_hashing_a_resumed_upload_costs_one_reading(store, monkeypatch):
    content = os.urandom(100_000)
    digest = sha(content)
    read = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, count: read.append(count) or real(fd, count))
    for start in range(0, 100_000, 10_000):
        put(store, content[start : start + 10_000], offset=start, size=100_000, digest=digest)
    assert store.path(digest)
    assert len(read) == 2


def test_without_syncfs_everything_is_synced(store, monkeypatch):
    synced = []
    monkeypatch.setattr(trees, "_syncfs", None)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    store.add([(sha(b"%d" % n), b"%d" % n) for n in range(20)])
    assert synced == [True]

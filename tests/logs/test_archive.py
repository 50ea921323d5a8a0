"""Closed segments reach S3-compatible storage: whole, in order, once, and whatever breaks meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from outlets_ground import Shelf, at_work, running, state_of, wait_for, with_daemon
from s3_server import S3Server, Way

from ndactors.core.model import Bucket, Forward
from ndactors.logs import archive, failing
from ndactors.logs.archive import Archive
from ndactors.logs.failing import Failed, Pauses
from ndactors.logs.outlet_process import OutletProcess, archive_place
from ndactors.logs.outlets import owner_of
from ndactors.logs.progress import Progress
from ndactors.logs.s3 import MISSING, Refused, Storage
from ndactors.logs.segments import segment_numbers
from ndactors.logs.sums import PART_BYTES, sums_of
from ndactors.messages.logs import KeepLogs, LogsReport

SMALLEST_PART = 5 * 1024 * 1024
LARGE = 2 * SMALLEST_PART + 1_000_000


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.setattr(failing, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(archive, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(archive, "sums_of", lambda file: sums_of(file, SMALLEST_PART))
    s3.asked.clear()
    s3.before = lambda *_: None


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "state")
    shelf.add("one", "two")
    yield shelf
    shelf.close()


@contextlib.contextmanager
def archiving(shelf: Shelf, bucket: Bucket) -> Iterator[Progress]:
    stop = threading.Event()
    progress = Progress(shelf.state_dir / "logs", [], archive_place(bucket))
    with at_work(Archive(bucket, shelf.folder, "d1", progress, stop).run, stop=stop):
        yield progress
    progress.save()


def error_of(shelf: Shelf, progress: Progress) -> str:
    progress.save()
    return state_of(shelf.state_dir).errors.get("archive", "")


def objects(s3: S3Server, bucket: Bucket) -> dict[str, bytes]:
    client = s3.client
    keys = [row["Key"] for row in client.list_objects_v2(Bucket=bucket.bucket).get("Contents", [])]
    return {key: client.get_object(Bucket=bucket.bucket, Key=key)["Body"].read() for key in keys}


def keep(bucket: Bucket | None, *forward: Forward) -> KeepLogs:
    return KeepLogs(days=7, bytes=1 << 30, archive=bucket, forward=forward)


def test_segments_go_as_they_close_in_order_with_their_indexes(s3, shelf):
    bucket = s3.bucket("in-order")
    shelf.turn()
    shelf.turn()
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == 2, "what was closed already is archived")
        shelf.turn()
        wait_for(lambda: progress.archived == 3, "what closes is archived")
    names = [f"logs/d1/{number:012d}.{kind}" for number in (1, 2, 3) for kind in ("idx", "seg")]
    assert [name for name, _ in s3.sent() if name.endswith((".idx", ".seg"))] == [
        name.rpartition("/")[2] for name in names
    ]
    there = objects(s3, bucket)
    assert sorted(there) == names, "the segment that is still written stays here"
    for name in names:
        number, _, kind = name.rpartition("/")[2].partition(".")
        assert there[name] == shelf.path(int(number), kind).read_bytes()
    assert state_of(shelf.state_dir).segments == 3


def test_a_segment_without_an_index_goes_alone(s3, shelf):
    bucket = s3.bucket("no-index")
    shelf.path(shelf.turn(), "idx").unlink()
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == 1, "it is archived")
    assert list(objects(s3, bucket)) == ["logs/d1/000000000001.seg"]


def test_nothing_is_sent_twice_even_if_what_was_done_is_forgotten(s3, shelf):
    bucket = s3.bucket("once")
    shelf.large(LARGE)
    shelf.turn()
    for _ in range(2):
        with archiving(shelf, bucket) as progress:
            wait_for(lambda: progress.archived == 2, "all is archived")
        (shelf.state_dir / "logs" / "outlets.json").unlink()
    sent = s3.sent()
    assert len(sent) == len(set(sent))


def test_an_upload_goes_on_where_an_outage_broke_it(s3, shelf):
    way = Way(s3.port, cut_after=2 * SMALLEST_PART + 500_000)
    bucket = replace(s3.bucket("outage"), endpoint=way.address)
    number = shelf.large(LARGE)
    with archiving(shelf, bucket) as progress:
        assert way.broken.wait(15)
        wait_for(lambda: "cannot be reached" in error_of(shelf, progress), "the outage is told")
        assert progress.archived == 0
        way.mend()
        wait_for(lambda: progress.archived == number, "it is archived after the outage")
        wait_for(lambda: not error_of(shelf, progress), "it is told that all is well")
    parts = [told for name, told in s3.sent() if "partNumber" in told]
    numbers = [told.rpartition("=")[2] for told in parts]
    assert (numbers.count("1"), numbers.count("2")) == (1, 1), "what had arrived was not sent again"
    assert len({told.partition("&")[0] for told in parts}) == 1, "and all belong to one upload"
    assert objects(s3, bucket)[f"logs/d1/{number:012d}.seg"] == shelf.path(number).read_bytes()


def test_an_upload_goes_on_where_a_kill_broke_it(s3, shelf):
    bucket = s3.bucket("killed")
    with_daemon(shelf.state_dir, "ab12")
    number = shelf.large(2 * PART_BYTES + 500_000)
    third, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str, told: str) -> str | None:
        if told.endswith("partNumber=3") and not third.is_set():
            third.set()
            go_on.wait(15)
            return "503 Gone Away"
        return None

    s3.before = hold
    with running(shelf.state_dir, keep(bucket)) as process:
        assert third.wait(15)
        process.kill()
    assert state_of(shelf.state_dir).archived == 0
    go_on.set()
    with running(shelf.state_dir, keep(bucket)) as process:
        wait_for(lambda: state_of(shelf.state_dir).archived == number, "it is archived by the next process")
        process.stop()
    assert [told[-1] for _, told in s3.sent() if "partNumber" in told] == ["1", "2", "3"]
    assert objects(s3, bucket)[f"logs/ab12/{number:012d}.seg"] == shelf.path(number).read_bytes()


def test_an_upload_that_the_storage_forgot_begins_anew(s3, shelf):
    bucket = s3.bucket("forgotten")
    number = shelf.large(LARGE)
    aborted = threading.Event()

    def abort(method: str, path: str, told: str) -> str | None:
        if told.endswith("partNumber=3") and not aborted.is_set():
            aborted.set()
            client = s3.client
            for row in client.list_multipart_uploads(Bucket="forgotten")["Uploads"]:
                client.abort_multipart_upload(Bucket="forgotten", Key=row["Key"], UploadId=row["UploadId"])
        return None

    s3.before = abort
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == number, "it is archived after all")
    assert aborted.is_set()
    assert objects(s3, bucket)[f"logs/d1/{number:012d}.seg"] == shelf.path(number).read_bytes()
    assert s3.client.list_multipart_uploads(Bucket="forgotten").get("Uploads", []) == []


@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "large"])
def test_what_is_damaged_there_is_sent_again(s3, shelf, size):
    bucket = s3.bucket(f"damaged-{size}")
    number = shelf.large(size) if size else shelf.turn()
    content = shelf.path(number).read_bytes()
    key = f"logs/d1/{number:012d}.seg"
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    s3.client.put_object(Bucket=bucket.bucket, Key=key, Body=damaged)
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == number, "it is archived")
    assert objects(s3, bucket)[key] == content


def test_a_segment_is_archived_only_when_the_storage_has_what_was_sent(s3, shelf):
    bucket = s3.bucket("spoiled")
    content = shelf.path(shelf.turn()).read_bytes()
    spoiled = 0

    def spoil(method: str, path: str, told: str) -> str | None:
        nonlocal spoiled
        sent = [name for name, _ in s3.sent()].count("000000000001.seg")
        if method == "HEAD" and path.endswith(".seg") and sent == 1 and not spoiled:
            spoiled = 1
            s3.client.put_object(Bucket="spoiled", Key="logs/d1/000000000001.seg", Body=b"x" * len(content))
            assert progress.archived == 0
        return None

    s3.before = spoil
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == 1, "it is archived in the end")
    assert spoiled == 1
    assert objects(s3, bucket)["logs/d1/000000000001.seg"] == content


def test_what_another_store_archived_under_the_same_number_stays(s3, shelf, tmp_path):
    bucket = s3.bucket("two-stores")
    shelf.turn()
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == 1, "the first store is archived")
    other = Shelf(tmp_path / "other")
    other.add("of another store")
    other.turn()
    with archiving(other, bucket) as progress:
        wait_for(lambda: progress.archived == 1, "the second store is archived")
    other.close()
    there = objects(s3, bucket)
    assert there["logs/d1/000000000001.seg"] == shelf.path(1).read_bytes()
    (name,) = [name for name in there if name.startswith("logs/d1/000000000001-") and name.endswith(".seg")]
    assert there[name] == other.path(1).read_bytes()
    assert there[name.replace(".seg", ".idx")] == other.path(1, "idx").read_bytes()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"secret_key": "wrong-secret"}, "our `secret_key` is wrong (SignatureDoesNotMatch)"),
        ({"access_key": "AKIAWRONGWRONG"}, "it does not know our `access_key` (InvalidAccessKeyId)"),
        ({"bucket": "nowhere"}, "there is no such bucket (NoSuchBucket)"),
    ],
)
def test_what_only_somebody_can_mend_is_told(s3, shelf, keys, words):
    bucket = replace(s3.bucket("refused"), **keys)
    shelf.turn()
    with archiving(shelf, bucket) as progress:
        assert wait_for(lambda: error_of(shelf, progress), "the error is told") == words
        assert progress.archived == 0
    written = (shelf.state_dir / "logs" / "outlets.json").read_text()
    assert bucket.secret_key not in written
    assert bucket.access_key not in written


def test_keys_that_may_put_and_get_are_enough(s3, shelf):
    statement = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": "*"}
    access, secret = s3.user("modest", {"Version": "2012-10-17", "Statement": [statement]})
    bucket = s3.bucket("modest", access_key=access, secret_key=secret)
    number = shelf.large(LARGE)
    refused = []

    def fail_once(method: str, path: str, told: str) -> str | None:
        if told.endswith("partNumber=2") and not refused:
            refused.append(told)
            return "503 Slow Down"
        return None

    s3.before = fail_once
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == number, "it is archived")
    assert refused
    assert objects(s3, bucket)[f"logs/d1/{number:012d}.seg"] == shelf.path(number).read_bytes()
    uploads = {told.partition("&")[0] for _, told in s3.sent() if "partNumber" in told}
    assert len(uploads) == 1, "the upload is known while the process lives"


def test_what_only_somebody_can_mend_is_tried_rarely():
    pauses = Pauses()
    assert pauses.after(Refused("SignatureDoesNotMatch", 403)) > 40
    assert pauses.after(Refused("SlowDown", 503)) < 1
    assert [pauses.after(Failed("x")) for _ in range(40)][-1] <= failing.LONGEST_SECONDS
    pauses.again()
    assert pauses.after(Failed("x")) < 1
    assert pauses.after(Failed("x", after=7)) == 7


def test_without_boto3_it_is_told_how_to_have_it(s3, shelf, monkeypatch):
    for name in ("boto3", "boto3.session"):
        monkeypatch.setitem(sys.modules, name, None)
    with archiving(shelf, s3.bucket("none")) as progress:
        assert wait_for(lambda: error_of(shelf, progress), "the error is told") == MISSING
    assert "pip install 'nextdeploy[s3]'" in MISSING


def test_how_it_is_told_what_the_storage_has(s3, tmp_path):
    bucket = s3.bucket("verified")
    storage = Storage(bucket, threading.Event())
    storage.connect()
    for name, size in (("small", 1000), ("large", LARGE), ("empty", 0)):
        (tmp_path / name).write_bytes(os.urandom(size))
        file = os.open(tmp_path / name, os.O_RDONLY)
        sums = sums_of(file, SMALLEST_PART)
        storage.send(name, file, sums)
        os.close(file)
        head = storage.head(name, sent=True)

        def gets(name: str = name) -> int:
            return s3.asked.count(("GET", f"/verified/{name}", ""))

        assert storage.has(name, sums, head), "by its SHA-256"
        without = {key: value for key, value in head.items() if key != "ChecksumSHA256"}
        assert storage.has(name, sums, without), "by its ETag"
        assert storage.has(name, sums, {**head, "ETag": '"' + "0" * 32 + '"', "ServerSideEncryption": "aws:kms"})
        assert gets() == 0
        assert storage.has(name, sums, {**without, "ETag": '"abc"'}), "by reading it back"
        assert storage.has(name, sums, {**head, "ETag": '"' + "0" * 32 + '"'}), "what does not agree is read back"
        assert gets() == 2
        assert not storage.has(name, sums, {**head, "ContentLength": size + 1})
        assert not storage.has(name, sums, None)
        s3.client.put_object(Bucket="verified", Key=name, Body=os.urandom(size) or b"x")
        assert not storage.has(name, sums, storage.head(name, sent=True))


def test_a_segment_that_went_away_too_early_is_counted_and_holds_nothing_up(s3, shelf):
    real = s3.bucket("lost")
    shelf.turn()
    with archiving(shelf, real) as progress:
        wait_for(lambda: progress.archived == 1, "the first is archived")
    for _ in range(3):
        shelf.turn()
    shelf.path(2).unlink()
    shelf.path(3).unlink()
    with archiving(shelf, real) as progress:
        wait_for(lambda: progress.archived == 4, "what is there is archived")
    process = OutletProcess(shelf.state_dir, lambda _: None)
    process.configure(keep(real))
    process.state = state_of(shelf.state_dir)
    assert process.state.lost == 2
    notes = process.added_to(LogsReport(pid=1), "").notes
    assert notes == ("archive: at least 2 segments were gone before they were there",)


def test_a_new_store_is_archived_from_its_beginning(s3, shelf):
    bucket = s3.bucket("new-store")
    progress = Progress(shelf.state_dir / "logs", [], archive_place(bucket))
    progress.kept(500, segments=500)
    progress.save()
    shelf.turn()
    with archiving(shelf, bucket) as progress:
        wait_for(lambda: progress.archived == 1, "its first segment is archived")


def test_segments_stay_here_until_they_are_in_the_archive(s3, shelf):
    bucket = s3.bucket("stay")
    shelf.turn()
    shelf.turn()
    process = OutletProcess(shelf.state_dir, lambda _: None)
    process.configure(keep(bucket))
    reached, go_on = threading.Event(), threading.Event()

    def hold(method: str, path: str, told: str) -> str | None:
        if method == "PUT" and path.endswith("2.seg"):
            reached.set()
            go_on.wait(15)
        return None

    s3.before = hold
    try:
        process.look(time.monotonic())
        assert shelf.segments.expire(0, 10**9, process.may_go) == []
        assert reached.wait(15)

        def look() -> int:
            process.look(time.monotonic())
            return process.state.archived

        wait_for(lambda: look() == 1, "the first is archived")
        assert shelf.segments.expire(0, 10**9, process.may_go) == [1]
        go_on.set()
        wait_for(lambda: look() == 2, "the second is archived")
        assert shelf.segments.expire(0, 10**9, process.may_go) == [2]
        assert segment_numbers(shelf.folder) == [3]
        assert process.added_to(LogsReport(pid=1), "").archived == 2
        process.configure(keep(replace(bucket, prefix="elsewhere")))
        assert not process.may_go(2), "there it is not"
    finally:
        go_on.set()
        process.stop()


def test_the_owner_is_the_daemon_or_else_the_host(tmp_path):
    assert owner_of(tmp_path) == socket.gethostname()
    with_daemon(tmp_path, "0123456789abcdef")
    assert owner_of(tmp_path) == "0123456789abcdef"
    (tmp_path / "state" / "daemon.json").write_text("{}")
    assert owner_of(tmp_path) == socket.gethostname()

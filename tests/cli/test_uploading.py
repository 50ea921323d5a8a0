"""Uploads over connections that break: what is there is never sent again, and what is sent is what was meant."""

from __future__ import annotations

import hashlib
import os

import pytest
from double import Double, problem, serving

from ndactors.cli import uploading
from ndactors.cli.bundling import Blob
from ndactors.cli.connection import server_at
from ndactors.cli.failures import Failure, Refused, Unreachable

MIB = 1024 * 1024


class Pauses:
    def __init__(self):
        self.taken = []

    def __call__(self, seconds):
        self.taken.append(seconds)


@pytest.fixture
def double():
    return Double()


@pytest.fixture
def upload(double, tmp_path):
    """``upload(content, …)``: the digests, what was sent, how the progress went, and which pauses were taken."""
    with serving(double, tmp_path / "socket") as address:
        server = server_at(address, None, {})

        def call(*contents):
            blobs = {}
            for number, content in enumerate(contents):
                path = tmp_path / f"file{number}"
                path.write_bytes(content)
                blobs[hashlib.sha256(content).hexdigest()] = Blob(path, len(content))
            seen, pauses = [], Pauses()
            call.blobs = blobs
            done = uploading.upload(server, blobs, lambda *row: seen.append(row), pause=pauses)
            return done, seen, pauses.taken

        yield call
        server.close()


def test_small_ones_go_together_and_large_ones_in_pieces(upload, double):
    small = [os.urandom(1000), b"", b"x"]
    large = os.urandom(9 * MIB)
    done, seen, pauses = upload(*small, large)
    assert set(double.blobs.values()) == {*small, large}
    assert done.size == sum(map(len, small)) + len(large) and len(done.digests) == 4
    assert seen[-1] == (done.size, done.size)
    assert list(seen) == sorted(seen)
    assert len(double.calls("POST /api/v1/blobs")) == 1
    assert double.calls("PUT .*") == [4 * MIB, 4 * MIB, MIB]
    assert pauses == []


def test_what_is_there_is_not_sent(upload, double):
    upload(b"a", b"b")
    before = double.received
    done, seen, _ = upload(b"a", b"b")
    assert done.digests == frozenset() and done.size == 0 and seen == []
    assert double.received == before


def test_batches_have_a_limit(upload, double, monkeypatch):
    monkeypatch.setattr(uploading, "BATCH", 3000)
    contents = [os.urandom(1000) for _ in range(10)]
    upload(*contents)
    assert double.calls("POST /api/v1/blobs") == [3 * 1040] * 3 + [1040]
    assert len(double.blobs) == 10


def test_digests_are_asked_for_in_pages(upload, double, monkeypatch):
    monkeypatch.setattr(uploading, "PAGE", 4)
    upload(*(os.urandom(10) for _ in range(10)))
    assert [len(body["sha256"]) for body in double.calls("POST /api/v1/blobs/missing")] == [4, 4, 2]


def test_a_broken_large_upload_goes_on_where_it_was(upload, double):
    large = os.urandom(9 * MIB)
    double.break_after = [None, 3 * MIB, 1]
    done, _, pauses = upload(large)
    assert list(double.blobs.values()) == [large]
    # 4 MiB, 3 of the next 4, 1 byte, and the rest: nothing twice
    assert double.received == len(large)
    assert pauses and done.size == len(large)


def test_a_broken_batch_sends_only_what_did_not_arrive(upload, double):
    contents = [os.urandom(1000) for _ in range(10)]
    double.break_after = [3 * 1040 + 500]
    upload(*contents)
    assert set(double.blobs.values()) == set(contents)
    assert double.calls("POST /api/v1/blobs") == [3 * 1040 + 500, 7 * 1040]


def test_an_answer_that_is_lost_costs_nothing(upload, double):
    contents = [os.urandom(1000), os.urandom(2 * MIB)]
    upload(b"first")
    double.received = 0
    double.break_before_answer = 2  # the question what is missing, and the question again
    upload(*contents)
    assert set(double.blobs.values()) == {*contents, b"first"}
    assert double.received == 1040 + 2 * MIB


def test_a_server_that_never_answered_is_not_asked_again(upload, double):
    double.break_before_answer = 100
    with pytest.raises(Unreachable):
        upload(b"a")
    assert double.break_before_answer == 99


def test_it_gives_up_when_nothing_gets_through(upload, double):
    double.break_after = [0] * 100
    with pytest.raises(Unreachable, match="broke"):
        upload(os.urandom(2 * MIB))
    assert len(double.calls("PUT .*")) == uploading.TRIES


def test_a_byte_at_a_time_is_progress(upload, double):
    double.break_after = [1] * 20
    upload(os.urandom(2 * MIB))
    assert len(double.blobs) == 1


def test_refusals_are_not_repeated(upload, double):
    double.on("POST /api/v1/blobs/missing", problem(403, "no"), 403)
    with pytest.raises(Refused):
        upload(b"a")
    assert len(double.calls("POST /api/v1/blobs/missing")) == 1


def test_a_busy_server_is_asked_again(upload, double):
    answers = [(503, problem(503, "away"), {}), (429, problem(429, "slowly"), {})]

    def answer(body):
        if answers:
            return answers.pop(0)
        return 200, {"missing": list(body["sha256"])}, {}

    double.answers["POST /api/v1/blobs/missing"] = answer
    _, _, pauses = upload(b"a")
    assert len(pauses) == 2 and list(double.blobs.values()) == [b"a"]


def test_a_file_that_changes_is_noticed_before_or_after(upload, double, tmp_path):
    with serving(double, tmp_path / "other") as address:
        server = server_at(address, None, {})
        for content in (b"small", os.urandom(2 * MIB)):
            path = tmp_path / "changing"
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            path.write_bytes(bytes(len(content)))
            with pytest.raises(Failure, match="changed while it was being sent"):
                uploading.upload(server, {digest: Blob(path, len(content))}, lambda *_: None, pause=Pauses())
            path.write_bytes(content[:-1])
            with pytest.raises(Failure, match="changed while it was being sent"):
                uploading.upload(server, {digest: Blob(path, len(content))}, lambda *_: None, pause=Pauses())
            path.unlink()
            with pytest.raises(Failure, match="No such file"):
                uploading.upload(server, {digest: Blob(path, len(content))}, lambda *_: None, pause=Pauses())
        assert double.blobs == {}
        server.close()


def test_somebody_else_sending_the_same_is_waited_for(upload, double):
    content = os.urandom(2 * MIB)
    digest = hashlib.sha256(content).hexdigest()
    asked = []

    class Partial(dict):
        def get(self, key, default=b""):
            asked.append(key)
            # the first looks see less than what the other one has stored by then
            return super().get(key, default)[: len(asked) * 1000] if len(asked) < 4 else super().get(key, default)

    double.partial = Partial({digest: content[: 5 * 1000]})
    upload(content)
    assert double.blobs[digest] == content

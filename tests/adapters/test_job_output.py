"""Output from json-file logs while they are written, rotated and emptied; and from an engine that must be asked."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.adapters import job_output
from ndactors.adapters.job_output import LEFT_OUT, AskedOutput, ContainerOutputs, FileOutput
from ndactors.core.containers import ContainerStatus
from ndactors.errors import StateError
from ndactors.keeper.jsonlog import JsonLog


def at_once(call):
    return call()


def everything(reader) -> str:
    texts = []
    while text := reader.read():
        texts.append(text)
    return "".join(texts)


@pytest.fixture
def log(tmp_path):
    made = JsonLog(str(tmp_path / "x-json.log"), size=4096, files=3)
    yield made
    made.close()


def reader(log) -> FileOutput:
    from pathlib import Path

    return FileOutput(Path(log.path), at_once)


def test_it_reads_what_is_there_and_then_what_comes(log):
    out = reader(log)
    assert out.read() == ""
    log.feed("stdout", b"one\ntwo\nthr")
    assert out.read() == "one\ntwo\n"
    log.feed("stderr", b"error\n")
    log.feed("stdout", b"ee\n")
    assert out.read() == "error\nthree\n"
    assert out.read() == ""
    log.feed("stdout", b"no end")
    log.finish()
    assert out.read() == "no end"


def test_a_file_that_is_not_there_yet(tmp_path):
    out = FileOutput(tmp_path / "later.log", at_once)
    assert out.read() == ""
    (tmp_path / "later.log").write_text('{"log":"x\\n"}\n')
    assert out.read() == "x\n"


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=30))
@settings(max_examples=60, deadline=None)
def test_rotation_loses_nothing_that_still_is_in_a_file(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("log")
    log = JsonLog(str(folder / "x-json.log"), size=4096, files=4)
    out, written, found, number = reader(log), [], "", 0
    for count, look in steps:
        for _ in range(count):
            line = f"line {number} {'x' * (number % 50)}"
            log.feed("stdout", line.encode() + b"\n")
            written.append(line)
            number += 1
        if look:
            found += everything(out)
    found += everything(out)
    log.close()
    lines = found.splitlines()
    # each in order and once; what is missing was rotated away before we looked
    places = [int(line.split()[1]) for line in lines]
    assert places == sorted(set(places))
    assert [written[place] for place in places] == lines
    assert not written or lines[-1] == written[-1]
    in_files = sum(
        len((folder / name).read_text().splitlines()) for name in os.listdir(folder) if not name.endswith("stdout")
    )
    assert len(lines) >= min(len(written), in_files)


def test_a_reader_that_looks_often_misses_nothing(log):
    out, written, found = reader(log), [], ""
    for number in range(2000):
        line = f"line {number}\n"
        log.feed("stdout", line.encode())
        written.append(line)
        if number % 50 == 0:
            found += everything(out)
    found += everything(out)
    assert found == "".join(written)


def test_a_log_of_one_file_that_is_emptied(tmp_path):
    log = JsonLog(str(tmp_path / "x-json.log"), size=4096, files=1)
    out, found = reader(log), ""
    for number in range(500):
        log.feed("stdout", f"line {number}\n".encode())
        found += everything(out)
    log.close()
    assert found == "".join(f"line {number}\n" for number in range(500))


def test_far_behind_it_goes_on_near_the_end(log, monkeypatch, tmp_path):
    monkeypatch.setattr(job_output, "MAX_BEHIND", 1000)
    monkeypatch.setattr(job_output, "KEEP_BEHIND", 300)
    out = reader(log)
    log.feed("stdout", b"first\n")
    assert out.read() == "first\n"
    for number in range(30):
        log.feed("stdout", f"line {number}\n".encode())
    found = everything(out)
    assert found.startswith(LEFT_OUT)
    assert found.endswith("line 29\n")
    assert "line 5\n" not in found


def test_one_read_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(job_output, "READ_BYTES", 1000)
    path = tmp_path / "x.log"
    path.write_text("".join(json.dumps({"log": f"line {n}\n"}) + "\n" for n in range(1000)))
    out = FileOutput(path, at_once)
    first = out.read()
    assert 0 < len(first) < 1000
    assert first + everything(out) == "".join(f"line {n}\n" for n in range(1000))


def test_what_is_torn_or_no_record_is_left_out(tmp_path):
    path = tmp_path / "x.log"
    path.write_bytes(b'{"log":"a\\n"}\nnot json\n[1]\n{"other": 1}\n\xff\xfe\n{"log":"b\\n"}\n')
    assert everything(FileOutput(path, at_once)) == "a\nb\n"


def test_a_record_without_end_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(job_output, "MAX_RECORD", 100)
    path = tmp_path / "x.log"
    path.write_bytes(b"x" * 10_000)
    out = FileOutput(path, at_once)
    assert out.read() == ""
    with path.open("ab") as file:
        file.write(b'\n{"log":"b\\n"}\n')
    assert everything(out) == "b\n"


def test_closing_gives_the_file_back(log):
    out = reader(log)
    log.feed("stdout", b"one\n")
    before = len(os.listdir("/proc/self/fd"))
    assert out.read()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    out.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_in_its_place_is_told(tmp_path):
    with pytest.raises(StateError):
        FileOutput(tmp_path, at_once).read()


# -- asking ----------------------------------------------------------------------------------------


class Asked:
    def __init__(self) -> None:
        self.rows: list[str] = []
        self.since: list[float] = []

    def output_since(self, container, since, lines):
        self.since.append(since)
        return self.rows[-lines:]


def test_asking_tells_each_line_once():
    logs = Asked()
    out = AskedOutput(logs, "c1")
    assert out.read() == ""
    logs.rows = ["2026-11-25T03:00:00.000000001Z a", "2026-11-25T03:00:00.000000002Z b"]
    assert out.read() == "a\nb\n"
    logs.rows += ["2026-11-25T03:00:00.000000002Z b", "2026-11-25T03:00:00.000000003Z c"]
    assert out.read() == "b\nc\n"
    logs.rows += ["2026-11-25T03:00:00.000000003Z d", "2026-11-25T03:00:00.000000003Z e"]
    assert out.read() == "d\ne\n"
    assert out.read() == ""
    assert logs.since[0] == 0.0
    assert logs.since[-1] == 1795575600.0


def test_asking_says_what_it_left_out(monkeypatch):
    monkeypatch.setattr(AskedOutput, "LINES", 3)
    logs = Asked()
    logs.rows = [f"2026-11-25T03:00:00.00000000{n}Z {n}" for n in range(9)]
    assert AskedOutput(logs, "c1").read() == LEFT_OUT + "6\n7\n8\n"


def test_which_way_it_takes(tmp_path):
    status = ContainerStatus(id="c", name="n", labels={}, state="running")
    assert isinstance(ContainerOutputs(Asked(), at_once).open(status), AskedOutput)
    with pytest.raises(StateError):
        ContainerOutputs(None, at_once).open(status)
    there = ContainerStatus(id="c", name="n", labels={}, state="running", log_path=str(tmp_path / "x"))
    assert isinstance(ContainerOutputs(None, at_once).open(there), FileOutput)

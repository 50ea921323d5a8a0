from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.jsonlines import MAX_LINE, Assembly, Piece, parse

A = b'{"log":"a\\n","stream":"stdout","time":"2026-01-31T12:00:00Z"}'
B = b'{"log":"b\\n","stream":"stderr","time":"2026-01-31T12:00:01Z"}'
SPACED = b'{"log": "c\\n", "stream": "stdout", "time": ""}'
"""As the keeper writes it."""


def logs(data: bytes) -> list[str]:
    return [piece.log for piece in parse(data)]


def test_every_line_is_a_piece():
    assert parse(A + b"\n" + B + b"\n") == [
        Piece(log="a\n", stream="stdout", time="2026-01-31T12:00:00Z"),
        Piece(log="b\n", stream="stderr", time="2026-01-31T12:00:01Z"),
    ]


def test_what_docker_adds_is_left_out():
    assert logs(b'{"log":"a\\n","stream":"stdout","attrs":{"log":"x","tag":"y"},"time":"2026-01-31T12:00:00Z"}\n') == [
        "a\n"
    ]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"log":"torn' + A + b"\n", ['{"log":"torn\n', "a\n"]),
        (b'{"log": "torn' + SPACED + b"\n", ['{"log": "torn\n', "c\n"]),
        (A + b'{"log":"torn\n', ["a\n", '{"log":"torn\n']),
        (A + B + b'{"log":"torn' + A + b"\n", ["a\n", "b\n", '{"log":"torn\n', "a\n"]),
        (b"\0" * 4096 + A + b"\n" + b"\0" * 100 + b"\n" + B + b"\n", ["a\n", "b\n"]),
        (b"garbage\n" + A + b"\n", ["garbage\n", "a\n"]),
        (b"null\n[1]\n42\n{}\n" + A + b"\n", ["null\n", "[1]\n", "42\n", "{}\n", "a\n"]),
        (b'{"log":null,"stream":7,"time":[]}\n' + A + b"\n", ["", "a\n"]),
        (b'{"log":"\\ud800x\\n"}\n', ["?x\n"]),
        (b'{"log":"\xff\\n"}\n', ["�\n"]),
        (b'{"log":"a\\n","n":' + b"1" * 5000 + b'}\n{"log":', ["a\n", '{"log":\n']),
        (b'{"log":"a\\n","x":' + b"[" * 3000 + b"\n", ['{"log":"a\\n","x":' + "[" * 3000 + "\n"]),
        (A + b"\r\n \n\n" + b"x\n", ["a\n", "x\n"]),
        (b"", []),
    ],
)
def test_what_is_torn_stays_readable_and_takes_nothing_with_it(data, found):
    assert logs(data) == found


@given(st.binary())
def test_arbitrary_bytes_never_raise_and_what_is_no_json_stays_as_text(data):
    found = "".join(logs(data))
    found.encode()
    if b"{" not in data and b"\0" not in data:
        assert found.split() == data.decode("utf-8", "replace").split()


@given(st.lists(st.sampled_from([A, B, SPACED, b'{"log":', b'"', b"\n", b"\0", b"\xff", b"}", b"\\"]), max_size=12))
def test_whole_records_between_damage_are_found(parts):
    data = b"".join(parts)
    names = {A: "a\n", B: "b\n", SPACED: "c\n"}
    whole = [names[line.strip(b"\0")] for line in data.split(b"\n") if line.strip(b"\0") in names]
    found = iter(logs(data))
    assert all(log in found for log in whole)


def test_many_records_on_one_damaged_line_take_time_in_proportion():
    data = (A * 8000)[:-1] + b"\n"
    begin = time.process_time()
    found = logs(data)
    assert found[:7999] == ["a\n"] * 7999 and len(found) == 8000
    assert time.process_time() - begin < 2


# -- pieces of lines -------------------------------------------------------------------------------


def taken(assembly: Assembly, *pieces: tuple[str, str, str]) -> list[tuple[str, str, int]]:
    lines, times, streams = assembly.take([Piece(log=log, stream=stream, time=time) for log, stream, time in pieces])
    return list(zip(lines, times, streams, strict=True))


def test_pieces_are_joined_by_stream_and_have_the_time_of_the_first():
    assembly = Assembly()
    assert taken(assembly, ("out 1 ", "stdout", "1"), ("err 1 ", "stderr", "2"), ("out 2\n", "stdout", "3")) == [
        ("out 1 out 2\n", "1", 0)
    ]
    assert assembly.partial == {"stderr": ("2", "err 1 ")}
    again = Assembly(assembly.partial)
    assert taken(again, ("err 2\n", "stderr", "4"), ("x\n", "stderr", "5")) == [
        ("err 1 err 2\n", "2", 1),
        ("x\n", "5", 1),
    ]


def test_several_lines_in_a_piece_are_several():
    assembly = Assembly()
    assert taken(assembly, ("a\nb\nc", "stdout", "1"), ("d\n", "stdout", "2")) == [
        ("a\n", "1", 0),
        ("b\n", "1", 0),
        ("cd\n", "1", 0),
    ]


def test_the_end_ends_every_line_the_older_first():
    assembly = Assembly()
    taken(assembly, ("out", "stdout", "2"), ("err", "stderr", "1"))
    assert assembly.finish() == (["err\n", "out\n"], ["1", "2"], b"\1\0")
    assert assembly.finish() == ([], [], b"")


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE, 2 * MAX_LINE + 5])
def test_a_line_without_end_comes_in_several_and_none_of_them_is_empty(length):
    text = "x" * length
    pieces = [(text[at : at + 16384], "stdout", str(at)) for at in range(0, length, 16384)]
    rows = taken(Assembly(), *pieces, ("\n", "stdout", "end"))
    assert "".join(line[:-1] for line, _, _ in rows) == text
    assert [len(line) - 1 for line, _, _ in rows] == [MAX_LINE] * ((length - 1) // MAX_LINE) + [
        (length - 1) % MAX_LINE + 1
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(st.sampled_from("ab\n"), max_size=6)), max_size=20
    ),
    st.data(),
)
def test_however_pieces_are_handed_over_the_lines_are_the_same(written, data):
    pieces = [Piece(log=text, stream=stream, time="t") for stream, text in written]
    assembly, found = Assembly(), {"stdout": "", "stderr": ""}
    while pieces:
        count = data.draw(st.integers(1, len(pieces)))
        lines, times, streams = assembly.take(pieces[:count])
        assert len(lines) == len(times) == len(streams)
        for line, stream in zip(lines, streams, strict=True):
            assert line.index("\n") == len(line) - 1
            found["stderr" if stream else "stdout"] += line
        pieces = pieces[count:]
        assembly = Assembly(json.loads(json.dumps(assembly.partial)))
    for stream, text in found.items():
        whole = "".join(text for each, text in written if each == stream)
        assert text + assembly.partial.get(stream, ("", ""))[1] == whole

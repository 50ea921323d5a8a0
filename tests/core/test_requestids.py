"""A line tells its request's id only where it names one."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.requestids import LOOKED_AT, request_id_of

UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
EDGE = "0123456789abcdef0123456789abcdef"
ids = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{4,126}[A-Za-z0-9_-]", fullmatch=True).filter(
    lambda id: re.search("[0-9]", id) is not None
)


@pytest.mark.parametrize(
    "message",
    [
        '{"level":30,"request_id":"ID","msg":"x"}',
        '{"level":30,"requestId": "ID"}',
        '{"req_id":"ID"}',
        '{"reqId" : "ID", "msg": "x"}',
        '{"x-request-id":"ID"}',
        '{"headers":{"X-Request-Id":"ID"}}',
        '{"http.request.id":"ID"}',
        '{"http":{"request":{"id":"ID","method":"GET"}}}',
        '{"req":{"id":"ID","method":"GET"},"msg":"done"}',
        '{"context":{"request_id":"ID"}}',
        '{"correlation_id":"ID"}',
        '{"correlationId":"other-correlation-1","request_id":"ID"}',
        '{"message":"asked with request_id=other-request-1","request_id":"ID"}',
        'time="2026-11-25T10:00:00Z" level=info msg=x request_id=ID',
        'level=info request_id="ID" msg=x',
        "10:00:00.123 request_id=ID [info] Sent 200 in 12ms",
        "done request-id=ID",
        "done requestId: ID",
        "done (requestId: 'ID')",
        "done [request_id=ID]",
        "done rid=ID, user=7",
        "done; X-Request-Id: ID",
        "x-correlation-id=ID",
        "Request ID: ID.",
        "{ requestId: 'ID', status: 200 }",
    ],
)
@pytest.mark.parametrize("id", [UUID, EDGE, "req-7a", "F3x2aQbCdEf"])
def test_lines_that_name_their_request(message, id):
    assert request_id_of(message.replace("ID", id) if "Request ID" not in message else f"Request ID: {id}.") == id


@pytest.mark.parametrize("id", [UUID, EDGE, EDGE[:24]])
@pytest.mark.parametrize(
    "message",
    [
        '[ID] Started GET "/" for 172.17.0.1 at 2026-11-25 10:00:00 +0000',
        "[ID] [shop] Completed 200 OK in 12ms",
        "[shop] [ID] Completed 200 OK in 12ms",
        "I, [2026-11-25T10:00:00.123456 #1]  INFO -- : [ID] Completed 200 OK in 12ms",
        "E, [2026-11-25T10:00:00.123456 #1] ERROR -- : [ID] request_id=other-request-1",
    ],
)
def test_tags_of_rails(message, id):
    assert request_id_of(message.replace("ID", id)) == id


@pytest.mark.parametrize(
    "message",
    [
        "",
        "served",
        "request_id=",
        "request_id=null",
        "request_id=undefined level=info",
        '{"request_id":null}',
        '{"request_id":""}',
        '{"request_id":"unknown"}',
        "request_id=abc",
        '{"request_id":"abcde"}',
        "request_id=" + "a" * 129,
        '{"request_id":"' + "a" * 129 + '"}',
        "request_id=abc/def/ghi1",
        "request_id=<script1>",
        "request id: required",
        "requestId: must be there",
        "the request identifies 123456",
        "GET /?request_id=0123456789 HTTP/1.1",
        "GET /?a=1&rid=0123456789 HTTP/1.1",
        "grid=0123456789",
        "hybrid=0123456789",
        "parent_request_id=0123456789",
        "id=0123456789",
        '{"id":"0123456789"}',
        '{"message":"request_id"}',
        '{"message":"request_id","value":"0123456789"}',
        "[2026-11-25 10:00:00,123] served",
        "[12345678] served",
        "served [3f2504e0-4f89-11d3-9a0c-0305e82c3301] to ana",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    ],
)
def test_lines_that_do_not(message):
    assert request_id_of(message) is None


@given(ids)
def test_any_good_id_is_found(id):
    for message in (f'{{"request_id":"{id}"}}', f"x request_id={id} y", f"x reqId: {id}", f"correlation_id={id}"):
        assert request_id_of(message) == id
        assert request_id_of(message + "\n") == id


@given(st.text(), st.text(max_size=20))
def test_what_is_found_is_an_id(before, after):
    for message in (before + after, f"{before}request_id={after}", f'{before}"request_id":"{after}"'):
        found = request_id_of(message)
        assert found is None or re.fullmatch(r"[A-Za-z0-9._-]{6,128}", found)
        assert found is None or found in message


def test_only_the_beginning_of_a_message_is_looked_at():
    assert request_id_of("x" * LOOKED_AT + " request_id=0123456789") is None


@pytest.mark.parametrize(
    "unit",
    [
        "request_id",
        "request_id=",
        '"request_id":',
        "[a] ",
        "x-",
        "rid ",
        '"req":{',
        "request_id=a.",
        "[0123",
        "correlation_id: ",
    ],
)
def test_long_messages_take_little_time(unit):
    began = time.process_time()
    for _ in range(10):
        request_id_of(unit * (1024 * 1024 // len(unit)))
    assert time.process_time() - began < 2

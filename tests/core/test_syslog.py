"""Records as syslog messages: whatever is in a record, the message is well formed and says it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.logrecords import LogRecord
from ndactors.core.syslog import DATAGRAM_BYTES, datagram, framed, message

RECORD = LogRecord(
    ts="2026-01-31T12:00:00.123456789Z",
    app="shop",
    process="web",
    container="c0ffee",
    replica=2,
    stream="stderr",
    level="error",
    message="first\n  second ü",
    request_id='r"1\\]',
)
texts = st.text(st.characters(codec="utf-8"), max_size=200)


def with_message(text: str) -> LogRecord:
    return LogRecord(**{name: getattr(RECORD, name) for name in RECORD.__struct_fields__} | {"message": text})


def test_a_message_to_the_letter():
    assert message(RECORD, "host.test").decode() == (
        "<11>1 2026-01-31T12:00:00.123456Z host.test shop web.2 - "
        '[nextdeploy@32473 container="c0ffee" process="web" replica="2" stream="stderr" request_id="r\\"1\\\\\\]"] '
        "first\n  second ü"
    )


def test_without_a_request_there_is_no_request_id():
    record = LogRecord(
        ts=RECORD.ts, app="a", process="p", container="c", replica=1, stream="stdout", level="info", message=""
    )
    assert b"request_id" not in message(record, "h")
    assert message(record, "").startswith(b"<14>1 2026-01-31T12:00:00.123456Z - a p.1 - [")


def test_levels_are_severities():
    found = {}
    for level in ("debug", "info", "warning", "error", "critical"):
        record = LogRecord(
            ts=RECORD.ts, app="a", process="p", container="c", replica=1, stream="stdout", level=level, message="m"
        )
        found[level] = int(re.match(rb"<(\d+)>", message(record, "h"))[1]) - 8
    assert found == {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


@given(texts)
def test_the_frame_counts_octets(text):
    whole = message(with_message(text), "h")
    count, _, rest = framed(whole).partition(b" ")
    assert rest == whole
    assert int(count) == len(whole)
    assert whole.decode().endswith(f"] {text}")


@given(st.text(st.sampled_from("aü€𝄞\n"), min_size=1, max_size=30), st.integers(0, 9000))
def test_a_datagram_is_cut_between_characters(unit, pad):
    whole = message(with_message("x" * pad + unit * 400), "h")
    cut = datagram(whole)
    assert len(cut) <= DATAGRAM_BYTES
    assert whole.startswith(cut)
    assert whole == cut or len(cut) > DATAGRAM_BYTES - 4
    cut.decode()

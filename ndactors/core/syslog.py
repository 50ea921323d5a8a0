"""Log records as syslog messages: RFC 5424, framed by counting octets (RFC 6587, RFC 5425), or a datagram each (RFC 5426)."""

from __future__ import annotations

import re

from .logrecords import LogRecord

FACILITY = 1
"""User-level messages."""
SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
SD_ID = "nextdeploy@32473"
DATAGRAM_BYTES = 8192
MICROSECONDS = 26
"""Length of a time as far as its microseconds: the RFC allows no more digits."""
MAX_VALUE = 512
"""Characters of a value in the structured data."""
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_ESCAPED = re.compile(r'(["\\\]])')


def message(record: LogRecord, host: str) -> bytes:
    """One message. The record's text is in it as it is, newlines included, without a byte order mark."""
    priority = 8 * FACILITY + SEVERITIES.get(record.level, SEVERITIES["info"])
    values = {
        "container": record.container,
        "process": record.process,
        "replica": str(record.replica),
        "stream": record.stream,
        "request_id": record.request_id,
    }
    data = "".join(f' {name}="{_value(value)}"' for name, value in values.items() if value is not None)
    header = (
        f"<{priority}>1 {record.ts[:MICROSECONDS]}Z {_name(host, 255)} {_name(record.app, 48)} "
        f"{_name(f'{record.process}.{record.replica}', 128)} - [{SD_ID}{data}]"
    )
    return f"{header} {record.message}".encode("utf-8", "replace")


def framed(message: bytes) -> bytes:
    """For a stream: how many octets, a space, and those."""
    return b"%d %s" % (len(message), message)


def datagram(message: bytes) -> bytes:
    """As much as fits; what is cut is cut between characters."""
    if len(message) <= DATAGRAM_BYTES:
        return message
    return message[:DATAGRAM_BYTES].decode("utf-8", "ignore").encode()


def _name(text: str, most: int) -> str:
    return _UNPRINTABLE.sub("_", text)[:most] or "-"


def _value(text: str) -> str:
    return _ESCAPED.sub(r"\\\1", text[:MAX_VALUE])

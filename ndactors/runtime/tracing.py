"""What a greenlet works for at the moment, for its log lines: the id of a request to the API. (Operations are named by the
events that tell of them.)"""

from __future__ import annotations

import logging
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")


class Tracing(logging.Filter):
    """Adds it to every record that has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = request_id.get()
        if known and getattr(record, "request_id", None) is None:
            record.request_id = known
        return True

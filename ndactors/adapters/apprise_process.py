"""`python -m ndactors.adapters.apprise_process`: sends one message by Apprise. The order comes on stdin, so that no URL is
in a process list; what came of it goes to stdout. It ends by itself when its time is over, whoever waits or not."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from typing import Any

_CODE = re.compile(r"\berror=(\d{3})\b")
AGAIN = (408, 425, 429)


class _Codes(logging.Handler):
    """HTTP statuses in what Apprise logs. Its words are left alone: they may have parts of the URL in them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found += [int(code) for code in _CODE.findall(record.getMessage())]


def deliver(order: dict[str, Any]) -> dict[str, Any]:
    import apprise

    codes = _Codes()
    logging.getLogger("apprise").addHandler(codes)
    sender = apprise.Apprise()
    if not sender.add(order["url"]):
        return {"good": False, "words": "Apprise does not understand this URL", "again": False}
    sent = sender.notify(
        title=order["title"], body=order["body"], notify_type=order["kind"], body_format=apprise.NotifyFormat.TEXT
    )
    if sent:
        return {"good": True, "words": "accepted", "again": False}
    if not codes.found:
        return {"good": False, "words": "it could not be delivered", "again": True}
    code = codes.found[-1]
    return {"good": False, "words": f"answered {code}", "again": code >= 500 or code in AGAIN}


def main() -> None:
    order = json.load(sys.stdin)
    signal.alarm(int(order["seconds"]) + 5)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a service prints is no answer
    json.dump(deliver(order), answer)
    answer.close()


if __name__ == "__main__":
    main()

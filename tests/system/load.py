"""Visitors as a process of its own, each request remembered: `python load.py URL RATE OUT` sends until it gets SIGTERM
and writes one line for each request to OUT: id, status, when it began and ended (Unix seconds), error."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
import time
from urllib.parse import urlsplit

CONNECTIONS = 20
LONGEST_SECONDS = 3600.0


def main() -> None:
    url, rate, out = urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    limit = threading.Timer(LONGEST_SECONDS, over.set)
    limit.daemon = True
    limit.start()
    rows: list[tuple[str, int, float, float, str]] = []
    gap = CONNECTIONS / rate

    def send(number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic() + gap * number / CONNECTIONS
        while not over.is_set():
            wait = due - time.monotonic()
            if wait > 0 and over.wait(wait):
                return
            due = max(due + gap, time.monotonic())
            began, id, status, failure = time.time(), "", 0, ""
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=30)
                connection.request("GET", url.path or "/")
                response = connection.getresponse()
                response.read()
                id, status = response.getheader("X-Request-Id") or "", response.status
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                failure, connection = repr(error), None
            rows.append((id, status, began, time.time(), failure))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(out, "w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

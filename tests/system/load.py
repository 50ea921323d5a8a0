"""A steady load on the edge from a process of its own, and what became of each request. `python load.py URL RATE OUT`
sends until it gets SIGTERM and then writes one line of JSON to OUT."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
import time
from urllib.parse import urlsplit

CONNECTIONS = 20
LONGEST_SECONDS = 300.0


def main() -> None:
    url, rate, out = urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    limit = threading.Timer(LONGEST_SECONDS, over.set)
    limit.daemon = True
    limit.start()
    results: list[tuple[int, float, str]] = []
    gap = CONNECTIONS / rate

    def send(number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic() + gap * number / CONNECTIONS
        while not over.is_set():
            wait = due - time.monotonic()
            if wait > 0 and over.wait(wait):
                return
            due = max(due + gap, time.monotonic())
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=30)
                connection.request("GET", url.path or "/")
                response = connection.getresponse()
                response.read()
                results.append((response.status, time.monotonic() - began, ""))
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                results.append((0, time.monotonic() - began, repr(error)))
                connection = None

    threads = [threading.Thread(target=send, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [row for row in results if row[0] != 200]
    with open(out, "w") as file:
        json.dump(
            {
                "sent": len(results),
                "failed": len(failed),
                "worst": max((r[1] for r in results), default=0),
                "examples": failed[:5],
            },
            file,
        )
    sys.exit(0)


if __name__ == "__main__":
    main()

"""How a receiver of log records is called."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from .model import Forward

PORTS = {"tcp": 514, "udp": 514, "tls": 6514}


def name_of(forward: Forward) -> str:
    """By which its cursor is known: it stays the same with other keys, and has no secrets in it. A URL's path may be one,
    so there is a digest of it only."""
    url = urlsplit(forward.syslog or forward.http or "")
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    if forward.syslog:
        return f"syslog {url.scheme}://{host}:{url.port or PORTS[url.scheme]}"
    place = f"{url.scheme}://{host}{f':{url.port}' if url.port else ''}"
    rest = f"{url.path.rstrip('/')}?{url.query}".rstrip("?")
    return f"http {place}" + (f" #{hashlib.sha256(rest.encode()).hexdigest()[:8]}" if rest else "")

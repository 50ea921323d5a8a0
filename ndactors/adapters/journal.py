"""The daemon's own log: JSON lines, or plain ones on a terminal."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from ..runtime.tracing import Tracing

QUIET = ("urllib3", "docker", "geventwebsocket")


def open_journal(level: str, *, terminal: bool) -> None:
    """Everything logged from here on goes to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if terminal:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(
            JsonFormatter(
                "%(levelname)s %(name)s %(message)s",
                timestamp="ts",
                rename_fields={"levelname": "level", "name": "logger"},
            )
        )
    handler.addFilter(Tracing())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)

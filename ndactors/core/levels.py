"""The levels of log records, and their order."""

from __future__ import annotations

LEVELS = ("debug", "info", "warning", "error", "critical")

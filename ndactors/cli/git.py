"""What git says about the project's folder, if git is there and the folder is in a work tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

SECONDS = 10.0
MAX_WORDS = 200


def describe(folder: Path) -> dict[str, str] | None:
    """``sha`` (with ``-dirty`` behind it if what is sent is not what was committed), ``ref``, ``message`` (the
    subject)."""
    sha = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not sha:
        return None
    changed = _git(folder, "status", "--porcelain", "--", ".")
    found = {"sha": sha + ("" if changed == "" else "-dirty")}
    ref = _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD") or _git(
        folder, "describe", "--tags", "--exact-match"
    )
    if ref:
        found["ref"] = ref[:MAX_WORDS]
    subject = _git(folder, "log", "-1", "--format=%s")
    if subject:
        found["message"] = subject[:MAX_WORDS]
    return found


def _git(folder: Path, *words: str) -> str | None:
    """None if git fails. The folder's own settings must not start programs."""
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None

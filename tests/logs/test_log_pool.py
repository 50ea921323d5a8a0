"""The daemon's side of the log process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("pool_scenarios.py")


@pytest.mark.parametrize("scenario", ["killed", "cannot_start_once", "started_twice", "frozen", "at_rest"])
def test_it_goes_on_when(scenario, tmp_path):
    (tmp_path / "state").mkdir()
    command = [sys.executable, str(SCRIPT), scenario, str(tmp_path / "state")]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and f"--state-dir={tmp_path}/state" in _words(entry):
                os.kill(int(entry.name), signal.SIGKILL)
    assert ended.stdout == "it did\n", ended.stderr[-3000:]


def _words(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []

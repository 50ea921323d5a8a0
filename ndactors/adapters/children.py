"""Starting our other processes so that they outlive the daemon: a session of their own, their output in a file, no
descriptor of ours, and reaped if they end first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import gevent

MAX_LOG_BYTES = 10 * 1024 * 1024


def child_environment() -> dict[str, str]:
    """What one of our processes needs to start, and nothing that belongs to apps: no secret travels this way."""
    wanted = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TZ")
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    # started as `python -m ndactors` from a checkout, the package is found by its folder, not by the current one
    package = str(Path(__file__).parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([package, *filter(None, [kept.get("PYTHONPATH")])]))
    return kept


def open_log(path: Path) -> BinaryIO:
    """To append to; what has grown too long becomes ``.1``."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.rename(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "ab")
    file.seek(0, os.SEEK_END)
    return file


def start_outliving(
    command: Sequence[str], output: BinaryIO, environment: Mapping[str, str], keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        close_fds=True,
        pass_fds=tuple(keep),
    )
    gevent.spawn(process.wait)  # no zombie, if it ends before us
    return process

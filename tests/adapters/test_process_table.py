"""Passes over /proc: what is read again, and what is not."""

from __future__ import annotations

import shutil
from pathlib import Path

from ndactors.adapters.process_table import ProcessTable
from ndactors.core.processes import KERNEL_THREAD


def put(root: Path, pid: int, name: str, *, flags: int = 0, ticks: int = 7, state: str = "S") -> None:
    """The process with that number is another one from now on: its folder has another inode."""
    folder = root / f"new-{pid}"
    folder.mkdir()
    write(folder, pid, name, flags=flags, ticks=ticks, state=state)
    shutil.rmtree(root / str(pid), ignore_errors=True)
    folder.rename(root / str(pid))


def write(folder: Path, pid: int, name: str, *, flags: int = 0, ticks: int = 7, state: str = "S") -> None:
    row = f"{pid} ({name}) {state} 2 0 0 0 -1 {flags} 0 0 0 0 {ticks} 0 0 0 20 0 1 0 9 0 5 0"
    (folder / "stat").write_text(row)


def test_threads_of_the_kernel_are_read_once(tmp_path):
    put(tmp_path, 500, "kworker", flags=KERNEL_THREAD)
    put(tmp_path, 600, "web")
    table = ProcessTable(str(tmp_path))
    table.look(-1.0)
    write(tmp_path / "500", 500, "kworker", flags=KERNEL_THREAD, ticks=99)
    write(tmp_path / "600", 600, "web", ticks=99)
    rows = table.look(-1.0)
    assert (rows[500].ticks, rows[600].ticks) == (7, 99)
    assert rows[500].kernel
    assert not rows[600].kernel


def test_who_has_the_number_of_one_that_ended_is_seen_at_once(tmp_path):
    put(tmp_path, 500, "kworker", flags=KERNEL_THREAD)
    table = ProcessTable(str(tmp_path))
    table.look(-1.0)
    put(tmp_path, 500, "web", state="Z")
    row = table.look(-1.0)[500]
    assert (row.name, row.state, row.kernel) == ("web", "Z", False)
    shutil.rmtree(tmp_path / "500")
    assert table.look(-1.0) == {}


def test_where_there_is_no_proc(tmp_path):
    assert ProcessTable(str(tmp_path / "none")).look(-1.0) == {}

"""Processes of ours that start others."""

import os
import signal
import sys
from pathlib import Path

import pytest

from ndactors.runtime.child import Child


def python(code: str, **given) -> Child:
    return Child([sys.executable, "-c", code], os.environ, **given)


def test_it_ends_with_its_code():
    child = python("raise SystemExit(7)")
    assert child.wait(20)
    assert child.poll() == child.returncode == 7


def test_a_signal_is_a_negative_code():
    child = python("import time; time.sleep(60)")
    assert child.poll() is None
    assert not child.wait(0.05)
    child.terminate()
    assert child.wait(20)
    assert child.returncode == -signal.SIGTERM
    child.kill()  # nobody else's process


def test_it_has_its_input_and_the_kept_descriptors_and_no_others():
    reads, writes = os.pipe()
    kept, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    seen_by, seen = os.pipe()
    code = f"import os, sys; os.write({seen}, repr((sys.stdin.read(), sorted(map(int, os.listdir('/proc/self/fd'))))).encode())"
    child = python(code, stdin=reads, keep=(kept, seen))
    os.close(reads)
    os.write(writes, b"words")
    os.close(writes)
    assert child.wait(20)
    words, files = eval(os.read(seen_by, 65536))
    assert words == "words"
    assert {0, 1, 2, kept, seen} <= set(files)
    assert other not in files
    for file in (kept, other, seen_by, seen):
        os.close(file)


def test_without_an_input_it_reads_nothing_and_it_has_a_session():
    child = python("import os, sys; sys.exit(sys.stdin.read() == '' and os.getsid(0) == os.getpid())", session=True)
    assert child.wait(20)
    assert child.returncode == 1


def test_what_cannot_be_started_is_an_error():
    with pytest.raises(OSError, match="No such file"):
        Child(["/nowhere/python"], {})


def test_what_we_ignore_it_does_not():
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    child = Child(["/bin/sh", "-c", "exec sleep 60"], os.environ)
    rows = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    child.kill()
    assert child.wait(20)
    ignored = int(next(row for row in rows if row.startswith("SigIgn")).split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)


def test_where_ends_are_ignored_it_is_over_all_the_same():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = python("raise SystemExit(7)")
        assert child.wait(20)
        assert child.returncode == 0, "nobody can tell"
        child.kill()
    finally:
        signal.signal(signal.SIGCHLD, before)

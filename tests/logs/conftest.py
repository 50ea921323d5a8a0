from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from process import LogProcess


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogProcess]:
    """A log process of its own, ended with all that belongs to it."""
    process = LogProcess(tmp_path / "state")
    process.start()
    yield process
    process.close()

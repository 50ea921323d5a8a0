"""The fault runs, in short: default settings, 200 GET/s and 20 POST/s, one of two containers broken. The long form, with
the table, is `python tests/system/faults.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import faults

LONGEST = 5.0
"""Far above what is measured (docs/reliability.md): a test must not fail because its machine is busy."""


@pytest.fixture
def ground(on_docker, docker_client, tmp_path):
    posts = tmp_path / "posts"
    posts.mkdir()
    daemon = on_docker(healthcheck=None, stop_grace=None, env={"POSTS": "/posts"}, volumes=[f"{posts}:/posts"])
    ids = lambda: [row["id"] for _, row in sorted(daemon.containers().items())]  # noqa: E731
    return faults.Ground(daemon.http, docker_client, posts, ids)


@pytest.mark.parametrize("fault", [name for name in faults.FAULTS if name not in faults.ANSWERS_SPOILED])
def test_no_get_is_lost_and_no_post_happens_twice(ground, fault, monkeypatch):
    monkeypatch.setattr(faults, "FAULT_SECONDS", 3.0)
    monkeypatch.setattr(faults, "AFTER_SECONDS", 1.0)
    result = faults.run(ground, fault)
    assert result.gets > 500
    assert result.posts > 50
    assert (result.lost, result.posts_twice) == (0, 0), result
    assert result.worst < LONGEST, result


@pytest.mark.parametrize("fault", faults.ANSWERS_SPOILED)
def test_a_container_that_spoils_answers_is_soon_asked_last(ground, fault, monkeypatch):
    monkeypatch.setattr(faults, "FAULT_SECONDS", 3.0)
    result = faults.run(ground, fault)
    assert result.lost < 60, result
    assert result.posts_twice == 0

"""Deploys on the real Engine under load, in short. The long forms are `make chaos`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

import canaries
import deaths
import deploys

pytestmark = pytest.mark.usefixtures("engine_address")


def test_nobody_notices_a_deploy_and_its_receipt_counts_what_visitors_count():
    said: list[str] = []
    assert deploys.run(1, 1, said.append), "\n".join(said)


def test_a_canary_is_judged_by_what_its_visitors_get(engine_address, test_image, tmp_path):
    found, share = canaries.run(engine_address, test_image, tmp_path, 4.0)
    assert {row.version: row.state for row in found} == canaries.EXPECTED, found
    assert {row.version: row.served for row in found} == {"failing": "old", "slower": "old", "good": "good"}
    assert share < 0.02
    assert "requests failed" in found[0].reason
    assert "longer" in found[1].reason


def test_a_daemon_that_dies_in_a_deploy_leaves_one_version_serving():
    said: list[str] = []
    assert deaths.run(8, 3, 20, said.append), "\n".join(said)

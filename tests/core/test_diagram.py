from __future__ import annotations

from pathlib import Path

from ndactors.core.lifecycle import diagram


def test_the_documented_diagram_is_the_table():
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert f"```mermaid\n{diagram()}```" in text

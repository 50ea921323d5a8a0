"""The picture of a connection's states is the table's."""

from __future__ import annotations

from pathlib import Path

from ndactors.edge.connection import STATES, TRANSITIONS


def test_the_diagram_is_made_from_the_table():
    lines = ["stateDiagram-v2"]
    for state in sorted(TRANSITIONS):
        lines += [f"    {STATES[state]} --> {STATES[target]}" for target in sorted(TRANSITIONS[state])]
    text = (Path(__file__).parents[2] / "docs" / "edge.md").read_text()
    assert "```mermaid\n" + "\n".join(lines) + "\n```" in text

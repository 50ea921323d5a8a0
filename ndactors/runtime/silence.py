"""Actors that do nothing though messages wait for them: one that hangs looks like one that rests, but for that."""

from __future__ import annotations

from collections.abc import Iterator

from .tree import ActorNode


class Silences:
    """Looked at now and then; ``now`` is monotonic."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}
        """By actor: how much it had handled, and when that was seen first."""

    def look(self, root: ActorNode, now: float) -> dict[str, float]:
        """Seconds since an actor did something, of those for whom messages wait; at least since the last look."""
        waiting = {node.name: node.handled for node in _all(root) if node.mailbox and node.state == "running"}
        self._since = {
            name: before if (before := self._since.get(name)) and before[0] == handled else (handled, now)
            for name, handled in waiting.items()
        }
        return {name: now - since for name, (_, since) in self._since.items()}


def _all(node: ActorNode) -> Iterator[ActorNode]:
    yield node
    for child in node.children:
        yield from _all(child)

"""``ndactors.ports.ContainerEngine`` whose containers' output is kept from their very first line to their last: the log
process hears of each before it starts, and has read everything before it is removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.containers import ContainerSpec, ContainerStatus
from ..ports import ContainerEngine


class LoggedEngine:
    """``created`` may not wait; ``leaving`` may, for a while."""

    def __init__(
        self, engine: ContainerEngine, created: Callable[[ContainerStatus], None], leaving: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._created = created
        self._leaving = leaving
        self.name = engine.name

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        status = self._engine.create(spec)
        self._created(status)
        return status

    def remove(self, container: str) -> None:
        self._leaving(container)
        self._engine.remove(container)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

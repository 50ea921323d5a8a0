"""The configuration file as a source that can be read again; it remembers the last good reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.model import Settings
from . import yaml_file


class ConfigFile:
    """``apply`` runs a call off the event loop: a large file takes a while to parse."""

    def __init__(
        self,
        path: Path,
        environment: str,
        overrides: Sequence[str],
        variables: Mapping[str, str],
        apply: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._path = path
        self._environment = environment
        self._overrides = tuple(overrides)
        self._variables = dict(variables)
        self._apply = apply
        self._loaded = self._read()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._loaded.warnings

    @property
    def path(self) -> Path:
        return self._path

    def render(self) -> str:
        """The effective configuration as YAML, secrets masked."""
        return yaml_file.render(self._loaded)

    def current(self) -> Settings:
        return self._loaded.settings

    def reload(self) -> tuple[Settings, tuple[str, ...]]:
        self._loaded = self._apply(lambda: self._read())
        return self._loaded.settings, self._loaded.warnings

    def _read(self) -> Any:
        return yaml_file.load(
            self._path, environment=self._environment, overrides=self._overrides, variables=self._variables
        )

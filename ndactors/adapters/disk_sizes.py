"""What containers take on disk: the Engine's figure for the layer they write to, and a walk over their own volumes. Both
are slow, so they are looked at seldom and never while others wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import containers as labels
from ..core.containers import ContainerStatus
from ..core.model import Settings
from ..errors import EngineError

if TYPE_CHECKING:
    from .docker_engine import DockerEngine

LAYER_SECONDS = 120.0
"""How long the Engine may take to add up its layers."""
VOLUME_SECONDS = 600.0
"""Between two walks over volumes."""
WALK_SECONDS = 20.0
"""For all volumes together."""
MAX_FILES = 200_000
"""Of all volumes together: the first has half, if there are others, and each of those an equal share of what is left then."""
STANDS_SECONDS = 3600.0
"""So long the last figure of a volume stands that its share did not suffice for."""
BLOCK = 512
Apply = Callable[[Callable[[], Any]], Any]


class DiskSizes:
    """``sizes``: bytes by container, as of the last ``measure``. ``state_dir`` is where named volumes live."""

    def __init__(
        self,
        state_dir: Path,
        engine: DockerEngine | None,
        apply: Apply = lambda call: call(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._volumes = state_dir / "volumes"
        self._engine = engine
        self._apply = apply
        self._monotonic = monotonic
        self._walked = float("-inf")
        self._folders: dict[str, int | None] = {}
        self._measured: dict[str, tuple[float, int]] = {}
        """When each was, and its size."""
        self._turns: dict[str, float] = {}
        """When each had its figure, or was the first, and so had half of everything."""
        self.sizes: dict[str, int] = {}

    def measure(self, containers: Mapping[str, Sequence[ContainerStatus]], settings: Settings) -> None:
        """Look again. An Engine that cannot tell leaves its containers without a figure."""
        layers = self._layers() if containers.get("docker") else {}
        own = {
            status.id: self._own(status, settings) for rows in containers.values() for status in rows if status.labels
        }
        wanted = {folder for folders in own.values() for folder in folders}
        if self._monotonic() - self._walked > VOLUME_SECONDS or wanted - self._folders.keys():
            order = sorted(wanted, key=lambda folder: (self._turns.get(folder, float("-inf")), folder))
            self._found(order, self._apply(lambda: _walk_all(order)))
        sizes: dict[str, int] = {}
        for engine, rows in containers.items():
            for status in rows:
                parts: list[int | None] = [self._folders.get(folder) for folder in own.get(status.id, ())]
                if engine == "docker":
                    parts.append(layers.get(status.id))
                # a part that is not known makes the whole unknown: less than there is would be wrong
                known = [part for part in parts if part is not None]
                if parts and len(known) == len(parts):
                    sizes[status.id] = sum(known)
        self.sizes = sizes

    def _found(self, order: Sequence[str], found: Mapping[str, int | None]) -> None:
        now = self._walked = self._monotonic()
        for folder, size in found.items():
            if size is not None:
                self._measured[folder] = (now, size)
            if size is not None or folder == order[0]:
                self._turns[folder] = now
        self._turns = {folder: at for folder, at in self._turns.items() if folder in found}
        self._measured = {
            folder: row for folder, row in self._measured.items() if folder in found and now - row[0] <= STANDS_SECONDS
        }
        self._folders = {folder: self._measured.get(folder, (now, None))[1] for folder in found}

    def _layers(self) -> dict[str, int]:
        if self._engine is None:
            return {}
        wanted = {"label": [f"{labels.DAEMON}={self._engine.daemon}"]}
        try:
            rows = self._engine.ask(lambda api: _listed(api, wanted))
        except EngineError:
            return {}
        found: dict[str, int] = {}
        for row in rows if isinstance(rows, list) else ():
            size = row.get("SizeRw", 0) if isinstance(row, dict) else None
            if isinstance(size, int) and size >= 0:  # -1: the Engine does not know
                found[str(row.get("Id"))] = size
        return found

    def _own(self, status: ContainerStatus, settings: Settings) -> tuple[str, ...]:
        app = settings.apps.get(status.labels.get(labels.APP, ""))
        process = app.processes.get(status.labels.get(labels.PROCESS, "web")) if app is not None else None
        project = status.labels.get(labels.PROJECT, "")
        if process is None or not project or "/" in project:
            return ()
        names = {volume.source for volume in process.volumes if volume.is_named}
        return tuple(str(self._volumes / project / name) for name in sorted(names))


def _listed(api: Any, wanted: Mapping[str, Any]) -> Any:
    from docker.utils import convert_filters

    asked = {"all": 1, "size": 1, "limit": -1, "filters": convert_filters(wanted)}
    response = api._get(api._url("/containers/json"), params=asked, timeout=LAYER_SECONDS)
    return api._result(response, json=True)


def _walk_all(folders: Sequence[str]) -> dict[str, int | None]:
    deadline, left = time.monotonic() + WALK_SECONDS, MAX_FILES
    found: dict[str, int | None] = {}
    for place, folder in enumerate(folders):
        others = len(folders) - place - 1
        share = 1 + (others if place else min(others, 1))
        now = time.monotonic()
        found[folder], seen = folder_size(folder, left // share, now + (deadline - now) / share)
        left -= min(left, seen)
    return found


def folder_size(folder: str, most: int = MAX_FILES, deadline: float = float("inf")) -> tuple[int | None, int]:
    """Bytes on disk of all that is below ``folder`` on its own file system, as du counts them, and how many files were
    looked at; None for more than ``most``, or when ``deadline`` (monotonic) came first. What cannot be read is left
    out; links are not followed."""
    try:
        top = os.lstat(folder)
    except OSError:
        return 0, 0
    total, seen, twice = top.st_blocks * BLOCK, 0, set()
    waiting = [folder]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:
            continue  # gone, or not ours to read
        with entries:
            for entry in entries:
                seen += 1
                if seen > most or (seen % 256 == 0 and time.monotonic() > deadline):
                    return None, seen
                try:
                    facts = entry.stat(follow_symlinks=False)
                    is_folder = entry.is_dir(follow_symlinks=False)
                except OSError:
                    continue
                if facts.st_dev != top.st_dev:
                    continue
                if facts.st_nlink > 1 and not is_folder:
                    if facts.st_ino in twice:
                        continue
                    twice.add(facts.st_ino)
                total += facts.st_blocks * BLOCK
                if is_folder:
                    waiting.append(entry.path)
    return total, seen

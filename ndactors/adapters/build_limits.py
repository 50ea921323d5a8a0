"""What BuildKit's steps may take of the machine: control groups that we set as root, as its API has no limits of its own.

Engines from 23 on put the steps of a build below a group of ours. Older ones know one group for all steps, ``docker/
buildkit``: that gets the limits while we build, so whoever else builds on that Engine meanwhile shares them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.images import BuildLimits
from ..errors import BuildTimeout

ROOT = Path("/sys/fs/cgroup")
SHARED = "docker/buildkit"
OWN_SINCE = (1, 42)
"""The API of the first Engines that put a build's steps where we say."""
PERIOD_MICROSECONDS = 100_000
PIDS = 4096
SHARES = 256
"""Of the processor, when there is not enough for all: a container of an app has 1024."""
WAIT_SECONDS = 0.2


class BuildGroup:
    """``facts`` are the Engine's own (``/info``), ``api`` its version. ``place`` is the group; None: none can be set, and
    ``words`` say why."""

    def __init__(
        self, base_url: str, facts: Mapping[str, Any], api: tuple[int, ...], daemon: str, root: Path = ROOT
    ) -> None:
        self._root = root
        self._own = api >= OWN_SINCE
        self._unified = (root / "cgroup.controllers").exists()
        self.place: str | None = None
        self.words = ""
        if not base_url.startswith("unix:") or "Desktop" in str(facts.get("OperatingSystem", "")):
            self.words = "the Engine is not on this machine"
        elif os.geteuid() != 0:
            self.words = "that needs root"
        elif self._own:
            self.place = f"nextdeploy-build-{daemon[:12]}"
        elif facts.get("CgroupDriver") == "cgroupfs":
            self.place = SHARED
        else:
            self.words = "Engines before 23 cannot do it with systemd's control groups"

    @property
    def parent(self) -> str | None:
        """What BuildKit is to be told."""
        return f"/{self.place}" if self.place and self._own else None

    @contextlib.contextmanager
    def limited(self, limits: BuildLimits, deadline: float, say: Callable[[str], None]) -> Iterator[None]:
        """Inside, builds take no more than ``limits``, unless that cannot be: then it is said. One at a time."""
        if self.place is None:
            say(f"this build has no limits of its own: {self.words}")
            yield
            return
        try:
            lock = self._locked(deadline, say)
        except OSError as error:
            say(f"this build has no limits of its own: {error}")
            yield
            return
        try:
            try:
                self._set(limits)
            except OSError as error:
                say(f"this build has no limits of its own: {error}")
            yield
        finally:
            self._lift()
            os.close(lock)

    def _locked(self, deadline: float, say: Callable[[str], None]) -> int:
        """Other daemons on this Engine set the same group; a lock ends with its holder."""
        for folder in self._folders():
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folders()[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            waited = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return lock
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BuildTimeout("other builds on this machine took all of this build's time") from None
                    if not waited:
                        say("another build runs on this machine; waiting for its end")
                    waited = True
                    time.sleep(WAIT_SECONDS)
        except BaseException:
            os.close(lock)
            raise

    def _folders(self) -> list[Path]:
        assert self.place is not None
        if self._unified:
            return [self._root / self.place]
        return [self._root / controller / self.place for controller in ("cpu", "memory", "pids")]

    def _set(self, limits: BuildLimits) -> None:
        quota = max(1000, int(limits.cpus * PERIOD_MICROSECONDS))
        if self._unified:
            (folder,) = self._folders()
            for above in reversed(folder.relative_to(self._root).parents):
                _write(self._root / above / "cgroup.subtree_control", "+cpu +memory +pids")
            _write(folder / "cpu.max", f"{quota} {PERIOD_MICROSECONDS}")
            _write(folder / "cpu.weight", str(SHARES * 100 // 1024))
            _write(folder / "memory.max", str(limits.memory or "max"))
            if (folder / "memory.swap.max").exists():
                _write(folder / "memory.swap.max", "0" if limits.memory else "max")
            _write(folder / "pids.max", str(PIDS))
            return
        cpu, memory, pids = self._folders()
        _write(cpu / "cpu.cfs_period_us", str(PERIOD_MICROSECONDS))
        _write(cpu / "cpu.cfs_quota_us", str(quota))
        _write(cpu / "cpu.shares", str(SHARES))
        self._set_memory(memory, limits.memory or -1)
        _write(pids / "pids.max", str(PIDS))

    def _set_memory(self, folder: Path, limit: int) -> None:
        with_swap = folder / "memory.memsw.limit_in_bytes"
        if with_swap.exists():
            _write(with_swap, "-1")  # it may never be less than the other
        _write(folder / "memory.limit_in_bytes", str(limit))
        if with_swap.exists():
            _write(with_swap, str(limit))

    def _lift(self) -> None:
        """The group of our own goes; the shared one has no limits when nobody of us builds."""
        with contextlib.suppress(OSError):  # what is left of it binds builds only, and the next one sets it anew
            if self._own:
                for folder in self._folders():
                    for below in (folder / "buildkit", folder):
                        if below.is_dir():
                            below.rmdir()
            elif self._unified:
                (folder,) = self._folders()
                for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max"):
                    if (folder / name).exists():
                        _write(folder / name, "max")
                _write(folder / "cpu.weight", "100")
            else:
                cpu, memory, pids = self._folders()
                _write(cpu / "cpu.cfs_quota_us", "-1")
                _write(cpu / "cpu.shares", "1024")
                self._set_memory(memory, -1)
                _write(pids / "pids.max", "max")


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)

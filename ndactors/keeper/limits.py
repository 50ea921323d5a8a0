"""Limits of an app: a control group of its own where there are some (v1 or v2, as root), else resource limits."""

import os
import resource
import sys

V1, V2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cgroup.controllers"


class Group:
    """``cpus`` and ``memory`` may be None. ``enter`` is called in the child before it becomes the app."""

    def __init__(self, name: str, cpus, memory, pids: int) -> None:
        self._cpus, self._memory, self._pids = cpus, memory, pids
        self._folders = []
        self.grouped = False
        if os.geteuid() == 0:
            try:
                self._make(name)
                self.grouped = bool(self._folders)
            except OSError as error:
                sys.stderr.write(f"no control group for {name}: {error}\n")
                self.remove()

    def _make(self, name: str) -> None:
        if os.path.exists(V2):
            top = "/sys/fs/cgroup/nextdeploy"
            os.makedirs(top, exist_ok=True)
            for folder in ("/sys/fs/cgroup", top):
                _write(f"{folder}/cgroup.subtree_control", "+cpu +memory +pids")
            own = f"{top}/{name}"
            os.makedirs(own, exist_ok=True)
            self._folders.append(own)
            if self._memory:
                _write(f"{own}/memory.max", str(self._memory))
                if os.path.exists(f"{own}/memory.swap.max"):
                    _write(f"{own}/memory.swap.max", "0")
            if self._cpus:
                _write(f"{own}/cpu.max", f"{int(self._cpus * 100000)} 100000")
            _write(f"{own}/pids.max", str(self._pids))
        elif os.path.isdir(V1):
            wanted = [("memory", self._memory), ("cpu", self._cpus), ("pids", self._pids)]
            for controller, value in wanted:
                if not value or not os.path.isdir(f"/sys/fs/cgroup/{controller}"):
                    continue
                own = f"/sys/fs/cgroup/{controller}/nextdeploy/{name}"
                os.makedirs(own, exist_ok=True)
                self._folders.append(own)
                if controller == "memory":
                    _write(f"{own}/memory.limit_in_bytes", str(value))
                elif controller == "cpu":
                    _write(f"{own}/cpu.cfs_quota_us", str(int(value * 100000)))
                else:
                    _write(f"{own}/pids.max", str(value))

    def enter(self) -> None:
        for folder in self._folders:
            _write(f"{folder}/cgroup.procs", str(os.getpid()))
        if self._memory and not self.grouped:
            # address space is not memory, but it is all that a user without control groups can limit
            resource.setrlimit(resource.RLIMIT_DATA, (self._memory, self._memory))

    def killed_for_memory(self) -> bool:
        for folder in self._folders:
            for name in ("memory.events", "memory.oom_control"):
                try:
                    with open(f"{folder}/{name}") as file:
                        rows = dict(line.split() for line in file)
                except (OSError, ValueError):
                    continue
                if int(rows.get("oom_kill", 0)):
                    return True
        return False

    def remove(self) -> None:
        for folder in self._folders:
            try:
                os.rmdir(folder)
            except OSError:
                continue  # something in it is still ending; an empty group costs nothing
        self._folders = []


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)

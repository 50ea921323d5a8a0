"""``ndactors.ports.ContainerEngine`` in memory: for tests and simulations. Nothing runs; containers end when told to."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from ..core import containers as labels
from ..core.containers import ContainerSpec, ContainerStatus, EngineEvent, EngineInfo, EventKind, ExecResult, RunState
from ..errors import Conflict, ContainerNotFound, EngineUnreachable, ImageNotFound
from .memory_terminal import MemoryTerminal

POLL_SECONDS = 0.02


class Memory:
    """What several daemons' views of one engine share."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.count = 0
        self.containers: dict[str, ContainerStatus] = {}
        self.specs: dict[str, ContainerSpec] = {}
        self.output: dict[str, list[str]] = {}
        self.events: list[EngineEvent] = []
        self.images: set[str] = set()
        self.reachable = True
        self.answers: dict[tuple[str, ...], ExecResult] = {}
        self.terminals: list[MemoryTerminal] = []


class MemoryEngine:
    """``memory`` is what there is; a test changes it through ``end``, ``oom``, ``freeze`` and its plain fields."""

    name = "memory"

    def __init__(self, daemon_id: str, clock: Callable[[], float] = time.time, memory: Memory | None = None) -> None:
        self._daemon = daemon_id
        self.memory = memory or Memory(clock)

    def as_daemon(self, daemon_id: str) -> MemoryEngine:
        """The same engine, seen by another daemon."""
        return MemoryEngine(daemon_id, memory=self.memory)

    def info(self) -> EngineInfo:
        self._check()
        return EngineInfo(name=self.name, version="1")

    def containers(self) -> list[ContainerStatus]:
        self._check()
        return [c for c in self.memory.containers.values() if c.labels.get(labels.DAEMON) == self._daemon]

    def inspect(self, container: str) -> ContainerStatus:
        self._check()
        status = self.memory.containers.get(container)
        if status is None or status.labels.get(labels.DAEMON) != self._daemon:
            raise ContainerNotFound(f"there is no container {container[:12]}")
        return status

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        self._check()
        memory = self.memory
        if spec.image is not None and spec.image not in memory.images:
            raise ImageNotFound(f"there is no image {spec.image}")
        name = spec.name
        taken = next((c for c in memory.containers.values() if c.name == name), None)
        if taken is not None:
            if taken.labels.get(labels.DAEMON) == self._daemon:
                raise Conflict(f"the name {name} is taken")
            name = f"{name}-{self._daemon[:6]}"
        memory.count += 1
        id = f"{memory.count:016x}"
        port = spec.port or 8080
        own = {**spec.labels, labels.PORT: str(port)}
        status = ContainerStatus(id=id, name=name, labels=own, state="created", image=spec.image, port=port)
        memory.containers[id], memory.specs[id], memory.output[id] = status, spec, []
        return status

    def start(self, container: str) -> ContainerStatus:
        status = self.inspect(container)
        if status.state == "running":
            return status
        number = int(container, 16)
        address = f"10.0.{number // 250}.{number % 250 + 1}"
        now = max(self.memory.clock(), (status.started_at or 0.0) + 1e-6)
        return self._change(status, "running", "started", started_at=now, pid=number, address=address)

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        status = self.inspect(container)
        if status.state in ("running", "paused"):
            self.end(container, 137 if signal == "SIGKILL" else 143)

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        if self.inspect(container).state in ("running", "paused"):
            self.end(container, 137)

    def remove(self, container: str) -> None:
        self._check()
        try:
            status = self.inspect(container)
        except ContainerNotFound:
            return  # which is what was wanted
        if status.state == "running":
            self.end(container, 137)
        del self.memory.containers[container]
        self._tell(status, "removed")

    def execute(self, container: str, argv: tuple[str, ...], timeout: float) -> ExecResult:
        self.inspect(container)
        return self.memory.answers.get(argv, ExecResult(exit_code=0, output=""))

    def terminal(self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int) -> MemoryTerminal:
        if self.inspect(container).state != "running":
            raise Conflict(f"{container[:12]} does not run, or is frozen")
        terminal = MemoryTerminal(tty=tty, rows=rows, columns=columns)
        self.memory.terminals.append(terminal)
        answer = self.memory.answers.get(argv)
        if answer is not None:
            if answer.output:
                terminal.prints(answer.output.encode())
            terminal.exits(answer.exit_code)
        return terminal

    def output(self, container: str, lines: int) -> list[str]:
        self.inspect(container)
        return self.memory.output[container][-lines:] if lines else []

    def events(self, since: float | None) -> Iterator[EngineEvent]:
        self._check()
        memory = self.memory
        position = (
            len(memory.events)
            if since is None
            else next((i for i, event in enumerate(memory.events) if event.ts >= since), len(memory.events))
        )
        waiting: queue.Queue[None] = queue.Queue()
        while True:
            while position < len(memory.events):
                event = memory.events[position]
                position += 1
                if event.labels.get(labels.DAEMON) == self._daemon:
                    yield event
            self._check()
            try:
                waiting.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue

    def close(self) -> None: ...

    # -- what happens to containers ----------------------------------------------------------------

    def end(self, container: str, code: int, *, oom: bool = False) -> None:
        """Its process ends by itself."""
        status = self.memory.containers[container]
        now = max(self.memory.clock(), status.started_at or 0.0)
        self._change(status, "exited", "died", exit_code=code, finished_at=now, address=None, pid=None, oom_killed=oom)

    def freeze(self, container: str) -> None:
        self._change(self.memory.containers[container], "paused", "paused")

    def _change(self, status: ContainerStatus, state: RunState, kind: EventKind, **fields: object) -> ContainerStatus:
        changed = replace(status, state=state, **fields)
        self.memory.containers[status.id] = changed
        self._tell(changed, kind)
        return changed

    def _tell(self, status: ContainerStatus, kind: EventKind) -> None:
        code = status.exit_code if kind == "died" else None
        self.memory.events.append(
            EngineEvent(ts=self.memory.clock(), kind=kind, container=status.id, exit_code=code, labels=status.labels)
        )

    def _check(self) -> None:
        if not self.memory.reachable:
            raise EngineUnreachable("the engine does not answer")

"""``ndactors.ports.ContainerEngine`` for commands on the host. The processes belong to a keeper, which outlives us."""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..core import containers as labels
from ..core.containers import ContainerSpec, ContainerStatus, EngineEvent, EngineInfo, ExecResult
from ..errors import (
    Conflict,
    ContainerNotFound,
    EngineError,
    EngineUnreachable,
    ImageNotFound,
    Invalid,
    NextDeployError,
)
from ..runtime.link import connect_unix
from .children import child_environment, open_log, start_outliving
from .process_terminal import MAX_LINE, FailedTerminal, ProcessTerminal

CALL_SECONDS = 20.0
SPAWN_SECONDS = 10.0
POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
KEEPER = Path(__file__).parents[1] / "keeper" / "__main__.py"
_ERRORS = {"not_found": ContainerNotFound, "conflict": Conflict, "invalid": Invalid, "failed": EngineError}
MAX_ANSWER = 64 * 1024 * 1024


class ProcessEngine:
    """No keeper runs until the first container is made. Networks and aliases mean nothing here; a named volume is a
    folder, told to the app as ``VOLUME_<NAME>``."""

    name = "process"

    def __init__(self, state_dir: Path, daemon_id: str) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / "keeper"
        self._daemon = daemon_id
        self._ids = itertools.count(1)

    def info(self) -> EngineInfo:
        return EngineInfo(name=self.name, version=platform.release(), id=str(self._folder))

    def containers(self) -> list[ContainerStatus]:
        if not self._has_apps():
            return []
        return [self._status(view) for view in self._ask("list")]

    def inspect(self, container: str) -> ContainerStatus:
        if not self._has_apps():
            raise ContainerNotFound(f"there is no container {container[:12]}")
        return self._status(self._ask("inspect", container=container))

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        if spec.image is not None:
            raise ImageNotFound(f"the process engine runs commands, not images; {spec.image} needs a Docker Engine")
        if not spec.command:
            raise Invalid("there is no command to run")
        env = dict(spec.env)
        for volume in spec.volumes:
            folder = Path(volume.source)
            if volume.is_named:
                folder = self._state_dir / "volumes" / spec.labels[labels.PROJECT] / volume.source
            folder.mkdir(parents=True, exist_ok=True)
            env.setdefault(f"VOLUME_{folder.name.upper().replace('-', '_').replace('.', '_')}", str(folder))
        plain = msgspec.to_builtins(msgspec.structs.replace(spec, env=env))
        return self._status(self._ask("create", spec=plain))

    def start(self, container: str) -> ContainerStatus:
        return self._status(self._ask("start", container=container))

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        self._ask("stop", container=container, signal=signal, grace=grace, wait=grace)

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        self._ask("kill", container=container, signal=signal)

    def remove(self, container: str) -> None:
        if self._has_apps():
            self._ask("remove", container=container)

    def execute(self, container: str, argv: tuple[str, ...], timeout: float) -> ExecResult:
        result = self._ask("exec", container=container, argv=list(argv), timeout=timeout, wait=timeout)
        return ExecResult(exit_code=result["exit_code"], output=result["output"])

    def terminal(
        self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int
    ) -> ProcessTerminal | FailedTerminal:
        wanted = {"container": container, "argv": list(argv), "tty": tty, "rows": rows, "columns": columns}
        sock, streams = self._connect(), []
        try:
            sock.settimeout(CALL_SECONDS)
            self._send(sock, {"do": "terminal", **wanted})
            line, streams, _, _ = socket.recv_fds(sock, MAX_LINE, 3, socket.MSG_CMSG_CLOEXEC)
            line, end, more = line.partition(b"\n")
            if not end:
                raise EngineUnreachable("the keeper ended the connection; one of an older version knows no terminals")
            answer = json.loads(line)
            if "error" in answer:
                raise _ERRORS.get(answer["error"], EngineError)(answer["detail"])
        except OSError as error:
            sock.close()
            raise EngineUnreachable(f"the keeper does not answer: {error}") from error
        except NextDeployError:
            sock.close()
            raise
        if not streams:
            sock.close()
            return FailedTerminal(answer["ok"]["output"], answer["ok"]["exit_code"])
        return ProcessTerminal(sock, list(streams), more, tty=tty)

    def output(self, container: str, lines: int) -> list[str]:
        return list(self._ask("output", container=container, lines=lines))

    def events(self, since: float | None) -> Iterator[EngineEvent]:
        while not self._has_apps():
            time.sleep(POLL_SECONDS)  # there is nothing to watch before the first container is made
        sock = self._connect()
        with contextlib.closing(sock):
            self._send(sock, {"do": "watch", "since": since})
            sock.settimeout(None)
            for message in _lines(sock):
                if "event" in message and message["event"]["labels"].get(labels.DAEMON) == self._daemon:
                    yield msgspec.convert(message["event"], EngineEvent)
        raise EngineUnreachable("the keeper has gone")

    def close(self) -> None: ...

    def shutdown(self) -> None:
        """Stop every host process of ours, then the keeper. For a daemon that ends for good."""
        if not (self._folder / "keeper.sock").exists():
            return
        running = [c for c in self.containers() if c.state in ("running", "paused")]
        socks = []
        for container in running:
            sock = self._connect()
            stop = {"do": "stop", "container": container.id, "signal": "SIGTERM", "grace": STOP_SECONDS, "rest": True}
            self._send(sock, stop)
            socks.append(sock)
        for sock in socks:
            with contextlib.closing(sock):
                sock.settimeout(STOP_SECONDS + 5.0)
                next(_lines(sock), None)
        with contextlib.suppress(Conflict):  # another daemon's apps run in it
            self._ask("shutdown")

    # -- the keeper --------------------------------------------------------------------------------

    def _has_apps(self) -> bool:
        folder = self._folder / "apps"
        return folder.is_dir() and any(folder.iterdir())

    def _ask(self, verb: str, *, wait: float = 0.0, **values: Any) -> Any:
        sock = self._connect()
        with contextlib.closing(sock):
            sock.settimeout(CALL_SECONDS + wait)
            self._send(sock, {"do": verb, **values})
            answer = next(_lines(sock), None)
        if answer is None:
            raise EngineUnreachable("the keeper ended the connection")
        if "error" in answer:
            raise _ERRORS.get(answer["error"], EngineError)(answer["detail"])
        return answer["ok"]

    def _send(self, sock: socket.socket, message: dict[str, Any]) -> None:
        try:
            sock.sendall(json.dumps({"id": next(self._ids), "daemon": self._daemon, **message}).encode() + b"\n")
        except OSError as error:
            raise EngineUnreachable(f"the keeper does not answer: {error}") from error

    def _connect(self) -> socket.socket:
        path = self._folder / "keeper.sock"
        try:
            return connect_unix(path)
        except OSError:
            self._spawn()
        deadline = time.monotonic() + SPAWN_SECONDS
        while True:
            try:
                return connect_unix(path)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise EngineUnreachable(f"the keeper does not answer; see {self._folder / 'keeper.log'}") from error
                time.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Two at once do no harm: a keeper that finds another one ends."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [sys.executable, "-I", "-S", str(KEEPER), "--role=keeper", f"--state-dir={self._state_dir}"]
        with open_log(self._folder / "keeper.log") as output:
            return start_outliving(command, output, child_environment())

    def _status(self, view: dict[str, Any]) -> ContainerStatus:
        running = view["state"] in ("running", "paused")
        return msgspec.convert({**view, "address": "127.0.0.1" if running else None}, ContainerStatus)


def _lines(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """Messages of the keeper; ends with the connection."""
    pending = b""
    while True:
        try:
            data = sock.recv(1 << 18)
        except TimeoutError as error:
            raise EngineUnreachable("the keeper does not answer in time") from error
        except OSError as error:
            raise EngineUnreachable(f"the keeper does not answer: {error}") from error
        if not data:
            return
        pending += data
        *lines, pending = pending.split(b"\n")
        if len(pending) > MAX_ANSWER:
            raise EngineUnreachable("the keeper's answer is too long")
        for line in lines:
            yield json.loads(line)

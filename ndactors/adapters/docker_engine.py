"""``ndactors.ports.ContainerEngine`` on a Docker Engine, by the docker SDK."""

from __future__ import annotations

import os
import secrets
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
import urllib3

from ..core import containers as labels
from ..core.containers import ContainerSpec, ContainerStatus, EngineEvent, EngineInfo, ExecResult
from ..errors import Conflict, ContainerNotFound, EngineError, EngineUnreachable, ImageNotFound
from . import docker_create, docker_terminal, docker_view
from .docker_address import docker_address

CALL_SECONDS = 20.0
"""How long one call may take before the Engine counts as away."""
PROBE_SECONDS = 5.0
EXEC_OUTPUT_BYTES = 64 * 1024
ROWS_BYTES = 4 * 1024 * 1024
LAST_ROWS = 2000
CHECK = "NEXTDEPLOY_EXEC"
"""In the environment of what ``execute`` runs: how its processes are known."""
EVENTS = ["start", "die", "oom", "pause", "unpause", "destroy"]
T = TypeVar("T")


class DockerEngine:
    """``state_dir`` is where named volumes live. The client is made when it is first needed, so that an Engine that is
    away at the start is no different from one that goes away later."""

    name = "docker"

    def __init__(
        self, state_dir: Path, daemon_id: str, *, base_url: str | None = None, timeout: float = CALL_SECONDS
    ) -> None:
        self._volumes = state_dir / "volumes"
        self.daemon = self._daemon = daemon_id
        self._base_url = base_url or docker_address()
        self._timeout = timeout
        self._client: Any = None
        self._publish = False
        self._looked = False
        self._root = ""
        self._making_networks = threading.Lock()

    # -- the Engine --------------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        facts = self._ask(lambda api: api.info())
        if self.is_here and not self._looked:
            self._looked = True
            docker_terminal.end_leftovers(self.daemon)
        self._root = facts.get("DockerRootDir") or ""
        options = facts.get("SecurityOptions") or []
        rootless = any("rootless" in option for option in options)
        # where container addresses cannot be reached from here, a port on loopback is published instead
        self._publish = rootless or sys.platform != "linux" or "Desktop" in facts.get("OperatingSystem", "")
        return EngineInfo(
            name=self.name,
            version=facts.get("ServerVersion", ""),
            id=facts.get("ID", ""),
            live_restore=bool(facts.get("LiveRestoreEnabled")),
            rootless=rootless,
        )

    def containers(self) -> list[ContainerStatus]:
        own = {"label": f"{labels.DAEMON}={self._daemon}"}
        found = []
        for row in self._ask(lambda api: api.containers(all=True, filters=own)):
            try:
                found.append(self.inspect(row["Id"]))
            except ContainerNotFound:
                continue  # removed between the listing and the look
        return found

    def inspect(self, container: str) -> ContainerStatus:
        facts = self._ask(lambda api: api.inspect_container(container))
        status = docker_view.status(facts, published=self._publish, root=self._root)
        if status.labels.get(labels.DAEMON) != self._daemon:
            raise ContainerNotFound(f"{container[:12]} is not one of ours")
        return status

    def events(self, since: float | None) -> Iterator[EngineEvent]:
        own = {"label": f"{labels.DAEMON}={self._daemon}", "type": "container", "event": EVENTS}
        start = None if since is None else f"{since:.6f}"
        stream = self._ask(lambda api: api.events(since=start, filters=own, decode=True))
        while True:
            # the stream of an Engine that dies ends without an error
            fact = self._call(lambda: next(stream, None))
            if fact is None:
                raise EngineUnreachable("the Engine's event stream ended")
            event = docker_view.event(fact)
            if event is not None:
                yield event

    @property
    def is_here(self) -> bool:
        """Its containers' processes are this machine's, and ours to end."""
        return sys.platform == "linux" and os.geteuid() == 0 and self._base_url.startswith("unix:")

    def ask(self, call: Callable[[Any], T]) -> T:
        """``call`` with the SDK's client, its errors made ours."""
        return self._ask(call)  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- one container -----------------------------------------------------------------------------

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        port = self._port(spec)
        body = docker_create.body(spec, port, self._volumes, publish=self._publish)
        for volume in spec.volumes:
            if volume.is_named:
                (self._volumes / spec.labels[labels.PROJECT] / volume.source).mkdir(parents=True, exist_ok=True)
            elif not Path(volume.source).exists():
                Path(volume.source).mkdir(parents=True)
        with self._making_networks:  # two at once would make two of one name, which the Engine allows
            for network in filter(None, (spec.network, *spec.networks)):
                self._ensure_network(network, spec)
        created = self._create_named(spec.name, body)
        try:
            for network in spec.networks:
                self._ask(lambda api, to=network: api.connect_container_to_network(created, to))
            return self.inspect(created)
        except BaseException:
            self._ask(lambda api: api.remove_container(created, force=True))
            raise

    def start(self, container: str) -> ContainerStatus:
        before = self.inspect(container)
        if before.state == "paused":
            self._ask(lambda api: api.unpause(container))
        self._ask(lambda api: api.start(container))
        return self.inspect(container)

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        status = self.inspect(container)
        if status.state == "paused":
            self._ask(lambda api: api.unpause(container))
        elif status.state != "running":
            return
        if not self._signal(container, signal) or self._ended_within(container, grace):
            return
        self._signal(container, "SIGKILL")
        self._ended_within(container, PROBE_SECONDS)

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        self.inspect(container)
        self._signal(container, signal)

    def remove(self, container: str) -> None:
        try:
            self.inspect(container)
            self._ask(lambda api: api.remove_container(container, force=True, v=True))
        except ContainerNotFound:
            return  # which is what was wanted; a stranger's is not touched either

    def execute(self, container: str, argv: tuple[str, ...], timeout: float) -> ExecResult:
        self.inspect(container)
        mark = f"{CHECK}={secrets.token_hex(8)}"
        made = self._ask(lambda api: api.exec_create(container, list(argv), environment=[mark]))["Id"]
        sock, early = self._ask(lambda api: docker_terminal.attach(api, made, tty=False))
        output, in_time = _read_frames(sock, early, time.monotonic() + timeout)
        sock.close()
        facts = self._ask(lambda api: api.exec_inspect(made))
        if not in_time and facts.get("Running"):
            if self.is_here:
                docker_terminal.end_session(facts.get("Pid") or 0, mark, 0.0)
            return ExecResult(exit_code=124, output=output)
        deadline = time.monotonic() + PROBE_SECONDS
        while facts.get("ExitCode") is None and time.monotonic() < deadline:
            facts = self._ask(lambda api: api.exec_inspect(made))
        code = facts.get("ExitCode")
        return ExecResult(exit_code=124 if code is None else code, output=output)

    def terminal(
        self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int
    ) -> docker_terminal.DockerTerminal:
        if self.inspect(container).state != "running":
            raise Conflict(f"{container[:12]} does not run, or is frozen")
        return docker_terminal.DockerTerminal(self, container, argv, tty=tty, rows=rows, columns=columns)

    def output(self, container: str, lines: int) -> list[str]:
        self.inspect(container)
        raw = self._ask(lambda api: api.logs(container, stdout=True, stderr=True, tail=lines))
        return bytes(raw).decode("utf-8", "replace").splitlines()[-lines:]

    def output_since(self, container: str, since: float, lines: int) -> list[str]:
        """The last of its lines from ``since`` (Unix seconds) on, each with its time in front."""
        self.inspect(container)
        options: dict[str, Any] = {"since": since} if since > 0 else {}
        raw = self._ask(
            lambda api: api.logs(container, stdout=True, stderr=True, timestamps=True, tail=lines, **options)
        )
        return bytes(raw).decode("utf-8", "replace").removesuffix("\n").split("\n") if raw else []

    def output_rows(self, container: str, since: str) -> tuple[tuple[str, str, str], ...]:
        """What it printed from ``since`` (RFC 3339; empty: its start) on, as pieces of lines: time, stream, text; at most
        some ``ROWS_BYTES``."""
        self.inspect(container)
        moment = docker_view.seconds(since)
        # the Engine finds the last lines at once, but reads everything to find those since a moment
        for tail in (LAST_ROWS, "all"):
            if tail != "all" and not moment:
                continue
            options: dict[str, Any] = {"tail": tail}
            if moment and tail == "all":
                # a float has no room for nanoseconds: what comes twice is left out by who asks
                options["since"] = f"{moment - 1e-6:.6f}"
            found = self._ask(lambda api, options=options: _rows(api, container, options))
            if found and (found[0][0] <= since or len(found) < LAST_ROWS):
                break
        return tuple(found)

    # -- small steps -------------------------------------------------------------------------------

    def _port(self, spec: ContainerSpec) -> int:
        image = self._ask(lambda api: api.inspect_image(spec.image or ""))
        if spec.port is not None:
            return spec.port
        exposed = [port for port in ((image.get("Config") or {}).get("ExposedPorts") or {}) if port.endswith("/tcp")]
        return int(exposed[0].partition("/")[0]) if len(exposed) == 1 else docker_create.DEFAULT_PORT

    def _create_named(self, name: str, body: dict[str, Any]) -> str:
        def post(name: str) -> str:
            return str(self._ask(lambda api: api.create_container_from_config(body, name))["Id"])

        try:
            return post(name)
        except Conflict:
            taken = self._ask(lambda api: api.inspect_container(name))
            theirs = taken["Config"].get("Labels") or {}
            whose = (labels.DAEMON, labels.APP, labels.PROCESS)
            if all(theirs.get(label) == body["Labels"].get(label) for label in whose):
                raise
            # `a` has a process `b-web`, or `a-b` one called `web`: the same name, of somebody else
            return post(f"{name}-{self._daemon[:6]}")

    def _ensure_network(self, name: str, spec: ContainerSpec) -> None:
        if any(row["Name"] == name for row in self._ask(lambda api: api.networks(names=[name]))):
            return
        own = {key: spec.labels[key] for key in (labels.PROJECT, labels.DAEMON)}
        try:
            self._ask(lambda api: api.create_network(name, driver="bridge", labels=own, check_duplicate=True))
        except Conflict:
            return  # somebody made it meanwhile

    def _signal(self, container: str, signal: str) -> bool:
        """False if it does not run any more."""
        try:
            self._ask(lambda api: api.kill(container, signal))
        except (Conflict, EngineError) as error:
            if isinstance(error, (EngineUnreachable, ContainerNotFound)) or "is not running" not in str(error):
                raise
            return False
        return True

    def _ended_within(self, container: str, seconds: float) -> bool:
        try:
            self._client_now().wait(container, timeout=max(0.1, seconds))
        except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError) as error:
            if isinstance(error, requests.exceptions.ReadTimeout) or "Read timed out" in str(error):
                return False
            raise EngineUnreachable(_words(error)) from error
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError as error:
            raise _translated(error) from error
        return True

    def _client_now(self) -> Any:
        if self._client is None:
            self._client = self._call(
                lambda: docker.APIClient(base_url=self._base_url, version="auto", timeout=self._timeout)
            )
        return self._client

    def _ask(self, call: Callable[[Any], Any]) -> Any:
        api = self._client_now()
        return self._call(lambda: call(api))

    def _call(self, call: Callable[[], T]) -> T:
        """The one place where the SDK's exceptions become ours."""
        try:
            return call()
        except docker.errors.APIError as error:
            raise _translated(error) from error
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            OSError,
            ValueError,
        ) as error:
            raise EngineUnreachable(f"the Docker Engine does not answer: {_words(error)}") from error


def _translated(error: docker.errors.APIError) -> Exception:
    words = str(error.explanation or error)[:500]
    if isinstance(error, docker.errors.ImageNotFound) or "No such image" in words:
        return ImageNotFound(f"{words}; pull or build it first")
    if isinstance(error, docker.errors.NotFound) and "No such container" in words:
        return ContainerNotFound(words)
    status = error.response.status_code if error.response is not None else 0
    if status == 409 and "is not running" not in words:
        return Conflict(words)
    return EngineError(words)


def _rows(api: Any, container: str, options: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Both streams in one answer, as only so they are in the order in which they were written (Docker API, "stream
    format"; the SDK's own method leaves out which stream it is)."""
    asked = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": 0, **options}
    response = api._get(api._url("/containers/{0}/logs", container), params=asked, stream=True)
    api._raise_for_status(response)
    found: list[tuple[str, str, str]] = []
    pending, size = bytearray(), 0
    with response:
        for data in response.iter_content(65536):
            pending += data
            while len(pending) >= 8:
                (length,) = struct.unpack_from(">I", pending, 4)
                if len(pending) < 8 + length:
                    break
                time, _, text = pending[8 : 8 + length].decode("utf-8", "replace").partition(" ")
                found.append((time, "stderr" if pending[0] == 2 else "stdout", text))
                size += length
                del pending[: 8 + length]
            if size > ROWS_BYTES:
                break
    return found


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _read_frames(sock: Any, early: bytes, deadline: float) -> tuple[str, bool]:
    """What an exec prints, both streams (Docker API, "stream format": 1 byte stream, 3 zero, 4 length, payload); the
    first ``EXEC_OUTPUT_BYTES`` are kept. False if the deadline came before its end."""
    pending, kept, data = bytearray(), bytearray(), early
    while True:
        pending += data
        while len(pending) >= 8:
            (length,) = struct.unpack_from(">I", pending, 4)
            if len(pending) < 8 + length:
                break
            room = EXEC_OUTPUT_BYTES - len(kept)
            kept += pending[8 : 8 + min(length, max(0, room))]
            del pending[: 8 + length]
        left = deadline - time.monotonic()
        if left <= 0:
            return kept.decode("utf-8", "replace"), False
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        except TimeoutError:
            return kept.decode("utf-8", "replace"), False
        except OSError as error:
            raise EngineUnreachable(f"the Docker Engine does not answer: {_words(error)}") from error
        if not data:
            return kept.decode("utf-8", "replace"), True

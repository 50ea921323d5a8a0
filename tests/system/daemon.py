"""A daemon as its users run it: a process of its own, with a file, an address and an API."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PASSWORD = "test-password"


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
            value = condition()
            if value:
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came true")
        time.sleep(0.05)


class Daemon:
    """``config`` is written to a file; edge and API take free ports, read from what the daemon prints."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        inside: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.inside = list(inside)
        self.environment = environment or {}
        self.config = {
            "version": "1.0",
            "project": "test",
            "state_dir": str(folder / "state"),
            "edge": {"http": "127.0.0.1:0", "workers": 2},
            "admin": {"listen": "127.0.0.1:0"},
            **config,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.program = [sys.executable, "-m", "ndactors"]
        self.admin = self.http = ""
        self.write()

    def write(self) -> None:
        (self.folder / "nextdeploy.yml").write_text(yaml.safe_dump(self.config))

    def start(self, *arguments: str, wait: bool = True) -> None:
        self.out = self.folder / f"out-{time.time_ns()}"
        command = [*self.inside, *self.program, f"--config={self.folder}/nextdeploy.yml", *arguments]
        environment = {**os.environ, "NEXTDEPLOY_ADMIN_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT), **self.environment}
        with self.out.open("wb") as out, (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=out, stderr=log, env=environment, cwd=self.folder)
        if wait:
            self.admin = until(lambda: self._told("dashboard:"), 30, "the dashboard's address")
            self.http = self._told("apps:")

    def _told(self, word: str) -> str:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(
                f"the daemon ended ({self.process.returncode}): {(self.folder / 'log').read_text()[-3000:]}"
            )
        rows = [line.split()[1] for line in self.out.read_text().splitlines() if line.startswith(word)]
        return rows[0].rstrip("/") if rows else ""

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(70)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def close(self) -> None:
        """End everything of it, edge and host processes included, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        for role in ("edge", "edge-worker", "keeper", "logs", "log-opener", "log-reader", "log-outlets"):
            for pid in self.pids(role):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # -- looking -----------------------------------------------------------------------------------

    def pids(self, role: str) -> list[int]:
        """Our processes of one role, by command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if f"--role={role}".encode() in words and f"--state-dir={self.folder}/state".encode() in words:
                        found.append(int(entry.name))
        return sorted(found)

    def api(self, path: str, *, user: str = "admin", password: str = PASSWORD, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.admin}{path}", method=method)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        if self.inside:
            return self._api_inside(path, token)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read())

    def post(self, path: str, body: Any = None, *, method: str = "POST", token: str | None = None) -> Any:
        """Send JSON, get JSON; ``urllib.error.HTTPError`` for a refusal."""
        data = json.dumps(body if body is not None else {}).encode()
        request = urllib.request.Request(f"{self.admin}{path}", data=data, method=method)
        basic = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Bearer {token}" if token is not None else basic)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=310) as response:
            return json.loads(response.read())

    def _api_inside(self, path: str, token: str) -> Any:
        """Over the control socket, which is a file and so reaches over network namespaces."""
        import http.client
        import socket

        connection = http.client.HTTPConnection("control")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.folder / "state" / "control.sock"))
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def status_of(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"{self.admin}{path}", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def containers(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.api("/api/v1/containers")["items"]}

    def events(self, kind: str) -> list[dict[str, Any]]:
        return list(self.api(f"/api/v1/events?kind={kind}&limit=1000")["items"])

    def wait_ready(self, seconds: float = 60.0) -> None:
        until(lambda: self.status_of("/readyz") == 200, seconds, "readiness")

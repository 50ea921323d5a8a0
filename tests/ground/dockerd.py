"""Docker Engines for tests: the one that answers, one of the session's own, and private ones that may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import docker

DAEMON_LABEL = "nextdeploy.daemon"


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


def answers(address: str) -> bool:
    try:
        client = docker.APIClient(base_url=address, timeout=5)
        client.version()
        client.close()
    except (docker.errors.DockerException, OSError):
        return False
    return True


def answering() -> str | None:
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    return address if answers(address) else None


class OwnDockerd:
    """The machine's Engine, started for these tests and stopped after them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nextdeploy-dockerd-"))
        self.address = "unix:///var/run/docker.sock"
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={self.folder}/data",
                f"--exec-root={self.folder}/exec",
                f"--pidfile={self.folder}/pid",
            ],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        wait_until(lambda: answers(self.address) or self.process.poll() is not None, 60, "dockerd's answer")

    def stop(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_own() -> OwnDockerd | None:
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        return None
    own = OwnDockerd()
    if own.process.poll() is not None:
        print((own.folder / "log").read_text()[-2000:])
        return None
    return own


class PrivateDockerd:
    """A test's own Engine in its own network namespace, which may be killed, frozen and started again. Whatever is to
    reach its containers runs in the same namespace: put ``inside`` before its command line."""

    def __init__(self, *, live_restore: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nd-dockerd-"))
        self.address = f"unix://{self.folder}/docker.sock"
        self.live_restore = live_restore
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
        self.inside = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own, 10, "the network namespace")
        subprocess.run([*self.inside, "ip", "link", "set", "lo", "up"], check=True)
        self.process: subprocess.Popen[bytes] | None = None
        # a service of its own, as on every distribution: it does not fall with dockerd
        command = [
            *(*self.inside, "containerd", f"--root={self.folder}/containerd", f"--state={self.folder}/containerd-run"),
            f"--address={self.folder}/containerd.sock",
        ]
        with (self.folder / "containerd.log").open("ab") as log:
            self._containerd = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until((self.folder / "containerd.sock").exists, 30, "containerd's socket")
        self.start()

    def start(self) -> None:
        for stale in ("docker.pid", "docker.sock"):
            (self.folder / stale).unlink(missing_ok=True)
        command = [
            *(*self.inside, "dockerd", f"--host={self.address}", f"--data-root={self.folder}/data"),
            *(f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/docker.pid", "--bip=172.31.0.1/24"),
            f"--containerd={self.folder}/containerd.sock",
        ]
        if self.live_restore:
            command.append("--live-restore")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: answers(self.address), 60, f"an answer of the private dockerd ({self.folder}/log)")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            with contextlib.suppress(docker.errors.DockerException, OSError):
                client = docker.APIClient(base_url=self.address, timeout=20)
                for row in client.containers(all=True):
                    client.remove_container(row["Id"], force=True)
                client.close()
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._containerd.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._containerd.wait(10)
        self._kill_leftovers()
        self._holder.kill()
        self._holder.wait()
        for mount in sorted(_mounts_below(self.folder), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _kill_leftovers(self) -> None:
        """containerd and shims of ours, known by this folder in their command line."""
        mark = os.fsencode(self.folder)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "cmdline").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)


def _mounts_below(folder: Path) -> list[str]:
    return [
        line.split()[1]
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[1].startswith(f"{folder}/")
    ]


def remove_all(address: str, daemon_id: str) -> None:
    """Everything that carries the label of one daemon of a test."""
    client = docker.APIClient(base_url=address, timeout=60)
    own = {"label": f"{DAEMON_LABEL}={daemon_id}"}
    for row in client.containers(all=True, filters=own):
        with contextlib.suppress(docker.errors.NotFound):
            client.remove_container(row["Id"], force=True, v=True)
    for row in client.networks(filters=own):
        client.remove_network(row["Id"])
    for row in client.volumes(filters=own).get("Volumes") or []:
        client.remove_volume(row["Name"], force=True)
    client.close()

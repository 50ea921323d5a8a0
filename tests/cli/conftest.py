"""The client as its users run it: a process with its own home folder, against a small server that is in the tests."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from double import Double, serving
from real import Daemon, running

from ndactors.cli.main import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def variables(home: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NEXTDEPLOY_", "XDG_", "GIT_", "PYTHON"))
    }
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    return folder


Run = Callable[..., Done]


@pytest.fixture
def run(variables: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("status", input=…, env={…}, cwd=…)``: in this process, which is quick."""

    def call(*words: str, input: str = "", env: dict[str, str] | None = None, cwd: Path | None = None) -> Done:
        with monkeypatch.context() as patch:
            for name in os.environ:
                patch.delenv(name)
            for name, value in {**variables, **(env or {})}.items():
                patch.setenv(name, value)
            patch.chdir(cwd or project)
            out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode()), "utf-8"))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "excepthook", sys.excepthook)
            code = main(list(words))
            return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))

    return call


@pytest.fixture
def process(variables: dict[str, str], project: Path) -> Run:
    """The same as a process of its own."""

    def call(*words: str, input: str = "", env: dict[str, str] | None = None, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "ndactors.cli", *words],
            input=input.encode(),
            env={**variables, **(env or {})},
            cwd=cwd or project,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return call


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def local(double: Double, tmp_path: Path, variables: dict[str, str]) -> Iterator[str]:
    """The double is the daemon on this machine."""
    state = tmp_path / "state"
    variables["NEXTDEPLOY_STATE_DIR"] = str(state)
    with serving(double, state / "control.sock") as address:
        yield address


@dataclass(frozen=True)
class Terminal:
    """A client whose stdin, stdout and stderr are a terminal."""

    process: subprocess.Popen[bytes]
    master: int

    def read_until(self, text: str, seconds: float = 20.0) -> str:
        seen = b""
        deadline = time.monotonic() + seconds
        while text.encode() not in seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came: {seen.decode()!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    piece = os.read(self.master, 65536)
                except OSError:
                    piece = b""
                assert piece, f"{text!r} never came: {seen.decode()!r}"
                seen += piece
        return seen.decode()

    def rest(self, seconds: float = 20.0) -> str:
        """Everything until its end."""
        seen = b""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    piece = os.read(self.master, 65536)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece
        self.process.wait(10)
        return seen.decode()

    def write(self, text: str) -> None:
        os.write(self.master, text.encode())


@pytest.fixture
def terminal(variables: dict[str, str], project: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*words: str, **more: str) -> Terminal:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "ndactors.cli", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**variables, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", **more},
            cwd=project,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        made.append(Terminal(process, master))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        os.close(each.master)


def _take_terminal() -> None:
    """Ctrl-C typed at the other side reaches us as from a keyboard."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A whole daemon whose app runs on the process engine."""
    with running(tmp_path_factory.mktemp("real")) as daemon:
        yield daemon


@pytest.fixture
def at_real(real: Daemon, variables: dict[str, str]) -> Daemon:
    """It is the daemon on this machine."""
    variables["NEXTDEPLOY_STATE_DIR"] = str(real.folder / "state")
    return real


@pytest.fixture
def fake_ssh(tmp_path: Path, variables: dict[str, str]) -> Path:
    """An ``ssh`` that runs what it is told to on this machine; what it was told is in the file."""
    told = tmp_path / "ssh-told"
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "ssh"
    script.write_text(f'#!/bin/sh\necho "$@" >> {told}\nwhile [ "$1" != -- ]; do shift; done\nshift 2\nexec "$@"\n')
    client = tmp_path / "bin" / "nextdeploy"
    client.write_text(f'#!/bin/sh\nexec {sys.executable} -m ndactors.cli "$@"\n')
    for each in (script, client):
        each.chmod(0o755)
    variables["PATH"] = f"{tmp_path / 'bin'}:{variables['PATH']}"
    return told

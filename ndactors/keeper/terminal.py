"""Terminals in apps: a process beside an app's own, with its streams handed to whoever asked, as long as they hold on. Part
of the keeper."""

import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import termios
from functools import partial

from app import App, become
from verbs import Refusal

PATIENCE_SECONDS = 0.5
"""Between the polite end of a terminal's processes and the other one."""


class Terminals:
    """One verb. The connection that asked is the terminal's: its end is the end of the process, whose own end is told
    there. The descriptors of the streams travel with the answer: the terminal, or stdin, stdout and stderr."""

    def _do_terminal(self, request: dict, reply, peer) -> None:
        app: App = self._app(request)
        if app.state["state"] != "running" or app.is_stopped():
            raise Refusal("conflict", "it does not run, or is frozen")
        tty = bool(request["tty"])
        theirs, ours = _terminal(request["rows"], request["columns"]) if tty else _pipes()
        try:
            child = subprocess.Popen(
                request["argv"],
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                cwd=app.spec.get("workdir") or None,
                env={"TERM": "xterm", **app.environment(app.state["port"])},
                start_new_session=True,
                preexec_fn=partial(_become, app, app.ids(), theirs[0] if tty else None),
            )
        except OSError as error:
            _close(ours)
            code = 127 if error.errno == errno.ENOENT else 126
            reply({"exit_code": code, "output": f"{request['argv'][0]}: {error.strerror}\n"})
            return
        except subprocess.SubprocessError as error:
            _close(ours)
            raise Refusal("failed", "its limits, user or terminal cannot be set") from error
        finally:
            _close(set(theirs))
        child.returncode = 0  # it is reaped by the keeper's loop, not by this object
        self.execs[child.pid] = lambda code: self._terminal_ended(request, peer, code)
        peer.gone = lambda: self._hang_up(child.pid)
        line = f'{{"id": {int(request["id"])}, "ok": {{}}}}\n'
        try:
            socket.send_fds(peer.sock, [line.encode()], ours)
        except OSError:
            self._drop(peer)
        finally:
            _close(ours)

    def _terminal_ended(self, request: dict, peer, code: int) -> None:
        peer.gone = None
        self._send(peer, {"id": request["id"], "exit_code": code})

    def _hang_up(self, leader: int) -> None:
        """Whoever talked to it has gone."""
        for number in (signal.SIGHUP, signal.SIGCONT):
            _signal(leader, number)
        self.after(PATIENCE_SECONDS, lambda: _signal(leader, signal.SIGKILL))


def _terminal(rows: int, columns: int) -> tuple:
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", int(rows), int(columns), 0, 0))
    return [theirs] * 3, [ours]


def _pipes() -> tuple:
    (stdin, to), (out, stdout), (err, stderr) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    return [stdin, stdout, stderr], [to, out, err]


def _become(app: App, ids, terminal) -> None:
    """In the child, before it becomes the command: into the app's control groups and limits, then its user."""
    pid = app.state["pid"]
    for path in _groups(pid):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
    if os.geteuid() != 0:
        resource.setrlimit(resource.RLIMIT_DATA, resource.prlimit(pid, resource.RLIMIT_DATA))
    if terminal is not None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if ids is not None:
            os.fchown(0, ids[0], -1)
    become(ids)


def _groups(pid: int) -> list:
    """Where a process is put to join the control groups of ours that ``pid`` is in (cgroups(7))."""
    found = []
    with open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "/nextdeploy/" in path:
                own = path[path.index("/nextdeploy/") :]
                found.append(f"/sys/fs/cgroup/{controllers}{own}/cgroup.procs".replace("//", "/"))
    return [path for path in found if os.path.exists(path)]


def _signal(leader: int, number: int) -> None:
    """To every process of the session that it began."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[3]) == leader:
                    os.kill(int(name), number)
            except (OSError, IndexError):
                continue  # it has ended


def _close(descriptors) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""One app of the keeper: its folder, its processes, its output.

Its stdout and stderr are FIFOs that the app itself holds open for reading and writing. So when the keeper dies, the app
gets no SIGPIPE; what it prints waits in the FIFO, and the next keeper reads on. Only what waits there is lost if the app
ends too before there is a next keeper: the kernel drops a FIFO's content with its last descriptor."""

import fcntl
import grp
import json
import os
import pwd
import signal
import subprocess
import time

from jsonlog import JsonLog
from limits import Group

MARK = "NEXTDEPLOY_CONTAINER"
"""In the environment of every process of an app: how those that left its process group are found."""
PIPE_BYTES = 1024 * 1024
STAT_BYTES = 4096
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR")


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


BOOT = boot_id()


def started(pid: int):
    """The start time of a process in clock ticks since boot (proc(5), field 22), None if there is none or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def state_of(pid: int) -> bytes:
    """One letter, as proc(5) has them; empty: it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].strip()[:1]


def children(pid: int) -> list:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _read(path: str) -> bytes:
    try:
        # once a second for every app: a file object would take three more calls
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, STAT_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def write_atomically(path: str, value) -> None:
    temporary = f"{path}.{os.urandom(4).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def undisturbed() -> None:
    """In a child: what the keeper ignores is not ignored by what it starts."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def become(ids) -> None:
    """In a child, when everything that takes root is done. ``ids`` None: it stays who it is."""
    undisturbed()
    if ids is not None:
        uid, gid = ids
        os.setgroups([])
        if gid is not None:
            os.setgid(gid)
        os.setuid(uid)


class App:
    """``state``: created, running, exited. ``pid`` with ``ticks`` and ``boot`` says which process it is, for ever."""

    def __init__(self, folder: str, spec: dict, state: dict) -> None:
        self.folder = folder
        self.id = os.path.basename(folder)
        self.spec = spec
        self.state = state
        self.group = None
        self.ours = False
        """True if the process is our child: only then its exit code can be known."""
        rotate = spec["rotate"]
        self.log_path = os.path.join(folder, "output-json.log")
        self.log = JsonLog(self.log_path, rotate["size"], rotate["files"])
        self.pipes = {}
        for stream in ("stdout", "stderr"):
            path = os.path.join(folder, stream)
            if not os.path.exists(path):
                os.mkfifo(path, 0o600)
            self.pipes[stream] = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @classmethod
    def create(cls, parent: str, spec: dict) -> "App":
        folder = os.path.join(parent, os.urandom(16).hex())
        os.mkdir(folder, 0o700)
        write_atomically(os.path.join(folder, "spec.json"), spec)
        app = cls(folder, spec, {"state": "created", "created": time.time()})
        app.save()
        return app

    @classmethod
    def load(cls, folder: str) -> "App":
        """``ValueError`` if its files are damaged."""
        try:
            with open(os.path.join(folder, "spec.json")) as file:
                spec = json.load(file)
            with open(os.path.join(folder, "state.json")) as file:
                state = json.load(file)
            if not isinstance(spec["labels"], dict) or state["state"] not in ("created", "running", "exited"):
                raise ValueError("a field is wrong")
            return cls(folder, spec, state)
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from error

    def save(self) -> None:
        write_atomically(os.path.join(self.folder, "state.json"), self.state)

    def is_alive(self) -> bool:
        """The very process we started still runs (not another one that got its number)."""
        pid = self.state.get("pid")
        return bool(pid) and self.state.get("boot") == BOOT and started(pid) == self.state.get("ticks")

    def is_stopped(self) -> bool:
        """It is stopped by a signal: it is frozen. While it waits for a child to become a program, as shells do (vfork(2)),
        it stays in that wait, and the child is what has stopped."""
        state = state_of(self.state["pid"])
        if state == b"D":
            return any(state_of(child) == b"T" for child in children(self.state["pid"]))
        return state == b"T"

    # -- running -----------------------------------------------------------------------------------

    def start(self, port: int) -> None:
        """``OSError`` in plain words if it cannot be started."""
        spec, limits = self.spec, self.spec["resources"]
        command = spec["command"]
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        entrypoint = spec.get("entrypoint")
        if entrypoint:
            argv = (entrypoint.split() if isinstance(entrypoint, str) else list(entrypoint)) + (
                argv if not isinstance(command, str) else command.split()
            )
        self.group = Group(self.id[:16], limits["cpus"], limits["memory"], limits["pids"])
        ids, streams = self.ids(), {}
        try:
            for stream in ("stdout", "stderr"):
                # opened for reading too: the app is its own reader, so our death is no broken pipe to it
                streams[stream] = os.open(os.path.join(self.folder, stream), os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.fcntl(streams[stream], 1031, PIPE_BYTES)  # F_SETPIPE_SZ
                except OSError:
                    continue  # over the user's quota: the usual 64 KiB do too
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=streams["stdout"],
                stderr=streams["stderr"],
                cwd=spec.get("workdir") or None,
                env=self.environment(port),
                start_new_session=True,
                close_fds=True,
                preexec_fn=lambda: (self.group.enter(), become(ids)),
            )
        except subprocess.SubprocessError as error:
            raise OSError(0, f"its limits cannot be set: {error}") from error
        finally:
            for descriptor in streams.values():
                os.close(descriptor)
        child.returncode = 0  # it is reaped by the keeper's loop, not by this object
        self.ours = True
        self.state = {
            **self.state,
            "state": "running",
            "pid": child.pid,
            "ticks": started(child.pid),
            "boot": BOOT,
            "port": port,
            "started": time.time(),
            "finished": None,
            "exit_code": None,
            "oom": False,
        }
        self.save()

    def environment(self, port: int) -> dict:
        kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        return {**kept, "PORT": str(port), **self.spec["env"], MARK: self.id}

    def ids(self):
        """Its user and group as numbers, None if it runs as we do; the group is None if it stays. ``OSError`` in plain
        words if there is none of that name."""
        try:
            given = self._user()
            if not given:
                return None
            user, group = given["user"], given.get("group")
            uid = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
            return uid, group if group is None or isinstance(group, int) else grp.getgrnam(group).gr_gid
        except KeyError as error:
            raise OSError(0, f"there is no such user or group: {self.spec['user']}") from error

    def _user(self) -> dict:
        name = self.spec.get("user")
        if not name or os.geteuid() != 0:
            return {}
        user, _, group = str(name).partition(":")
        given = {"user": int(user) if user.isdigit() else user, "extra_groups": []}
        if group:
            given["group"] = int(group) if group.isdigit() else group
        elif not user.isdigit():
            given["group"] = pwd.getpwnam(user).pw_gid
        return given

    def drain(self, stream: str, limit: int = 1 << 20) -> None:
        """Read what is in the FIFO, up to ``limit`` bytes at once, so that one app does not starve the others."""
        while limit > 0:
            try:
                data = os.read(self.pipes[stream], 65536)
            except (BlockingIOError, InterruptedError):
                return
            limit -= len(data)
            self.log.feed(stream, data)

    def ended(self, exit_code) -> None:
        """Its process is over: the rest of its processes go, its last output is kept. The caller saves."""
        self.kill_all(signal.SIGKILL)
        for stream in self.pipes:
            self.drain(stream, 64 << 20)
        self.log.finish()
        oom = self.group.killed_for_memory() if self.group is not None else False
        if self.group is not None:
            self.group.remove()
        self.state = {**self.state, "state": "exited", "exit_code": exit_code, "finished": time.time(), "oom": oom}
        self.state["pid"] = None

    def signal(self, number: int) -> None:
        """To its process group, if the process is still ours."""
        if self.is_alive():
            try:
                os.killpg(self.state["pid"], number)
            except (ProcessLookupError, PermissionError):
                return  # it ended just now, or became somebody else by its own doing

    def kill_all(self, number: int) -> None:
        """To every process that carries its mark, until there is none: some leave the group, some fork meanwhile."""
        for _ in range(20):
            found = self.processes()
            if not found:
                return
            for pid in found:
                try:
                    os.kill(pid, number)
                except (ProcessLookupError, PermissionError):
                    continue
            time.sleep(0.005)

    def processes(self) -> list:
        mark = f"{MARK}={self.id}".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if mark in file.read().split(b"\0") and started(int(name)) is not None:
                            found.append(int(name))
                except OSError:
                    continue
        return found

    def close(self) -> None:
        for descriptor in self.pipes.values():
            os.close(descriptor)
        self.log.close()

    def view(self) -> dict:
        state = self.state
        now = state["state"]
        if now == "running" and self.is_stopped():
            now = "paused"
        return {
            "id": self.id,
            "name": self.spec["name"],
            "labels": self.spec["labels"],
            "state": now,
            "pid": state.get("pid") if now in ("running", "paused") else None,
            "exit_code": state.get("exit_code"),
            "oom_killed": bool(state.get("oom")),
            "started_at": state.get("started"),
            "finished_at": state.get("finished"),
            "port": state.get("port"),
            "log_path": self.log_path,
        }

"""What the daemon may ask of the keeper, one method each. Part of the keeper, which is the other half of it."""

import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

from app import App, undisturbed

EXEC_BYTES = 64 * 1024


class Refusal(Exception):
    """``kind``: not_found, conflict, invalid, failed."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Verbs:
    """Each method gets the request, ``reply`` for its answer, now or later, and the peer who asked."""

    def _app(self, request: dict) -> App:
        app = self.apps.get(request.get("container", ""))
        if app is None or app.spec["labels"].get("nextdeploy.daemon") != request.get("daemon"):
            raise Refusal("not_found", f"there is no container {str(request.get('container'))[:12]}")
        return app

    def _do_hello(self, request: dict, reply, peer) -> None:
        reply({"pid": os.getpid(), "python": sys.version.split()[0]})

    def _do_list(self, request: dict, reply, peer) -> None:
        own = request.get("daemon")
        reply([app.view() for app in self.apps.values() if app.spec["labels"].get("nextdeploy.daemon") == own])

    def _do_inspect(self, request: dict, reply, peer) -> None:
        reply(self._app(request).view())

    def _do_create(self, request: dict, reply, peer) -> None:
        spec = request["spec"]
        own = spec["labels"].get("nextdeploy.daemon")
        for other in self.apps.values():
            if other.spec["name"] == spec["name"]:
                if other.spec["labels"].get("nextdeploy.daemon") == own:
                    raise Refusal("conflict", f"the name {spec['name']} is taken")
                spec["name"] = f"{spec['name']}-{str(own)[:6]}"
                break
        app = App.create(self.apps_folder, spec)
        self.apps[app.id] = app
        reply(app.view())

    def _do_start(self, request: dict, reply, peer) -> None:
        app = self._app(request)
        if app.state["state"] == "running":
            if app.is_stopped():
                app.signal(signal.SIGCONT)
            reply(app.view())
            return
        port = app.spec.get("port") or free_port(app.state.get("port"))
        app.start(port)
        self.by_pid[app.state["pid"]] = app
        self._read_output(app)
        self._tell(app, "started")
        reply(app.view())

    def _do_stop(self, request: dict, reply, peer) -> None:
        app = self._app(request)
        if app.state["state"] != "running":
            reply(app.view())
            return
        if request.get("rest"):
            self.resting.add(app.id)
        pid, began = app.state["pid"], time.monotonic()
        app.signal(number_of(request["signal"]))
        app.signal(signal.SIGCONT)  # a frozen one could not obey

        def look() -> None:
            if app.state.get("pid") != pid:
                reply(app.view())
            elif time.monotonic() - began >= request["grace"]:
                app.signal(signal.SIGKILL)
                app.kill_all(signal.SIGKILL)
                self.after(0.02, look)
            else:
                self.after(0.02, look)

        self.after(0.005, look)

    def _do_kill(self, request: dict, reply, peer) -> None:
        app = self._app(request)
        app.signal(number_of(request["signal"]))
        reply(app.view())

    def _do_remove(self, request: dict, reply, peer) -> None:
        app = self.apps.get(request.get("container", ""))
        if app is None or app.spec["labels"].get("nextdeploy.daemon") != request.get("daemon"):
            reply(None)
            return

        def gone() -> None:
            if app.state["state"] == "running":
                app.kill_all(signal.SIGKILL)
                self.after(0.01, gone)
                return
            if self.apps.pop(app.id, None) is not None:
                app.close()
                from shutil import rmtree  # a third of a megabyte, until then

                rmtree(app.folder, ignore_errors=True)
                self._tell(app, "removed")
            reply(None)

        app.signal(signal.SIGKILL)
        gone()

    def _do_exec(self, request: dict, reply, peer) -> None:
        app = self._app(request)
        if app.state["state"] != "running":
            raise Refusal("failed", "it does not run")
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        try:
            child = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=app.spec.get("workdir") or None,
                env=app.environment(app.state["port"]),
                start_new_session=True,
                preexec_fn=undisturbed,
                **app._user(),
            )
        except OSError as error:
            os.close(reader)
            reply({"exit_code": 127 if error.errno == errno.ENOENT else 126, "output": error.strerror or ""})
            return
        finally:
            os.close(writer)
        child.returncode = 0
        kept, state = bytearray(), {"late": False, "done": False}

        def read() -> None:
            try:
                data = os.read(reader, 65536)
            except BlockingIOError:
                return
            if not data:
                self.selector.unregister(reader)
                return
            kept.extend(data[: EXEC_BYTES - len(kept)])

        def ended(code: int) -> None:
            state["done"] = True
            try:
                while True:
                    data = os.read(reader, 65536)
                    if not data:
                        break
                    kept.extend(data[: EXEC_BYTES - len(kept)])
            except BlockingIOError:
                pass  # a process it left behind still holds the other end
            try:
                self.selector.unregister(reader)
            except KeyError:
                pass  # its output had ended before
            os.close(reader)
            code = 124 if state["late"] else code
            reply({"exit_code": code, "output": bytes(kept).decode("utf-8", "replace")})

        def late() -> None:
            if not state["done"]:
                state["late"] = True
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    return  # it ended just now

        self.execs[child.pid] = ended
        self.selector.register(reader, selectors.EVENT_READ, read)
        self.after(float(request["timeout"]), late)

    def _do_output(self, request: dict, reply, peer) -> None:
        reply(self._app(request).log.tail(min(int(request["lines"]), 10_000)))

    def _do_watch(self, request: dict, reply, peer) -> None:
        since = request.get("since")
        reply(None)
        peer.watches = True
        self.watchers.append(peer)
        for event in self.events:
            if since is not None and event["ts"] >= since:
                self._send(peer, {"event": event})

    def _do_shutdown(self, request: dict, reply, peer) -> None:
        if any(app.state["state"] == "running" for app in self.apps.values()):
            raise Refusal("conflict", "apps run still")
        reply(None)
        self.over = True


def number_of(name: str) -> int:
    text = str(name).upper()
    if text.isdigit():
        return int(text)
    try:
        return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    except KeyError:
        raise Refusal("invalid", f"{name} is no signal") from None


def free_port(wanted) -> int:
    """A free port on loopback; the one it had before, if that is free still."""
    for port in filter(None, (wanted, 0)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return probe.getsockname()[1]
            except OSError:
                continue
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

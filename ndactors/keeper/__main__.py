"""The keeper: one loop over its socket, its apps' output and their ends. Every change is on disk before it is told."""

import ctypes
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from app import App
from terminal import Terminals
from verbs import Refusal, Verbs

MAX_REQUEST = 4 * 1024 * 1024
MAX_PEER_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 2000
FREEZE_SECONDS = 1.0
SAVE_AGAIN_SECONDS = 2.0
PR_SET_CHILD_SUBREAPER = 36


class Peer:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = b""
        self.outgoing = bytearray()
        self.watches = False
        self.gone = None
        """Called when it has gone."""


class Keeper(Verbs, Terminals):
    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(folder, "keeper")
        self.apps_folder = os.path.join(self.folder, "apps")
        os.makedirs(self.apps_folder, mode=0o700, exist_ok=True)
        self.lock = os.open(os.path.join(self.folder, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.selector = selectors.DefaultSelector()
        self.apps = {}
        self.by_pid = {}
        self.pidfds = {}
        self.execs = {}
        self.timers = []
        self.events = deque(maxlen=MAX_EVENTS)
        self.watchers = []
        self.frozen = set()
        self._looked = 0.0
        self.resting = set()
        self.over = False
        self._start_listening()
        self._watch_signals()
        # what apps leave behind when they fork twice comes to us, and is reaped
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._find_apps()

    def _start_listening(self) -> None:
        path = os.path.join(self.folder, "keeper.sock")
        here = os.open(self.folder, os.O_PATH | os.O_CLOEXEC)
        short = f"/proc/self/fd/{here}/.sock"
        for name in (path, os.path.join(self.folder, ".sock")):
            if os.path.exists(name):
                os.unlink(name)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(short)
        os.chmod(os.path.join(self.folder, ".sock"), 0o600)
        self.listener.listen(64)
        self.listener.setblocking(False)
        os.rename(os.path.join(self.folder, ".sock"), path)
        os.close(here)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wake = (reader, writer)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(reader, selectors.EVENT_READ, self._awake)

    def _find_apps(self) -> None:
        for name in sorted(os.listdir(self.apps_folder)):
            folder = os.path.join(self.apps_folder, name)
            if ".damaged" in name:
                continue
            try:
                app = App.load(folder)
            except ValueError as error:
                note(f"{folder} is damaged ({error}) and set aside")
                os.rename(folder, f"{folder}.damaged-{int(time.time())}")
                continue
            self.apps[app.id] = app
            if app.state["state"] != "running":
                continue
            self._read_output(app)
            if app.is_alive():
                self._watch_stranger(app)
            else:
                self._ended(app, None)  # it ended while nobody could see how
                self._tell(app, "died")

    def _watch_stranger(self, app: App) -> None:
        """A process that an earlier keeper started: its end can be seen, its exit code cannot."""
        descriptor = os.pidfd_open(app.state["pid"])
        self.pidfds[app.id] = descriptor
        self.selector.register(descriptor, selectors.EVENT_READ, lambda: self._stranger_ended(app))

    def _stranger_ended(self, app: App) -> None:
        self._forget_pidfd(app)
        self._ended(app, None)
        self._stop_reading(app)
        self._tell(app, "died")

    def _ended(self, app: App, code) -> None:
        """Put its end on record; with a full disk that is tried again until it works."""
        if app.state["state"] == "running":
            app.ended(code)
        if app.id in self.resting and app.state["state"] == "exited":
            # stopped by a daemon that ends in good order: the next one starts it as if it were new
            self.resting.discard(app.id)
            app.state["state"] = "created"
        self._save(app)

    def _save(self, app: App) -> None:
        if app.id not in self.apps:
            return
        try:
            app.save()
        except OSError as error:
            note(f"{app.id}: its state cannot be written ({error.strerror}); trying again")
            self.after(SAVE_AGAIN_SECONDS, lambda: self._save(app))

    def _forget_pidfd(self, app: App) -> None:
        descriptor = self.pidfds.pop(app.id, None)
        if descriptor is not None:
            self.selector.unregister(descriptor)
            os.close(descriptor)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> None:
        while not self.over:
            now = time.monotonic()
            due = [timer for timer in self.timers if timer[0] <= now]
            self.timers = [timer for timer in self.timers if timer[0] > now]
            for _, call in due:
                self._guard(call)
            patience = None
            if self.timers:
                patience = max(0.0, min(timer[0] for timer in self.timers) - time.monotonic())
            elif any(app.state["state"] == "running" for app in self.apps.values()) and self.watchers:
                patience = FREEZE_SECONDS
            for key, _ in self.selector.select(patience):
                self._guard(key.data)
            self._see_frozen()

    def _guard(self, call) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - one app's trouble must not end the others' keeper
            note(f"{type(error).__name__}: {error}")

    def after(self, seconds: float, call) -> None:
        self.timers.append((time.monotonic() + seconds, call))

    def _awake(self) -> None:
        try:
            received = self._wake[0].recv(4096)
        except BlockingIOError:
            return
        if bytes([signal.SIGTERM]) in received:
            self.over = True
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
            if pid in self.execs:
                self.execs.pop(pid)(code)
                continue
            app = self.by_pid.pop(pid, None)
            if app is not None and app.state.get("pid") == pid:
                self._ended(app, code)
                self._stop_reading(app)
                self._tell(app, "died")

    def _read_output(self, app: App) -> None:
        for stream, descriptor in app.pipes.items():
            self.selector.register(descriptor, selectors.EVENT_READ, lambda stream=stream: app.drain(stream))

    def _stop_reading(self, app: App) -> None:
        for descriptor in app.pipes.values():
            try:
                self.selector.unregister(descriptor)
            except KeyError:
                continue  # it was not read: an exec of one that had ended already

    def _see_frozen(self) -> None:
        """Once a second, however much is printed meanwhile."""
        if not self.watchers or time.monotonic() - self._looked < FREEZE_SECONDS:
            return
        self._looked = time.monotonic()
        now = {app.id for app in self.apps.values() if app.state["state"] == "running" and app.is_stopped()}
        for id in now ^ self.frozen:
            if id in self.apps:
                self._tell(self.apps[id], "paused" if id in now else "unpaused")
        self.frozen = now

    def _tell(self, app: App, kind: str) -> None:
        event = {
            "ts": time.time(),
            "kind": kind,
            "container": app.id,
            "exit_code": app.state.get("exit_code"),
            "labels": app.spec["labels"],
        }
        self.events.append(event)
        for peer in list(self.watchers):
            self._send(peer, {"event": event})

    # -- peers -------------------------------------------------------------------------------------

    def _accept(self) -> None:
        sock, _ = self.listener.accept()
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            sock.close()
            return
        sock.setblocking(False)
        peer = Peer(sock)
        self.selector.register(sock, selectors.EVENT_READ, lambda: self._serve(peer))

    def _serve(self, peer: Peer) -> None:
        if peer.outgoing:
            self._flush(peer)
        try:
            data = peer.sock.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        peer.incoming += data
        while b"\n" in peer.incoming:
            line, _, peer.incoming = peer.incoming.partition(b"\n")
            self._handle(peer, line)
            if peer.sock.fileno() < 0:
                return
        if len(peer.incoming) > MAX_REQUEST:
            self._drop(peer)

    def _handle(self, peer: Peer, line: bytes) -> None:
        try:
            request = json.loads(line)
            verb, id = request["do"], request["id"]
            method = {
                "hello": self._do_hello,
                "list": self._do_list,
                "inspect": self._do_inspect,
                "create": self._do_create,
                "start": self._do_start,
                "stop": self._do_stop,
                "kill": self._do_kill,
                "remove": self._do_remove,
                "exec": self._do_exec,
                "terminal": self._do_terminal,
                "output": self._do_output,
                "watch": self._do_watch,
                "shutdown": self._do_shutdown,
            }[verb]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._drop(peer)  # whoever that is, it is not the daemon
            return

        def reply(value) -> None:
            self._send(peer, {"id": id, "ok": value})

        try:
            method(request, reply, peer)
        except Refusal as refusal:
            self._send(peer, {"id": id, "error": refusal.kind, "detail": str(refusal)})
        except Exception as error:  # noqa: BLE001 - told to the asker; the keeper goes on
            words = (
                error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
            )
            self._send(peer, {"id": id, "error": "failed", "detail": words})

    def _send(self, peer: Peer, message: dict) -> None:
        if peer.sock.fileno() < 0:
            return
        if len(peer.outgoing) > MAX_PEER_BYTES:
            self._drop(peer)
            return
        peer.outgoing += json.dumps(message).encode() + b"\n"
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.outgoing:
                sent = peer.sock.send(peer.outgoing)
                del peer.outgoing[:sent]
        except (BlockingIOError, InterruptedError):
            self.selector.modify(peer.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, lambda: self._serve(peer))
            return
        except OSError:
            self._drop(peer)
            return
        self.selector.modify(peer.sock, selectors.EVENT_READ, lambda: self._serve(peer))

    def _drop(self, peer: Peer) -> None:
        if peer in self.watchers:
            self.watchers.remove(peer)
        try:
            self.selector.unregister(peer.sock)
        except (KeyError, ValueError):
            return
        peer.sock.close()
        gone, peer.gone = peer.gone, None
        if gone is not None:
            gone()


def note(words: str) -> None:
    try:
        sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} keeper {os.getpid()}: {words}\n")
        sys.stderr.flush()
    except OSError:
        return  # the disk with our own log is full: that must not be what ends us


def main() -> int:
    folders = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("--state-dir=")]
    if len(folders) != 1 or not folders[0]:
        note("--state-dir=FOLDER is missing")
        return 2
    try:
        keeper = Keeper(folders[0])
    except BlockingIOError:
        note("another keeper runs already")
        return 0
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

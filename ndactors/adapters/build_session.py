"""What BuildKit asks of whoever started a build: files of the context, secrets, credentials of registries. Nothing of it
touches a disk or a command line: BuildKit calls back over one connection, which ends with the build.
"""

from __future__ import annotations

import queue
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..core.dockerignore import NAME
from ..core.model import Registry
from ..core.registries import credentials
from ..errors import EngineError, EngineUnreachable, StateError
from . import build_context, off_loop, protobuf
from .build_context import Context, Entry
from .engine_socket import upgrade
from .grpc import INTERNAL, NOT_FOUND, Call, GrpcConnection, GrpcError

STAT, REQUEST, DATA, FIN, ERROR = range(5)
"""Kinds of packets of a file transfer (fsutil)."""
BATCH = 64
SMALL = 64 * 1024
_GO_FOLDER, _GO_LINK, _GO_SETUID, _GO_SETGID, _GO_STICKY = 1 << 31, 1 << 27, 1 << 23, 1 << 22, 1 << 20


class BuildSession:
    """``apply`` runs a call off the event loop. ``secrets`` and ``registries`` are given to this build and no other."""

    def __init__(
        self,
        base_url: str,
        context: Context,
        secrets: Mapping[str, str],
        registries: Mapping[str, Registry],
        apply: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self.id = uuid.uuid4().hex
        self._context = context
        self._secrets = secrets
        self._registries = registries
        self._apply = apply
        serves = {
            "/grpc.health.v1.Health/Check": self._check,
            "/moby.filesync.v1.FileSync/DiffCopy": self._copy,
            "/moby.buildkit.secrets.v1.Secrets/GetSecret": self._secret,
            "/moby.filesync.v1.Auth/Credentials": self._credentials,
        }
        expose = "X-Docker-Expose-Session"
        # a name that was never used before: BuildKit would take files of equal size and time from an earlier build
        headers = [(f"{expose}-Uuid", self.id), (f"{expose}-Name", "nextdeploy"), (f"{expose}-Sharedkey", self.id)]
        headers += [(f"{expose}-Grpc-Method", path) for path in serves]
        opened = upgrade(base_url, "/session", "h2c", headers)
        if opened is None:
            raise EngineUnreachable("the Docker Engine does not let a session begin")
        self._connection = GrpcConnection(*opened, serves=serves)

    def close(self) -> None:
        self._connection.close()

    def _check(self, call: Call) -> None:
        call.receive()
        call.send(protobuf.message({1: 1}))  # SERVING

    def _secret(self, call: Call) -> None:
        name = protobuf.text(protobuf.parse(call.receive() or b""), 1)
        if name not in self._secrets:
            raise GrpcError(NOT_FOUND, f"secret {name} not found")
        call.send(protobuf.message({1: self._secrets[name].encode()}))

    def _credentials(self, call: Call) -> None:
        host = protobuf.text(protobuf.parse(call.receive() or b""), 1)
        found = credentials(self._registries, host)
        call.send(protobuf.message({1: found.username, 2: found.password} if found else {}))

    def _copy(self, call: Call) -> None:
        """One transfer: everything is described, then what is asked for is sent, by its place in the description."""
        entries = self._asked_for(call)
        wanted: queue.Queue[int | None] = queue.Queue()
        sender = threading.Thread(target=self._send_files, args=(call, entries, wanted), daemon=True)
        sender.start()
        try:
            for raw in call.messages():
                packet = protobuf.parse(raw)
                kind = protobuf.number(packet, 1)
                if kind == REQUEST:
                    wanted.put(protobuf.number(packet, 3))
                elif kind == ERROR:
                    raise GrpcError(INTERNAL, protobuf.text(packet, 4))
                elif kind == FIN:
                    call.send(protobuf.message({1: FIN}))
                    return
        finally:
            wanted.put(None)

    def _asked_for(self, call: Call) -> tuple[Entry, ...]:
        context = self._context
        folder = (call.metadata.get("dir-name") or [""])[0]
        if folder == "dockerfile":
            return build_context.with_parents(context, context.dockerfile)
        if folder != "context":
            raise GrpcError(NOT_FOUND, f"no folder {folder} is offered")
        # only the rules are asked for: they were followed already, when the context was listed
        return () if call.metadata.get("followpaths") == [NAME] else context.entries

    def _send_files(self, call: Call, entries: tuple[Entry, ...], wanted: queue.Queue[int | None]) -> None:
        try:
            for entry in entries:
                call.send(protobuf.message({1: STAT, 2: _described(entry)}))
            call.send(protobuf.message({1: STAT}))
            for numbers in _batches(wanted):
                self._send_batch(call, entries, numbers)
        except GrpcError:
            return  # the transfer is over, and whoever receives says so
        except (StateError, EngineError) as error:
            call.send(protobuf.message({1: ERROR, 4: f"a file of the context cannot be read: {error}".encode()}))

    def _send_batch(self, call: Call, entries: tuple[Entry, ...], numbers: list[int]) -> None:
        if not all(number < len(entries) and stat.S_ISREG(entries[number].mode) for number in numbers):
            raise EngineError("the Engine asked for a file that was not offered")
        # small files are read together: a switch of threads for each would take longer than reading it
        small = [number for number in numbers if entries[number].size <= SMALL]
        contents = self._away(lambda: [b"".join(self._file(entries[number])) for number in small])
        for number, content in zip(small, contents, strict=True):
            self._send_data(call, number, content)
        for number in numbers:
            if entries[number].size > SMALL:
                pieces = self._file(entries[number])
                while piece := self._away(lambda pieces=pieces: next(pieces, b"")):
                    call.send(protobuf.message({1: DATA, 3: number, 4: piece}))
                call.send(protobuf.message({1: DATA, 3: number}))

    def _send_data(self, call: Call, number: int, content: bytes) -> None:
        for at in range(0, len(content), build_context.PIECE):
            call.send(protobuf.message({1: DATA, 3: number, 4: content[at : at + build_context.PIECE]}))
        call.send(protobuf.message({1: DATA, 3: number}))

    def _file(self, entry: Entry) -> Iterator[bytes]:
        return build_context.read_file(self._context.folder / entry.path)

    def _away(self, work: Callable[[], Any]) -> Any:
        return off_loop.run(self._apply, work, self._context.folder)


def _batches(wanted: queue.Queue[int | None]) -> Iterator[list[int]]:
    """What is asked for, as much at a time as is known; ends at None."""
    while (number := wanted.get()) is not None:
        batch = [number]
        while len(batch) < BATCH and not wanted.empty():
            number = wanted.get()
            if number is None:
                yield batch
                return
            batch.append(number)
        yield batch


def _described(entry: Entry) -> bytes:
    """A file as fsutil's ``Stat``: the owner is root, the mode is Go's."""
    mode = stat.S_IMODE(entry.mode) & 0o777
    for bit, go in ((stat.S_ISUID, _GO_SETUID), (stat.S_ISGID, _GO_SETGID), (stat.S_ISVTX, _GO_STICKY)):
        mode |= go if entry.mode & bit else 0
    mode |= _GO_FOLDER if stat.S_ISDIR(entry.mode) else _GO_LINK if stat.S_ISLNK(entry.mode) else 0
    size = entry.size if stat.S_ISREG(entry.mode) else 0
    return protobuf.message({1: entry.path, 2: mode, 5: size, 6: entry.modified, 7: entry.link})

"""Builds by the Engine's classic builder: the context as a stream of tar, one step after the other, each in a container
of its own. For Engines without BuildKit."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from docker import auth

from ..core.buildlog import TAIL_LINES, Lines, Masker, shortened
from ..core.buildwords import failure, took_too_long
from ..core.images import BuildLimits, BuildRequest
from ..errors import BuildFailed, BuildTimeout, EngineError, EngineUnreachable
from . import off_loop
from .build_context import Context, packed
from .build_limits import PERIOD_MICROSECONDS, SHARES
from .engine_socket import EngineConnection

MAX_LINE = 1024 * 1024
GATHER = 512 * 1024
_STEP = re.compile(r"Step \d+/\d+ : (.*)")
_CHATTER = re.compile(r" ---> (?:Running in )?[0-9a-f]{12}$|Removing intermediate container [0-9a-f]{12}$")
"""What the builder says of its own containers and images, which nobody needs."""


class ClassicBuilder:
    """``apply`` runs a call off the event loop."""

    def __init__(self, base_url: str, apply: Callable[[Callable[[], Any]], Any]) -> None:
        self._base_url = base_url
        self._apply = apply

    def build(
        self,
        request: BuildRequest,
        context: Context,
        *,
        name: str,
        labels: Mapping[str, str],
        limits: BuildLimits,
        mask: Masker,
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        """Makes the image ``name``. ``deadline`` by the monotonic clock."""
        if request.secrets:
            raise BuildFailed(
                "this build wants secrets, and this Engine offers only the classic builder, which would write them into "
                "the image: it needs BuildKit (Docker 18.09 or newer)"
            )
        connection = EngineConnection(self._base_url)
        try:
            self._send(
                connection, f"/build?{_query(request, context, name, labels, limits)}", context, request, deadline
            )
            self._hear(connection, mask, limits, deadline, progress)
        except TimeoutError:
            raise BuildTimeout(took_too_long(request.timeout)) from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnreachable(f"the Docker Engine ended the build: {error!r}") from error
        finally:
            # the Engine ends a build whose asker is gone, and removes the container of its step
            connection.close()

    def _send(
        self, connection: EngineConnection, path: str, context: Context, request: BuildRequest, deadline: float
    ) -> None:
        connection.connect()
        headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _registry_config(request)}
        body = self._pieces(connection, context, deadline)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before it has read everything
            connection.request("POST", path, body=body, headers=headers, encode_chunked=True)

    def _pieces(self, connection: EngineConnection, context: Context, deadline: float) -> Iterator[bytes]:
        for piece in streamed(packed(context), self._apply, context.folder):
            connection.sock.settimeout(_left(deadline))
            yield piece

    def _hear(
        self,
        connection: EngineConnection,
        mask: Masker,
        limits: BuildLimits,
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        connection.sock.settimeout(_left(deadline))
        answer = connection.getresponse()
        if answer.status != 200:
            words = answer.read(MAX_LINE).decode("utf-8", "replace")
            raise BuildFailed(failure("", mask(_message(words)), (), limits.memory))
        lines, tail, step, made = Lines(mask), deque[str](maxlen=TAIL_LINES), "", False
        while True:
            # the answer may close the connection, whose socket it then holds itself
            (connection.sock or answer.fp.raw._sock).settimeout(_left(deadline))  # type: ignore[union-attr]
            raw = answer.readline(MAX_LINE)
            if not raw and made:
                return
            if not raw:
                raise EngineUnreachable("the Docker Engine ended the build before it was done")
            news = _decoded(raw)
            made = made or "ID" in (news.get("aux") or {})
            shown = lines.feed(str(news.get("stream") or ""))
            if status := news.get("status"):
                shown.append(shortened(mask(f"{news.get('id', '')} {status}".strip())))
            for line in shown:
                if not line or _CHATTER.match(line):
                    continue
                if found := _STEP.match(line):
                    step = found[1]
                    tail.clear()
                else:
                    tail.append(line)
                progress(line)
            if error := news.get("error"):
                raise BuildFailed(failure(step, mask(str(error)), tuple(tail), limits.memory))


def streamed(stream: Iterator[bytes], apply: off_loop.Apply, about: Path) -> Iterator[bytes]:
    """The same in larger pieces, each made off the event loop."""

    def gathered() -> bytes:
        held = bytearray()
        for piece in stream:
            held += piece
            if len(held) >= GATHER:
                break
        return bytes(held)

    while piece := off_loop.run(apply, gathered, about):
        yield piece


def _query(request: BuildRequest, context: Context, name: str, labels: Mapping[str, str], limits: BuildLimits) -> str:
    wishes: dict[str, str | None] = {
        "t": name,
        "dockerfile": context.dockerfile,
        "rm": "1",
        "forcerm": "1",
        "nocache": "1" if request.fresh else None,
        "target": request.target,
        "platform": request.platform,
        "buildargs": json.dumps(request.args),
        "labels": json.dumps(dict(labels)),
        "cpuperiod": str(PERIOD_MICROSECONDS),
        "cpuquota": str(max(1000, int(limits.cpus * PERIOD_MICROSECONDS))),
        "cpushares": str(SHARES),
        "memory": str(limits.memory) if limits.memory else None,
        "memswap": str(limits.memory) if limits.memory else None,
        "version": "1",
    }
    return urlencode({key: value for key, value in wishes.items() if value is not None})


def _registry_config(request: BuildRequest) -> str:
    """Credentials for base images: those of the user who runs the daemon, and before them ours."""
    known = dict(auth.load_config().get_all_credentials())
    for host, found in request.registries.items():
        known[host] = {"username": found.username, "password": found.password, "serveraddress": host}
        if host == "docker.io":
            known[auth.INDEX_URL] = known[host]
    return base64.urlsafe_b64encode(json.dumps(known).encode()).decode()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _decoded(raw: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise EngineError("the Docker Engine's answer to a build cannot be read") from error
    return found if isinstance(found, dict) else {}


def _message(words: str) -> str:
    try:
        return str(json.loads(words)["message"])
    except (ValueError, TypeError, KeyError):
        return words

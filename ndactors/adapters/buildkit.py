"""Builds by the Engine's BuildKit, asked over its own API (gRPC): steps side by side, secrets that leave no trace.

The two connections are the build's life: whatever ends us ends it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ..core.buildlog import Masker, Step, StepsLog
from ..core.buildwords import failure, took_too_long
from ..core.images import BuildLimits, BuildRequest
from ..errors import BuildFailed, BuildTimeout, EngineError
from . import protobuf
from .build_context import Context
from .build_session import BuildSession
from .engine_socket import upgrade
from .grpc import UNAVAILABLE, Call, GrpcConnection, GrpcError
from .protobuf import Fields

CONTROL = "/moby.buildkit.v1.Control"
ANSWER_SECONDS = 10.0
"""How long the result may take after the last news of a build."""


def offered(base_url: str) -> bool:
    """True if the Engine has a BuildKit that can be spoken to."""
    opened = upgrade(base_url, "/grpc", "h2c")
    if opened is None:
        return False
    opened[0].close()
    return True


class BuildKit:
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
        cgroup: str | None,
        mask: Masker,
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        """Makes the image ``name``. ``cgroup`` is the parent of the groups that its steps run in (Engines from 23 on
        heed it). ``deadline`` by the monotonic clock."""
        opened = upgrade(self._base_url, "/grpc", "h2c")
        if opened is None:
            raise EngineError("the Docker Engine has no BuildKit any more")
        connection = GrpcConnection(*opened)
        try:
            session = BuildSession(self._base_url, context, request.secrets, request.registries, self._apply)
            try:
                reference = uuid.uuid4().hex
                asked = _solve(reference, session.id, request, context, name, labels, cgroup)
                result = connection.call(f"{CONTROL}/Solve", asked)
                news = connection.call(f"{CONTROL}/Status", protobuf.message({1: reference}))
                log = StepsLog(mask)
                try:
                    while (raw := news.receive(max(0.0, deadline - time.monotonic()))) is not None:
                        for line in _lines(log, protobuf.parse(raw)):
                            progress(line)
                    result.receive(ANSWER_SECONDS)
                except TimeoutError:
                    if time.monotonic() < deadline:
                        raise EngineError("the Docker Engine does not say how the build ended") from None
                    raise BuildTimeout(took_too_long(request.timeout)) from None
                except GrpcError as error:
                    raise _failed(result, error, log, mask, limits) from error
            finally:
                session.close()
        finally:
            connection.close()


def _solve(
    reference: str,
    session: str,
    request: BuildRequest,
    context: Context,
    name: str,
    labels: Mapping[str, str],
    cgroup: str | None,
) -> bytes:
    attributes = {"filename": context.dockerfile, "image-resolve-mode": "default"}
    attributes |= {f"build-arg:{key}": value for key, value in request.args.items()}
    attributes |= {f"label:{key}": value for key, value in labels.items()}
    wishes = {"target": request.target, "platform": request.platform, "cgroup-parent": cgroup}
    attributes |= {key: value for key, value in wishes.items() if value}
    if request.fresh:
        attributes["no-cache"] = ""
    return protobuf.message(
        {1: reference, 3: "moby", 4: {"name": name}, 5: session, 6: "dockerfile.v0", 7: attributes, 8: b""}
    )


def _lines(log: StepsLog, news: Fields) -> list[str]:
    lines = []
    for row in protobuf.messages(news, 1):
        step = Step(
            digest=protobuf.text(row, 1),
            name=protobuf.text(row, 3),
            cached=bool(protobuf.number(row, 4)),
            started=_time(row, 5),
            completed=_time(row, 6),
            error=protobuf.text(row, 7),
        )
        lines += log.step(step)
    for row in protobuf.messages(news, 3):
        lines += log.output(protobuf.text(row, 1), protobuf.text(row, 4))
    return lines


def _time(row: Fields, number: int) -> float | None:
    if number not in row:
        return None
    stamp = protobuf.parse(protobuf.blob(row, number))
    return protobuf.number(stamp, 1) + protobuf.number(stamp, 2) / 1e9


def _failed(result: Call, error: GrpcError, log: StepsLog, mask: Masker, limits: BuildLimits) -> EngineError:
    """The result tells more than the news that ended with it."""
    try:
        result.receive(ANSWER_SECONDS)
    except GrpcError as told:
        error = told
    except TimeoutError:
        pass  # then the first error has to do
    words = mask(str(error))
    if error.code == UNAVAILABLE and log.failed is None:
        return EngineError(f"the Docker Engine ended the build: {words}")
    for start in ("failed to solve with frontend dockerfile.v0: ", "failed to solve: "):
        words = words.removeprefix(start)
    return BuildFailed(failure(mask(log.failed.name) if log.failed else "", words, log.tail(), limits.memory))

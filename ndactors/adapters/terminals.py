"""The way into containers for the API: whichever engine has a container, its terminals and its ports."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ..core import containers as labels
from ..core.containers import ContainerStatus
from ..errors import Conflict, ContainerNotFound, EngineError, EngineUnreachable, Forbidden
from ..ports import ContainerEngine, Terminal

CONNECT_SECONDS = 5.0
LOOPBACK = "127.0.0.1"


class EngineTerminals:
    def __init__(self, engines: Mapping[str, ContainerEngine]) -> None:
        self._engines = engines

    def open(self, container: str, argv: tuple[str, ...], *, tty: bool, rows: int, columns: int) -> Terminal:
        """Start ``argv`` in it. ``ContainerNotFound``, ``Conflict`` if it does not run, ``EngineError``."""
        engine, _ = self._find(container)
        return engine.terminal(container, argv, tty=tty, rows=rows, columns=columns)

    def connect(self, container: str, port: int) -> socket.socket:
        """A TCP connection to ``port`` of it. ``Conflict`` if nothing listens there. What is reached on this host's own
        loopback is its own port only: the rest of the host is not its."""
        _, status = self._find(container)
        address = status.address
        if address is None:
            raise Conflict(f"{status.name} has no address; does it run?")
        if address == LOOPBACK:
            own = int(status.labels.get(labels.PORT) or status.port or 0)
            if port != own:
                raise Forbidden(f"Of {status.name} only its own port {own} can be reached, not {port}.")
            port = status.port or own
        try:
            sock = socket.create_connection((address, port), CONNECT_SECONDS)
        except ConnectionRefusedError as error:
            raise Conflict(f"Nothing listens on port {port} of {status.name}.") from error
        except TimeoutError as error:
            raise EngineError(f"{status.name} does not answer on port {port} within {CONNECT_SECONDS:g} s.") from error
        except OSError as error:
            raise EngineError(f"Port {port} of {status.name} cannot be reached: {error.strerror or error}.") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    def _find(self, container: str) -> tuple[ContainerEngine, ContainerStatus]:
        away: EngineUnreachable | None = None
        for engine in self._engines.values():
            try:
                return engine, engine.inspect(container)
            except ContainerNotFound:
                continue
            except EngineUnreachable as error:
                away = error
        raise away or ContainerNotFound(f"There is no container {container[:12]} any more.")

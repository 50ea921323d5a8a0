"""Health probes over sockets. Each reads an answer: a frozen container still accepts connections."""

from __future__ import annotations

import http.client
import socket
import time

from ..core.model import Healthcheck

READ_BYTES = 64 * 1024
"""As much of a body as is read, so that an app that logs broken pipes does not."""


class SocketProber:
    """``ndactors.ports.Prober``. The whole probe, not each read, ends within ``check.timeout``."""

    def http(self, target: tuple[str, int], check: Healthcheck, host: str) -> str | None:
        deadline = time.monotonic() + check.timeout
        connection = http.client.HTTPConnection(*target, timeout=check.timeout)
        headers = {"Host": host, "X-Forwarded-Proto": "https", "User-Agent": "nextdeploy-health", "Connection": "close"}
        try:
            connection.request("GET", check.path, headers=headers)
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            response = connection.getresponse()
            while response.length != 0 and time.monotonic() < deadline:
                if not response.read1(READ_BYTES):
                    break
                if response.length is None or response.length > READ_BYTES:
                    break
        except TimeoutError:
            return f"no answer from {_place(target)}{check.path} within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except (OSError, http.client.HTTPException) as error:
            return f"{_place(target)}{check.path}: {_words(error)}"
        finally:
            connection.close()
        low, high = check.status
        if not low <= response.status <= high:
            return f"{check.path} answered {response.status}"
        return None

    def tcp(self, target: tuple[str, int], check: Healthcheck) -> str | None:
        """Connect, say that nothing will come, and wait for data or the end: both take a living process."""
        deadline = time.monotonic() + check.timeout
        try:
            with socket.create_connection(target, timeout=check.timeout) as sock:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.recv(1)
        except TimeoutError:
            return f"{_place(target)} neither answered nor closed within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except ConnectionResetError:
            return None  # a process that resets is there
        except OSError as error:
            return f"{_place(target)}: {_words(error)}"
        return None


def _place(target: tuple[str, int]) -> str:
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]

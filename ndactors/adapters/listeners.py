"""Which TCP sockets listen in a container, read from the kernel (proc(5): /proc/PID/net/tcp, tcp6)."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

LISTEN = "0A"
MAX_BYTES = 4 * 1024 * 1024


class ProcListeners:
    """``ndactors.ports.Listeners``. Where there is no /proc, or no right to read it, nothing can be seen."""

    def of(self, pid: int) -> list[tuple[str, int]] | None:
        found: list[tuple[str, int]] = []
        seen = False
        for name in ("tcp", "tcp6"):
            try:
                with Path(f"/proc/{pid}/net/{name}").open("rb") as file:
                    text = file.read(MAX_BYTES).decode("ascii", "replace")
            except OSError:
                continue
            seen = True
            found += parse(text)
        return found if seen else None


def parse(text: str) -> list[tuple[str, int]]:
    """The listening ones of one such file; a line that is not understood is passed over."""
    found = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) > 3 and parts[3] == LISTEN and ":" in parts[1]:
            address, _, port = parts[1].partition(":")
            try:
                found.append((address_of(address), int(port, 16)))
            except ValueError:
                continue
    return found


def address_of(text: str) -> str:
    """The kernel prints 32-bit words in the machine's byte order."""
    raw = bytes.fromhex(text)
    if len(raw) not in (4, 16):
        raise ValueError(text)
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return plain(raw)


def plain(raw: bytes) -> str:
    """4 or 16 bytes in the network's order; an IPv4 address within an IPv6 one is the IPv4 address."""
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)

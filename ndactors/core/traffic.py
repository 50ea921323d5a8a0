"""Bytes that went through network interfaces, as one total that never falls, however interfaces come and go."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Rows = Mapping[str, tuple[int, int]]
"""Bytes received and sent, by interface."""
CARRIED = ("veth", "docker", "br-", "virbr", "cni", "flannel", "cali")
"""Interfaces, by the beginning of their names, whose bytes another one carries too."""


class Traffic:
    """Begins with what the interfaces of the first reading had. One that leaves takes nothing with it; what one that comes had
    before is not known to be new."""

    def __init__(self) -> None:
        self._known: Rows | None = None
        self._received = self._sent = 0

    def total(self, rows: Rows) -> tuple[int, int]:
        """With a newer reading."""
        for name, (received, sent) in rows.items():
            before = (0, 0) if self._known is None else self._known.get(name)
            if before is None:
                continue
            if received < before[0] or sent < before[1]:
                before = 0, 0  # another one of this name, or its driver began anew
            self._received += received - before[0]
            self._sent += sent - before[1]
        self._known = dict(rows)
        return self._received, self._sent


def outside(rows: Rows, devices: Mapping[str, str | None]) -> Rows:
    """The interfaces that bytes leave the host by, each byte once. ``devices``: those with hardware, each with the interface
    that it is a part of, if any. Bonds, VLANs, bridges and tunnels only pass on what goes through these; a host without any
    (a container) has all but loopback and what belongs to containers."""
    own: Collection[str] = {name for name, master in devices.items() if name in rows and master not in devices}
    if not own:
        own = [name for name in rows if name != "lo" and not name.startswith(CARRIED)]
    return {name: rows[name] for name in own}

"""Socket activation: listening sockets that systemd opened for us (sd_listen_fds(3))."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

FIRST_DESCRIPTOR = 3


def from_systemd(environment: MutableMapping[str, str], pid: int) -> list[int]:
    """Their descriptors, which no child inherits by itself; the variables are used up."""
    count, whose = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if whose != str(pid) or not count.isdigit():
        return []
    descriptors = list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return descriptors

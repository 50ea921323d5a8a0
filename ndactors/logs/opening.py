"""What the log process and the one that opens its files tell one another, in packets over a socket."""

from __future__ import annotations

PACKET_BYTES = 8192

# from the log process: the first byte, then a path
FOLLOW, FORGET, ARM, TAKEN, SETTLE = b"+", b"-", b"~", b"k", b"s"
# to it, likewise. FILE has a descriptor; FILE, LOST and REMOVED have the number of files that were lost, and a colon, before
# the path
FILE, WATCHED, UNWATCHED, ARMED, UNARMED, REMOVED, WRITTEN = b"f", b"+", b"!", b"~", b"x", b"r", b"w"
SETTLED, LOST = b"s", b"l"

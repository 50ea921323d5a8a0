"""What the log process and the one that opens its files tell one another, in packets over a socket."""

from __future__ import annotations

PACKET_BYTES = 8192

# from the log process: the first byte, then a path; ARM has the size that is known of its file, and a colon, before it
FOLLOW, FORGET, ARM, TAKEN, SETTLE = b"+", b"-", b"~", b"k", b"s"
# to it, likewise. GROWN: it has another size already, when it is armed. FILE has a descriptor; FILE, LOST and REMOVED
# have the number of files that were lost, and a colon, before the path
FILE, WATCHED, UNWATCHED, GROWN, UNARMED, REMOVED, WRITTEN = b"f", b"+", b"!", b"~", b"x", b"r", b"w"
SETTLED, LOST = b"s", b"l"

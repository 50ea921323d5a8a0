"""The command line and the tree. ``--role`` makes the same program one of our other processes."""

from __future__ import annotations

import sys

ROLES = {"edge": "ndactors.edge.master", "edge-worker": "ndactors.edge.worker"}


def role_of(argv: list[str]) -> str | None:
    """The value of ``--role=X`` or ``--role X``, before anything is parsed: a role must not load what the daemon needs."""
    for index, argument in enumerate(argv):
        if argument.startswith("--role="):
            return argument.partition("=")[2]
        if argument == "--role":
            return argv[index + 1] if index + 1 < len(argv) else ""
    return None


def main() -> int:
    role = role_of(sys.argv[1:])
    if role is not None:
        from importlib import import_module

        if role not in ROLES:
            print(f"nextdeployd: there is no role {role!r}", file=sys.stderr)  # noqa: T201
            return 2
        return int(import_module(ROLES[role]).main(sys.argv[1:]))
    return 2


if __name__ == "__main__":
    sys.exit(main())

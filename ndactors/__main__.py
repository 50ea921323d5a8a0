"""The command line and THE TREE. ``--role`` makes the same program one of our other processes, which load nothing
of what follows."""

from __future__ import annotations

import sys

ROLES = {"edge": "ndactors.edge.master", "edge-worker": "ndactors.edge.worker"}


def role_of(argv: list[str]) -> str | None:
    """The value of ``--role=X``, before anything is loaded that a role does not need."""
    return next((argument.partition("=")[2] for argument in argv if argument.startswith("--role=")), None)


def main() -> int:
    argv = sys.argv[1:]
    role = role_of(argv)
    if role is None:
        from gevent import monkey

        monkey.patch_all()
        from ndactors.cli.daemon import run

        return run(argv, tree)
    if role not in ROLES:
        sys.stderr.write(f"nextdeployd: there is no role {role!r}\n")
        return 2
    from importlib import import_module

    return int(import_module(ROLES[role]).main(argv))

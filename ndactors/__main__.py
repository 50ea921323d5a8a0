"""Where it starts. ``--role`` makes the same program one of our other processes, which load nothing of
what the daemon needs."""

from __future__ import annotations

import sys

ROLES = {
    "edge": "ndactors.edge.master",
    "edge-worker": "ndactors.edge.worker",
    "logs": "ndactors.logs.process",
    "log-opener": "ndactors.logs.opener",
    "log-reader": "ndactors.logs.reader",
    "log-outlets": "ndactors.logs.outlets",
}


def main() -> int:
    argv = sys.argv[1:]
    role = next((argument.partition("=")[2] for argument in argv if argument.startswith("--role=")), None)
    if role is None:
        from gevent import monkey

        monkey.patch_all()
        from .daemon import run

        return run(argv)
    if role not in ROLES:
        sys.stderr.write(f"nextdeployd: there is no role {role!r}\n")
        return 2
    from importlib import import_module

    return int(import_module(f"{ROLES[role]}").main(argv))


if __name__ == "__main__":
    sys.exit(main())

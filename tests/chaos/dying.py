"""A daemon that dies by SIGKILL at one chosen point of its work: `python dying.py PLAN daemon-arguments…`. PLAN is a file;
when it holds a number N, the N-th time from then on that the daemon writes something durable, or changes something in its
engine, it dies: just before it (even N) or just after it (odd N). Each point passed is appended to PLAN.log."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    from gevent import monkey

    monkey.patch_all()
    from ndactors import daemon
    from ndactors.adapters.docker_engine import DockerEngine
    from ndactors.adapters.sqlite_ledger import SqliteLedger
    from ndactors.adapters.state_files import StateFiles

    plan, log = Path(sys.argv[1]), Path(sys.argv[1] + ".log")
    passed = {"count": 0}

    def point(word: str) -> None:
        try:
            wanted = int(plan.read_text())
        except (OSError, ValueError):
            return
        if passed["count"] == wanted:
            with log.open("a") as file:
                file.write(f"{wanted} dies at {word}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        passed["count"] += 1

    def watched(kind: type, name: str, about) -> None:
        real = getattr(kind, name)

        def call(self, *args, **kwargs):
            words = f"{name} {about(args, kwargs)}"
            point(f"{words}, before")
            result = real(self, *args, **kwargs)
            point(f"{words}, after")
            return result

        setattr(kind, name, call)

    def saved(args, kwargs) -> str:
        return str(args[0])

    watched(StateFiles, "save", saved)
    watched(StateFiles, "delete", saved)
    watched(SqliteLedger, "save_operation", lambda args, kwargs: args[0].state)
    watched(SqliteLedger, "save_revision", lambda args, kwargs: args[0].state)
    watched(DockerEngine, "create", lambda args, kwargs: args[0].name)
    for verb in ("start", "stop", "remove"):
        watched(DockerEngine, verb, lambda args, kwargs: "")
    return daemon.run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

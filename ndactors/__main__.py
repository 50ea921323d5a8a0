"""Where it starts. ``--role`` makes the same program one of our other processes, which load nothing of
what the daemon needs."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

SPARED = ("typing_extensions", "_hashlib")
"""What libraries take if it is there, and do as well without: 2 MB of each of our other processes. (Python's own hashes in
place of those of OpenSSL.)"""

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
        _patch()
        from .daemon import run

        return run(argv)
    if role not in ROLES:
        sys.stderr.write(f"nextdeployd: there is no role {role!r}\n")
        return 2
    if role != "log-outlets":  # it makes sums of gigabytes
        for name in SPARED:
            sys.modules[name] = None  # type: ignore[assignment]
    return int(importlib.import_module(ROLES[role]).main(argv))


def _patch() -> None:
    """gevent in the standard library's place. It would ask every installed package for plugins; there are none to be
    asked, and what reads the packages' metadata takes 2 MB."""
    nobody = ModuleType("importlib.metadata")
    nobody.entry_points = lambda **_: ()  # type: ignore[attr-defined]
    stand_ins = {nobody.__name__: nobody, "typing_extensions": None}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]
    from gevent import monkey

    monkey.patch_all()
    importlib.import_module("msgspec")
    for name in stand_ins:
        del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())

"""Where it starts. ``--role`` makes the same program one of our other processes, which load nothing of
what the daemon needs."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

SPARED = ("_hashlib", "multiprocessing", "typing_extensions")
"""What libraries take if it is there, and do as well without: 2 MB of each of our other processes. (Python's own hashes in
place of those of OpenSSL.)"""
METADATA = "importlib.metadata"
"""It takes 2 MB more, for the versions of packages and for what plugins there are."""

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
    _keep_descriptors()
    if role != "log-outlets":  # it makes sums of gigabytes
        _spare()
    return int(importlib.import_module(ROLES[role]).main(argv))


def _keep_descriptors() -> None:
    """What we were given, but for our output, is not for those whom we start."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the list itself is closed by now
            if number > 2:
                os.set_inheritable(number, False)


def _spare() -> None:
    sys.modules[METADATA] = _nobodys_metadata()
    # dataclasses describe themselves by it, where nobody has: 1 MB
    inspect = sys.modules["inspect"] = ModuleType("inspect")
    inspect.signature = lambda _: ""  # type: ignore[attr-defined]
    for name in SPARED:
        # some builds of Python have no hashes of their own
        if name != "_hashlib" or "_md5" in sys.builtin_module_names or PathFinder.find_spec("_md5") is not None:
            sys.modules[name] = None  # type: ignore[assignment]


def _patch() -> None:
    """gevent in the standard library's place; what is spared here is there for whoever asks for it later."""
    sys.modules[METADATA] = _nobodys_metadata()
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    from gevent import config, monkey

    config.loop = "libev-cext"  # whatever $GEVENT_LOOP says: the others cannot tell how late they are
    # what looks at the machine every few seconds finds the thread that it had before, and does not start another
    config.threadpool_idle_task_timeout = 12.0
    monkey.patch_all(ssl=False)
    sys.meta_path.insert(0, LaterTLS(monkey.patch_ssl))
    importlib.import_module("msgspec")
    del sys.modules[METADATA], sys.modules["typing_extensions"]
    # 1.6 MB with which requests guesses encodings; all that we ask is JSON
    for name in ("chardet", "charset_normalizer"):
        sys.modules[name] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection")


def _nobodys_metadata() -> ModuleType:
    stand_in = ModuleType(METADATA)
    stand_in.entry_points = lambda **_: ()  # type: ignore[attr-defined]
    stand_in.version = lambda _: "0"  # type: ignore[attr-defined]
    return stand_in


class LaterTLS:
    """Finds ``ssl`` for whoever imports it first, and has gevent patch it then: it takes 3 MB, most of it OpenSSL."""

    def __init__(self, patch: Callable[[], None]) -> None:
        self._patch = patch

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "ssl":
            return None
        spec = PathFinder.find_spec(name)
        assert spec is not None and isinstance(spec.loader, SourceFileLoader)
        load = spec.loader.exec_module

        def load_and_patch(module: ModuleType) -> None:
            load(module)
            self._patch()

        spec.loader.exec_module = load_and_patch  # type: ignore[method-assign]
        return spec


if __name__ == "__main__":
    sys.exit(main())

"""Why a build failed, in plain words: what was being done, what came of it, what may be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .registries import refusal, shown

_EXIT = re.compile(r"exit code:? (\d+)|returned a non-zero code: (\d+)")
_BASE = re.compile(r"load metadata for (\S+)|^(?:\[[^]]*\] )?FROM (?:--\S+ )*(\S+)", re.IGNORECASE)
_HUB = re.compile(r"^(?:docker\.io/)?(?:library/)?")
_MOUNT = re.compile(
    r"the --(?:mount|security|network) option requires BuildKit|unknown instruction: (?:<<|EOF)", re.IGNORECASE
)
KILLED = 137


def took_too_long(seconds: float) -> str:
    return f"the build took longer than it may ({seconds:g} s) and was ended"


def failure(step: str, error: str, tail: Sequence[str], memory: int) -> str:
    """``step`` is what the builder called it, ``error`` what it said, ``tail`` the last lines that were printed, ``memory``
    what the build may use in bytes."""
    step, error = " ".join(step.split()), shown(error)
    return "\n".join([_reason(step, error, memory), *tail])


def _reason(step: str, error: str, memory: int) -> str:
    exited = _EXIT.search(error)
    if exited:
        code = int(exited[1] or exited[2])
        words = f"{step or 'a step'} ended with exit code {code}"
        if code == KILLED and memory:
            words += f" (it was killed: perhaps it wanted more than the {memory // 2**20} MiB that a build may use)"
        return words
    base = _BASE.search(step)
    if base:
        name = _HUB.sub("", (base[1] or base[2]))
        told = refusal(name, error, what="base image")
        if told is not None:
            return str(told)
    if _MOUNT.search(error):
        return f"{error} (this Engine offers only the classic builder)"
    return f"{step}: {error}" if step and step not in error else error

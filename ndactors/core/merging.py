"""What should run when the file changes and something was changed live before: a three-way merge, key by key. What was
changed live stays, unless the file changed that very key."""

from __future__ import annotations

from typing import Any

import msgspec

from .model import App

LIVE_ONLY = ("image_id", "stopped", "nonce")
"""Never written in a file: a re-apply leaves them."""
SOURCE = ("image", "build")
"""One key in two spellings: where the image comes from."""
GONE: Any = object()


def merged(base: App, live: App, new: App) -> App:
    """``base`` is what the file said before, ``live`` what runs, ``new`` what the file says now."""
    before, now, after = (msgspec.to_builtins(app) for app in (base, live, new))
    tree = _merged(before, now, after)
    tree |= {key: now.get(key) for key in LIVE_ONLY}
    source = after if any(before.get(key) != after.get(key) for key in SOURCE) else now
    tree |= {key: source.get(key) for key in SOURCE}
    if any(tree[key] != now.get(key) for key in SOURCE):
        tree["image_id"] = None
    return msgspec.convert(tree, App)


def _merged(base: dict[str, Any], live: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in dict.fromkeys((*new, *live)):
        was, now, then = base.get(key, GONE), live.get(key, GONE), new.get(key, GONE)
        if isinstance(now, dict) and isinstance(then, dict):
            value: Any = _merged(was if isinstance(was, dict) else {}, now, then)
        else:
            value = now if was == then else then
        if value is not GONE:
            result[key] = value
    return result


def rolled_back(live: App, revision: App) -> App:
    """``live`` as it ran in ``revision``: image, processes and their settings. How many replicas there are stays, and so
    does how visitors reach it (domains, rules)."""
    processes = {}
    for name, process in revision.processes.items():
        now = live.processes.get(name)
        processes[name] = msgspec.structs.replace(process, replicas=now.replicas, scale=now.scale) if now else process
    return msgspec.structs.replace(
        live, image=revision.image, build=revision.build, image_id=revision.image_id, processes=processes, stopped=False
    )

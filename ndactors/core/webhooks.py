"""Webhooks, the pure part: what is sent to whom after a deploy, when to try again, and what may be shown of a receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from .masking import MASK
from .model import Webhook

DELAYS = (5.0, 20.0, 60.0, 180.0)
"""Seconds before the second try and those after it; then it is given up."""
LONGEST_WAIT = 300.0
"""The most that a receiver's own Retry-After counts."""
MAX_WAITING = 200
MAX_BODY = 64 * 1024

Target = str | tuple[str, ...]


class HookAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``words`` tell what came of a try, without any secret of the URL. ``again``: another try may help. ``output``: the
    last lines a command printed."""

    good: bool
    words: str
    again: bool = False
    wait: float = 0.0
    output: tuple[str, ...] = ()


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message for one receiver. ``body`` is its JSON text; ``due`` is Unix seconds. ``running``: a command was
    started, and must not be a second time."""

    id: str
    event: str
    app: str
    target: Target
    body: str
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    tries: int = 0
    due: float = 0.0
    running: bool = False

    @property
    def is_command(self) -> bool:
        return not isinstance(self.target, str)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """All deliveries that are not over, oldest first."""

    deliveries: tuple[Delivery, ...] = ()


def targets(webhook: Webhook, event: str) -> tuple[Target, ...]:
    return webhook.on_success if event.endswith(".succeeded") else webhook.on_failure


def body_of(event: str, app: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The event and the app come first, whatever the payload calls so."""
    return {"event": event, "app": app, **{k: v for k, v in payload.items() if k not in ("event", "app")}}


def variables_of(event: str, app: str, payload: Mapping[str, Any]) -> dict[str, str]:
    """What a command finds in its environment: ``NEXTDEPLOY_EVENT`` and so on, plain values only."""
    plain = {key: value for key, value in payload.items() if isinstance(value, (str, int)) and value != ""}
    found = {"event": event, "app": app}
    for key in ("project", "operation", "revision", "reason", "by", "kind", "message"):
        if key in plain:
            found[key] = str(plain[key]).replace("\0", "")[:4000]
    return {f"NEXTDEPLOY_{key.upper()}": value for key, value in found.items()}


def after(delivery: Delivery, answer: HookAnswer, now: float) -> Delivery | None:
    """The delivery as it waits for its next try; None when it is over, for good or for bad. A command runs once."""
    wait = None if delivery.is_command else wait_before(delivery.tries, answer, DELAYS)
    return None if wait is None else replace(delivery, tries=delivery.tries + 1, due=now + wait, running=False)


def wait_before(tries: int, answer: HookAnswer, delays: Sequence[float]) -> float | None:
    """Seconds before another try, after ``tries`` before this one; None: it is over, for good or for bad."""
    if answer.good or not answer.again or tries >= len(delays):
        return None
    return max(delays[tries], min(answer.wait, LONGEST_WAIT))


def next_of(deliveries: tuple[Delivery, ...], busy: frozenset[str]) -> tuple[Delivery, ...]:
    """The oldest for each receiver that nothing is on its way to: each hears of deploys in their order, and one that
    hangs holds up nobody else."""
    found: dict[Target, Delivery] = {}
    taken = {delivery.target for delivery in deliveries if delivery.id in busy}
    for delivery in deliveries:
        if delivery.target not in taken:
            found.setdefault(delivery.target, delivery)
    return tuple(found.values())


def shown(target: Target) -> str:
    """A URL's path and query may be its secret, and so may a command's words."""
    if not isinstance(target, str):
        return target[0].rpartition("/")[2][:100] or "a command"
    try:
        parts = urlsplit(target)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return MASK
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    rest = "" if parts.path in ("", "/") and not parts.query else f"/{MASK}"
    return f"{parts.scheme}://{host}{port}{rest}"


def judge(status: int, retry_after: str = "") -> HookAnswer:
    """Of an HTTP answer. Client errors will not get better by themselves, but for "later, please"."""
    if 200 <= status < 300:
        return HookAnswer(good=True, words=f"answered {status}")
    if 300 <= status < 400:
        return HookAnswer(good=False, words=f"answered {status}: it has moved; give its new address")
    again = status >= 500 or status in (408, 425, 429)
    wait = (
        float(retry_after)
        if again and retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 7
        else 0.0
    )
    return HookAnswer(good=False, words=f"answered {status}", again=again, wait=wait)

"""What is told to others after a deploy."""

from __future__ import annotations

from typing import Any

from .base import Message


class SendHooks(Message, frozen=True, kw_only=True):
    """To the HookActor: ``event`` is ``deploy.succeeded`` or ``deploy.failed``."""

    event: str
    app: str
    payload: dict[str, Any]

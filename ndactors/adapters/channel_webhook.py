"""``ndactors.ports.AlertChannel``: a webhook, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable

from ..core.notices import event_of, webhook_body
from ..core.notifications import Notification
from ..core.webhooks import HookAnswer, shown
from ..errors import StateError
from ..ports import HookSender

PREFIX = "whsec_"


class WebhookChannel:
    """``key`` gives the signing key as bytes. The id is the same for every try of one message."""

    def __init__(self, url: str, key: Callable[[], bytes], sender: HookSender, now: Callable[[], float] = time.time):
        self._url = url
        self._key_of = key
        self._sender = sender
        self._now = now
        self.key = f"webhook {url}"
        self.name = f"webhook {shown(url)}"

    def send(self, notification: Notification) -> HookAnswer:
        try:
            key = self._key_of()
        except StateError as error:
            return HookAnswer(good=False, words=f"it cannot be signed: {error}", again=True)
        body = webhook_body(notification)
        id, seconds = re.sub(r"[^A-Za-z0-9_-]", "_", notification.id), int(self._now())
        headers = {
            "webhook-id": id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": signature(key, id, seconds, body),
            "X-NextDeploy-Event": event_of(notification),
        }
        return self._sender.post(self._url, body, headers)


def signature(key: bytes, id: str, seconds: int, body: bytes) -> str:
    digest = hmac.new(key, b".".join((id.encode(), str(seconds).encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def key_bytes(text: str) -> bytes:
    return base64.b64decode(text.removeprefix(PREFIX))

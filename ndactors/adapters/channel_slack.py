"""``ndactors.ports.AlertChannel``: an incoming webhook of Slack, or of what speaks like it."""

from __future__ import annotations

import msgspec

from ..core.notices import slack
from ..core.notifications import Notification
from ..core.webhooks import HookAnswer, shown
from ..ports import HookSender


class SlackChannel:
    def __init__(self, url: str, sender: HookSender) -> None:
        self._url = url
        self._sender = sender
        self.key = f"slack {url}"
        self.name = f"Slack ({shown(url).partition('://')[2]})"

    def send(self, notification: Notification) -> HookAnswer:
        return self._sender.post(self._url, msgspec.json.encode(slack(notification)), {})

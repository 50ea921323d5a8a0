"""The channels that ``monitoring.alert`` asks for, and the key that webhooks are signed with."""

from __future__ import annotations

import base64
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from ..core.model import Alert
from ..errors import StateError
from ..ports import AlertChannel, HookSender
from .channel_apprise import AppriseChannel
from .channel_slack import SlackChannel
from .channel_webhook import PREFIX, WebhookChannel, key_bytes
from .state_files import replace_file

KEY_FILE = "webhook-key"
KEY_BYTES = 32


class AlertChannels:
    """``alert``: the configuration as it is now. ``server``: what this machine is called."""

    def __init__(self, alert: Callable[[], Alert], folder: Path, sender: HookSender) -> None:
        self._alert = alert
        self._path = folder / KEY_FILE
        self._sender = sender
        self._made_for: Alert | None = None
        self._channels: tuple[AlertChannel, ...] = ()
        self.server = socket.gethostname()

    def current(self) -> tuple[AlertChannel, ...]:
        """The very same ones while the configuration is the same."""
        alert = self._alert()
        if alert != self._made_for:
            self._channels = self._make(alert)
            self._made_for = alert
        return self._channels

    def own_key(self) -> str | None:
        """The signing key that was made here; None where the configuration has one. ``StateError``."""
        return self._own_key() if self._alert().webhook_secret is None else None

    def _make(self, alert: Alert) -> tuple[AlertChannel, ...]:
        given = alert.webhook_secret

        def key() -> bytes:
            return key_bytes(given or self._own_key())

        found: list[AlertChannel] = [WebhookChannel(url, key, self._sender) for url in alert.webhook]
        if alert.slack_webhook:
            found.append(SlackChannel(alert.slack_webhook, self._sender))
        if alert.email is not None:
            from .channel_mail import MailChannel  # with what writes mail, 0.8 MB

            found.append(MailChannel(alert.email, self.server))
        found += [AppriseChannel(url) for url in alert.apprise]
        channels = tuple({channel.key: channel for channel in found}.values())
        names: dict[str, int] = {}
        for channel in channels:
            number = names[channel.name] = names.get(channel.name, 0) + 1
            if number > 1:
                channel.name += f" ({number})"
        return channels

    def _own_key(self) -> str:
        """Made once, and kept in a file that only its owner can read."""
        try:
            if not self._path.exists():
                replace_file(
                    self._path, f"{PREFIX}{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n".encode()
                )
            text = self._path.read_text().strip()
            if len(key_bytes(text)) < 24:
                raise ValueError("it is too short")
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror or error}") from error
        except ValueError as error:
            raise StateError(f"{self._path} holds no key: {error}. Remove it, and another is made") from error
        return text

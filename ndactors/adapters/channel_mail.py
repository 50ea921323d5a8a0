"""``ndactors.ports.AlertChannel``: mail by SMTP. What is asked to be encrypted is encrypted, or it is not sent."""

from __future__ import annotations

import base64
import datetime
import email.errors
import email.policy
import email.utils
import ipaddress
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import gevent

from ..core.masking import mask_text
from ..core.model import Email
from ..core.notices import line, plain, subject
from ..core.notifications import Notification
from ..core.webhooks import HookAnswer

SECONDS = 30.0
"""For one message as a whole."""
QUIT_SECONDS = 2.0
SUBMISSIONS = 465
"""The port where TLS comes first (RFC 8314)."""
MAX_REPLIES = 256 * 1024
"""Bytes of answers that a server may give us."""
POLICY = email.policy.SMTP.clone(cte_type="7bit")


class _Replies:
    """What a server answers, as a file that ends when it is too much."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MAX_REPLIES

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("it answers without end")
        return line

    def close(self) -> None:
        self._file.close()


class _Bounded(smtplib.SMTP):
    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    pass


class MailChannel:
    """All recipients in one message. ``server``: what this machine is called; ``seconds`` is for a try as a whole."""

    def __init__(
        self,
        settings: Email,
        server: str,
        *,
        seconds: float = SECONDS,
        context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._settings = settings
        self._server = server if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", server) else "[127.0.0.1]"
        self._seconds = seconds
        self._context = context
        host, _, port = settings.smtp.rpartition(":")
        self._host, self._port = host.strip("[]") or "localhost", int(port)
        to = ", ".join(settings.to[:3]) + (f" and {len(settings.to) - 3} more" if len(settings.to) > 3 else "")
        name, _, address = settings.sender.rpartition("<")
        self._sender = address.rstrip(">").strip()
        name = " ".join(re.sub(r'[\\"]', "", name).splitlines()).strip()
        self._quoted_name = f'"{name}"' if name else ""
        self.key = f"mail {settings.smtp} {settings.username or ''} {settings.sender} {' '.join(settings.to)}"
        self.name = f"mail to {to} by {host or 'localhost'}:{port}"

    def send(self, notification: Notification) -> HookAnswer:
        late = HookAnswer(good=False, words=f"no answer within {self._seconds:g} s", again=True)
        limit = gevent.Timeout.start_new(self._seconds)
        smtp: smtplib.SMTP | None = None
        try:
            message = self._message(notification)
            smtp = self._connect()
            self._secure(smtp)
            refused = smtp.send_message(message, self._sender, list(self._settings.to))
            limit.close()  # it is theirs now: whatever happens from here on, it must not be sent twice
            _leave(smtp)
            return self._accepted(refused)
        except gevent.Timeout as over:
            if over is not limit:
                raise
            return late
        except TimeoutError:
            return late
        except _Refused as error:
            return HookAnswer(good=False, words=str(error))
        except smtplib.SMTPRecipientsRefused as error:
            return self._nobody(error.recipients)
        except smtplib.SMTPResponseException as error:
            words = f"answered {error.smtp_code}: {self._said(error.smtp_error)}"
            if isinstance(error, smtplib.SMTPAuthenticationError):
                words = f"does not accept the user or the password ({words})"
            return HookAnswer(good=False, words=words, again=not 500 <= error.smtp_code < 600)
        except smtplib.SMTPNotSupportedError as error:
            return HookAnswer(good=False, words=f"cannot take it: {self._said(error)}")
        except ssl.SSLCertVerificationError as error:
            return HookAnswer(good=False, words=f"its certificate is not good: {error.verify_message}", again=True)
        except ssl.SSLError as error:
            reason = (error.reason or "no reason given").lower().replace("_", " ")
            return HookAnswer(good=False, words=f"TLS failed: {reason}", again=True)
        except smtplib.SMTPServerDisconnected as error:
            if isinstance(error.__context__, TimeoutError):
                return late
            return HookAnswer(good=False, words="the connection broke before it answered", again=True)
        except smtplib.SMTPException as error:
            return HookAnswer(good=False, words=f"failed: {self._said(error)}")
        except OSError as error:
            return HookAnswer(good=False, words=f"cannot be reached: {error.strerror or 'it is away'}", again=True)
        except UnicodeError:
            what = "user, password and addresses have to be ASCII for this server"
            return HookAnswer(good=False, words=what if smtp is not None else "its address makes no sense")
        except (ValueError, LookupError, email.errors.MessageError) as error:
            return HookAnswer(good=False, words=f"cannot be sent so: {self._said(error)}")
        finally:
            limit.close()
            if smtp is not None:
                smtp.close()

    # -- the conversation --------------------------------------------------------------------------

    def _connect(self) -> smtplib.SMTP:
        if self._port == SUBMISSIONS:
            return _BoundedTls(self._host, self._port, self._server, timeout=self._seconds, context=self._context())
        return _Bounded(self._host, self._port, self._server, timeout=self._seconds)

    def _secure(self, smtp: smtplib.SMTP) -> None:
        """Encryption and login, as they are asked for. ``_Refused`` rather than less."""
        settings, encrypted = self._settings, self._port == SUBMISSIONS
        smtp.ehlo_or_helo_if_needed()
        if settings.starttls and not encrypted:
            if not smtp.has_extn("starttls"):
                raise _Refused("it offers no STARTTLS; nothing is sent in the clear (`starttls: false` would allow it)")
            smtp.starttls(context=self._context())
            smtp.ehlo_or_helo_if_needed()
            encrypted = True
        if not settings.username:
            return
        if not encrypted and not _near(smtp.sock):
            raise _Refused("its password would go in the clear: give `starttls: true`, or port 465")
        if not smtp.has_extn("auth"):
            raise _Refused("it offers no login, but a `username` is configured")
        smtp.login(settings.username, settings.password or "")

    # -- the message -------------------------------------------------------------------------------

    def _message(self, notification: Notification) -> EmailMessage:
        message = EmailMessage(policy=POLICY)
        message["From"] = f"{self._quoted_name} <{self._sender}>" if self._quoted_name else self._sender
        message["To"] = ", ".join(self._settings.to)
        message["Subject"] = subject(notification)
        message["Date"] = email.utils.format_datetime(_date(notification.at))
        id = re.sub(r"[^A-Za-z0-9_-]", "_", notification.id)
        domain = self._sender.rpartition("@")[2]
        message["Message-ID"] = f"<{id}.{notification.state}@{domain if domain.isascii() else 'nextdeploy.invalid'}>"
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(plain(notification))
        return message

    # -- words -------------------------------------------------------------------------------------

    def _accepted(self, refused: dict[str, tuple[int, bytes]]) -> HookAnswer:
        """By some at least; to send it again would give it to them twice."""
        return HookAnswer(good=True, words="accepted" + (f", but not for {self._each(refused)}" if refused else ""))

    def _nobody(self, refused: dict[str, tuple[int, bytes]]) -> HookAnswer:
        again = any(not 500 <= code < 600 for code, _ in refused.values())
        return HookAnswer(good=False, words=f"refused for {self._each(refused)}", again=again)

    def _each(self, refused: dict[str, tuple[int, bytes]]) -> str:
        return "; ".join(f"{to} ({code}: {self._said(words)})" for to, (code, words) in list(refused.items())[:3])

    def _said(self, words: object) -> str:
        """What a server answered. Some repeat what they were sent, and that may be the login."""
        text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        user, password = self._settings.username or "", self._settings.password or ""
        forms = [f"\0{user}\0{password}", password] if password else []
        secrets = [*forms, *(base64.b64encode(form.encode()).decode() for form in forms)]
        return line(mask_text(text, secrets), 200) or "no reason given"


class _Refused(Exception):
    """We do not send it so."""


def _date(seconds: float) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.datetime.now(datetime.UTC)


def _near(sock: socket.socket | None) -> bool:
    """What is sent there never leaves this machine."""
    return sock is not None and ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_loopback


def _leave(smtp: smtplib.SMTP) -> None:
    """Politely, if it takes no time."""
    with gevent.Timeout(QUIT_SECONDS, False):
        try:
            if smtp.sock is not None:
                smtp.sock.settimeout(QUIT_SECONDS)
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            return  # it has the message

"""``ndactors.ports.AlertChannel``: over a hundred services by Apprise, which is an extra. It blocks, and some of its
services know no time limit: each message is sent by a process of its own, which is killed when its time is over."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping

import gevent
import msgspec

from ..core.masking import MASK
from ..core.notices import line, plain, subject
from ..core.notifications import Notification
from ..core.webhooks import HookAnswer
from .children import child_environment

SECONDS = 30.0
MAX_OUTPUT = 64 * 1024
MISSING = "Apprise is not installed: pip install 'nextdeploy[notify]'"
_PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def is_installed() -> bool:
    return importlib.util.find_spec("apprise") is not None


class AppriseChannel:
    """Any part of such a URL may be its secret, so only its scheme is shown."""

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self._url = url
        self._seconds = seconds
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", url)
        self.key = f"apprise {url}"
        self.name = f"Apprise ({scheme[0] if scheme else ''}://{MASK})"

    def send(self, notification: Notification) -> HookAnswer:
        if not is_installed():
            return HookAnswer(good=False, words=MISSING)
        kind = {"firing": "failure", "resolved": "success", "test": "info"}[notification.state]
        order = {
            "url": self._url,
            "title": subject(notification),
            "body": plain(notification),
            "kind": kind,
            "seconds": self._seconds,
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ndactors.adapters.apprise_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            return HookAnswer(good=False, words=f"Apprise cannot be started: {error.strerror}", again=True)
        try:
            output, _ = process.communicate(msgspec.json.encode(order), timeout=self._seconds)
        except subprocess.TimeoutExpired:
            return HookAnswer(good=False, words=f"no answer within {self._seconds:g} s", again=True)
        finally:
            _end(process)
        return _answer(output)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    wanted = {*_PASSED_ON, *(name.lower() for name in _PASSED_ON)}
    return {**child_environment(), **{name: own[name] for name in wanted if name in own}}


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started, unless it ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    gevent.spawn(process.wait)  # no zombie


class _Told(msgspec.Struct):
    good: bool
    words: str
    again: bool


def _answer(output: bytes) -> HookAnswer:
    try:
        told = msgspec.json.decode(output[:MAX_OUTPUT], type=_Told)
    except msgspec.DecodeError:
        return HookAnswer(good=False, words="Apprise ended without an answer", again=True)
    return HookAnswer(good=told.good, words=line(told.words, 200), again=told.again)

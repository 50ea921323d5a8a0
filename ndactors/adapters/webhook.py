"""``ndactors.ports.HookSender``: HTTP by requests, commands without a shell. Nothing of a URL but its host is ever told: the
rest may be the secret."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin, urlsplit

import gevent

from .. import __version__
from ..core.masking import mask_words
from ..core.webhooks import HookAnswer, judge

POST_SECONDS = 10.0
RUN_SECONDS = 60.0
MAX_REDIRECTS = 3
OUTPUT_BYTES = 16 * 1024
OUTPUT_LINES = 20
KEPT = ("PATH", "HOME", "LANG", "TZ")
"""What a command gets of the daemon's own environment."""


class HookClient:
    """``post_seconds`` and ``run_seconds`` are for one try as a whole."""

    def __init__(self, *, post_seconds: float = POST_SECONDS, run_seconds: float = RUN_SECONDS) -> None:
        self._post_seconds = post_seconds
        self._run_seconds = run_seconds

    # -- URLs --------------------------------------------------------------------------------------

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HookAnswer:
        import requests  # 5 MB, with what it needs: most servers tell nobody
        import urllib3

        late = HookAnswer(good=False, words=f"no answer within {self._post_seconds:g} s", again=True)
        # requests counts every single read; this counts them all
        limit = gevent.Timeout.start_new(self._post_seconds)
        try:
            return self._post(url, body, headers)
        except gevent.Timeout as over:
            if over is not limit:
                raise
            return late
        except requests.exceptions.Timeout:
            return late
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
            return HookAnswer(good=False, words="its address makes no sense")
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return HookAnswer(good=False, words=_words(error), again=True)
        finally:
            limit.close()

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HookAnswer:
        import requests

        own = {
            "Content-Type": "application/json",
            "User-Agent": f"nextdeploy/{__version__}",
            "Connection": "close",
            **headers,
        }
        proxies = requests.utils.get_environ_proxies(url)
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True
        for _ in range(MAX_REDIRECTS + 1):
            # a session each: a connection that was answered on may be closed by now
            with requests.Session() as session:
                session.trust_env = False  # no passwords from ~/.netrc
                with session.post(
                    url,
                    data=body,
                    headers=own,
                    timeout=self._post_seconds,
                    allow_redirects=False,
                    stream=True,
                    proxies=proxies,
                    verify=verify,
                ) as response:
                    there = urljoin(url, response.headers.get("Location", ""))
                    if response.status_code not in (307, 308) or not _same_place(url, there):
                        return judge(response.status_code, response.headers.get("Retry-After", ""))
                    url = there
        return HookAnswer(good=False, words="it sends us in a circle")

    # -- commands ----------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], body: bytes, variables: Mapping[str, str]) -> HookAnswer:
        """Over when its output is closed, by all that it started. Past its time the whole group is killed."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        try:
            with tempfile.TemporaryFile() as given:
                given.write(body)
                given.seek(0)
                process = subprocess.Popen(
                    list(argv),
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.defpath, **kept, **variables},
                    cwd="/",
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            return HookAnswer(good=False, words=f"cannot be run: {getattr(error, 'strerror', None) or error}")
        try:
            output, code = self._follow(process)
        except BaseException:
            _kill(process)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        lines = tuple(mask_words(line)[:400] for line in output.decode("utf-8", "replace").splitlines()[-OUTPUT_LINES:])
        if code is None:
            return HookAnswer(good=False, words=f"did not end within {self._run_seconds:g} s", output=lines)
        words = f"exited {code}" if code >= 0 else f"was killed by signal {-code}"
        return HookAnswer(good=code == 0, words=words, output=lines)

    def _follow(self, process: subprocess.Popen[bytes]) -> tuple[bytes, int | None]:
        """The end of its output, and its exit code; None: it had to be killed."""
        assert process.stdout is not None
        descriptor, deadline, output = process.stdout.fileno(), time.monotonic() + self._run_seconds, b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                _kill(process)
                return output, None
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                continue
            if not data:
                break
            output = (output + data)[-OUTPUT_BYTES:]
        try:
            return output, process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)
            return output, None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _same_place(url: str, there: str) -> bool:
    """The same host and port, or the same host by HTTPS."""
    old, new = urlsplit(url), urlsplit(there)
    if new.hostname != old.hostname or new.scheme not in ("http", "https"):
        return False
    if (old.scheme, new.scheme) == ("http", "https"):
        return new.port in (None, 443)
    return (new.scheme, new.port) == (old.scheme, old.port)


def _words(error: BaseException) -> str:
    """What happened, by the system's own error: the libraries' messages have the whole URL in them."""
    import ssl

    import requests

    seen: BaseException | None = error
    for _ in range(10):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {(seen.reason or 'no reason given').lower().replace('_', ' ')}"
        if isinstance(seen, OSError) and seen.strerror and not isinstance(seen, requests.exceptions.RequestException):
            return f"cannot be reached: {seen.strerror}"
        if seen is None:
            break
        inner = [part for part in (getattr(seen, "reason", None), *seen.args) if isinstance(part, BaseException)]
        seen = inner[0] if inner else seen.__cause__ or seen.__context__
    return "the connection broke before it answered"

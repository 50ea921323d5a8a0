"""Build contexts in git: ``https://host/owner/repo.git#ref:folder``, taken apart so that a password in it is in no
other part."""

from __future__ import annotations

import base64
import ipaddress
import re
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from ..errors import Invalid

MAX_URL = 2048
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[^/\s]+@[^/\s]+:")
_REF = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./+-]|@(?!\{))*")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9.-]+")


class GitContext(Struct, frozen=True, kw_only=True):
    """``url`` has no credentials; ``login`` is ``user:password``, empty if there is none. ``ref`` is a branch, a tag or a
    full commit id, empty for the repository's default; ``folder`` is below its root, empty for the root."""

    url: str
    login: str = ""
    ref: str = ""
    folder: str = ""

    @property
    def shown(self) -> str:
        """What may be told of it."""
        tail = f"{self.ref}:{self.folder}" if self.folder else self.ref
        return self.url + (f"#{tail}" if tail else "")

    @property
    def authorization(self) -> str:
        """The value of the header that shows ``login``; empty if there is none."""
        return f"Basic {base64.b64encode(self.login.encode()).decode()}" if self.login else ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every form of the login that must not be seen."""
        user, _, password = self.login.partition(":")
        forms = (self.authorization.removeprefix("Basic "), self.login, password or user)
        return tuple(form for form in forms if form)

    @property
    def is_commit(self) -> bool:
        return _SHA.fullmatch(self.ref) is not None

    @property
    def is_loopback(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def is_remote(context: str) -> bool:
    """Whether a build context is a repository, or meant as one, and no folder."""
    return _REMOTE.match(context) is not None


def git_context(text: str) -> GitContext:
    """``Invalid`` with a sentence that does not repeat a password."""
    url, _, fragment = text.partition("#")
    if len(text) > MAX_URL or any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
        raise Invalid("This is no address of a git repository.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid("This is no address of a git repository.") from error
    host = parts.hostname or ""
    bare = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("https", "http") or not (_HOST.fullmatch(host) or ":" in host):
        raise Invalid("A git repository is reached by https://host/path.")
    if parts.query or not parts.path.strip("/"):
        raise Invalid("The address of a git repository is https://host/path, without a query.")
    ref, _, folder = fragment.partition(":")
    if ref and (not _REF.fullmatch(ref) or ".." in ref or "//" in ref or ref.endswith(("/", ".", ".lock"))):
        raise Invalid("The part behind # must be a branch, a tag or a commit, and may have a folder after a colon.")
    folders = [part for part in folder.split("/") if part not in ("", ".")]
    if ".." in folders or folder.startswith("/") or "\\" in folder:
        raise Invalid("The folder behind the colon must be in the repository.")
    login = ""
    if parts.username or parts.password:
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        if any(ord(character) < 0x20 for character in login):
            raise Invalid("The login has characters that it cannot have.")
    made = GitContext(
        url=f"{parts.scheme}://{bare}{f':{port}' if port else ''}{parts.path}",
        login=login,
        ref=ref,
        folder="/".join(folders),
    )
    if parts.scheme == "http" and not made.is_loopback:
        raise Invalid("A git repository is reached by https; http would show code and password to everybody between.")
    return made

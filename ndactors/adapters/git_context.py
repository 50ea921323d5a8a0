"""Build contexts from git repositories: one commit's files, fetched by the ``git`` program into a repository of its own
that is thrown away. The repository's owner is a stranger: nothing of it runs here, and time, size and memory end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct
from msgspec.structs import replace

from ..core.git_urls import GitContext, git_context
from ..core.manifests import MAX_FILES, MAX_PATH, Manifest
from ..errors import BuildFailed, BuildTimeout, Invalid, TooLarge
from ..ports import Progress
from . import trees
from .off_loop import Apply, run

MAX_BYTES = 2 * 1024**3
"""Of what is fetched, and of what it unpacks to."""
MAX_LISTING = 64 * 1024**2
MAX_MEMORY = 2 * 1024**3
MAX_LINE = 500
MAX_LINES = 1000
"""Lines that are passed on: the other side can print what it likes."""
KEPT_LINES = 5

PASSED_ON = ("PATH", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""How this machine reaches others; nothing else of the daemon's environment is for git."""
SETTINGS = {
    "core.bigFileThreshold": "16m",
    "core.deltaBaseCacheLimit": "32m",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.packedGitLimit": "256m",
    "core.packedGitWindowSize": "16m",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "submodule.recurse": "false",
}
_LISTED = re.compile(rb"(\d{6}) (\w+) ([0-9a-f]{40,64}) +(\d+|-)\t(.+)", re.DOTALL)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


class GitFile(Struct, frozen=True, kw_only=True):
    """A file of a commit. ``sha256`` only tells files apart; ``blob`` is git's own name for the content, of ``length``
    bytes, which is where a link leads to."""

    path: str
    blob: str
    length: int
    sha256: str = ""
    size: int = 0
    executable: bool = False
    link: str | None = None


def fetch(
    context: str, into: Path, progress: Progress, timeout: float, *, apply: Apply, max_bytes: int = MAX_BYTES
) -> str:
    """Put the files of ``https://host/path#ref:folder`` into the folder ``into``, which is made, and return the full id of
    the commit. ``timeout`` in seconds, for everything. ``Invalid`` for what is no such address, or a tree that cannot be
    made; ``BuildFailed`` and ``BuildTimeout`` when it cannot be fetched; ``TooLarge``. Submodules are left out, files of
    git-lfs stay pointers."""
    wanted = git_context(context)
    place = into.parent / f".{into.name}.{secrets.token_hex(4)}"
    free = run(apply, lambda: _make(place), into)
    max_bytes = min(max_bytes, free // 4)  # the pack, the contents, and the files are there at once
    try:
        git = Git(place, wanted, progress, time.monotonic() + timeout, timeout)
        git.run("init", "--quiet", "--bare", "--template=", ".")
        flags = ("--depth=1", "--no-tags", "--no-recurse-submodules", "--progress")
        git.run("fetch", *flags, "--", wanted.url, wanted.ref or "HEAD", limit=max_bytes)
        git.run("rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}", target=place / "sha")
        sha = (place / "sha").read_text("ascii").strip()
        progress(f"{wanted.shown} is at {sha[:12]}")
        _list(git, wanted, sha, place / "listing")
        files = list(run(apply, lambda: list(_files((place / "listing").read_bytes())), into))
        links = [file for file in files if file.link is not None]
        if any(file.length > MAX_PATH for file in links):
            raise Invalid(f"{wanted.shown}: a symbolic link in it leads to what is no path.")
        git.read_blobs(links, place / "links", MAX_LISTING)
        manifest = run(apply, lambda: Manifest(_with_targets(files, place / "links"), max_bytes=max_bytes), into)
        contents = [file for file in manifest if file.link is None]
        git.read_blobs(contents, place / "contents", max_bytes + MAX_LISTING)
        run(apply, lambda: _write(manifest, place, into), into)
    finally:
        run(apply, lambda: trees.remove(place), into)
    return sha


class Git:
    """Runs ``git`` in one bare repository, until one deadline."""

    def __init__(self, place: Path, wanted: GitContext, progress: Progress, deadline: float, seconds: float) -> None:
        self._folder = place / "repository"
        self._home = place / "home"
        self._wanted = wanted
        self._progress = progress
        self._deadline = deadline
        self._seconds = seconds
        self._lines = 0
        self._environment = environment(wanted, self._home)

    def run(
        self, *arguments: str, limit: int = MAX_LISTING, source: Path | None = None, target: Path | None = None
    ) -> None:
        """``source`` and ``target`` are files for its standard streams; ``limit``: bytes that any file it writes may
        have. ``BuildFailed`` with its last words."""
        with contextlib.ExitStack() as stack:
            stdin = stack.enter_context(source.open("rb")) if source is not None else subprocess.DEVNULL
            stdout = stack.enter_context(target.open("wb")) if target is not None else subprocess.DEVNULL
            self._run(arguments, stdin, stdout, limit)

    def read_blobs(self, files: Iterable[GitFile], target: Path, limit: int) -> None:
        """The contents of ``files`` one after another, as `git cat-file --batch` prints them."""
        wanted = target.with_name(f"{target.name}.wanted")
        wanted.write_bytes(b"".join(f"{file.blob}\n".encode() for file in files))
        self.run("cat-file", "--batch", limit=limit, source=wanted, target=target)

    def _run(self, arguments: tuple[str, ...], stdin: int | IO[bytes], stdout: int | IO[bytes], limit: int) -> None:
        self._told: deque[str] = deque(maxlen=KEPT_LINES)
        try:
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise BuildFailed("The server has no `git`: install it, or send the files.") from error
        over = threading.Event()

        def expire() -> None:
            over.set()
            _end(process)

        timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), expire)
        timer.daemon = True
        timer.start()
        try:
            _limit(process.pid, limit)
            self._listen(process.stderr)
            code = process.wait()
        finally:
            timer.cancel()
            _end(process)
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
        if over.is_set():
            raise BuildTimeout(f"{self._wanted.shown} was not fetched within {self._seconds:g} s.")
        if code != 0 and self._largest() >= limit:
            raise TooLarge(f"{self._wanted.shown} is larger than {limit} bytes.")
        if code != 0:
            raise BuildFailed(f"{self._wanted.shown} cannot be fetched: {self._reason()}")

    def _listen(self, stream: IO[bytes] | None) -> None:
        """Pass on what is printed, a line at a time; of a line that is written over and over only its end."""
        assert stream is not None
        while data := stream.readline(64 * 1024):
            text = data.decode("utf-8", "replace").rstrip("\r\n").rpartition("\r")[2]
            line = self._masked(_UNPRINTABLE.sub(" ", text).strip())[:MAX_LINE]
            if not line:
                continue
            self._told.append(line)
            self._lines += 1
            if self._lines <= MAX_LINES:
                self._progress(line)

    def _masked(self, text: str) -> str:
        for secret in self._wanted.secrets:
            text = text.replace(secret, "********")
        return text

    def _largest(self) -> int:
        """Bytes of the largest pack: one that met its limit was being written when git died of it."""
        return max((file.stat().st_size for file in self._folder.glob("objects/pack/*")), default=0)

    def _reason(self) -> str:
        said = "\n".join(self._told)
        if "could not read Username" in said or "Authentication failed" in said or "error: 401" in said:
            return (
                "it needs another login." if self._wanted.login else "it needs a login, or there is none of this name."
            )
        if "couldn't find remote ref" in said or "not our ref" in said:
            return f"there is no `{self._wanted.ref}` in it."
        wrong = [line for line in self._told if line.startswith(("fatal:", "error:"))]
        return (wrong or list(self._told) or ["git says nothing."])[0 if wrong else -1]


def environment(wanted: GitContext, home: Path) -> dict[str, str]:
    """What git gets. The login travels in here: command lines are for everybody to see, environments are not."""
    settings = dict(SETTINGS)
    if wanted.url.startswith("http://"):
        settings["protocol.http.allow"] = "always"
    # a redirect could lead the login elsewhere
    settings["http.followRedirects"] = "false" if wanted.login else "initial"
    if wanted.login:
        settings["http.extraHeader"] = f"Authorization: {wanted.authorization}"
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if "SSL_CERT_FILE" in passed:
        passed["GIT_SSL_CAINFO"] = passed["SSL_CERT_FILE"]
    pairs: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        "PATH": os.defpath,
        **passed,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_DIR": ".",
        **pairs,
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _limit(process: int, size: int) -> None:
    if not hasattr(resource, "prlimit"):
        return
    with contextlib.suppress(ProcessLookupError):
        for what, most in ((resource.RLIMIT_FSIZE, size), (resource.RLIMIT_AS, MAX_MEMORY), (resource.RLIMIT_CORE, 0)):
            _, hard = resource.prlimit(process, what)
            resource.prlimit(process, what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _make(place: Path) -> int:
    """Returns how many bytes are free there."""
    for folder in (place, place / "repository", place / "home", place / "tree"):
        folder.mkdir(mode=0o700)
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize


def _list(git: Git, wanted: GitContext, sha: str, target: Path) -> None:
    try:
        git.run("ls-tree", "-r", "-l", "-z", f"{sha}:{wanted.folder}", target=target)
    except BuildFailed as error:
        if wanted.folder and not isinstance(error, BuildTimeout):
            raise Invalid(f"{wanted.shown}: there is no such folder in it.") from error
        raise


def _files(listing: bytes) -> Iterator[GitFile]:
    """What `git ls-tree -r -l -z` printed; submodules are left out."""
    for count, row in enumerate(filter(None, listing.split(b"\0"))):
        match = _LISTED.fullmatch(row)
        if match is None:
            raise BuildFailed("git lists what is no file.")
        if count >= MAX_FILES:
            raise TooLarge(f"There are more than {MAX_FILES} files.")
        mode, kind, blob, size, name = match.groups()
        if kind != b"blob":
            continue
        if b".git" in name.lower().split(b"/"):
            raise Invalid("There is a `.git` among its files.")
        is_link = mode == b"120000"
        yield GitFile(
            path=name.decode("utf-8", "surrogateescape"),
            blob=blob.decode(),
            length=int(size),
            sha256="" if is_link else hashlib.sha256(blob).hexdigest(),
            size=0 if is_link else int(size),
            executable=mode == b"100755",
            link="" if is_link else None,
        )


def _with_targets(files: list[GitFile], contents: Path) -> list[GitFile]:
    """Links with where they lead to, which git keeps as contents."""
    with contents.open("rb") as source:
        return [
            replace(file, link=_content(source, file).decode("utf-8", "surrogateescape"))
            if file.link is not None
            else file
            for file in files
        ]


def _content(source: IO[bytes], file: GitFile) -> bytes:
    _begin(source, file)
    return source.read(file.length + 1)[:-1]


def _begin(source: IO[bytes], file: GitFile) -> None:
    """The place in what `git cat-file --batch` printed where ``file`` begins."""
    head = f"{file.blob} blob {file.length}\n".encode()
    if source.read(len(head)) != head:
        raise BuildFailed("git gives other files than it listed.")


def _write(files: Iterable[GitFile], place: Path, into: Path) -> None:
    # unbuffered: what is read here is also read through the descriptor
    with (place / "contents").open("rb", buffering=0) as source:

        def fill(file: GitFile, target: int) -> None:
            _begin(source, file)
            copied = trees.copy(source.fileno(), target, file.length)
            if copied != file.length or source.read(1) != b"\n":
                raise BuildFailed("git gives less than it listed.")

        trees.write_tree(place / "tree", files, fill)
    os.rename(place / "tree", into)

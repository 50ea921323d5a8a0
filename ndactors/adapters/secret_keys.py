"""The keys of the secret store: from systemd's credentials, else a file that only its owner can read, made once. A key
that is lost is never replaced by a new one while something is encrypted with it."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SecretsUnreadable
from .off_loop import Apply, run
from .state_files import replace_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = logging.getLogger("ndactors.secrets")

CREDENTIAL = "nextdeploy-key"
OLD_CREDENTIAL = "nextdeploy-key-old"
"""For a change of the credential: what is encrypted with it can still be read, until ``rotate`` has run."""
FILE = "secrets.key"
NEXT_FILE = "secrets.key.next"
MIN_BYTES, MAX_BYTES = 32, 4096
_HEX = re.compile(rb"[0-9A-Fa-f]{64}\s*")


@dataclass(frozen=True)
class Key:
    """``id`` names it and tells nothing about it; ``cipher`` encrypts; ``marking`` is the HMAC key of marks."""

    id: str
    cipher: AESGCM
    marking: bytes

    @classmethod
    def of(cls, material: bytes) -> Key:
        # OpenSSL is for those who have secrets
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        material = bytes.fromhex(material.decode()) if _HEX.fullmatch(material) else material

        def derived(purpose: str, length: int = 32) -> bytes:
            return HKDF(SHA256(), length, None, f"nextdeploy secrets v1: {purpose}".encode()).derive(material)

        return cls(derived("name", 8).hex(), AESGCM(derived("encryption")), derived("marks"))


@dataclass(frozen=True)
class Keys:
    """``current`` encrypts; ``all`` can be read with, by id. ``rotating``: a rotation has begun and not ended."""

    current: Key
    all: dict[str, Key]
    rotating: bool = False


class KeyFolder:
    """Where keys are. ``credentials`` is systemd's ``$CREDENTIALS_DIRECTORY``, if there is one. ``report(kind, words)``
    hears of what somebody should know; ``apply`` runs what writes off the event loop."""

    def __init__(
        self,
        folder: Path,
        credentials: Path | None,
        report: Callable[[str, str], None],
        apply: Apply,
    ) -> None:
        self._folder = folder
        self._credentials = credentials
        self._report = report
        self._apply = apply

    @property
    def place(self) -> Path:
        """Where the key in use is, or should be."""
        if self._credentials is not None and (self._credentials / CREDENTIAL).exists():
            return self._credentials / CREDENTIAL
        return self._folder / FILE

    def load(self) -> Keys | None:
        """None if there is no key at all. ``SecretsUnreadable`` for one that is no key, ``StateError``."""
        file, upcoming = self._file(FILE), self._file(NEXT_FILE)
        given = self._credential(CREDENTIAL)
        others = [key for key in (file, upcoming, self._credential(OLD_CREDENTIAL)) if key is not None]
        current = given or upcoming or file
        if current is None:
            return None
        return Keys(
            current, {key.id: key for key in (*others, current)}, rotating=given is None and upcoming is not None
        )

    def make(self) -> None:
        """The first key."""
        self._write(FILE)

    def begin_rotation(self) -> None:
        """A new key beside the old one. From now on it encrypts, and both are read. A credential is changed by whoever
        gives it to us."""
        if self._credential(CREDENTIAL) is None and self._file(NEXT_FILE) is None:
            self._write(NEXT_FILE)

    def end_rotation(self) -> None:
        """Nothing is encrypted with the old key any more."""
        if self._credential(CREDENTIAL) is not None or not (self._folder / NEXT_FILE).exists():
            return
        run(self._apply, self._rename, self._folder / FILE)

    def _rename(self) -> None:
        os.rename(self._folder / NEXT_FILE, self._folder / FILE)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, name: str) -> None:
        path = self._folder / name

        def write() -> None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, secrets.token_hex(32).encode() + b"\n")

        run(self._apply, write, path)

    def _credential(self, name: str) -> Key | None:
        if self._credentials is None:
            return None
        return self._read(self._credentials / name, own=False)

    def _file(self, name: str) -> Key | None:
        return self._read(self._folder / name, own=True)

    def _read(self, path: Path, *, own: bool) -> Key | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SecretsUnreadable(f"The secrets' key {path} cannot be read: {error.strerror}.") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SecretsUnreadable(f"The secrets' key {path} is no file.")
            if own:
                self._close_to_others(path, descriptor, status)
            material = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        if not MIN_BYTES <= len(material) <= MAX_BYTES:
            raise SecretsUnreadable(
                f"The secrets' key {path} has {len(material)} bytes; a key has {MIN_BYTES} to {MAX_BYTES}."
            )
        return Key.of(material)

    def _close_to_others(self, path: Path, descriptor: int, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if not mode & 0o077:
            return
        if status.st_uid != os.geteuid():
            raise SecretsUnreadable(
                f"The secrets' key {path} has mode {mode:04o} and belongs to another user; its mode must be 0600."
            )
        os.fchmod(descriptor, 0o600)
        words = (
            f"{path} had mode {mode:04o}, so others could read it; it is 0600 now. Rotate the key if somebody may have"
        )
        log.warning("%s", words)
        self._report("secrets.key_exposed", words)

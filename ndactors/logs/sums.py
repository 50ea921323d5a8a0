"""What is known of a file before it is sent, in the forms in which S3 tells what it has."""

from __future__ import annotations

import base64
import hashlib
import os

from msgspec import Struct

PART_BYTES = 8 * 1024 * 1024
"""Not less than 5 MiB: S3 takes no smaller parts but the last."""


class Part(Struct, frozen=True):
    """Of a file: digests of these bytes, raw."""

    offset: int
    size: int
    sha256: bytes
    md5: bytes


class Sums(Struct, frozen=True):
    """What is known of a file before it is sent."""

    size: int
    sha256: bytes
    parts: tuple[Part, ...]

    @property
    def checksum(self) -> str:
        """As S3 has it: of the bytes, or of the digests of the parts. It may come with their number behind a ``-``."""
        if len(self.parts) == 1:
            return in_base64(self.sha256)
        return in_base64(hashlib.sha256(b"".join(part.sha256 for part in self.parts)).digest())

    @property
    def etag(self) -> str:
        """The same with MD5, which S3 gives unless it encrypts with keys of KMS or ours."""
        if len(self.parts) == 1:
            return self.parts[0].md5.hex()
        whole = hashlib.md5(b"".join(part.md5 for part in self.parts), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(self.parts)}"


def sums_of(file: int, part_bytes: int = PART_BYTES) -> Sums:
    """``OSError``."""
    whole, parts, offset = hashlib.sha256(), list[Part](), 0
    while (data := os.pread(file, part_bytes, offset)) or not parts:
        whole.update(data)
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        parts.append(Part(offset, len(data), hashlib.sha256(data).digest(), md5))
        offset += len(data)
    return Sums(offset, whole.digest(), tuple(parts))


def in_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()

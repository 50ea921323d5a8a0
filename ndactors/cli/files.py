"""Small files of the client's own: replaced as a whole, and private."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .failures import Failure


def replace_file(path: Path, content: bytes) -> None:
    """All of it or nothing of it; 0600, in a folder that is made 0700. ``Failure``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)
        except BaseException:
            os.unlink(made)
            raise
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error

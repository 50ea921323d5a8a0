"""What `nextdeploy login` remembers: servers and their tokens, in a file that only its owner can read. A token is sent to
the server that it was given for, and to no other."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .failures import WRONG, Failure
from .files import replace_file

MAX_BYTES = 1024 * 1024


def path(variables: Mapping[str, str]) -> Path:
    base = variables.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "nextdeploy" / "logins.json"


def current(variables: Mapping[str, str]) -> str | None:
    """The server that was signed in to last."""
    found = _read(variables).get("current")
    return found if isinstance(found, str) else None


def token_for(address: str, variables: Mapping[str, str]) -> str | None:
    token = _read(variables)["servers"].get(address.rstrip("/"), {}).get("token")
    return token if isinstance(token, str) else None


def remember(address: str, token: str | None, variables: Mapping[str, str]) -> None:
    rows = _read(variables)
    rows["current"] = address.rstrip("/")
    rows["servers"][address.rstrip("/")] = {"token": token} if token else {}
    _write(rows, variables)


def forget(address: str, variables: Mapping[str, str]) -> bool:
    """False: there was nothing to forget."""
    rows = _read(variables)
    known = rows["servers"].pop(address.rstrip("/"), None) is not None
    if rows.get("current") == address.rstrip("/"):
        del rows["current"]
    if known:
        _write(rows, variables)
    return known


def _write(rows: dict[str, Any], variables: Mapping[str, str]) -> None:
    replace_file(path(variables), json.dumps(rows, indent=2).encode() + b"\n")


def _read(variables: Mapping[str, str]) -> dict[str, Any]:
    place = path(variables)
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"servers": {}}
    except OSError as error:
        raise Failure(f"{place}: {error.strerror}", code=WRONG) from error
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            raise Failure(f"others can read the tokens in {place}: do `chmod 600 {place}` first", code=WRONG)
        content = file.read(MAX_BYTES + 1)
    try:
        rows = json.loads(content)
        servers = rows["servers"]
        if not isinstance(servers, dict) or not all(isinstance(row, dict) for row in servers.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Failure(f"{place} is damaged: remove it and sign in again", code=WRONG) from error
    return dict(rows)

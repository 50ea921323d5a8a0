"""Which daemon a command is for: what was given, else the environment, else the project file, else what `login`
remembered, else the one on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .connection import LocalServer, Server, server_at
from .daemon import state_folder
from .failures import Invalid
from .options import Choices

SOCKET = "control.sock"
SYSTEM_FOLDER = Path("/var/lib/nextdeploy")
SYSTEM_FILE = Path("/etc/nextdeploy/nextdeploy.yml")


def chosen(choices: Choices, variables: Mapping[str, str]) -> Server:
    """``Failure`` for an address that is none, ``Invalid`` for a project file that cannot be read."""
    if choices.server:
        return _remote(choices.server, choices, variables)
    if choices.state_dir:
        return LocalServer(Path(choices.state_dir) / SOCKET)
    if variables.get("NEXTDEPLOY_SERVER"):
        return _remote(variables["NEXTDEPLOY_SERVER"], choices, variables)
    if variables.get("NEXTDEPLOY_STATE_DIR"):
        return LocalServer(Path(variables["NEXTDEPLOY_STATE_DIR"]) / SOCKET)
    told = _told(choices, variables)
    if told.get("server"):
        return _remote(told["server"], choices, variables)
    if told.get("state_dir"):
        return LocalServer(state_folder(told["state_dir"], choices.path, variables, root=False) / SOCKET)
    from .logins import current

    remembered = current(variables)
    if remembered is not None:
        return _remote(remembered, choices, variables)
    return LocalServer(local_socket(variables, root=os.geteuid() == 0))


def local_socket(variables: Mapping[str, str], *, root: bool) -> Path:
    """Of the daemon on this machine: this user's own if it is there, else the system's."""
    given = variables.get("NEXTDEPLOY_STATE_DIR")
    own = Path(given) if given else state_folder(None, Path(), variables, root=root)
    if not given and not (own / SOCKET).exists():
        system = SYSTEM_FOLDER
        if SYSTEM_FILE.exists() and os.access(SYSTEM_FILE, os.R_OK):
            setting = keys_of(SYSTEM_FILE, "prod", variables).get("state_dir")
            system = state_folder(setting, SYSTEM_FILE, variables, root=True)
        if (system / SOCKET).exists():
            return system / SOCKET
    return own / SOCKET


def _remote(address: str, choices: Choices, variables: Mapping[str, str]) -> Server:
    from .logins import token_for

    token = choices.token or variables.get("NEXTDEPLOY_TOKEN") or token_for(address, variables)
    return server_at(address, token, variables)


def _told(choices: Choices, variables: Mapping[str, str]) -> dict[str, str]:
    if choices.file is None and not choices.path.exists():
        return {}
    return keys_of(choices.path, choices.environment, variables)


def keys_of(path: Path, environment: str, variables: Mapping[str, str]) -> dict[str, str]:
    """``server`` and ``state_dir`` of a file, whichever it has, without a look at the rest."""
    from ..adapters import yaml_file
    from ..core.environments import Document, interpolated, overlaid
    from ..errors import ConfigurationError
    from .project_file import read_bytes

    source = str(path)
    try:
        document = yaml_file.parse(read_bytes(path), source)
        overlaid(document, environment)  # what is wrong with it is told by whoever reads all of it
        tree: Any = {key: document.tree.get(key) for key in ("server", "state_dir")}
        small = Document(tree, document.keys, document.values, document.origins, document.moves)
        problems = interpolated(small, variables, yaml_file.scalar)
        if problems:
            raise ConfigurationError(source, problems)
    except ConfigurationError as error:
        raise Invalid(error.lines()) from error
    return {key: str(value) for key, value in small.tree.items() if isinstance(value, str) and value}

"""Where the Docker Engine is. Apart from the engine itself, which brings along the SDK: 7 MB that a server without it need
not have."""

from __future__ import annotations

import os
from pathlib import Path


def docker_present() -> bool:
    """True if this machine is meant to have an Engine, whether or not it answers now."""
    return bool(os.environ.get("DOCKER_HOST")) or Path("/var/run/docker.sock").exists()


def docker_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

"""From the Engine's JSON to our records. Pure."""

from __future__ import annotations

import datetime
import os
import re
from typing import Any

from ..core import containers as labels
from ..core.containers import ContainerStatus, EngineEvent, EventKind, RunState

_STATES: dict[str, RunState] = {"created": "created", "running": "running", "paused": "paused", "restarting": "running"}
_KINDS: dict[str, EventKind] = {
    "start": "started",
    "die": "died",
    "oom": "oom",
    "pause": "paused",
    "unpause": "unpaused",
    "destroy": "removed",
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)")


def status(facts: dict[str, Any], *, published: bool, root: str = "") -> ContainerStatus:
    """Of ``GET /containers/{id}/json``. ``published``: dialled by a port on loopback, not by its address.
    ``root`` is the Engine's folder, empty if not known."""
    state, config = facts["State"], facts["Config"]
    own = config.get("Labels") or {}
    now = _STATES.get(state.get("Status", ""), "exited")
    text = own.get(labels.PORT, "")
    port = int(text) if text.isdigit() else None
    address = _address(facts) if now in ("running", "paused") else None
    if published and port is not None and address is not None:
        bindings = (facts["NetworkSettings"].get("Ports") or {}).get(f"{port}/tcp") or []
        address, port = ("127.0.0.1", int(bindings[0]["HostPort"])) if bindings else (None, port)
    log_path = _log_path(facts, root)
    began = seconds(state.get("StartedAt"))
    return ContainerStatus(
        id=facts["Id"],
        name=facts["Name"].removeprefix("/"),
        labels=own,
        state=now,
        image=config.get("Image"),
        pid=state.get("Pid") or None,
        exit_code=state.get("ExitCode") if now == "exited" else None,
        oom_killed=bool(state.get("OOMKilled")),
        started_at=began,
        finished_at=seconds(state.get("FinishedAt")),
        address=address,
        port=port,
        log_path=log_path,
    )


def _log_path(facts: dict[str, Any], root: str) -> str | None:
    """None if it cannot be read here. Before its start a container has none yet, but it is known where it will be."""
    path = facts.get("LogPath") or ""
    if path:
        return path if os.access(path, os.R_OK) else None
    config = (facts.get("HostConfig") or {}).get("LogConfig") or {}
    folder = f"{root}/containers/{facts['Id']}"
    if config.get("Type") != "json-file" or not root or not os.access(folder, os.R_OK | os.X_OK):
        return None
    return f"{folder}/{facts['Id']}-json.log"


def _address(facts: dict[str, Any]) -> str | None:
    """Its address on the network it was created on; else on any."""
    networks = facts["NetworkSettings"].get("Networks") or {}
    first = (facts.get("HostConfig") or {}).get("NetworkMode")
    for name in (first, *networks):
        address = (networks.get(name) or {}).get("IPAddress")
        if address:
            return str(address)
    return None


def event(fact: dict[str, Any]) -> EngineEvent | None:
    """Of one line of ``GET /events``; None for what says nothing about a container."""
    kind = _KINDS.get(fact.get("Action", ""))
    actor = fact.get("Actor") or {}
    if kind is None or not actor.get("ID"):
        return None
    attributes = actor.get("Attributes") or {}
    code = attributes.get("exitCode", "")
    return EngineEvent(
        ts=fact.get("timeNano", 0) / 1e9 or float(fact.get("time", 0)),
        kind=kind,
        container=actor["ID"],
        exit_code=int(code) if code.isdigit() else None,
        labels={name: value for name, value in attributes.items() if name.startswith(labels.LABEL)},
    )


def seconds(text: str | None) -> float | None:
    """RFC 3339 with up to nine digits of a second to Unix seconds; None for Go's zero time."""
    match = _TIME.fullmatch(text or "")
    if match is None or (text or "").startswith("0001-"):
        return None
    whole, fraction, zone = match.groups()
    return datetime.datetime.fromisoformat(f"{whole}{fraction or ''}{'+00:00' if zone == 'Z' else zone}").timestamp()

"""From a ``ContainerSpec`` to what the Engine's API wants. Pure but for looking at volume paths."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ..core import containers as labels
from ..core.containers import ContainerSpec
from ..core.model import Volume
from ..errors import Forbidden

DROPPED = ("NET_RAW", "MKNOD")
"""Docker's default capabilities that no app needs: raw packets (spoofing), device nodes."""
DEFAULT_PORT = 8080
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")


def body(spec: ContainerSpec, port: int, volumes_folder: Path, *, publish: bool) -> dict[str, Any]:
    """The JSON of ``POST /containers/create``."""
    endpoints = {spec.network: {"Aliases": list(spec.aliases)}} if spec.network else {}
    return {
        "Image": spec.image,
        "Cmd": argv(spec.command),
        "Entrypoint": argv(spec.entrypoint),
        "Env": [f"{name}={value}" for name, value in {"PORT": str(port), **spec.env}.items()],
        "User": spec.user or "",
        "WorkingDir": spec.workdir or "",
        "Labels": {**spec.labels, labels.PORT: str(port)},
        "StopSignal": spec.stop_signal,
        "ExposedPorts": {f"{port}/tcp": {}},
        "HostConfig": _host(spec, port, volumes_folder, publish=publish),
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


def _host(spec: ContainerSpec, port: int, volumes_folder: Path, *, publish: bool) -> dict[str, Any]:
    limits = spec.resources
    added = {name.upper().removeprefix("CAP_") for name in spec.cap_add}
    dropped = {*DROPPED, *(name.upper().removeprefix("CAP_") for name in spec.cap_drop)} - added
    host: dict[str, Any] = {
        "RestartPolicy": {"Name": "no"},
        "Init": True,
        "SecurityOpt": ["no-new-privileges"],
        "CapAdd": sorted(added),
        "CapDrop": sorted(dropped),
        "PidsLimit": limits.pids,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(spec.rotate.size), "max-file": str(spec.rotate.files)},
        },
        "Mounts": [mount(volume, spec, volumes_folder) for volume in spec.volumes],
    }
    if spec.network:
        host["NetworkMode"] = spec.network
    if limits.memory:
        # the same figure for memory and memory plus swap: no swap, or a leak would slow the whole machine down first
        host |= {"Memory": limits.memory, "MemorySwap": limits.memory}
    if limits.cpus:
        host["NanoCpus"] = int(limits.cpus * 1e9)
    if publish:
        host["PortBindings"] = {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    return host


def argv(command: str | tuple[str, ...] | None) -> list[str] | None:
    """A string is split as a shell would split it, but no shell runs: the image may have none."""
    if command is None:
        return None
    try:
        return shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise Forbidden(f"the command {command!r} cannot be split: {error}") from error


def volume_name(volume: Volume, spec: ContainerSpec) -> str:
    # a dot is in no project's name: two names can never run into one
    return f"nd-{spec.labels[labels.PROJECT]}.{volume.source}-{spec.labels[labels.DAEMON][:6]}"


def mount(volume: Volume, spec: ContainerSpec, volumes_folder: Path) -> dict[str, Any]:
    """A named volume is the Engine's, kept in a folder of ours; a path is bound. Never the Engine's own socket."""
    if not volume.is_named:
        _refuse_engine_socket(volume.source)
        return {
            "Type": "bind",
            "Source": volume.source,
            "Target": volume.target,
            "ReadOnly": volume.read_only,
        }
    folder = volumes_folder / spec.labels[labels.PROJECT] / volume.source
    options = {"type": "none", "o": "bind", "device": str(folder)}
    return {
        "Type": "volume",
        "Source": volume_name(volume, spec),
        "Target": volume.target,
        "ReadOnly": volume.read_only,
        "VolumeOptions": {
            "Labels": {name: spec.labels[name] for name in (labels.PROJECT, labels.DAEMON)},
            "DriverConfig": {"Name": "local", "Options": options},
        },
    }


def _refuse_engine_socket(source: str) -> None:
    """Whoever has the socket owns the host; a folder that holds it gives it away too."""
    real = Path(os.path.realpath(source))
    for socket in SOCKETS:
        target = Path(os.path.realpath(socket))
        if real == target or real in target.parents:
            raise Forbidden(f"{source} is or holds the Engine's socket, which no app may have")

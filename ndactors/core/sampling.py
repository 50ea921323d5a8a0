"""Readings of the host and of containers as figures, under the names that Prometheus knows them by. Only what is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple


class Figure(NamedTuple):
    name: str
    kind: Literal["gauge", "counter"]
    labels: dict[str, str]
    value: float


CONTAINER_FIGURES: tuple[tuple[str, str, Literal["gauge", "counter"]], ...] = (
    ("cpu_seconds", "nextdeploy_container_cpu_seconds_total", "counter"),
    ("memory", "nextdeploy_container_memory_bytes", "gauge"),
    ("memory_limit", "nextdeploy_container_memory_limit_bytes", "gauge"),
    ("network_receive", "nextdeploy_container_network_receive_bytes_total", "counter"),
    ("network_transmit", "nextdeploy_container_network_transmit_bytes_total", "counter"),
    ("disk", "nextdeploy_container_disk_bytes", "gauge"),
    ("oom_kills", "nextdeploy_container_oom_kills_total", "counter"),
    ("pids", "nextdeploy_container_pids", "gauge"),
)
"""The field of a ``ContainerUsage``, and what it is called outside."""
HOST_FIGURES: tuple[tuple[str, str, Literal["gauge", "counter"]], ...] = (
    ("cpu_percent", "nextdeploy_host_cpu_percent", "gauge"),
    ("memory_used", "nextdeploy_host_memory_used_bytes", "gauge"),
    ("memory_total", "nextdeploy_host_memory_total_bytes", "gauge"),
    ("swap_used", "nextdeploy_host_swap_used_bytes", "gauge"),
    ("swap_total", "nextdeploy_host_swap_total_bytes", "gauge"),
    ("network_receive", "nextdeploy_host_network_receive_bytes_total", "counter"),
    ("network_transmit", "nextdeploy_host_network_transmit_bytes_total", "counter"),
    ("zombie_count", "nextdeploy_host_zombie_processes", "gauge"),
)
MOUNT_FIGURES = (
    ("disks", "nextdeploy_host_disk_used_bytes", "nextdeploy_host_disk_total_bytes"),
    ("inodes", "nextdeploy_host_inodes_used", "nextdeploy_host_inodes"),
)


def container_figures(usages: Iterable[Any]) -> list[Figure]:
    """``usages``: ``messages.stats.ContainerUsage``."""
    found = []
    for usage in usages:
        own = {"app": usage.app, "process": usage.process, "container": usage.name}
        for field, name, kind in CONTAINER_FIGURES:
            value = getattr(usage, field)
            if value is not None:
                found.append(Figure(name, kind, own, value))
    return found


def host_figures(host: Any, open_ports: int | None) -> list[Figure]:
    """``host``: ``messages.queries.HostView``. ``open_ports`` None: not known yet."""
    found = [Figure(name, kind, {}, getattr(host, field)) for field, name, kind in HOST_FIGURES]
    found.append(Figure("nextdeploy_host_load1", "gauge", {}, host.load[0]))
    for field, used_name, total_name in MOUNT_FIGURES:
        for mount, (used, total) in getattr(host, field).items():
            found.append(Figure(used_name, "gauge", {"mount": mount}, used))
            found.append(Figure(total_name, "gauge", {"mount": mount}, total))
    for resource, (some, _) in host.pressure.items():
        found.append(Figure("nextdeploy_host_pressure_percent", "gauge", {"resource": resource}, some))
    if open_ports is not None:
        found.append(Figure("nextdeploy_host_open_ports", "gauge", {}, open_ports))
    return found

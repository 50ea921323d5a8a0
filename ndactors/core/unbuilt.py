"""Keys that load but do nothing yet: each gets one warning that says so. Whoever builds a feature takes its line out."""

from __future__ import annotations

from ..errors import Problem
from .environments import Document, Path

UNBUILT: dict[str, str] = {
    "admin.domain": "the API at a domain",
    "admin.allowed_origins": "live updates to other origins",
    "apps.*.scale": "autoscaling",
    "apps.*.mirror": "failover to a mirror",
    "apps.*.backup": "backups",
    "apps.*.processes.*.scale": "autoscaling",
    "edge.https": "HTTPS",
    "requests.export": "a central dashboard",
    "usage": "usage figures",
    "ssl": "HTTPS",
    "backup": "backups",
}


def unbuilt_warnings(document: Document) -> list[Problem]:
    """One for each such key that the file gives."""
    found: list[Problem] = []
    for pattern, feature in UNBUILT.items():
        for path in _matches(document.tree, pattern.split("."), ()):
            found.append(
                document.problem(path, f"This loads, but {feature} cannot be had yet: it has no effect.", at_key=True)
            )
    if document.tree.get("engine") == "swarm":
        found.append(document.problem(("engine",), "Swarm cannot be had yet; the Docker Engine is used."))
    return found


def _matches(tree: object, parts: list[str], path: Path) -> list[Path]:
    if not parts:
        return [path]
    if not isinstance(tree, dict):
        return []
    # what is empty, null or false asks for nothing
    keys = list(tree) if parts[0] == "*" else [parts[0]] if tree.get(parts[0]) else []
    return [found for key in keys for found in _matches(tree[key], parts[1:], (*path, key))]

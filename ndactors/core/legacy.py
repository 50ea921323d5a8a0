"""The original single-app layout, in snake_case and camelCase, turned into `apps`. Keys that this daemon does not act on
load with one warning each."""

from __future__ import annotations

import re
from typing import Any

from ..errors import Problem
from .environments import Document, Path

SIGNS = frozenset(
    (
        *("app", "docker", "deployment", "environment", "logging", "servers", "repository", "target_type"),
        *("cloud_provider", "serverless", "app_name"),
    )
)
"""Top-level keys that only the original layout has."""
OWN_NAMES = ("args", "labels", "env", "registries", "caps", "headers", "redirects", "basic_auth")
"""Below these, keys are names of the user's own."""
IGNORED = ("servers", "repository", "target_type", "cloud_provider", "serverless")


def is_original(document: Document) -> bool:
    """Whether the file is in the original layout."""
    return bool({snake(str(key)) for key in document.tree} & SIGNS)


def modernised(document: Document) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings; the tree is changed in place. A file in today's layout is left alone."""
    tree = document.tree
    if not is_original(document):
        return [], []
    if "apps" in tree:
        other = next(key for key in tree if snake(str(key)) in SIGNS)
        return [document.problem((other,), "The original layout and `apps` cannot be mixed.", at_key=True)], []
    _snake_all(document)
    return _Conversion(document).run()


def snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower()


def _snake_all(document: Document) -> None:
    """Every key in snake_case, but for names that are the user's own."""

    def walk(value: Any, path: Path) -> Any:
        if path and path[-1] in OWN_NAMES:
            return value
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        result = {}
        for key, below in value.items():
            name = snake(key)
            if name != key:
                document.move((*path, key), (*path, name))
            result[name] = walk(below, (*path, name))
        return result

    document.tree = walk(document.tree, ())


class _Conversion:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.tree = document.tree
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.app: dict[str, Any] = {}

    def run(self) -> tuple[list[Problem], list[Problem]]:
        about = self._block("app")
        container = self._block("deployment", "container")
        docker = self._block("docker")
        name = about.get("name") or self.tree.get("app_name") or container.get("name") or "app"
        slug = re.sub(r"[^a-z0-9-]+", "-", str(name).lower()).strip("-")[:40].strip("-") or "app"
        self.name = slug
        self._take(("app", "domain"), "domains", lambda value: [value])
        self._take(("app", "port"), "port")
        self._take(("docker", "image"), "image")
        if "image" not in self.app:
            self._take(("docker", "build"), "build")
        for key in ("restart", "env_file", "volumes"):
            self._take(("deployment", "container", key), key)
        self._ports(container)
        self._healthcheck(container)
        self._environment()
        self._logging()
        self._monitoring()
        self._ignored(about, container, docker)
        if not self.app.get("domains"):
            self.app["domains"] = ["*"]
        result = {key: value for key, value in self.tree.items() if key not in SIGNS}
        result["apps"] = {slug: self.app}
        self.document.keys.setdefault(("apps", slug), (1, 1))
        self.document.values.setdefault(("apps", slug), (1, 1))
        self.document.tree = result
        return self.problems, self.warnings

    def _block(self, *path: str) -> dict[str, Any]:
        value: Any = self.tree
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            self.problems.append(self.document.problem(path, "Not a valid mapping."))
        return value if isinstance(value, dict) else {}

    def _take(self, source: Path, target: str, change: Any = None) -> None:
        value: Any = self.tree
        for key in source:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return
        self.app[target] = change(value) if change else value
        self.document.move(source, ("apps", self.name, target))

    def _ports(self, container: dict[str, Any]) -> None:
        """`"80:3000"`: the container's side is the port the edge dials; the host's side is the edge's business."""
        ports = container.get("ports")
        if not isinstance(ports, list) or not ports:
            return
        text = str(ports[0]).rpartition(":")[2].partition("/")[0]
        at: Path = ("deployment", "container", "ports", 0)
        if not text.isdigit():
            self.problems.append(self.document.problem(at, "Not a valid port mapping; write it like 80:3000."))
            return
        self.app["port"] = int(text)
        if ":" in str(ports[0]):
            words = "Only the container's port counts: the edge listens where `edge.http` says."
            self.warnings.append(self.document.problem(at, words))

    def _healthcheck(self, container: dict[str, Any]) -> None:
        check = container.get("healthcheck")
        if not isinstance(check, dict):
            return
        known = {key: check[key] for key in ("path", "interval", "timeout", "retries") if key in check}
        if check.get("test"):
            test = check["test"]
            if isinstance(test, list) and test[:1] in (["CMD"], ["CMD-SHELL"]):
                test = test[1:] if test[0] == "CMD" else " ".join(map(str, test[1:]))
            known["command"] = test
            known.pop("path", None)
        self.app["healthcheck"] = known
        self.document.move(("deployment", "container", "healthcheck"), ("apps", self.name, "healthcheck"))

    def _environment(self) -> None:
        rows = self.tree.get("environment")
        if rows is None:
            return
        if not isinstance(rows, list):
            self.problems.append(self.document.problem(("environment",), "Not a valid list."))
            return
        env = {}
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or "name" not in row:
                self.problems.append(self.document.problem(("environment", index), "Write it as name and value."))
            elif row.get("value") is not None:
                env[str(row["name"])] = row["value"]
        self.app["env"] = env

    def _logging(self) -> None:
        rows = self._block("logging")
        for key in rows:
            self._warn(("logging", key))

    def _monitoring(self) -> None:
        old = self.tree.get("monitoring")
        if not isinstance(old, dict):
            return
        thresholds = {k: old.pop(f"{k}_threshold") for k in ("cpu", "memory", "disk") if f"{k}_threshold" in old}
        if thresholds:
            old["thresholds"] = thresholds
        old.pop("enabled", None)
        alert = old.get("alert")
        if isinstance(alert, dict) and isinstance(alert.get("email"), str):
            self._warn(("monitoring", "alert", "email"), "mail needs a server: write `email` as a mapping")
            del alert["email"]

    def _ignored(self, about: dict[str, Any], container: dict[str, Any], docker: dict[str, Any]) -> None:
        for key in IGNORED:
            if key in self.tree:
                self._warn((key,))
        for block, known, at in (
            (about, ("name", "domain", "port"), ("app",)),
            (docker, ("image", "build"), ("docker",)),
            (
                container,
                ("restart", "env_file", "volumes", "ports", "healthcheck", "name"),
                ("deployment", "container"),
            ),
            (self._block("deployment"), ("container",), ("deployment",)),
        ):
            for key in block.keys() - set(known):
                self._warn((*at, key))
        ssl = self.tree.get("ssl")
        if isinstance(ssl, dict) and "auto_renew" in ssl:
            del ssl["auto_renew"]
            self._warn(("ssl", "auto_renew"), "certificates are always renewed")

    def _warn(self, path: Path, words: str = "this daemon does not act on it") -> None:
        self.warnings.append(self.document.problem(path, f"This loads, but {words}.", at_key=True))

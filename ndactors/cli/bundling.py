"""From a project's file and what it names to the ``Bundle`` that is sent, and where the content of each blob is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.manifests import Manifest
from ..errors import NextDeployError
from ..messages.projects import Bundle, BundleFile
from .collecting import collect
from .failures import WRONG, Failure
from .hashing import digests
from .project_file import Place, ProjectFile


@dataclass(frozen=True)
class Blob:
    """Where ``size`` bytes are."""

    path: Path
    size: int


@dataclass(frozen=True)
class Package:
    """``blobs`` are by digest; ``files`` counts those with content, ``size`` their bytes."""

    bundle: Bundle
    blobs: dict[str, Blob] = field(default_factory=dict)
    files: int = 0
    size: int = 0


def package(
    project: ProjectFile,
    variables: Mapping[str, str],
    *,
    images: Mapping[str, tuple[BundleFile, Path]] | None = None,
) -> Package:
    """``images``: archives by app; the build contexts of these apps are not needed then."""
    images = images or {}
    found = collect(project.folder, _needed(project, images))
    hashed = digests(project.folder, [one for one in found if one.link is None], variables)
    files: list[BundleFile] = []
    blobs: dict[str, Blob] = {}
    total = 0
    for one in found:
        if one.link is not None:
            files.append(BundleFile(path=one.path, link=one.link))
            continue
        digest, size = hashed[one.path]
        files.append(BundleFile(path=one.path, sha256=digest, size=size, executable=one.executable))
        blobs.setdefault(digest, Blob(project.folder / one.path, size))
        total += size
    for archive, path in images.values():
        blobs[archive.sha256] = Blob(path, archive.size)
        total += archive.size
    try:
        Manifest(files)
    except NextDeployError as error:
        raise Failure("this cannot be sent:", *str(error).split("\n"), code=WRONG) from error
    bundle = Bundle(
        text=project.text,
        environment=project.environment,
        variables=project.variables,
        files=tuple(files),
        images={app: archive for app, (archive, _) in images.items()},
    )
    return Package(bundle, blobs, len(hashed) + len(images), total)


def _needed(project: ProjectFile, images: Collection[str]) -> list[Place]:
    return [place for place in project.places if place.kind != "context" or place.app not in images]

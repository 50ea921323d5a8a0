"""Projects' files as folders below ``<state>/projects/<project>``, each made beside and renamed, so that one which is there
is complete:

- ``bundles/<digest>``: all files of one deploy, never changed.
- ``trees/<digest>``: files that containers see read-only, a tree for each content: a deploy that leaves them alone leaves
  their path alone, and so the containers.
- ``kept/<name>``: files that containers may write: begun with what the first deploy brought, theirs from then on.

Files are copies of the blobs, never hard links: who writes to a file that a blob shares would change the blob. File
systems that can share blocks until one side changes do so by themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ..core.confining import paths_of
from ..core.manifests import Manifest
from ..core.model import App
from ..core.schema import NAME
from ..errors import Invalid, MissingBlobs, TooLarge
from ..messages.projects import Bundle, BundleFile
from ..ports import BlobStore
from . import trees
from .off_loop import Apply, run

Files = Manifest[BundleFile]

PARTIAL_SECONDS = 86_400.0
YOUNG_SECONDS = 3600.0
"""What was laid out within the last hour stays: it may be of a deploy that is not on record yet."""


class Bundles:
    """``folder`` is ``<state>/projects``. Everything may raise ``StateError``."""

    def __init__(self, folder: Path, blobs: BlobStore, apply: Apply) -> None:
        self._folder = folder
        self._blobs = blobs
        self._apply = apply

    def lay_out(self, project: str, bundle: Bundle, seen: BlobStore | None = None) -> Path:
        """All files of a bundle, as a folder. ``Invalid`` and ``TooLarge`` for files that cannot be; ``MissingBlobs``, also
        for archives of images, and for those that are not in ``seen``: the blobs as who asks sees them (None: all)."""
        _check_name(project)
        files: Files = run(self._apply, lambda: Manifest(bundle.files), self._folder)
        archives = [image.sha256 for image in bundle.images.values()]
        missing = (seen or self._blobs).missing([*files.blobs(), *archives])
        if missing:
            raise MissingBlobs(missing)
        return run(self._apply, lambda: self._made(self.bundle_path(project, files), files), self._folder)

    def bundle_path(self, project: str, files: Files) -> Path:
        """Where they are laid out, or would be."""
        return self._folder / project / "bundles" / files.digest

    def tree_path(self, project: str, files: Files) -> Path:
        return self._folder / project / "trees" / files.digest

    def kept_path(self, project: str, path: str) -> Path:
        """Where what containers write to the project's ``path`` is: flat, so that no container can turn a folder on the
        way to another's into a link."""
        name = quote(path.rpartition("/")[2], safe="")[:60] or "project"
        return self._folder / project / "kept" / f"{name}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"

    # -- off the event loop ------------------------------------------------------------------------

    def lay_out_tree(self, project: str, files: Files) -> Path:
        """To be called off the event loop."""
        return self._made(self.tree_path(project, files), files)

    def lay_out_kept(self, project: str, path: str, files: Files | None, *, alone: bool) -> bool:
        """Begin what containers may write to with ``files`` (None: an empty folder), if it is not there yet; ``alone``:
        it is the one file in them. False if it was begun with other files. To be called off the event loop."""
        place = self.kept_path(project, path)
        seed = place.with_name(f"{place.name}.seed")
        digest = files.digest if files is not None else ""
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked(project):
            if os.path.lexists(place):
                return not seed.exists() or seed.read_text() == digest
            with self._beside(project) as made:
                trees.write_tree(made, files or (), self._fill, shared=True)
                seed.write_text(digest)
                trees.sync(made)
                os.rename(made / next(iter(files)).path if files is not None and alone else made, place)
            trees.sync_folder(place.parent)
        return True

    def projects(self) -> list[str]:
        """Those that have a folder, on record or not."""
        folder = self._folder
        names: list[str] = run(
            self._apply, lambda: sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [], folder
        )
        return names

    def clean(self, project: str, folders: Collection[str], apps: Iterable[App] = ()) -> None:
        """Remove all bundles but ``folders``, and all trees that neither these nor ``apps`` use. What containers wrote
        stays."""
        _check_name(project)
        kept = {*map(str, folders), *(path for app in apps for path in paths_of(app))}
        run(self._apply, lambda: self._clean(project, kept), self._folder)

    def note_trees(self, folder: Path, used: Iterable[Path]) -> None:
        """For as long as the bundle ``folder`` is kept, the trees ``used`` are. To be called off the event loop."""
        names = sorted({path.name for path in used})
        folder.with_name(f"{folder.name}.trees").write_text("\n".join(names))

    def _clean(self, project: str, kept: set[str]) -> None:
        own, now = self._folder / project, time.time()
        roots = {str(own / kind) + "/" for kind in ("bundles", "trees")}
        names = {path[len(root) :].split("/")[0] for path in kept for root in roots if path.startswith(root)}
        for name in list(names):
            noted = own / "bundles" / f"{name}.trees"
            if noted.is_file():
                names |= set(noted.read_text().split("\n"))
        for folder, seconds in (("bundles", YOUNG_SECONDS), ("trees", YOUNG_SECONDS), ("partial", PARTIAL_SECONDS)):
            for path in (own / folder).iterdir() if (own / folder).is_dir() else ():
                if path.name.removesuffix(".trees") not in names and now - path.lstat().st_mtime > seconds:
                    trees.remove(path)

    def _made(self, path: Path, files: Files) -> Path:
        """The folder, made now if it is not there."""
        if path.is_dir():
            os.utime(path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = os.statvfs(path.parent)
        if files.bytes > disk.f_bavail * disk.f_frsize // 2:
            raise TooLarge(f"The disk has no room for {files.bytes} bytes more: half of what is free must stay so.")
        with self._beside(path.parent.parent.name) as made:
            trees.write_tree(made, files, self._fill)
            trees.sync(made)
            try:
                os.rename(made, path)
            except OSError:
                if not path.is_dir():  # else somebody else was faster, with the same files
                    raise
        trees.sync_folder(path.parent)
        return path

    @contextmanager
    def _beside(self, project: str) -> Iterator[Path]:
        made = self._folder / project / "partial" / secrets.token_hex(8)
        made.mkdir(parents=True, mode=0o700)
        try:
            yield made
        finally:
            trees.remove(made)

    @contextmanager
    def _locked(self, project: str) -> Iterator[None]:
        descriptor = os.open(
            self._folder / project / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _fill(self, file: BundleFile, target: int) -> None:
        path = self._blobs.path(file.sha256)
        if path is None:
            raise MissingBlobs([file.sha256])
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(source).st_size != file.size:
                raise Invalid(f"{file.path}: its size is not {file.size}")
            trees.copy(source, target, file.size)
        finally:
            os.close(source)


def _check_name(project: str) -> None:
    if not re.fullmatch(NAME, project):
        raise Invalid(f"{project!r} is no valid project name; use a-z, 0-9 and -, at most 40 characters.")

"""``ndactors.ports.BuildContexts``: a folder on this machine as it is, or a git repository, fetched for one build."""

from __future__ import annotations

import secrets
from pathlib import Path

from ..core.git_urls import git_context, is_remote
from ..core.images import BuildContext
from ..core.model import Build
from ..errors import Invalid
from ..ports import Progress
from . import git_context as git
from . import trees
from .build_context import context_digest, read_context
from .off_loop import Apply, run

FETCH_SECONDS = 600.0


class Contexts:
    """``folder`` is where repositories are fetched to. ``apply`` runs what blocks off the event loop."""

    def __init__(self, folder: Path, apply: Apply) -> None:
        self._folder = folder
        self._apply = apply
        # what a daemon that died had fetched
        if folder.is_dir():
            for left in folder.iterdir():
                trees.remove(left)

    def open(self, app: str, build: Build, progress: Progress) -> BuildContext:
        if not is_remote(build.context):
            folder = Path(build.context)
            if not folder.is_dir():
                raise Invalid(f"the build context {folder} is no folder on this machine")
            return self._looked_at(folder, build, None, None)
        git_context(build.context)
        place = self._folder / f"{app}-{secrets.token_hex(4)}"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            sha = git.fetch(build.context, place, progress, FETCH_SECONDS, apply=self._apply)
            return self._looked_at(place, build, sha, place)
        except BaseException:
            run(self._apply, lambda: trees.remove(place), place)
            raise

    def close(self, context: BuildContext) -> None:
        if context.fetched is not None:
            place = Path(context.fetched)
            run(self._apply, lambda: trees.remove(place), place)

    def _looked_at(self, folder: Path, build: Build, sha: str | None, fetched: Path | None) -> BuildContext:
        dockerfile = build.dockerfile or "Dockerfile"

        def look() -> str:
            return context_digest(read_context(folder, dockerfile))

        tree = run(self._apply, look, folder)
        return BuildContext(
            folder=str(folder),
            dockerfile=dockerfile,
            tree=tree,
            sha=sha,
            fetched=str(fetched) if fetched is not None else None,
        )

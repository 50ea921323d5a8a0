"""What a git server tells a hook of a push (GitHub, GitLab, Gitea and its like), and whether it concerns an app. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ..errors import Invalid
from .git_urls import GitContext

EVENT_HEADERS = ("X-GitHub-Event", "X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event", "X-Gitlab-Event")
PUSHES = ("push", "push hook", "tag push hook")
MAX_MESSAGE = 500
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs/[!-~]{1,250}")


class Push(Struct, frozen=True, kw_only=True):
    """``ref`` as git has it (``refs/heads/main``); empty: not told. ``default`` is the repository's default branch."""

    ref: str = ""
    sha: str | None = None
    message: str | None = None
    default: str | None = None
    deleted: bool = False


class _Commit(Struct):
    message: str = ""


class _Repository(Struct):
    default_branch: str | None = None


class _Payload(Struct):
    """What is read of it; all else is passed over."""

    ref: str | None = None
    after: str | None = None
    deleted: bool = False
    head_commit: _Commit | None = None
    commits: list[_Commit] | None = None
    repository: _Repository | None = None
    project: _Repository | None = None


def other_event(headers: Mapping[str, str]) -> str | None:
    """What it is, if it says that it is no push."""
    told = [headers[name] for name in EVENT_HEADERS if name in headers]
    return told[0][:60] if told and told[0].lower() not in PUSHES else None


def push_of(payload: bytes) -> Push:
    """``Invalid`` for what is no such JSON. Nothing at all is a push too: somebody calls the hook by hand."""
    if not payload.strip():
        return Push()
    try:
        told = msgspec.json.decode(payload, type=_Payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"The payload is none of a push: {error}.") from error
    if told.ref is None:
        return Push()
    if not _REF.fullmatch(told.ref):
        raise Invalid("The payload's `ref` is none of git's.")
    commit = told.head_commit or (told.commits[-1] if told.commits else None)
    sha = told.after if told.after and _SHA.fullmatch(told.after) and told.after.strip("0") else None
    repository = told.repository or told.project
    default = repository.default_branch if repository is not None else None
    if default is None and told.project is not None:
        default = told.project.default_branch
    return Push(
        ref=told.ref,
        sha=sha,
        message=commit.message.strip()[:MAX_MESSAGE] or None if commit is not None else None,
        default=default,
        deleted=told.deleted or (bool(told.after) and sha is None),
    )


def ignored(push: Push, context: GitContext) -> str | None:
    """Why ``push`` does not concern an app that is built from ``context``; None if it does."""
    if not push.ref:
        return None
    short = push.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if push.deleted:
        return f"{short} was deleted"
    if context.is_commit:
        return "the app is built from one commit, which no push changes"
    wanted = context.ref or push.default
    if wanted is None or push.ref in (wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}"):
        return None
    return f"the push is to {short}, the app is built from {wanted}"

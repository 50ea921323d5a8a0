"""Every error that NextDeploy raises on purpose, as one tree; each class carries its HTTP status.

Foreign exceptions are translated into these where they enter (in ``adapters/``).
"""

from __future__ import annotations

from typing import NamedTuple


class NextDeployError(Exception):
    """The root of the tree. ``status`` is the HTTP status the API answers with, ``title`` its problem title."""

    status = 500
    title = "Internal error"


# -- what the caller did wrong ---------------------------------------------------------------------


class Unauthorized(NextDeployError):
    status = 401
    title = "Authentication required"


class Forbidden(NextDeployError):
    status = 403
    title = "Not allowed"


class NotFound(NextDeployError):
    status = 404
    title = "Not found"


class Conflict(NextDeployError):
    status = 409
    title = "Conflict"


class SecretsUnreadable(Conflict):
    """The key of the secret store is lost or another one, or a secret was changed on disk. Nothing is overwritten."""

    title = "Secrets cannot be read"


class Busy(NextDeployError):
    """As much as may wait does wait already. Nothing was done; later it may be."""

    status = 429
    title = "Too much at once"


class TooLarge(NextDeployError):
    status = 413
    title = "Too large"


class Invalid(NextDeployError):
    status = 422
    title = "Invalid"


class Problem(NamedTuple):
    """One mistake in a configuration. ``line`` and ``column`` count from 1; ``path`` is dotted. Line 0 is for what is
    in no file: ``path`` then says where it is from."""

    line: int
    column: int
    path: str
    message: str


class ConfigurationError(Invalid):
    """All mistakes of one configuration, sorted by line. ``str()`` is one line for each."""

    title = "Invalid configuration"

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda p: (p.line, p.column, p.path, p.message))
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """``file:line:column: path: message``, one for each problem."""
        return [
            (f"{self.source}:{p.line}:{p.column}: " if p.line else "") + (f"{p.path}: " if p.path else "") + p.message
            for p in self.problems
        ]


# -- what went wrong while running -----------------------------------------------------------------


class ActorError(NextDeployError):
    """Something about an actor, not about what it was asked."""

    status = 503
    title = "Actor unavailable"


class ActorStopped(ActorError):
    """The actor stopped, or is not running, so nobody will answer."""


class ActorCrashed(ActorError):
    """The actor crashed while it handled this very message; the message is not redelivered."""

    status = 500
    title = "Actor crashed"


class MailboxFull(ActorError):
    """The mailbox rejects: its owner is too far behind."""


class AskTimeout(ActorError):
    status = 504
    title = "No answer in time"


class LinkError(NextDeployError):
    """A peer sent something that is no valid frame; that peer is closed and nothing else."""

    status = 502
    title = "Link failure"


class EngineError(NextDeployError):
    """The engine refused or failed; the message is the engine's own, in plain words."""

    status = 502
    title = "Engine error"


class EngineUnreachable(EngineError):
    """The engine does not answer. Nothing is known about its containers until it does."""

    status = 503
    title = "Engine unreachable"


class ContainerNotFound(EngineError):
    status = 404
    title = "Container not found"


class ImageNotFound(EngineError):
    status = 422
    title = "Image not found"


class BuildFailed(EngineError):
    """An image could not be built; the message has the last lines that the build printed."""

    status = 422
    title = "Build failed"


class BuildTimeout(BuildFailed):
    """It took longer than it may."""


class MissingBlobs(Conflict):
    """Blobs that a bundle names are not here: upload them first."""

    title = "Blobs are missing"

    def __init__(self, digests: list[str]) -> None:
        self.digests = digests
        super().__init__(f"{len(digests)} blobs are missing; upload them first")


class LogsAway(NextDeployError):
    """The log process does not answer. What containers write waits in their files."""

    status = 503
    title = "Logs cannot be had"


class StateError(NextDeployError):
    """State on disk cannot be read or written."""

    title = "State file error"


class StateLocked(Conflict):
    """Another daemon runs on this state folder."""

    title = "State folder in use"

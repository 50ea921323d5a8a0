"""Where an app's version comes from: what a hook must know before it deploys."""

from __future__ import annotations

from ..core.model import App
from .base import Message, Value


class GetSource(Message, frozen=True, kw_only=True):
    """Answers ``SourceView``. ``NotFound`` for no such app."""

    app: str


class SourceView(Value, frozen=True, kw_only=True):
    """``context`` is the build context as the file has it (there may be a login in it); None: nothing is built."""

    context: str | None = None

    def __repr__(self) -> str:
        return "SourceView()"


def source_of(app: App) -> SourceView:
    return SourceView(context=app.build.context if app.build is not None else None)

"""The root of every message: a frozen, keyword-only record that carries values only, tagged by its class name."""

from __future__ import annotations

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True, tag=True):
    """One definition serves the mailbox, the link (MessagePack) and JSON."""


class Value(Struct, frozen=True, kw_only=True):
    """A part of a message."""

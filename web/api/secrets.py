"""``/api/v1``: variables and secrets of an app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint

from ..auth import Guard
from ..openapi import Described

if TYPE_CHECKING:
    from .. import Refs

DESCRIBED: list[Described] = []


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None: ...

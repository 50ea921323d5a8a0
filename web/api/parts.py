"""What the API's topics share: reading parameters, writing answers."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from flask import Response, g, request
from msgspec.structs import replace

from ndactors.errors import Forbidden, Invalid
from ndactors.messages.secrets import GetEnv

if TYPE_CHECKING:
    from .. import Refs

T = TypeVar("T")
MAX_LIMIT = 10_000
MAX_ROUNDS = 10
"""A page that is filtered is filled up by at most so many questions."""
STATUS = re.compile(r"[1-5](\d\d|xx)")
NUMBER = re.compile(r"\d{1,12}(\.\d{1,6})?")


def body(kind: type[T]) -> T:
    """The request's JSON as a record; ``Invalid`` says what is wrong. An empty body is an empty object."""
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"The body is not as it should be: {error}.") from error


def accepted(operation: str, **more: Any) -> Response:
    """202 with the id of the operation to follow."""
    response = json({"operation": operation, **more})
    response.status_code = 202
    response.headers["Location"] = f"/api/v1/operations/{operation}"
    return response


def cursor(found: int | None) -> str | None:
    """As it is told to clients."""
    return str(found) if found is not None else None


def refuse_on_host(refs: Refs, app: str) -> None:
    """``Forbidden`` for a limited token where the app runs as host processes: whoever sets variables or commands there
    commands the host."""
    if g.identity.apps is not None and refs.apps.ask(GetEnv(app=app)).on_host:
        raise Forbidden(f"{app} runs on the host itself: this takes somebody without limits.")


def milliseconds(text: str | None) -> float | None:
    if text is None:
        return None
    if not NUMBER.fullmatch(text):
        raise Invalid("min_ms must be a number.")
    return float(text)


def number(name: str, text: str | None, default: int | None) -> int | None:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) < 1:
        raise Invalid(f"{name} must be a whole number from 1.")
    if name == "limit" and int(text) > MAX_LIMIT:
        raise Invalid(f"limit must be at most {MAX_LIMIT}.")
    return int(text)


def since(text: str | None) -> str | None:
    """RFC 3339, or Unix seconds, as the store writes times: UTC with microseconds."""
    if not text:
        return None
    try:
        if text.replace(".", "", 1).isdigit():
            moment = datetime.datetime.fromtimestamp(float(text), datetime.UTC)
        else:
            moment = datetime.datetime.fromisoformat(text.replace(" ", "+"))
            moment = moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Invalid("since must be a time like 2026-01-31T12:00:00Z.") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def page(rows: list[Any]) -> Response:
    """Some of ``rows``; the cursor is the position of the next one."""
    limit = number("limit", request.args.get("limit"), 1000) or 1000
    start = number("cursor", request.args.get("cursor"), None) or 0
    more = start + limit < len(rows)
    return json({"items": rows[start : start + limit], "next": str(start + limit) if more else None})


def visible_page(query: Any, ask: Callable[[Any], Any], visible: Callable[[Any], bool]) -> Response:
    """A page of what ``ask`` finds, newest first, less what who asks may not see; then it may be shorter than asked for
    and still have a next one. ``query`` has ``before`` and ``limit``."""
    items: list[Any] = []
    limit = query.limit
    for _ in range(MAX_ROUNDS):
        found = ask(query)
        shown = [item for item in found.items if visible(item)]
        items += shown
        query = replace(query, before=found.next, limit=limit - len(items))
        if found.next is None or query.limit <= 0 or len(shown) == len(found.items):
            break
    return json({"items": items, "next": cursor(query.before)})


def rfc3339(moment: float) -> str:
    return (
        datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")

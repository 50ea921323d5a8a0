"""What the API's topics share: reading parameters, writing answers."""

from __future__ import annotations

import datetime
import re
from typing import Any, TypeVar

import msgspec
from flask import Response, request

from ndactors.errors import Invalid

T = TypeVar("T")
MAX_LIMIT = 10_000
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


def rfc3339(moment: float) -> str:
    return (
        datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), content_type="application/json")

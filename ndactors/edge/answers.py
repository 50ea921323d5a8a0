"""The edge's own answers: an error code for programs in ``X-NextDeploy-Error``, words for people in the body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

STATUS = {
    "no_route": (404, "Not Found", "Nothing is served at this address."),
    "no_backend": (503, "Service Unavailable", "The app is not running at the moment."),
    "connect_failed": (502, "Bad Gateway", "The app cannot be reached."),
    "upstream_timeout": (504, "Gateway Timeout", "The app did not answer in time."),
    "upstream_reset": (502, "Bad Gateway", "The app ended the connection before it answered."),
    "bad_request": (400, "Bad Request", "This request is not valid HTTP."),
    "too_large": (413, "Content Too Large", "The request is too large."),
    "rate_limited": (429, "Too Many Requests", "There are too many requests."),
    "maintenance": (503, "Service Unavailable", "The app is being maintained."),
    "unauthorized": (401, "Unauthorized", "A user name and a password are needed."),
    "forbidden": (403, "Forbidden", "This address may not come here."),
    "redirect": (308, "Permanent Redirect", "This is somewhere else now."),
    "shutting_down": (503, "Service Unavailable", "The server is shutting down."),
}
REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    505: "HTTP Version Not Supported",
}


def answer(
    code: str,
    *,
    accept: bytes = b"",
    request_id: bytes = b"",
    status: int | None = None,
    words: str = "",
    close: bool = False,
    body: bool = True,
    http11: bool = True,
    fields: bytes = b"",
    pages: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """The status and the whole answer as bytes. ``status`` and ``words`` refine those of the code; ``body`` False
    answers a HEAD request; ``fields`` are whole lines; ``pages`` are an app's own, by status."""
    usual, reason, sentence = STATUS[code]
    status = status or usual
    reason = REASONS.get(status, reason) if status != usual else reason
    sentence = (words[:1].upper() + words[1:] + ".") if words else sentence
    kind, content = _body(status, reason, sentence, code, accept, request_id, pages or {})
    lines = [
        f"HTTP/1.1 {status} {reason}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
    ]
    if status >= 400:
        lines.append(f"X-NextDeploy-Error: {code}")
    if request_id:
        lines.append(f"X-Request-Id: {request_id.decode('latin-1')}")
    if close:
        lines.append("Connection: close")
    elif not http11:
        lines.append("Connection: keep-alive")
    head = ("\r\n".join(lines) + "\r\n").encode("latin-1") + fields + b"\r\n"
    return status, head + content if body else head


def _body(
    status: int, reason: str, sentence: str, code: str, accept: bytes, request_id: bytes, pages: Mapping[str, str]
) -> tuple[str, bytes]:
    identity = request_id.decode("latin-1")
    if wants_json(accept):
        fields = {"status": status, "error": code, "detail": sentence, "request_id": identity}
        return "application/json", json.dumps(fields).encode()
    own = pages.get(str(status)) or (pages.get("default") if status >= 400 else None)
    if own is not None:
        known = {"status": str(status), "reason": reason, "detail": sentence, "id": identity}
        return "text/html; charset=utf-8", fill(own, known).encode()
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{status} {reason}</title><style>body{{font:15px/1.5 system-ui,sans-serif;margin:15vh auto;"
        "max-width:32rem;"
        "padding:0 1rem;color-scheme:light dark}h1{font-size:20px}p{margin:.5rem 0}small{opacity:.65}</style>"
        f"<h1>{status} {reason}</h1><p>{_escaped(sentence)}</p>"
        + (f"<p><small>Request {_escaped(identity)}</small></p>" if identity else "")
        + "</html>\n"
    )
    return "text/html; charset=utf-8", page.encode()


def fill(page: str, known: Mapping[str, str]) -> str:
    """``{status}`` and the like by what they stand for; other braces stay (pages have style sheets)."""
    return re.sub(r"\{(status|reason|detail|id)\}", lambda found: _escaped(known[found[1]]), page)


def wants_json(accept: bytes) -> bool:
    """True if JSON is named before HTML, or HTML not at all while JSON is."""
    text = accept.lower()
    json_at, html_at = text.find(b"json"), text.find(b"text/html")
    return json_at >= 0 and (html_at < 0 or json_at < html_at)


def _escaped(text: str) -> str:
    """For HTML, also within quotes. (The library's ``html`` has half a megabyte of names of characters.)"""
    return text.translate(_ESCAPES)


_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

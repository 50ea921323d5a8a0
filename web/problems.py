"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from ndactors.core.masking import mask_words
from ndactors.errors import ConfigurationError, MissingBlobs, NextDeployError

log = logging.getLogger("ndactors.web")


class TooManyRequests(NextDeployError):
    status = 429
    title = "Too many requests"

    def __init__(self, words: str, retry_after: float) -> None:
        super().__init__(words)
        self.retry_after = retry_after


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    response = jsonify({"type": "about:blank", "title": title, "status": status, "detail": detail, **more})
    response.status_code = status
    response.content_type = "application/problem+json"
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="nextdeploy", charset="UTF-8"'
    return response


def _more(error: NextDeployError) -> dict[str, Any]:
    if isinstance(error, ConfigurationError):
        return {"errors": error.lines()}
    return {"missing": error.digests} if isinstance(error, MissingBlobs) else {}


def install(app: Flask) -> None:
    @app.errorhandler(NextDeployError)
    def ours(error: NextDeployError) -> Response:
        response = problem(error.status, error.title, str(error), **_more(error))
        if isinstance(error, TooManyRequests):
            response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
        return response

    @app.errorhandler(HTTPException)
    def flasks(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.name, error.description or error.name)
        valid = getattr(error, "valid_methods", None)
        if valid:
            response.headers["Allow"] = ", ".join(sorted(valid))
        return response

    @app.errorhandler(Exception)
    def others(error: Exception) -> Response:
        log.exception("%s %s failed", request.method, mask_words(request.path))
        return problem(500, "Internal error", "This is a fault of the daemon; its log says more.")

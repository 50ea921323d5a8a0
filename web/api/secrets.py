"""``/api/v1``: variables and secrets of an app. Secrets are set and removed; their values are told to nobody."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from flask import Blueprint, Response

from ndactors.core.masking import MASK, masked
from ndactors.core.schema import NAME
from ndactors.errors import Conflict, Invalid, NotFound
from ndactors.messages.operations import BeginOperation, ChangeEnv, Origin, RefreshApp
from ndactors.messages.secrets import ChangeSecrets, EnvView, GetEnv, GetSecretNames, RotateSecrets

from ..auth import Guard
from ..openapi import LIST, PAGING, Described, named
from .operations import who
from .parts import accepted, body, json, page, refuse_on_host

if TYPE_CHECKING:
    from .. import Refs

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
MAX_VARIABLES = 1000
MAX_VALUE = 128 * 1024 - 256
"""The kernel takes no longer ones (MAX_ARG_STRLEN, with the name)."""
ROTATE_SECONDS = 60.0


class EnvBody(msgspec.Struct, forbid_unknown_fields=True):
    set: dict[str, str] = {}
    unset: list[str] = []
    process: str | None = None


class SecretBody(msgspec.Struct, forbid_unknown_fields=True):
    value: str


class SecretsBody(msgspec.Struct, forbid_unknown_fields=True):
    set: dict[str, str] = {}
    unset: list[str] = []


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.get("/api/v1/apps/<app>/env")
    @guard.needs("operator")
    def env(app: str) -> Response:
        view: EnvView = refs.apps.ask(GetEnv(app=app))
        return page(
            [
                {
                    "name": item.name,
                    "value": MASK if item.source == "secret" else masked(item.name, item.value),
                    "process": item.process,
                    "source": item.source,
                }
                for item in view.items
            ]
        )

    @api.patch("/api/v1/apps/<app>/env")
    @guard.needs("operator")
    def change_env(app: str) -> Response:
        given = body(EnvBody)
        _check(given)
        refuse_on_host(refs, app)
        change = ChangeEnv(set=given.set, unset=tuple(given.unset), process=given.process)
        return accepted(refs.operations.ask(BeginOperation(app=app, change=change, origin=Origin(by=who()))))

    @api.get("/api/v1/apps/<app>/secrets")
    @guard.needs("operator")
    def secrets(app: str) -> Response:
        return page([{"name": name, "set_at": at} for name, at in names(app).items()])

    @api.patch("/api/v1/apps/<app>/secrets")
    @guard.needs("operator")
    def change_secrets(app: str) -> Response:
        given = body(SecretsBody)
        if not given.set and not given.unset:
            raise Invalid("Send secrets to `set`, or names to `unset`.")
        if set(given.set) & set(given.unset):
            raise Invalid("The same secret is both set and unset.")
        return change(app, given.set, tuple(dict.fromkeys(given.unset)))

    @api.get("/api/v1/apps/<app>/secrets/<secret>")
    @guard.needs("operator")
    def secret(app: str, secret: str) -> Response:
        found = names(app).get(secret)
        if found is None:
            raise NotFound(f"{app} has no secret called {secret}.")
        return json({"name": secret, "set_at": found})

    @api.put("/api/v1/apps/<app>/secrets/<secret>")
    @guard.needs("operator")
    def set_secret(app: str, secret: str) -> Response:
        return change(app, {secret: body(SecretBody).value}, ())

    @api.delete("/api/v1/apps/<app>/secrets/<secret>")
    @guard.needs("operator")
    def delete_secret(app: str, secret: str) -> Response:
        return change(app, {}, (secret,))

    @api.post("/api/v1/secrets/rotate")
    @guard.needs("admin")
    def rotate_secrets() -> Response:
        return json({"rotated": refs.secrets.ask(RotateSecrets(), ROTATE_SECONDS)})

    def names(app: str) -> dict[str, str]:
        _check_app(app)
        found: dict[str, str] = refs.secrets.ask(GetSecretNames(app=app))
        return found

    def change(app: str, set: dict[str, str], unset: tuple[str, ...]) -> Response:
        """The secrets are changed when this answers; where they are used, new containers follow by an operation. An app
        may have secrets before it is there."""
        _check_app(app)
        with suppress(NotFound):  # what is not there commands nothing
            refuse_on_host(refs, app)
        refs.secrets.ask(ChangeSecrets(app=app, set=set, unset=unset))
        try:
            operation = refs.operations.ask(BeginOperation(app=app, change=RefreshApp(), origin=Origin(by=who())))
        except NotFound:
            return _stored("the app is not there yet")
        except Conflict as error:
            return _stored(f"containers that are made from now on have it; those that run do not: {error}")
        return accepted(operation)


def _check_app(app: str) -> None:
    if not re.fullmatch(NAME, app):
        raise NotFound(f"There is no app called {app[:60]}.")


def _check(given: EnvBody) -> None:
    if not given.set and not given.unset:
        raise Invalid("Send variables to `set`, or names to `unset`.")
    if len(given.set) + len(given.unset) > MAX_VARIABLES:
        raise Invalid(f"At most {MAX_VARIABLES} variables at once.")
    for name in (*given.set, *given.unset):
        if len(name) > 256 or not VARIABLE.fullmatch(name):
            raise Invalid(f"{name[:60]!r} is not a valid variable name.")
    if wrong := [name for name, value in given.set.items() if "\0" in value or len(value.encode()) > MAX_VALUE]:
        raise Invalid(f"The value of {wrong[0]} has a NUL character, or is longer than a variable can be.")
    if both := sorted(given.set.keys() & set(given.unset)):
        raise Invalid(f"{both[0]} is both set and unset.")


def _stored(detail: str) -> Response:
    response = json({"operation": None, "detail": detail})
    response.status_code = 202
    return response


_APP = named("app")
_SECRET = named("app", "secret")
_DONE = {"type": "object", "required": ["operation"], "properties": {"operation": {"type": ["string", "null"]}}}
DESCRIBED: list[Described] = [
    ("get", "/api/v1/apps/{app}/env", "Its variables, secrets masked", [*_APP, *PAGING], LIST, [403, 404, 422], False),
    (
        "patch",
        "/api/v1/apps/{app}/env",
        'Change variables while it runs: {"set": {}, "unset": [], "process": null}',
        _APP,
        _DONE,
        [403, 404, 409, 422],
        False,
    ),
    ("get", "/api/v1/apps/{app}/secrets", "Names of its secrets", [*_APP, *PAGING], LIST, [403, 404, 422], False),
    (
        "patch",
        "/api/v1/apps/{app}/secrets",
        'Several at once: {"set": {}, "unset": []}',
        _APP,
        _DONE,
        [403, 404, 409, 413, 422],
        False,
    ),
    ("get", "/api/v1/apps/{app}/secrets/{secret}", "When it was set", _SECRET, {"type": "object"}, [403, 404], False),
    (
        "put",
        "/api/v1/apps/{app}/secrets/{secret}",
        'Set it: {"value"}',
        _SECRET,
        _DONE,
        [403, 404, 409, 413, 422],
        False,
    ),
    ("delete", "/api/v1/apps/{app}/secrets/{secret}", "Remove it", _SECRET, _DONE, [403, 404, 409], False),
    (
        "post",
        "/api/v1/secrets/rotate",
        "Encrypt all secrets with a new key; nothing restarts (admin)",
        [],
        {"type": "object", "required": ["rotated"]},
        [403, 409, 500],
        False,
    ),
]

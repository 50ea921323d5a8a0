"""The server's file over the API."""

from __future__ import annotations

import pytest

from ndactors.errors import ConfigurationError, Conflict, NotFound, Problem, StateError, TooLarge
from ndactors.messages.config import (
    ConfigHistory,
    ConfigVersion,
    ConfigView,
    ConfigWritten,
    GetConfig,
    GetConfigHistory,
    PutConfig,
    RollbackConfig,
)

VIEW = ConfigView(version=3, etag="abc", text="apps: {}\n", effective="project: x\napps: {}\n")


@pytest.fixture(autouse=True)
def answers(ref):
    ref.answers[GetConfig] = VIEW
    ref.answers[PutConfig] = ref.answers[RollbackConfig] = ConfigWritten(version=4, etag="def")
    rows = tuple(ConfigVersion(version=n, at="2026-01-01T00:00:00Z", by="file", diff="d") for n in (3, 2))
    ref.answers[GetConfigHistory] = ConfigHistory(items=rows, next=2)


def put(client, ana, headers=None, **body):
    return client.put("/api/v1/config", auth=ana, json={"yaml": "apps: {}\n", **body}, headers=headers)


def test_the_file_as_it_is(client, ana):
    response = client.get("/api/v1/config", auth=ana)
    assert response.headers["ETag"] == '"abc"'
    assert response.get_json() == {
        "version": 3,
        "etag": "abc",
        "yaml": "apps: {}\n",
        "effective": "project: x\napps: {}\n",
    }


def test_only_administrators(client, ref):
    for user in ("vic", "oli"):
        for call in (
            lambda who: client.get("/api/v1/config", auth=who),
            lambda who: put(client, who),
            lambda who: client.get("/api/v1/config/history", auth=who),
            lambda who: client.post("/api/v1/config/rollback", auth=who, json={"to": 1}),
        ):
            assert call((user, "secret")).status_code == 403
    assert ref.asked == []


def test_another_text(client, ana, ref):
    response = put(client, ana, message="why")
    assert (response.status_code, response.headers["ETag"]) == (202, '"def"')
    assert response.get_json() == {"version": 4, "etag": "def", "operation": None}
    assert ref.asked_for(PutConfig) == [PutConfig(text="apps: {}\n", by="api:ana", message="why")]


@pytest.mark.parametrize(
    ("header", "etags"),
    [
        (None, ()),
        ("*", ()),
        ('"abc"', ("abc",)),
        ('"abc", "def"', ("abc", "def")),
        ("abc", ("abc",)),
        ('W/"abc"', ("",)),
        ("", ("",)),
        (",", ("",)),
    ],
)
def test_if_match(client, ana, ref, header, etags):
    put(client, ana, {"If-Match": header} if header is not None else None)
    assert ref.asked_for(PutConfig)[-1].if_match == etags


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Conflict("was changed meanwhile"), 409),
        (TooLarge("1 MiB"), 413),
        (StateError("read-only"), 500),
        (ConfigurationError("nextdeploy.yml", [Problem(18, 7, "apps.shop.port", "Not a valid integer.")]), 422),
    ],
)
def test_refusals(client, ana, ref, error, status):
    ref.answers[PutConfig] = ref.answers[RollbackConfig] = error
    for response in (put(client, ana), client.post("/api/v1/config/rollback", auth=ana, json={"to": 1})):
        assert response.status_code == status
        assert response.get_json()["detail"]
        if status == 422:
            assert response.get_json()["errors"] == ["nextdeploy.yml:18:7: apps.shop.port: Not a valid integer."]


@pytest.mark.parametrize("body", [{}, {"yaml": 5}, {"yaml": None}, {"yaml": "x", "text": "x"}, {"message": "x"}, []])
def test_wrong_bodies(client, ana, ref, body):
    assert client.put("/api/v1/config", auth=ana, json=body).status_code == 422
    assert ref.asked_for(PutConfig) == []


def test_a_whole_mebibyte_however_it_is_escaped(client, ana, ref):
    text = "\u0001" * 1024 * 1024
    assert put(client, ana, yaml=text).status_code == 202
    assert ref.asked_for(PutConfig)[-1].text == text
    assert put(client, ana, yaml="x" * 8 * 1024 * 1024).status_code == 413


def test_history(client, ana, ref):
    body = client.get("/api/v1/config/history?limit=2&cursor=4", auth=ana).get_json()
    assert body["next"] == "2"
    assert body["items"][0] == {"version": 3, "at": "2026-01-01T00:00:00Z", "by": "file", "message": None, "diff": "d"}
    assert ref.asked_for(GetConfigHistory) == [GetConfigHistory(before=4, limit=2)]
    assert client.get("/api/v1/config/history?limit=0", auth=ana).status_code == 422


def test_back_to_a_version(client, ana, ref):
    response = client.post("/api/v1/config/rollback", auth=ana, json={"to": 1})
    assert (response.status_code, response.get_json()["version"]) == (202, 4)
    assert ref.asked_for(RollbackConfig) == [RollbackConfig(to=1, by="api:ana")]
    ref.answers[RollbackConfig] = NotFound("There is no version 9 of the configuration.")
    assert client.post("/api/v1/config/rollback", auth=ana, json={"to": 9}).status_code == 404
    assert client.post("/api/v1/config/rollback", auth=ana, json={"to": "1"}).status_code == 422

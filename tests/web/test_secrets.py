"""Variables and secrets over the API: values go in, none comes out."""

from __future__ import annotations

import json

import pytest

from ndactors.core.masking import MASK
from ndactors.errors import Conflict, Invalid, NotFound, SecretsUnreadable
from ndactors.messages.operations import BeginOperation, ChangeEnv, Origin, RefreshApp
from ndactors.messages.secrets import ChangeSecrets, EnvItem, EnvView, GetEnv, GetSecretNames, RotateSecrets

OLI = ("oli", "secret")


@pytest.fixture(autouse=True)
def answers(ref):
    ref.answers[GetSecretNames] = {"API_KEY": "2026-01-01T00:00:00Z", "B": "2026-01-02T00:00:00Z"}
    ref.answers[ChangeSecrets] = None
    ref.answers[RotateSecrets] = 3
    ref.answers[GetEnv] = EnvView(
        items=(
            EnvItem(name="DB", value="postgres://u:hunter1@h/d", process="web"),
            EnvItem(name="MODE", value="dev", process="web", source="live"),
            EnvItem(name="PASSWORD", value="hunter2", process="web"),
            EnvItem(name="PLAIN", value="hunter3", process="web", source="secret"),
            EnvItem(name="MODE", value="prod", process="worker"),
        )
    )


def problem(response, status):
    assert response.status_code == status, response.get_data(as_text=True)
    return response.get_json()["detail"]


def begun(ref):
    return [(message.app, message.change) for message in ref.asked_for(BeginOperation)]


# -- variables -------------------------------------------------------------------------------------


def test_variables_are_shown_masked(client):
    response = client.get("/api/v1/apps/shop/env", auth=OLI)
    assert "hunter" not in response.get_data(as_text=True)
    rows = response.get_json()["items"]
    assert [(row["name"], row["value"], row["process"], row["source"]) for row in rows] == [
        ("DB", f"postgres://u:{MASK}@h/d", "web", "file"),
        ("MODE", "dev", "web", "live"),
        ("PASSWORD", MASK, "web", "file"),
        ("PLAIN", MASK, "web", "secret"),
        ("MODE", "prod", "worker", "file"),
    ]
    assert client.get("/api/v1/apps/shop/env", auth=("vic", "secret")).status_code == 403


def test_variables_are_changed_by_an_operation(client, ref):
    body = {"set": {"A": "1", "b.c-d": ""}, "unset": ["C"], "process": "web"}
    response = client.patch("/api/v1/apps/shop/env", auth=OLI, json=body)
    assert (response.status_code, response.get_json()) == (202, {"operation": "op1"})
    assert response.headers["Location"] == "/api/v1/operations/op1"
    assert ref.asked_for(BeginOperation) == [
        BeginOperation(
            app="shop",
            change=ChangeEnv(set={"A": "1", "b.c-d": ""}, unset=("C",), process="web"),
            origin=Origin(by="api:oli"),
        )
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"set": {}},
        {"set": {"A": 1}},
        {"set": {"A": None}},
        {"set": {"": "x"}},
        {"set": {"1A": "x"}},
        {"set": {"A B": "x"}},
        {"set": {"A=B": "x"}},
        {"set": {"A\n": "x"}},
        {"set": {"A": "x\0y"}},
        {"set": {"A": "x" * 131_072}},
        {"set": {"A" * 257: "x"}},
        {"set": {"A": "x"}, "unset": ["A"]},
        {"unset": "A"},
        {"unset": ["A B"]},
        {"set": {"A": "x"}, "more": 1},
        {"set": {f"A{n}": "" for n in range(1001)}},
        ["A"],
    ],
)
def test_wrong_variables(client, ref, body):
    problem(client.patch("/api/v1/apps/shop/env", auth=OLI, json=body), 422)
    assert begun(ref) == []


def test_lone_surrogates_are_no_text(client, ref):
    data = b'{"set": {"A": "\\ud800"}}'
    problem(client.patch("/api/v1/apps/shop/env", auth=OLI, data=data, content_type="application/json"), 422)
    problem(client.put("/api/v1/apps/shop/secrets/A", auth=OLI, data=b'{"value": "\\ud800"}'), 422)
    assert ref.asked == []


# -- secrets ---------------------------------------------------------------------------------------


def test_names_and_no_values(client):
    body = client.get("/api/v1/apps/shop/secrets", auth=OLI).get_json()
    assert body == {
        "items": [
            {"name": "API_KEY", "set_at": "2026-01-01T00:00:00Z"},
            {"name": "B", "set_at": "2026-01-02T00:00:00Z"},
        ],
        "next": None,
    }
    assert client.get("/api/v1/apps/shop/secrets/B", auth=OLI).get_json() == body["items"][1]
    problem(client.get("/api/v1/apps/shop/secrets/NONE", auth=OLI), 404)


def test_set_and_remove(client, ref):
    response = client.put("/api/v1/apps/shop/secrets/API_KEY", auth=OLI, json={"value": "hunter2"})
    assert (response.status_code, response.get_json()) == (202, {"operation": "op1"})
    assert client.delete("/api/v1/apps/shop/secrets/API_KEY", auth=OLI).get_json() == {"operation": "op1"}
    assert [(m.app, m.set, m.unset) for m in ref.asked_for(ChangeSecrets)] == [
        ("shop", {"API_KEY": "hunter2"}, ()),
        ("shop", {}, ("API_KEY",)),
    ]
    assert begun(ref) == [("shop", RefreshApp())] * 2
    assert "hunter2" not in str(ref.asked)


def test_several_at_once_are_one_operation(client, ref):
    body = {"set": {"A": "1", "B": "2"}, "unset": ["C", "C"]}
    assert client.patch("/api/v1/apps/shop/secrets", auth=OLI, json=body).status_code == 202
    (message,) = ref.asked_for(ChangeSecrets)
    assert (message.set, message.unset) == ({"A": "1", "B": "2"}, ("C",))
    assert len(begun(ref)) == 1
    for wrong in ({}, {"set": {"A": "1"}, "unset": ["A"]}, {"set": {"A": 1}}, {"set": [], "unset": []}):
        problem(client.patch("/api/v1/apps/shop/secrets", auth=OLI, json=wrong), 422)


def test_before_there_is_an_app(client, ref):
    ref.answers[BeginOperation] = NotFound("There is no app called new.")
    response = client.put("/api/v1/apps/new/secrets/A", auth=OLI, json={"value": "x"})
    assert (response.status_code, response.get_json()["operation"]) == (202, None)
    assert len(ref.asked_for(ChangeSecrets)) == 1


def test_while_the_app_is_being_changed(client, ref):
    """The secret is stored, and the answer says what that means."""
    ref.answers[BeginOperation] = Conflict("shop is being changed already")
    body = client.put("/api/v1/apps/shop/secrets/A", auth=OLI, json={"value": "x"}).get_json()
    assert body["operation"] is None
    assert "those that run do not" in body["detail"]


@pytest.mark.parametrize(
    ("error", "status"), [(Invalid("no"), 422), (NotFound("none"), 404), (SecretsUnreadable("the key is lost"), 409)]
)
def test_what_the_store_refuses_restarts_nothing(client, ref, error, status):
    ref.answers[ChangeSecrets] = error
    problem(client.put("/api/v1/apps/shop/secrets/A", auth=OLI, json={"value": "x"}), status)
    assert begun(ref) == []


@pytest.mark.parametrize("body", [{}, {"value": 5}, {"value": None}, {"value": "x", "name": "A"}, "x", []])
def test_wrong_bodies_do_not_come_back_in_the_answer(client, ref, body):
    response = client.put("/api/v1/apps/shop/secrets/A", auth=OLI, json=body)
    problem(response, 422)
    response = client.put("/api/v1/apps/shop/secrets/A", auth=OLI, data=b'{"value": "hunter2"', content_type="x/y")
    assert "hunter2" not in problem(response, 422)
    response = client.put("/api/v1/apps/shop/secrets/A", auth=OLI, json={"value": ["hunter2"]})
    assert "hunter2" not in problem(response, 422)
    assert ref.asked == []


def test_names_of_apps_are_names(client, ref):
    for app in ("Shop", "a" * 41, "-", "..", "%2e%2e"):
        response = client.put(f"/api/v1/apps/{app}/secrets/A", auth=OLI, json={"value": "x"})
        assert response.status_code in (404, 405, 308), app
        assert client.get(f"/api/v1/apps/{app}/secrets", auth=OLI).status_code in (404, 405, 308)
    assert ref.asked == []


def test_viewers_see_not_even_names(client, ref):
    vic = ("vic", "secret")
    for response in (
        client.get("/api/v1/apps/shop/secrets", auth=vic),
        client.get("/api/v1/apps/shop/secrets/B", auth=vic),
        client.put("/api/v1/apps/shop/secrets/B", auth=vic, json={"value": "x"}),
        client.patch("/api/v1/apps/shop/secrets", auth=vic, json={"set": {"A": "x"}}),
        client.delete("/api/v1/apps/shop/secrets/B", auth=vic),
        client.patch("/api/v1/apps/shop/env", auth=vic, json={"set": {"A": "x"}}),
    ):
        problem(response, 403)
    assert ref.asked == []


def test_a_new_key_is_for_administrators(client, ref, ana):
    problem(client.post("/api/v1/secrets/rotate", auth=OLI), 403)
    response = client.post("/api/v1/secrets/rotate", auth=ana)
    assert (response.status_code, response.get_json()) == (200, {"rotated": 3})
    assert len(ref.asked_for(RotateSecrets)) == 1


def test_no_value_is_in_what_is_told_to_anybody(client, ref):
    """Not in what an actor's failure says of the message that it died of."""
    client.put("/api/v1/apps/shop/secrets/A", auth=OLI, json={"value": "hunter2"})
    (message,) = ref.asked_for(ChangeSecrets)
    assert "hunter2" not in f"{message} {message!r} {[message]}"
    assert "hunter2" in json.dumps(message.set)

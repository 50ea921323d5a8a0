"""The pages, as a browser without script gets them."""

from __future__ import annotations

import re

import pytest
from werkzeug.security import generate_password_hash

from ndactors.core.model import User
from ndactors.errors import ActorStopped
from ndactors.messages.queries import GetApps

from .conftest import app_view


def test_the_form_signs_in_and_out(client):
    form = client.get("/").get_data(as_text=True)
    assert 'name="user"' in form
    assert 'name="password"' in form
    assert re.search(r"<button>Sign in</button>", form)
    wrong = client.post("/sign-in", data={"user": "ana", "password": "wrong"})
    assert wrong.status_code == 401
    assert "The user or the password is wrong." in wrong.get_data(as_text=True)
    signed = client.post("/sign-in", data={"user": "ana", "password": "secret"})
    assert signed.status_code == 303
    cookie = signed.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    page = client.get("/").get_data(as_text=True)
    for word in ("Overview", "Apps", "Events", "System"):
        assert f">{word}</a>" in page
    assert client.get("/api/v1/status").status_code == 200, "the session counts for the API too"
    client.post("/sign-out")
    assert 'name="password"' in client.get("/").get_data(as_text=True)


@pytest.mark.parametrize("path", ["/", "/apps", "/events", "/system"])
def test_pages_show_and_escape(client, ana, path):
    response = client.get(path, auth=ana)
    text = response.get_data(as_text=True)
    assert response.status_code == 200
    assert "<script" not in text
    assert "style=" not in text
    if path != "/system":
        assert "shop" in text
    if path in ("/", "/events"):
        assert "&lt;b&gt;" in text


@pytest.mark.parametrize(("count", "words"), [(1, "The only app is healthy."), (2, "All 2 apps are healthy.")])
def test_that_all_is_well_is_said_for_one_and_for_many(client, ana, ref, count, words):
    ref.answers[GetApps] = tuple(app_view(f"app{number}") for number in range(count))
    assert words in client.get("/", auth=ana).get_data(as_text=True)


def test_the_worst_is_said_first(client, ana, ref):
    from msgspec.structs import replace

    (view,) = ref.answers[GetApps]
    ref.answers[GetApps] = (view, replace(view, name="blog", state="failed", reason="exited 1"))
    text = client.get("/", auth=ana).get_data(as_text=True)
    assert "blog is failed: exited 1" in text
    assert text.index("#blog") < text.index("#shop")


def test_a_daemon_that_is_away_is_a_page_too(client, ana, ref):
    ref.answers[GetApps] = ActorStopped("the daemon does not answer")
    response = client.get("/", auth=ana)
    assert response.status_code == 503
    assert "the daemon does not answer" in response.get_data(as_text=True)


def test_a_changed_password_ends_sessions(make_client):
    old = make_client()
    cookie = old.post("/sign-in", data={"user": "ana", "password": "secret"}).headers["Set-Cookie"].partition(";")[0]
    new = make_client(
        users=(User(name="ana", password_hash=generate_password_hash("new", "scrypt:1024:8:1"), role="admin"),)
    )
    assert 'name="password"' in new.get("/", headers={"Cookie": cookie}).get_data(as_text=True)

"""Addresses of git repositories, and what is never told of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.git_urls import GitContext, git_context, is_remote
from ndactors.errors import Invalid


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h.test/o/r.git", GitContext(url="https://h.test/o/r.git")),
        ("https://h.test:8443/o/r#main", GitContext(url="https://h.test:8443/o/r", ref="main")),
        (
            "https://h.test/r#feature/x:apps/web/",
            GitContext(url="https://h.test/r", ref="feature/x", folder="apps/web"),
        ),
        ("https://h.test/r#:web", GitContext(url="https://h.test/r", folder="web")),
        ("https://h.test/r#v1.2+b@3", GitContext(url="https://h.test/r", ref="v1.2+b@3")),
        ("https://u:p%40ss@h.test/r", GitContext(url="https://h.test/r", login="u:p@ss")),
        ("https://token@h.test/r", GitContext(url="https://h.test/r", login="token:")),
        ("https://[2001:db8::1]/r", GitContext(url="https://[2001:db8::1]/r")),
        ("http://127.0.0.1:3000/r", GitContext(url="http://127.0.0.1:3000/r")),
        ("http://[::1]:3000/r", GitContext(url="http://[::1]:3000/r")),
    ],
)
def test_what_they_mean(text, wanted):
    assert git_context(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://h.test/r", "git://h.test/r", "file:///etc", "git@h.test:o/r", "ext::sh -c id", "https:///r"),
        *("https://h.test", "https://h.test/", "https://h.test/r?x=1", "https://-oProxy/\nr", "https://h.test:x/r"),
        *("http://h.test/r", "http://10.0.0.1/r", "http://127.0.0.1.evil.test/r", "HTTPS//h/r", "https://h test/r"),
        *("https://h.test/r#--upload-pack=x", "https://h.test/r#a b", "https://h.test/r#a..b", "https://h.test/r#+a"),
        *("https://h.test/r#a^{}", "https://h.test/r#a~1", "https://h.test/r#a@{1}", "https://h.test/r#refs/*"),
        *("https://h.test/r#a:../b", "https://h.test/r#a:/etc", "https://h.test/r#a:b\\c", "https://u:%0ap@h.test/r"),
        *("https://h_x$.test/r", "https://" + "h" * 3000 + "/r"),
    ],
)
def test_what_is_refused(text):
    with pytest.raises(Invalid):
        git_context(text)


@pytest.mark.parametrize("text", ["./x", "app", "../x", "/srv/x", ".", "a/b:c"])
def test_folders_are_folders(text):
    assert not is_remote(text)


@pytest.mark.parametrize("text", ["https://h/r", "git@github.com:o/r", "ssh://h/r", "file:///x", "ext::sh"])
def test_what_is_meant_as_a_repository(text):
    assert is_remote(text)


def test_the_login_is_not_shown():
    context = git_context("https://ana:hunter2@h.test/r#main:web")
    assert context.shown == "https://h.test/r#main:web"
    assert context.authorization == "Basic YW5hOmh1bnRlcjI="
    assert {"hunter2", "ana:hunter2", "YW5hOmh1bnRlcjI="} <= set(context.secrets)
    assert git_context("https://sometoken@h.test/r").secrets[-1] == "sometoken"


@given(st.text(max_size=80) | st.text(max_size=60).map(lambda t: f"https://user:s3cr3t@{t}"))
def test_a_mistake_does_not_repeat_the_login(text):
    try:
        found = git_context(text)
    except Invalid as error:
        assert "s3cr3t" not in str(error)
    else:
        assert "s3cr3t" not in found.shown
        assert not found.ref.startswith("-")
        assert ".." not in found.folder.split("/")

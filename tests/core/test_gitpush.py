"""Pushes, as git servers tell of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.git_urls import git_context
from ndactors.core.gitpush import Push, ignored, other_event, push_of
from ndactors.errors import Invalid

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
GITHUB = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": SHA,
    "deleted": False,
    "head_commit": {"id": SHA, "message": "Fix the cart\n\nlonger", "added": []},
    "commits": [{"message": "one"}, {"message": "Fix the cart"}],
    "repository": {"name": "shop", "default_branch": "main", "owner": {"login": "acme"}},
}
GITLAB = {
    "object_kind": "push",
    "ref": "refs/heads/main",
    "after": SHA,
    "checkout_sha": SHA,
    "project": {"id": 15, "default_branch": "main"},
    "repository": {"name": "shop"},
    "commits": [{"id": "1", "message": "one"}, {"id": SHA, "message": "Fix the cart"}],
}
GITEA = {
    "ref": "refs/tags/v1",
    "after": SHA,
    "head_commit": None,
    "commits": None,
    "repository": {"default_branch": "main"},
}


@pytest.mark.parametrize(
    ("payload", "push"),
    [
        (GITHUB, Push(ref="refs/heads/main", sha=SHA, message="Fix the cart\n\nlonger", default="main")),
        (GITLAB, Push(ref="refs/heads/main", sha=SHA, message="Fix the cart", default="main")),
        (GITEA, Push(ref="refs/tags/v1", sha=SHA, message=None, default="main")),
        (
            {**GITHUB, "deleted": True, "after": "0" * 40},
            Push(ref="refs/heads/main", message="Fix the cart\n\nlonger", default="main", deleted=True),
        ),
        ({**GITLAB, "after": "0" * 40, "commits": []}, Push(ref="refs/heads/main", default="main", deleted=True)),
        ({}, Push()),
        ({"anything": 1}, Push()),
    ],
)
def test_what_servers_send(payload, push):
    assert push_of(json.dumps(payload).encode()) == push


def test_nothing_is_a_push_by_hand():
    assert push_of(b"") == push_of(b" \n") == Push()
    assert ignored(Push(), git_context("https://git.test/a.git#v1")) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b"5",
        b'{"ref": 5}',
        b'{"ref": "main"}',
        b'{"ref": "refs/heads/a b"}',
        b'{"ref": "refs/' + b"x" * 300 + b'"}',
        b'{"ref": "refs/heads/\\u0000"}',
        b"[" * 100_000,
    ],
)
def test_what_is_none(payload):
    with pytest.raises(Invalid):
        push_of(payload)


def test_texts_are_bounded():
    push = push_of(json.dumps({**GITHUB, "head_commit": {"message": "x" * 10_000}, "after": "x" * 10_000}).encode())
    assert len(push.message) == 500
    assert push.sha is None


@pytest.mark.parametrize(
    ("headers", "event"),
    [
        ({}, None),
        ({"X-GitHub-Event": "push"}, None),
        ({"X-Gitlab-Event": "Push Hook"}, None),
        ({"X-Gitlab-Event": "Tag Push Hook"}, None),
        ({"X-GitHub-Event": "ping"}, "ping"),
        ({"X-Gitea-Event": "issues"}, "issues"),
    ],
)
def test_events(headers, event):
    assert other_event(headers) == event


@pytest.mark.parametrize(
    ("pushed", "wanted", "passes"),
    [
        ("refs/heads/main", "main", True),
        ("refs/heads/main", "refs/heads/main", True),
        ("refs/tags/v1", "v1", True),
        ("refs/heads/main", "", True),
        ("refs/heads/other", "", False),
        ("refs/heads/other", "main", False),
        ("refs/heads/main2", "main", False),
        ("refs/heads/x/main", "main", False),
        ("refs/heads/main", SHA, False),
    ],
)
def test_which_push_concerns_an_app(pushed, wanted, passes):
    context = git_context("https://git.test/a.git" + (f"#{wanted}:web" if wanted else ""))
    reason = ignored(Push(ref=pushed, default="main"), context)
    assert (reason is None) is passes
    assert "was deleted" in ignored(Push(ref=pushed, default="main", deleted=True), context)


def test_without_a_known_default_every_push_may_be_it():
    assert ignored(Push(ref="refs/heads/any"), git_context("https://git.test/a.git")) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda b: (
            st.lists(b, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["ref", "after", "deleted", "head_commit", "commits", "message", "repository", "default_branch"]
                ),
                b,
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_push_or_refused(value):
    try:
        push_of(json.dumps(value).encode())
    except Invalid as error:
        assert str(error)

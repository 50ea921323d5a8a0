"""Nothing secret is shown, and what is no secret is."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ndactors.core.masking import MASK, differences, is_secret, mask_text, mask_tree, mask_words, masked, masker

NAMES = [
    "password",
    "DB_PASSWORD",
    "PGPASS",
    "dbPwd",
    "secret_key",
    "STRIPE_KEY",
    "apiKey",
    "API-KEYS",
    "access_key",
    "GITHUB_TOKEN",
    "webhook",
    "slack_webhook",
    "SENTRY_DSN",
    "private",
    "Authorization",
    "basic_auth",
    "X-Auth",
    "set-cookie",
    "password_hash",
    "credentials",
    "ConnectionString",
]
PLAIN = [
    "metrics_auth",
    "NODE_ENV",
    "image",
    "author",
    "AUTHORS",
    "command",
    "port",
    "host",
    "redact",
    "keyboard",
    "path",
]
secret_values = st.text(st.characters(codec="utf-8", exclude_characters="*"), min_size=6, max_size=30).filter(
    lambda text: len(text.strip()) >= 6
)
words = st.text("abcdefghij/.-", max_size=12)


@pytest.mark.parametrize("name", NAMES)
def test_secret_names(name):
    assert is_secret(name)
    assert masked(name, "hunter2") == MASK
    assert masked(name, 12345) == MASK


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name):
    assert not is_secret(name)
    assert masked(name, "hunter2") == "hunter2"
    assert masked(name, 5) == 5


def test_nothing_is_no_secret():
    for value in (None, True, False, ""):
        assert masked("password", value) is value


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("postgres://shop:hunter2@db:5432/shop", "hunter2", "postgres://shop:"),
        ("postgres://shop:hun/t:e@r2@db/shop", "r2@", "@db/shop"),
        ("redis://:hunter2@cache", "hunter2", "@cache"),
        ("https://hunter2@sentry.test/1", "hunter2", "@sentry.test/1"),
        ("https://api.test/hook?x=1&token=hunter2&y=2", "hunter2", "&y=2"),
        ("Server=db;User=sa;Password=hunter2;Pool=5", "hunter2", ";Pool=5"),
        ("app --verbose --db-password hunter2 --port 80", "hunter2", "--port 80"),
        ("app --token=hunter2 serve", "hunter2", " serve"),
        ("curl -H 'Authorization: hunter2' x", "hunter2", "curl"),
        ('export API_KEY="hunter 2" && run', "hunter 2", "run"),
        ("api_key='hunter 2' run", "hunter 2", "run"),
        ('{"password": "hunter2", "user": "ana"}', "hunter2", "ana"),
        ("Bearer abcdefghijklmnopqrst rest", "abcdefghijklmnopqrst", "rest"),
        ("POST /api/v1/hooks/ndh_abcdefghijklmnop HTTP/1.1", "abcdefghijklmnop", "HTTP/1.1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----", "hunter2", ""),
    ],
)
def test_secrets_inside_texts(text, secret, kept):
    shown = mask_words(text)
    assert secret not in shown
    assert MASK in shown
    assert kept in shown


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:acme/shop.git",
        "ssh://git@github.com/acme/shop.git#main",
        "https://registry.test/@scope/pkg",
        "http://127.0.0.1:8090/x?limit=5",
        "gunicorn --bind 0.0.0.0:8000 --workers 2 shop.wsgi",
        "node server.js --port=80",
        "shop:1.4",
        "8080:80",
    ],
)
def test_what_is_no_secret_stays(text):
    assert mask_words(text) == text


def test_long_texts_take_little_time():
    for text in (
        "a" * 1_000_000,
        "://a:" * 200_000,
        "a=" * 500_000,
        "-a " * 300_000,
        "password=" * 100_000,
        "@" * 1_000_000,
    ):
        began = time.process_time()
        mask_words(text)
        assert time.process_time() - began < 5, text[:10]


def test_a_tree():
    tree = {
        "apps": {
            "shop": {
                "env": {"API_KEY": "k", "MODE": "dev", "DB": "pg://u:p@h/d", "PORT": 5},
                "secrets": ["TOKEN", "KEY:SHOP_KEY", "not a name = hunter2"],
                "command": ["app", "--password", "p1", "-v", "--token=p2", "--secret", "-x"],
                "http": {"basic_auth": {"ana": "$argon2"}},
                "build": {"args": ["NPM_TOKEN=a b;c", "X=1"]},
            }
        },
        "webhook": {"on_success": [["curl", "https://x.test/s3"], "https://x.test/s4"]},
        "environment": [{"name": "DB_PASSWORD", "value": "p5"}, {"name": "X", "value": "p6", "secret": True}],
        "database": {"name": "shop", "password": 5},
    }
    shown = mask_tree(tree)
    shop = shown["apps"]["shop"]
    assert shop["env"] == {"API_KEY": MASK, "MODE": "dev", "DB": f"pg://u:{MASK}@h/d", "PORT": 5}
    assert shop["secrets"][:2] == ["TOKEN", "KEY:SHOP_KEY"]
    assert shop["command"] == ["app", "--password", MASK, "-v", f"--token={MASK}", "--secret", "-x"]
    assert shop["http"]["basic_auth"] == {"ana": MASK}
    assert shop["build"]["args"] == [f"NPM_TOKEN={MASK}", "X=1"]
    assert shown["environment"][0]["name"] == "DB_PASSWORD"
    assert shown["database"] == {"name": "shop", "password": MASK}
    assert mask_tree({"secrets": [{"name": "TOKEN", "store_name": "T"}]}) == {
        "secrets": [{"name": "TOKEN", "store_name": "T"}]
    }
    text = json.dumps(shown)
    assert not [left for left in ("p1", "p2", "s3", "s4", "p5", "p6", "hunter2", "b;c") if left in text]


@given(
    value=secret_values, name=st.sampled_from(NAMES), around=st.lists(st.sampled_from(PLAIN), max_size=3), plain=words
)
def test_no_value_under_a_secret_name_survives(value, name, around, plain):
    assume(value not in plain)
    tree = {name: value, "list": [{name: [value, {"x": value}]}], "pairs": [f"DB_PASSWORD={value}"], "other": plain}
    tree["named"] = {"name": "X_TOKEN", "value": value}
    for key in around:
        tree = {key: tree}
    shown: list[str] = []

    def collect(below):
        if isinstance(below, dict):
            for key, item in below.items():
                if key != "name":
                    collect(item)
        elif isinstance(below, list):
            for item in below:
                collect(item)
        else:
            shown.append(str(below))

    collect(mask_tree(tree))
    assert plain in shown or any(MASK in part for part in shown)
    assert not [part for part in shown if value in part]
    changed = differences(tree, {})
    assert not [row for row in changed if value in str(row)]


@given(
    values=st.lists(secret_values, min_size=1, max_size=4),
    pieces=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=2, max_size=8),
    data=st.data(),
)
def test_no_known_secret_survives_in_a_text(values, pieces, data):
    forms = [form for v in values for form in (v, v.strip(), quote(v.strip(), safe=""), json.dumps(v.strip())[1:-1])]
    text = "".join(piece + data.draw(st.sampled_from(forms)) for piece in pieces)
    shown = mask_text(text, values)
    for value in values:
        assert value.strip() not in shown


def test_each_line_of_a_secret_is_masked():
    mask = masker(["line one\nline two\n", "abc"])
    assert mask("x line two y") == f"x {MASK} y"
    assert mask("abc") == "abc", "too short to be looked for"
    assert mask("LINE TWO") == "LINE TWO"


def test_differences():
    before = {
        "image": "shop:1",
        "processes": {"web": {"env": {"A": "1", "API_KEY": "old", "GONE": "x"}, "replicas": 1, "volumes": ["a:/a"]}},
        "domains": ["a.test"],
    }
    after = {
        "image": "shop:2",
        "processes": {
            "web": {"env": {"A": "1", "API_KEY": "new", "DB": "pg://u:p@h"}, "replicas": 2, "volumes": ["a:/a"]},
            "worker": {"env": {"TOKEN": "t"}},
        },
        "domains": ["a.test", "b.test"],
    }
    assert differences(before, after) == (
        ("image", "shop:1", "shop:2"),
        ("processes.web.env.API_KEY", MASK, MASK),
        ("processes.web.env.GONE", "x", None),
        ("processes.web.env.DB", None, f"pg://u:{MASK}@h"),
        ("processes.web.replicas", 1, 2),
        ("processes.worker", None, {"env": {"TOKEN": MASK}}),
        ("domains", ["a.test"], ["a.test", "b.test"]),
    )
    assert differences(after, after) == ()
    assert differences({"a": None}, {}) == ()
    assert differences({}, {"basic_auth": {"ana": "$argon2"}}) == (("basic_auth", None, {"ana": MASK}),)
    assert differences({"basic_auth": {"ana": "x"}}, {"basic_auth": {"ana": "y"}}) == (("basic_auth.ana", MASK, MASK),)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abcd"), below, max_size=3),
    max_leaves=12,
)


@given(trees, trees)
def test_differences_are_there_exactly_when_something_differs(a, b):
    def pruned(tree):
        if isinstance(tree, dict):
            return {key: pruned(below) for key, below in tree.items() if below is not None}
        return tree

    assert differences(a, a) == ()
    if pruned(a) != pruned(b):
        assert differences(a, b)


def test_receivers_of_logs_show_where_they_are_and_nothing_else():
    tree = {
        "logs": {
            "forward": [
                {"http": "https://ana:hunter1@in.test:8443/hunter2?k=hunter3", "headers": {"X-Scope": "hunter4"}},
                {"http": "https://hunter5@in.test", "headers": {}},
                {"http": "https://in.test/"},
                {"syslog": "tcp://log.test:514"},
            ]
        }
    }
    shown = mask_tree(tree)
    assert "hunter" not in json.dumps(shown)
    assert shown["logs"]["forward"] == [
        {"http": f"https://in.test:8443/{MASK}", "headers": {"X-Scope": MASK}},
        {"http": f"https://in.test/{MASK}", "headers": {}},
        {"http": "https://in.test/"},
        {"syslog": "tcp://log.test:514"},
    ]
    before = {"logs": {"forward": [{"http": "https://in.test", "headers": {"A": "hunter6"}}]}}
    assert "hunter" not in json.dumps(differences(before, tree))
    assert mask_tree({"forward": "x", "headers": {"X-Scope": "y"}}) == {"forward": "x", "headers": {"X-Scope": "y"}}

"""The file as it may be shown, and what changed in it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.adapters.yaml_masking import masked_yaml, unified_diff
from ndactors.core.masking import MASK

FILE = """\ufeffversion: "1.0"   # the first
# old: password: hunter0
admin:
  users: [{name: ana, password_hash: "hash\\"1"}]   # token=hunter1
registries: {ghcr.io: {username: ü😀, password: 'it''s hunter2'}}
apps:
  shop:
    image: shop:1
    env: {API_KEY: hunter3, MODE: dev, DB: "postgres://u:hunter4@h/d"}
    secrets: [TOKEN, KEY:OTHER]
    command: [app, --password, hunter5]
    http:
      basic_auth:
        ana: $argon2hunter6
  pem:
    command: x
    env:
      TLS: |
        -----BEGIN PRIVATE KEY-----
        hunter7
        -----END PRIVATE KEY-----
      NOTE: >-
        two lines
        of text
      SIGNING_KEY: >
        hunter8
        hunter9

      AFTER: plain
base: &b {password: hunterA}
other: {<<: *b, "quoted_token": hunterB, 'x': &v hunterC}
again: {key: *v}
environment:
- name: DB_PASSWORD
  value: hunterD
- {name: X, value: hunterE, secret: true}
- {name: Y, value: seen}
"""


def test_the_file_without_its_secrets():
    shown = masked_yaml(FILE)
    assert "hunter" not in shown
    assert "hash" not in shown.replace("password_hash", "")
    assert shown.count("\n") == FILE.count("\n")
    for kept in (
        'version: "1.0"   # the first',
        "name: ana",
        "username: ü😀",
        "image: shop:1",
        "MODE: dev",
        f"postgres://u:{MASK}@h/d",
        "secrets: [TOKEN, KEY:OTHER]",
        "command: [app, --password, ",
        "two lines\n        of text",
        "AFTER: plain",
        "value: seen",
        "name: DB_PASSWORD",
    ):
        assert kept in shown, kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "password: hunter1\n\tx: y",
        "- token: hunter1\n",
        "a: 1\na: 2\npassword: hunter1",
        "[" * 100 + "password: hunter1",
    ],
)
def test_what_is_no_configuration_is_masked_by_lines(text):
    shown = masked_yaml(text)
    assert "hunter" not in shown
    assert shown.count("\n") == text.count("\n")


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.text(st.characters(codec="utf-8"), max_size=12) | st.integers() | st.booleans() | st.none(),
        lambda below: (
            st.lists(below, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "password", "env", "API_KEY", "name", "value"]), below, max_size=4)
        ),
        max_leaves=12,
    ),
    st.sampled_from([None, True, False]),
)
def test_no_value_of_a_secret_key_survives_however_it_is_written(tree, flow):
    import yaml

    text = yaml.safe_dump(
        {"top": tree, "password": "hunter-one\nhunter-two", "l": [{"x_token": "hunter3"}]},
        default_flow_style=flow,
        allow_unicode=True,
    )
    shown = masked_yaml(text)
    assert "hunter" not in shown
    assert shown.count("\n") == text.count("\n")


def test_a_diff_shows_that_a_secret_changed_and_not_what_it_is():
    before = "a: 1\nb: 2\npassword: hunter1\nc: 3\nd: 4\ne: 5\ne: 6\nf: 6\ng: 7\nh: 8\ni: 9\n"
    after = before.replace("hunter1", "hunter2").replace("i: 9", "i: 10").replace("a: 1\n", "")
    assert unified_diff(before, after, ("version 1", "version 2")) == (
        "--- version 1\n+++ version 2\n"
        "@@ -1,6 +1,5 @@\n-a: 1\n b: 2\n"
        f"-password: {MASK}\n+password: {MASK}\n c: 3\n d: 4\n e: 5\n"
        "@@ -8,4 +7,4 @@\n f: 6\n g: 7\n h: 8\n-i: 9\n+i: 10\n"
    )
    assert unified_diff(before, before, ("1", "2")) == ""


lines = st.lists(st.sampled_from(["a: 1", "b: 2", "", "password: hunter", "  c: 3", "d"]), max_size=12)


@given(lines, lines)
def test_a_diff_leads_from_one_to_the_other(old, new):
    """Applied as `patch` would, over texts without secrets."""
    old, new = ([line.replace("hunter", "").replace("password", "p") for line in side] for side in (old, new))
    before, after = "\n".join(old), "\n".join(new)
    diff = unified_diff(before, after, ("1", "2"))
    source, result, place = before.split("\n"), [], 0
    for line in diff.split("\n")[2:-1] if diff else []:
        if line.startswith("@@"):
            start = line.split()[1][1:].split(",")
            first = int(start[0]) - (0 if start[1:] == ["0"] else 1)
            result += source[place:first]
            place = first
        elif line.startswith("+"):
            result.append(line[1:])
        else:
            assert source[place] == line[1:]
            result += [source[place]] if line.startswith(" ") else []
            place += 1
    assert "\n".join(result + source[place:]) == after


def test_large_and_awkward_texts_take_little_time():
    began = time.process_time()
    many = "\n".join(f"k{n}: {n % 7}" for n in range(50_000))
    changed = many.replace("k25000: 3", "k25000: 4")
    assert "k25000" in unified_diff(many, changed, ("1", "2"))
    other = "\n".join(f"x{n}: {n % 7}" for n in range(50_000))
    assert "too many" in unified_diff(many, other, ("1", "2"))
    awkward = "\n".join("ab"[n % 2] for n in range(1900))
    unified_diff("x\n" + awkward[:1900] + "\ny", "z\n" + awkward[1:1900] + "\nw", ("1", "2"))
    wide = "\n".join(f"k{n}: " + "x" * 1000 for n in range(400))
    diff = unified_diff(wide, wide.replace("x", "y"), ("1", "2"))
    assert len(diff) < 70_000
    assert diff.endswith("(cut off here)\n")
    assert time.process_time() - began < 20

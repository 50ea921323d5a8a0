"""``.dockerignore``: against a table of our own, answers of moby's own matcher, and what must always hold."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.dockerignore import MAX_PATTERN, MAX_RULES, IgnoreRules
from ndactors.errors import Invalid

# moby/patternmatcher (5a6d842) said this about made-up files and paths: ``MatchesOrParentMatches`` after ``ReadAll``
MOBY = json.loads((Path(__file__).parent / "moby_ignores.json").read_text())


@pytest.mark.parametrize("case", MOBY, ids=[case["text"] for case in MOBY])
def test_as_moby_says(case):
    if case.get("invalid"):
        with pytest.raises(Invalid):
            IgnoreRules(case["text"])
        return
    rules = IgnoreRules(case["text"])
    assert [path for path in case["ignored"] if not rules.ignored(path)] == []
    assert [path for path in case["sent"] if rules.ignored(path)] == []


@pytest.mark.parametrize(
    ("text", "ignored", "sent"),
    [
        ("", "", "a a/b"),
        ("node_modules", "node_modules node_modules/x/y.js", "web/node_modules node_modules2"),
        ("**/node_modules", "node_modules web/node_modules web/node_modules/x", "node_modules2 xnode_modules"),
        ("/dist/", "dist dist/a", "web/dist"),
        ("./dist/../out", "out", "dist"),
        ("*.log", "a.log", "logs/a.log log"),
        ("**/*.log", "a.log logs/a.log x/y/a.log", "a.log.txt"),
        ("*/temp*", "a/temp a/temporary a/temp/b", "temp a/b/temp"),
        ("temp?", "tempa", "temp tempab temp/a"),
        ("**", "a a/b .git", ""),
        ("*", "a a/b .git", ""),
        ("dist/**", "dist/a dist/a/b", "dist"),
        ("*.md\n!README.md", "a.md", "README.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md a.md", "README.md README-x.md"),
        ("!README.md\n*.md", "README.md", "README"),
        ("vendor\n!vendor/keep", "vendor/a vendor", "vendor/keep vendor/keep/x"),
        ("*\n!src\nsrc/*.tmp", "a src/a.tmp", "src src/a src/b/a.tmp"),
        ("# a comment\n#a\n #a", "#a", "a"),
        ("\\#a", "#a", "a"),
        ("  a  \r\n\tb\t\r\n\r\n", "a b", "c"),
        ("\ufeffa", "a", "b"),
        ("[a-c].txt", "a.txt c.txt", "d.txt -.txt"),
        ("[^a-c].txt", "d.txt", "a.txt"),
        ("[\\]].txt", "].txt", "\\.txt"),
        ("\\*", "*", "a"),
        ("a.b", "a.b", "aXb"),
        ("a+(b)|{c}$^", "a+(b)|{c}$^", "aab"),
        ("a**b", "ab ax/b axy/z/b", "axb"),
        ("**a", "a ba x/ba", "ab"),
        ("..\n../a\n/\n.", "", "a b/a"),
        ("größe", "größe", "gr"),
    ],
)
def test_table(text, ignored, sent):
    rules = IgnoreRules(text)
    assert [path for path in ignored.split() if not rules.ignored(path)] == []
    assert [path for path in sent.split() if rules.ignored(path)] == []


@pytest.mark.parametrize(
    "line", ["[", "[]", "[a", "a[b-", "[b-a]", "[-a]", "[a-]", "a\\", "!", "! ", "!/", "[^]", "/!"]
)
def test_a_broken_pattern_is_named_with_its_line(line):
    with pytest.raises(Invalid, match=r"web/\.dockerignore:2: "):
        IgnoreRules(f"fine\n{line}", name="web/.dockerignore")


def test_sizes_are_bounded():
    IgnoreRules("a\n" * MAX_RULES)
    with pytest.raises(Invalid, match=f":{MAX_RULES + 1}: more than"):
        IgnoreRules("a\n" * (MAX_RULES + 1))
    with pytest.raises(Invalid, match=r":1: .*more than"):
        IgnoreRules("a" * (MAX_PATTERN + 1))


def test_what_is_to_be_kept_is_sent_whatever_the_rules_say():
    rules = IgnoreRules("**", keep=("deploy/Dockerfile", ".dockerignore", "[x]*"))
    assert not rules.ignored("deploy/Dockerfile")
    assert not rules.ignored(".dockerignore")
    assert not rules.ignored("[x]*")
    assert rules.ignored("deploy/Dockerfile2")
    assert rules.ignored("x")
    assert not rules.may_skip_folder("deploy")
    assert rules.may_skip_folder("src")


@pytest.mark.parametrize(
    ("text", "folder", "skip"),
    [
        ("node_modules", "node_modules", True),
        ("node_modules", "node_modules/a/b", True),
        ("node_modules", "src", False),
        ("node_modules\n!node_modules/keep/it", "node_modules", False),
        ("node_modules\n!node_modules/keep/it", "node_modules/keep", False),
        ("node_modules\n!node_modules/keep/it", "node_modules/other", True),
        ("!node_modules/keep\nnode_modules", "node_modules", True),
        ("node_modules\n!src", "node_modules", True),
        ("*\n!*.md", "node_modules", True),
        ("*\n!**/*.md", "node_modules", False),
        ("*\n!*/*.md", "a", False),
        ("*\n!*/*.md", "a/b", True),
        ("*\n!a?c/x", "abc", False),
        ("*\n!a?c/x", "abd", True),
        ("*\n![ab]/x", "c", True),
        ("*\n![ab]/x", "b", False),
        ("*\n!a**", "b", True),
        ("*\n!ab**", "ab", False),
        ("**/a\n!a/a/a/b", "a/a", False),
    ],
)
def test_folders_that_need_no_look(text, folder, skip):
    assert IgnoreRules(text).may_skip_folder(folder) is skip


LINES = st.lists(
    st.lists(st.sampled_from(["a", "b", "*", "**", "?", "/", "!", "[ab]", "[^a]", "."]), min_size=1, max_size=6).map(
        "".join
    ),
    max_size=5,
).map("\n".join)
PATHS = st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@given(LINES, PATHS, PATHS)
def test_nothing_is_sent_from_below_a_folder_that_may_be_skipped(text, folder, below):
    try:
        rules = IgnoreRules(text)
    except Invalid:
        return
    if rules.may_skip_folder(folder):
        assert rules.ignored(folder)
        assert rules.ignored(f"{folder}/{below}")


@given(st.text(max_size=60), st.text(min_size=1, max_size=30))
def test_any_text_gets_an_answer_or_a_clear_error(text, path):
    try:
        rules = IgnoreRules(text)
    except Invalid as error:
        assert str(error).startswith(".dockerignore:")
    else:
        assert rules.ignored(path) in (True, False)
        assert rules.may_skip_folder(path) in (True, False)


@pytest.mark.parametrize("line", ["*a" * 300, "**/a" * 250, "a**" * 300, "?*" * 300, "[ab]*" * 200])
@pytest.mark.parametrize("path", ["a" * 1000 + "x", "a/" * 500 + "x", "ab/" * 300 + "x"])
def test_no_pattern_explodes(line, path):
    rules = IgnoreRules(line)
    begun = time.process_time()
    rules.ignored(path)
    rules.may_skip_folder(path)
    # all folders above it are matched too, up to five hundred; a backtracking matcher would need ages for one
    assert time.process_time() - begun < 20

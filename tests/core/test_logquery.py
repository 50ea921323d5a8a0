from __future__ import annotations

import json
import time

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.logquery import MAX_QUERY_CHARACTERS, LogFilter, Matcher, level_mask
from ndactors.core.logrecords import Columns, LogSource, format_ns
from ndactors.errors import Invalid
from ndactors.logs.expressions import MAX_PROGRAM, compile_re2

RED, OFF = "\x1b[31m", "\x1b[0m"


def columns(*messages: str, levels: bytes = b"", streams: bytes = b"", times: list[int] | None = None) -> Columns:
    counts = [message.count("\n") + 1 for message in messages]
    return Columns(
        text="".join(f"{message}\n" for message in messages),
        times="".join(format_ns(n) for n in times or range(len(messages))),
        levels=levels or b"\1" * len(messages),
        streams=streams or bytes(len(messages)),
        lines=counts if any(count > 1 for count in counts) else [],
    )


def matcher(**wanted: object) -> Matcher:
    return Matcher(LogFilter(**wanted), compile_re2)


def matching(q: str, *messages: str, **wanted: object) -> list[int]:
    return list(matcher(q=q, **wanted).rows(columns(*messages), "", "~"))


# -- sources and levels ----------------------------------------------------------------------------

SOURCE = LogSource(container="abcdef", app="shop", process="web", replica=2)


@pytest.mark.parametrize(
    ("wanted", "whether"),
    [
        ({}, True),
        ({"app": "shop"}, True),
        ({"app": "sho"}, False),
        ({"apps": ("blog", "shop")}, True),
        ({"apps": ()}, False),
        ({"app": "shop", "apps": ("blog",)}, False),
        ({"process": "web"}, True),
        ({"process": "worker"}, False),
        ({"container": "abc"}, True),
        ({"container": "abcdef"}, True),
        ({"container": "bc"}, False),
        ({"replica": 2}, True),
        ({"replica": 1}, False),
    ],
)
def test_a_source_is_wanted_by_what_it_is(wanted, whether):
    assert LogFilter(**wanted).wants(SOURCE) is whether


@pytest.mark.parametrize(
    ("text", "mask"),
    [("debug", 31), ("info", 30), ("error", 24), ("critical", 16), ("info,error", 10), (" Info , ERROR,info", 10)],
)
def test_one_level_means_that_and_worse_several_mean_these(text, mask):
    assert level_mask(text) == mask


@pytest.mark.parametrize("text", ["", "warn", "info,", "1", "error;info"])
def test_what_is_no_level_is_refused(text):
    with pytest.raises(Invalid, match="level must be one of debug"):
        level_mask(text)


# -- text ------------------------------------------------------------------------------------------


def test_text_is_found_where_it_is_within_one_record():
    assert matching("ab", "ab", "xabx", "a", "b", "ba") == [0, 1]
    assert matching("a\nb", "a", "b", "a\nb") == [2]
    assert matching("aa", "aaa", "a", "aa") == [0, 2]


@pytest.mark.parametrize(
    "q",
    [
        "error: foo",
        "http://x",
        "a:/b",
        "std::vector",
        "12:30:45",
        "é:b",
        "a b:c",
        ":x",
        "x:",
        "a\\b:c",
        "//",
        '""',
        "/",
    ],
)
def test_what_only_looks_like_something_else_is_text(q):
    assert matching(q, f"before {q} after", '{"a":"b"}', "other") == [0]


def test_quotes_make_text_of_what_looks_like_a_field_or_an_expression():
    assert matching('"a:b"', "a:b", '{"a":"b"}') == [0]
    assert matching('"/x/"', "/x/", "x") == [0]
    assert matching('" "', "a b", "ab") == [0]
    assert matching('"""', 'say "', "say") == [0]


def test_colours_are_ignored_and_do_not_move_what_follows():
    messages = [f"{RED}er{OFF}ror", "error", f"a {RED}b{OFF}", "31m"]
    assert matching("error", *messages) == [0, 1]
    assert matching("/^error$/", *messages) == [0, 1]
    assert matching("31m", *messages) == [3]
    assert matching("a:7", f'{RED}{{"a":7}}{OFF}') == [0]


def test_an_escape_that_has_no_end_takes_nothing_but_itself():
    messages = ["\x1b]0;title", "needle\x07", "x\x1b", "\x1b[31", "mneedle", "\x1b", "needle"]
    assert matching("needle", *messages) == [1, 4, 6]
    assert matching("needle", f"{RED}nee{OFF}dle", *messages) == [0, 2, 5, 7]
    assert matching("t", "\x1b]0;t\x07", "\x1b]8;;t\x1b\\", "\x1b]t") == [2]


def test_the_id_of_a_request_is_looked_for_beside_the_rest():
    messages = ["a id-1", "b id-1", "a id-2"]
    assert matching("a", *messages, request_id="id-1") == [0]
    assert matching("/a|b/", *messages, request_id="id-1") == [0, 1]
    assert list(matcher(request_id="id-2").rows(columns(*messages), "", "~")) == [2]


def test_a_query_that_is_too_long_is_refused():
    matcher(q="x" * MAX_QUERY_CHARACTERS)
    with pytest.raises(Invalid, match="at most 1000 characters"):
        matcher(q="x" * (MAX_QUERY_CHARACTERS + 1))


# -- fields of JSON lines --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "tree", "whether"),
    [
        ("user.id:42", {"user": {"id": 42}}, True),
        ("user.id:42", {"user": {"id": "42"}}, True),
        ("user.id:42", {"user": {"id": 421}}, False),
        ("user.id:42", {"user": {"id": 42.0}}, False),
        ("user.id:42.5", {"user": {"id": 42.5}}, True),
        ("user.id:42", {"user.id": 42}, True),
        ("user.id:42", {"id": 42}, False),
        ("ok:true", {"ok": True}, True),
        ("ok:true", {"ok": "true"}, True),
        ("ok:1", {"ok": True}, False),
        ("ok:null", {"ok": None}, True),
        ("ok:null", {}, False),
        ("ok:False", {"ok": False}, False),
        ("a.b.c:x", {"a.b": {"c": "x"}}, True),
        ("a.b.c:x", {"a": {"b.c": "x"}}, True),
        ("a.b.c:x", {"a": {"b": 1}, "a.b": {"c": "y"}, "a.b.c": "x"}, True),
        ("tags:x", {"tags": ["y", "x"]}, True),
        ("tags:x", {"tags": []}, False),
        ("tags[0]:a", {"tags": ["a", "b"]}, True),
        ("tags[1]:a", {"tags": ["a", "b"]}, False),
        ("tags[7]:a", {"tags": ["a", "b"]}, False),
        ("items.name:x", {"items": [{"name": "y"}, {"name": "x"}]}, True),
        ("items[1].name:x", {"items": [{"name": "y"}, {"name": "x"}]}, True),
        ("items.name:x", {"items": [[{"name": "y"}], [[{"name": "x"}]], 3, None]}, True),
        ("a.²:1", {"a": ["²"], "²": 1}, False),
        ("größe:1", {"größe": 1}, True),
        ("@timestamp:now", {"@timestamp": "now"}, True),
        ("msg:two words: and more", {"msg": "two words: and more"}, True),
        ("a:{}", {"a": {}}, False),
    ],
)
def test_a_field_has_a_value(q, tree, whether):
    for text in (
        json.dumps(tree),
        json.dumps(tree, ensure_ascii=False, separators=(",", ":")),
        f"  {json.dumps(tree)}  ",
    ):
        assert matching(q, "other", text) == ([1] if whether else [])


@pytest.mark.parametrize(
    "line",
    [
        '{"a":',
        '{"a":1}x',
        '["a",1]',
        "a:1",
        '{"a":"\\ud800"}',
        '{"a":' * 900 + "1" + "}" * 900,
        '{"a":' + "[" * 900 + "1" + "]" * 900 + "}",
    ],
)
def test_what_is_no_json_or_too_deep_has_no_fields(line):
    assert matching("a:1", line, '{"a":1}') == [1]


@given(
    st.recursive(
        st.sampled_from([1, "x", None, True]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_every_path_to_a_value_finds_it(tree):
    def leaves(node: object, path: str):
        if isinstance(node, dict):
            for key, inner in node.items():
                yield from leaves(inner, f"{path}.{key}" if path else key)
        elif isinstance(node, list):
            for inner in node:
                yield from leaves(inner, path)
        elif path:
            yield path, node if isinstance(node, str) else json.dumps(node)

    line = json.dumps({"top": tree})
    for path, value in leaves({"top": tree}, ""):
        assert matching(f"{path}:{value}", line) == [0]


# -- regular expressions ---------------------------------------------------------------------------

TEXTS = ["", "a", "ab", "b", "a\nb", "\n", "x y", "é", "aé\nb", "AB"]
EXPRESSIONS = [
    "a",
    "^a",
    "b$",
    "^$",
    "^",
    "$",
    "",
    "a*",
    "x*",
    ".",
    ".*",
    "(?s).*",
    "(?s)a.b",
    "a.b",
    "a\\nb",
    "a\\s+b",
    "\\s",
    "[^x]",
    "[^x]*x",
    "\\Aa",
    "b\\z",
    "\\A\\z",
    "\\Ab",
    "a\\z",
    "(?i)AB",
    "(?-m)^b",
    "(?-m)a$",
    "(?-m:^a)",
    "(?s-m)^a.b$",
    "\\bb",
    "\\B",
    "b\\b",
    "é",
    "\\xe9",
    "\\pL",
    "[[:alpha:]]+$",
    "a|^b",
    "(a|b)+",
    "\\Q.\\E",
    "(?s)b.*a",
    "\\n",
    "\\n$",
    "^\\n",
    "(?m)^b",
    "(?U)a.*",
]


@pytest.mark.parametrize("pattern", [pattern for pattern in EXPRESSIONS if pattern])
def test_an_expression_is_searched_in_each_record_alone(pattern):
    alone = re2.compile(f"(?m){pattern}")
    wanted = [i for i, text in enumerate(TEXTS) if alone.search(text)]
    assert matching(f"/{pattern}/", *TEXTS) == wanted
    assert matching(f"/{pattern}/", *reversed(TEXTS)) == [len(TEXTS) - 1 - i for i in reversed(wanted)]


@given(
    st.sampled_from([pattern for pattern in EXPRESSIONS if pattern]),
    st.lists(st.text("abx \né", max_size=4), min_size=1, max_size=12),
)
def test_expressions_find_the_same_in_any_company(pattern, messages):
    alone = re2.compile(f"(?m){pattern}")
    assert matching(f"/{pattern}/", *messages) == [i for i, text in enumerate(messages) if alone.search(text)]


def test_records_of_any_length_are_searched_to_their_end():
    messages = (
        [f"{'x' * length}needle" for length in (10, 16_000, 16_384, 16_390, 50_000)] + ["y" * 40_000] * 3 + ["needle"]
    )
    assert matching("/needle$/", *messages) == [0, 1, 2, 3, 4, 8]
    assert matching("/^y+$/", *messages) == [5, 6, 7]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "missing"),
        ("a**", "bad repetition operator"),
        ("[z-a]", "invalid character class range"),
        ("(?<x>a", ""),
        ("a(?=b)", "invalid perl operator"),
        ("\\1", "invalid escape sequence"),
        ("x{2000}", "invalid repetition size"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("\\pL{1000}", "too large"),
        ("(?s)[ab].{900}[xy].{900}", "too large"),
        ("\\", "trailing"),
        ("\ud800", "half a character"),
    ],
)
def test_what_is_no_expression_is_refused_in_words(pattern, words):
    with pytest.raises(Invalid, match=f"^q .*{words}"):
        matcher(q=f"/{pattern}/")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a*)*b",
        "(a|a)*b",
        "(a|aa)+$b",
        "(.*)*x",
        "(?s)a.*",
        "(?s)o.*b?",
        "a(?s:.*Q)?",
        "(?s)[ab].{0,300}Q",
        "(?s)(.{1,180}a).{90}Q",
        "(?i)([ab]{0,50}){20}c",
    ],
)
def test_hostile_expressions_take_a_bounded_time(pattern):
    block = columns(*["ab" * 40] * 3000)
    begin = time.process_time()
    matcher(q=f"/{pattern}/").rows(block, "", "~")
    assert time.process_time() - begin < 3


def test_useful_expressions_are_small_enough():
    for pattern in (
        "(?i)time-?out|refused",
        "user=42[0-9] .*items",
        "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "a.{0,200}b",
        r"\pL+",
    ):
        assert matcher(q=f"/{pattern}/")
    assert MAX_PROGRAM == 2500


# -- everything together ---------------------------------------------------------------------------

_MESSAGE = st.lists(st.sampled_from(["a", "b", "ab", "\n", " ", RED, "é", '{"a":1}', "a:1"]), max_size=4).map("".join)


@given(
    st.lists(st.tuples(_MESSAGE, st.integers(0, 4), st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=10),
    st.sampled_from([None, "a", "ab", "a:1", '"a:1"', "/^a/", "/b$/", "é"]),
    st.integers(0, 31),
    st.sampled_from([None, "stdout", "stderr"]),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.sampled_from([None, "b"]),
)
def test_all_conditions_hold_of_what_is_found(rows, q, levels, stream, since, until, request_id):
    block = columns(
        *[row[0] for row in rows],
        levels=bytes(row[1] for row in rows),
        streams=bytes(row[2] for row in rows),
        times=[row[3] for row in rows],
    )
    wanted = LogFilter(
        q=q,
        levels=levels,
        stream=stream,
        since=None if since is None else format_ns(since),
        until=None if until is None else format_ns(until),
        request_id=request_id,
    )
    plain = [row[0].replace(RED, "") for row in rows]
    tests = {
        None: lambda text: True,
        "a:1": lambda text: text.strip() == '{"a":1}',
        '"a:1"': lambda text: "a:1" in text,
        "/^a/": lambda text: any(line.startswith("a") for line in text.split("\n")),
        "/b$/": lambda text: any(line.endswith("b") for line in text.split("\n")),
    }
    found = tests.get(q, lambda text: q in text)
    expected = [
        i
        for i, (_, level, out, at) in enumerate(rows)
        if found(plain[i])
        and (not levels or levels >> level & 1)
        and (stream is None or (stream == "stderr") == bool(out))
        and (since is None or at >= since)
        and (until is None or at < until)
        and (request_id is None or request_id in plain[i])
    ]
    times = [format_ns(row[3]) for row in rows]
    assert list(Matcher(wanted, compile_re2).rows(block, min(times), max(times))) == expected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.needed_text import needed_texts


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("nowhere", "nowhere"),
        ("user=42.*nowhere!", "nowhere!"),
        ("timeout after [0-9]+ s", "timeout after "),
        (r"GET /api/v\d+/items\?page=", "/items?page="),
        ("abcd+e", "abcd"),
        ("abcd*e", "abc"),
        ("abcd?", "abc"),
        ("abcd+?", "abcd"),
        ("abcd*?", "abc"),
        ("abc{0}", "ab"),
        ("abc{0,3}de", "ab"),
        ("abc{2}d", "abc"),
        ("abc{2,}d", "abc"),
        ("^error: (disk|memory) is full$", " is full"),
        ("(?:ab|cd)efg", "efg"),
        ("((a|b)|c)xy", "xy"),
        ("(needed)", ""),
        (r"\[error\]", "[error]"),
        (r"\(\d+\) of \d", ") of "),
        (r"a\nbcd", "bcd"),
        ("[^a-z]bc", "bc"),
        (r"[\]x]bc", "bc"),
        ("größe", "größe"),
        # nothing is sure
        ("", ""),
        ("one|two", ""),
        ("(a|b)|c", ""),
        ("(?i)error", ""),
        ("err(?i)or", ""),
        ("(?i:error)", ""),
        ("(?P<name>abc)def", ""),
        (r"\Qa.b\E", ""),
        (r"abc\x41", ""),
        (r"abc\pL", ""),
        (r"abc\p{Greek}", ""),
        (r"\101bcd", ""),
        ("[[:alpha:]]bcd", ""),
        ("[]x]bcd", ""),
        ("abc{x", ""),
        ("abc\\", ""),
    ],
)
def test_what_every_match_has(pattern, text):
    assert max(needed_texts(pattern), key=len, default="") == text


def test_all_of_them_the_longest_first():
    assert needed_texts(r"user=42 .* took \d+ms (slow)!") == ["user=42 ", " took ", "ms ", "!"]


_ATOMS = st.sampled_from(
    [
        r"a",
        r"b",
        r"c",
        r"ab",
        r"é",
        r"\.",
        r"\[",
        r"\\",
        r"\d",
        r"\w",
        r"\b",
        r"\n",
        r".",
        r"^",
        r"$",
        r"[ab]",
        r"[^a]",
        r"[\]b]",
        r"[[:alpha:]]",
        r"(?i)",
        r"(?i:a)",
        r"\Qab\E",
        r"\x61",
        r"\141",
        r"\pL",
        r"|",
        r"{",
        r"}",
        r"]",
        r"{a}",
        r"(?s)",
        r"(?:",
        r"()",
    ]
)
_TIMES = st.sampled_from(["", "", "", "*", "+", "?", "*?", "+?", "??", "{0}", "{1}", "{2}", "{0,1}", "{1,}", "{2,3}?"])
_PATTERNS = st.recursive(
    st.builds(lambda atom, times: atom + times, _ATOMS, _TIMES),
    lambda parts: st.one_of(
        st.lists(parts, max_size=5).map("".join),
        st.lists(parts, max_size=3).map("|".join),
        st.builds(lambda part, times: f"({part}){times}", parts, _TIMES),
    ),
    max_leaves=8,
)


@given(_PATTERNS, st.lists(st.text("ab.c[\\ né1\n", max_size=12), min_size=1, max_size=8))
def test_no_match_lacks_it(pattern, texts):
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(f"(?m){pattern}".encode(), options)
    except re2.error:
        return
    needed = [text.encode() for text in needed_texts(pattern)]
    for text in texts:
        match = found.search(text.encode())
        assert match is None or all(each in match.group(0) for each in needed)

"""The level of a line is what its format says, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from log_samples import DECOYS, SAMPLES

from ndactors.core import loglevels
from ndactors.core.levels import LEVELS
from ndactors.core.loglevels import DEFAULT, LOOKED_AT, RULES, level_of, levels_of

CASES = [(program, level, line) for program, samples in SAMPLES.items() for level, line in samples]
LINES = [line for _, _, line in CASES] + DECOYS
OFTEN, EVERY = loglevels._expression(True), loglevels._expression(False)
FEW_WAYS = 20
lines_of_all_kinds = st.lists(
    st.one_of(
        st.sampled_from(LINES).map(lambda line: line + "\n"),
        st.sampled_from(LINES),
        st.text(max_size=80),
        st.tuples(st.sampled_from(LINES), st.text(max_size=20), st.integers(0, 80)).map(
            lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] :]
        ),
    ),
    max_size=12,
)


def named(level):
    return None if level is None else LEVELS[level]


@pytest.mark.parametrize("program", SAMPLES)
def test_lines_of_real_programs(program):
    found = [(named(level_of(line + "\n")), line) for _, line in SAMPLES[program]]
    assert found == SAMPLES[program]


def test_there_are_enough_of_them():
    assert sum(map(len, SAMPLES.values())) >= 220
    for program in ("nginx", "Next.js", "Django", "Ruby, Rails", "Go", "Java", "PostgreSQL", "Redis"):
        assert len(SAMPLES[program]) >= 8


@pytest.mark.parametrize("line", DECOYS)
def test_words_alone_are_no_level(line):
    assert level_of(line) is None
    assert level_of(line + "\n") is None
    assert levels_of([line], line) == bytes((DEFAULT,))


@pytest.mark.parametrize(("program", "level", "line"), CASES)
def test_neither_how_a_line_ends_nor_colours_matter(program, level, line):
    for shown in (line, line + "\r\n", f"\x1b[31m{line}\x1b[0m\n", f"\x1b[1;38;5;208m{line[:6]}\x1b[0m{line[6:]}"):
        if len(line) < LOOKED_AT and "\x1b" not in line:
            assert named(level_of(shown)) == level


@given(lines_of_all_kinds)
def test_a_block_of_lines_is_its_lines(lines):
    one_by_one = [level_of(line) for line in lines]
    assert all(level is None or 0 <= level < len(LEVELS) for level in one_by_one)
    expected = bytes(DEFAULT if level is None else level for level in one_by_one)
    assert levels_of(lines, "".join(lines)) == expected


def test_all_samples_at_once():
    lines = [line + "\n" for _, _, line in CASES]
    expected = bytes(DEFAULT if level is None else LEVELS.index(level) for _, level, _ in CASES)
    assert levels_of(lines, "".join(lines)) == expected
    assert levels_of([], "") == b""


def test_no_rule_is_without_a_sample():
    rules = [rule for family in RULES.values() for rule in family for _ in range(re.compile(rule.expression).groups)]
    used = {id(rules[match.lastindex - 1]) for line in LINES if (match := EVERY[0].match(line)) and match.lastindex}
    assert [rule.programs for family in RULES.values() for rule in family if id(rule) not in used] == []


def test_groups_belong_to_their_rules():
    for expression, meanings in (OFTEN, EVERY):
        assert expression.groups == len(meanings) - 1


def test_the_level_of_a_long_line_is_found_at_its_beginning():
    assert level_of("2026-11-25 10:00:00,123 ERROR shop " + "x" * 1_000_000) == LEVELS.index("error")
    assert level_of("x" * 1_000_000 + " ERROR") is None
    assert level_of("\x1b[0m" * 200_000 + "ERROR x") is None


def test_the_level_of_a_long_record_may_be_at_its_end():
    words = '"msg":"{} \\"level\\":\\"debug\\""'.format("x" * 1_000_000)
    assert level_of(f'{{{words},"level":"error"}}') == LEVELS.index("error")
    assert level_of(f'{{{words},"list":["a","b"],"level":"error"}}') == LEVELS.index("error")


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"level":' + "[" * 100_000,
        '{"level":{"a":' * 10_000,
        '{"a":["b",{"level":"\ud800"}]}',
        '{"level":"' + "9" * 9000 + '"}',
    ],
)
def test_what_cannot_be_read_tells_nothing(line):
    assert level_of(line) is None


@pytest.mark.parametrize("expression", [OFTEN[0], EVERY[0], loglevels._ESCAPES], ids=["often", "every", "escapes"])
def test_no_line_takes_more_than_time_in_proportion_to_its_length(expression):
    """What repeats without a small bound gives nothing back: there are no many ways to try."""

    def look(items):
        for kind, value in items:
            if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
                assert value[1] <= FEW_WAYS, value
            look_into(value)

    def look_into(value):
        if isinstance(value, _parser.SubPattern):
            look(value)
        elif isinstance(value, (list, tuple)):
            for part in value:
                look_into(part)

    parsed = _parser.parse(expression.pattern)
    look(parsed)
    assert any(kind is op.POSSESSIVE_REPEAT for kind, _ in flat(parsed))


def flat(items):
    for kind, value in items:
        yield kind, value
        for part in value if isinstance(value, (list, tuple)) else ():
            for piece in part if isinstance(part, list) else [part]:
                if isinstance(piece, _parser.SubPattern):
                    yield from flat(piece)

"""A configuration file's text as it may be shown: comments, order and spelling stay, secrets go. And what changed between
two texts, by lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from ..core.masking import MASK, mask_tree, mask_words
from ..errors import ConfigurationError
from . import yaml_file

MAX_CHANGED = 2000
"""Lines on both sides together, without those that are equal at both ends: more take too long to compare."""
MAX_DIFF = 64 * 1024
CONTEXT = 3
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_COMMENT = re.compile(r"#[^\n]*")


def masked_yaml(text: str) -> str:
    """As many lines as before. What is no valid YAML is masked line by line, by how the words look."""
    text = text.removeprefix("\ufeff")
    try:
        yaml_file.parse(text.encode("utf-8", "replace"), "")
    except ConfigurationError:
        return "\n".join(mask_words(line) for line in text.split("\n"))
    node = yaml.compose(text, Loader=_LOADER)
    plain = _plain(node)
    spans = dict(_spans(node, plain, mask_tree(plain)))
    parts: list[str] = []
    done = 0
    for (start, end), shown in sorted(spans.items()):
        if start < done:
            continue  # inside of one that is masked as a whole
        parts += [_gap(text[done:start]), _kept_lines(text[start:end], shown)]
        done = end
    return "".join((*parts, _gap(text[done:])))


def _plain(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return node.value if node.style else yaml_file.scalar(node.value)


def _spans(node: Any, plain: Any, shown: Any) -> Iterator[tuple[tuple[int, int], Any]]:
    """Where each plain value is in the text, and what is shown there: None for as it is."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            yield (key.start_mark.index, key.end_mark.index), None
            yield from _spans(value, plain[name], shown[name])
    elif isinstance(node, yaml.SequenceNode):
        for item, before, after in zip(node.value, plain, shown, strict=True):
            yield from _spans(item, before, after)
    else:
        yield (node.start_mark.index, node.end_mark.index), None if plain == shown else shown


def _kept_lines(text: str, shown: Any) -> str:
    if shown is None:
        return text
    if "\n" not in text:
        return str(shown)
    return "\n".join(MASK if line.strip() else line for line in text.split("\n"))


def _gap(text: str) -> str:
    """Between values are only comments and punctuation."""
    return _COMMENT.sub(lambda match: mask_words(match[0]), text)


def unified_diff(before: str, after: str, names: tuple[str, str]) -> str:
    """Masked. A secret that changed shows as a line that changed, with a mask on both sides. Bounded in time and length."""
    if before.endswith("\n") and after.endswith("\n"):
        before, after = before[:-1], after[:-1]
    old, new = before.split("\n"), after.split("\n")
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    if start == len(old) == len(new):
        return ""
    head = f"--- {names[0]}\n+++ {names[1]}\n"
    changed = len(old) + len(new) - 2 * (start + end)
    if changed > MAX_CHANGED:
        return f"{head}({changed} lines differ: too many to show)\n"
    shown_old, shown_new = masked_yaml(before).split("\n"), masked_yaml(after).split("\n")
    # equal lines around what changed are compared no more, only shown
    low, high = max(0, start - CONTEXT), max(0, end - CONTEXT)
    from difflib import SequenceMatcher  # only those need it who ask for a difference

    matcher = SequenceMatcher(None, old[low : len(old) - high], new[low : len(new) - high], autojunk=False)
    lines: list[str] = []
    for group in matcher.get_grouped_opcodes(CONTEXT):
        first, last = group[0], group[-1]
        lines.append(f"@@ -{_range(low, first[1], last[2])} +{_range(low, first[3], last[4])} @@")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in shown_new[low + j1 : low + j2]]
                continue
            lines += [f"-{line}" for line in shown_old[low + i1 : low + i2]]
            lines += [f"+{line}" for line in shown_new[low + j1 : low + j2]]
    text = head + "\n".join(lines) + "\n"
    return text if len(text) <= MAX_DIFF else text[:MAX_DIFF].rpartition("\n")[0] + "\n(cut off here)\n"


def _range(offset: int, start: int, end: int) -> str:
    """As diff writes it: the first line and how many."""
    count = end - start
    begin = offset + start + (1 if count else 0)
    return str(begin) if count == 1 else f"{begin},{count}"

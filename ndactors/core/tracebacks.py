"""Which lines of output belong to the record of the line before: tracebacks, by the languages that print them.

Every line has a shape, and a table says which shapes may follow in a state. Some lines belong only if a later one says so
(a blank line before "During handling of the above exception"): until then the state is tentative, and if it never does,
they begin records of their own. Lines that are merely indented belong to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_LINES = 1000
MOST_CHARACTERS = 256 * 1024
"""Of a record. What would make it longer begins a new one."""
MOST_TENTATIVE = 12
LOOKED_AT = 2000
"""What is looked at of a line, in characters."""
_ERROR = 3
"""The level, as in ``loglevels``, from which on a line may be followed by its traceback."""

_ALWAYS = ("   at ", "Traceback (most recent call last)", "panic", "]\n      ")
_BY_SIGN = {
    "\t": ("\tat ", "\tfrom ", "goroutine ", "runtime stack:"),
    "#": ("Stack trace:", "[stacktrace]"),
    "^": ('File "',),
}
"""Needed together with a sign, which is quicker to look for."""
TRIGGERS: tuple[str, ...] = (*_ALWAYS, *(trigger for triggers in _BY_SIGN.values() for trigger in triggers))
"""One of them is in every text with a line that continues another."""

# -- shapes of lines -------------------------------------------------------------------------------

_PATH = r"[^\s:\"'(]{1,300}+"
_CLASS = r"[A-Z][A-Za-z0-9_]{0,100}+(?:(?:::|[.$])[A-Z][A-Za-z0-9_]{0,100}+){0,8}+"
_EXCEPTION = (
    rf"{_CLASS}(?:(?<=Error)|(?<=Exception)|(?<=Throwable)|(?<=Failure)|(?<=Fault)|(?<=Interrupt)|(?<=Exit))"
    r"(?: \[[A-Z0-9_]{1,60}+\])?+(?=: |:?$)"
)
_IN = "[ \t]{1,60}+"
_SHAPES = {
    "blank": "$",
    # indented
    "file": '[> ]{1,8}+File "',
    "frame": (
        "[ \t]{0,60}(?:\t|   )at (?:(?:async|new|get|set) )?+"
        r"(?:[^\s(]{1,400}+(?: \[as [^\]\s]{1,100}+\])?+ ?\(|[^\s:]{1,400}+(?::[^\s:]{0,300}+){0,6}?:[0-9]{1,9}$|<anonymous>)"
    ),
    "more": rf"{_IN}\.\.\. [0-9]{{1,9}} (?:more|common frames omitted)",
    "cause inside": f"{_IN}(?:Suppressed|Caused by): ",
    "from": "\tfrom " + _PATH + ":[0-9]{1,9}:in ",
    "go file": r"\t\S{1,500}?:[0-9]{1,9}(?: \+0x[0-9a-f]{1,16}+)?$",
    "panic again": "\tpanic: ",
    "group": r" {1,60}+\+ Exception Group Traceback \(",
    "group end": r" {4}\+-{20,200}+$",
    "group line": r" {1,60}+(?:\+[-+]|\|)",
    "thrown": "  thrown in ",
    "numbered": f"{_IN}[0-9]{{1,9}}: ",
    "inner": "[ \t]{0,60}+--(?:-> |- End of )",
    "caret": r"[ \t~]{0,400}+\^[ \t~^]{0,400}+$",
    "assertion": "(?:  left| right): ",
    "indented": "[ \t]",
    # at the margin
    "traceback": r"Traceback \(most recent call last\):",
    "box": "╭[^\n]{0,300}Traceback ",
    "in box": "[│╰]",
    "joined": "(?:During handling of the above exception|The above exception was the direct cause)",
    "statement": r"(?:\[SQL: |\[parameters: |\(Background on this error|LINE [0-9]{1,9}: |(?:DETAIL|HINT|CONTEXT):  )",
    "cause": "Caused by: ",
    "goroutine": r"(?:goroutine [0-9]{1,19} (?:[a-z]{1,4}=\S{1,40}+ ){0,4}\[[^\]]{1,200}+\]:|runtime stack:)",
    "panic": "(?:panic: |fatal error: )",
    "signal": r"\[signal ",
    "created": "created by ",
    "elided": r"\.\.\.[0-9a-z]{0,20}+ ?(?:additional )?frames elided",
    "exit": "exit status [0-9]",
    "rust panic, its words come": r"thread '[^'\n]{0,200}+' (?:\([0-9]{1,9}\) )?panicked at [^'].{0,1500}:[0-9]{1,9}:$",
    "rust panic": r"thread '[^'\n]{0,200}+' (?:\([0-9]{1,9}\) )?panicked at ",
    "note": "note: ",
    "backtrace": "stack backtrace:",
    "php stack": r"(?:Stack trace:|\[stacktrace\])$",
    "php frame": "#[0-9]{1,9} ",
    "php next": f"Next {_CLASS}: ",
    "php end": r'"\}$',
    "node version": r"Node\.js v[0-9]",
    "node place": r"(?:/|file://|node:|[A-Za-z]:\\)[^\s:]{1,400}+(?::[^\s:]{1,300}+){0,3}?:[0-9]{1,9}$",
    "node hint": r"(?:Require stack:$|- /)",
    "closing": r"[}\]]",
    "uncaught": r"(?:Uncaught |\[Unhandled)",
    ".NET": r"(?:trce|dbug|info|warn|fail|crit): [^\s\[]{1,300}+\[[0-9]{1,9}\]$",
    "java exception": r"(?:[a-z_][A-Za-z0-9_]{0,60}+\.){1,12}+" + _EXCEPTION,
    "exception": _EXCEPTION,
    "word": "[A-Za-z_][A-Za-z0-9_.]{0,300}+(?:: |:?$)",
    "call": r"[^\s(]{1,400}+\(.{0,1500}\)$",
}
_NAMES = ("other", *_SHAPES)
_match = re.compile("|".join(f"({shape})" for shape in _SHAPES.values())).match
_may_begin = re.compile(
    r"[ \t\r\n╭/]|$|Traceback |panic: |fatal error: |goroutine |runtime |thread '|file:|node:|[A-Za-z]:\\"
    r"|(?:trce|dbug|info|warn|fail|crit): "
).match
"""The beginnings of lines that need a closer look even if nothing is wrong and nothing goes on."""
_INDENTED = frozenset(list(_SHAPES)[1 : list(_SHAPES).index("indented") + 1])

# -- states, and which shapes go on with them ------------------------------------------------------

_AFTER_ANY = {"frame": "stack", "from": "ruby"}
_AFTER_ERROR = _AFTER_ANY | {
    "traceback": "python",
    "group": "python group",
    "box": "python box",
    "goroutine": "go, begun",
    "php stack": "php, begun",
    "inner": "exception to come",
}
_FRAMES = {"frame": "stack", "more": "stack"}
_STATES: dict[str, dict[str, str]] = {
    "nothing": {},
    "plain": _AFTER_ANY,
    "error": _AFTER_ERROR | {"java exception": "exception to come", "blank": "error, blank"},
    "exception": _AFTER_ERROR | {"node hint": "exception to come"},
    # JavaScript, Java, .NET
    "stack": _FRAMES | {"cause inside": "stack", "inner": "stack", "cause": "cause", "blank": "stack, blank"},
    "cause": _FRAMES | {"cause": "cause", "other": "cause, its words", "indented": "cause, its words"},
    "properties": {"indented": "properties", "closing": "stack"},
    "node place": {"indented": "node code", "other": "node code"},
    # Python
    "python": {
        **{"indented": "python", "blank": "python, blank"},
        **dict.fromkeys(("word", "exception", "java exception"), "python's end"),
    },
    "python's end": {
        "blank": "python's end, blank",
        "joined": "python, joined",
        "statement": "python's end",
        "caret": "python's end",
    },
    "python, joined": {"blank": "python, joined", "traceback": "python", "group": "python group"},
    "python group": {"group": "python group", "group line": "python group", "group end": "python's end"},
    "python box": {"in box": "python box", **dict.fromkeys(("word", "exception", "java exception"), "python's end")},
    # Go
    "go panic": {"goroutine": "go, begun", **dict.fromkeys(("signal", "panic again", "blank"), "goroutine to come")},
    "go": {
        **{"go file": "go", "goroutine": "go, begun", "elided": "go", "exit": "end", "blank": "go, blank"},
        **dict.fromkeys(("call", "created"), "go call"),
    },
    # others
    "rust panic": {"other": "rust", "indented": "rust"},
    "rust": dict.fromkeys(("note", "backtrace", "numbered", "frame", "assertion"), "rust"),
    "php": {"php frame": "php", "thrown": "php", "php end": "end", "blank": "php, blank"},
    "php next": {"php stack": "php, begun"},
    "ruby": {"from": "ruby"},
    ".NET": {},
    "end": {},
}
_TENTATIVE: dict[str, dict[str, str]] = {
    "exception to come": {"frame": "stack", "inner": "exception to come", "node hint": "exception to come"},
    "error, blank": {"blank": "error, blank", "java exception": "exception to come"},
    "stack, blank": {"node version": "end"},
    "cause, its words": _FRAMES | {"other": "cause, its words", "indented": "cause, its words"},
    "node code": {"caret": "node caret"},
    "node caret": {
        "blank": "node caret",
        **dict.fromkeys(("exception", "java exception", "uncaught"), "exception to come"),
    },
    "python, blank": {"blank": "python, blank", "file": "python", "exception": "python's end"},
    "python's end, blank": {"blank": "python's end, blank", "joined": "python, joined", "statement": "python's end"},
    "syntax": {"indented": "syntax", "caret": "syntax, caret"},
    "syntax, caret": {"exception": "python's end"},
    "goroutine to come": {
        "goroutine": "go, begun",
        **dict.fromkeys(("signal", "panic again", "blank"), "goroutine to come"),
    },
    "go, begun": dict.fromkeys(("call", "created"), "go call"),
    "go call": {"go file": "go"},
    "go, blank": {"goroutine": "go, begun", "exit": "end", "blank": "go, blank"},
    "php, begun": {"php frame": "php"},
    "php, blank": {"php next": "php next", "blank": "php, blank"},
}
_HEADS = {
    "blank": "nothing",
    "traceback": "python",
    "group": "python group",
    "box": "python box",
    "file": "syntax",
    "panic": "go panic",
    "goroutine": "go, begun",
    "rust panic, its words come": "rust panic",
    "rust panic": "rust",
    "node place": "node place",
    ".NET": ".NET",
}
"""What state a line begins. Of other shapes, its level decides."""
_CLOSED = frozenset({"nothing", "plain", "end"})
_FOLLOWING = _STATES | _TENTATIVE


def may_have(text: str) -> bool:
    """Whether any line of ``text`` may continue another. It costs little."""
    if any(trigger in text for trigger in _ALWAYS):
        return True
    return any(sign in text and any(trigger in text for trigger in triggers) for sign, triggers in _BY_SIGN.items())


def continuations(lines: Sequence[str], levels: Sequence[int]) -> tuple[list[bool], int]:
    """``lines`` follow one another in one stream, and have ``levels``. For each, whether it belongs to the record of the
    line before; and how many at the end are a record that may go on, 0 if none."""
    flags = [False] * len(lines)
    state = "nothing"
    begin = size = 0  # of the record; its size without what is tentative
    first = waiting = 0  # of the lines that may belong to it, or of this one
    i = 0
    while i < len(lines):
        line = lines[i]
        bad = levels[i] >= _ERROR
        if state in _CLOSED and not bad and not _may_begin(line):
            state, begin, size, waiting, i = "plain", i, len(line), 0, i + 1
            first = i
            continue
        text = line[:LOOKED_AT].rstrip()
        match = _match(text)
        shape = _NAMES[match.lastindex or 0] if match else "other"
        following = _next(state, shape, text)
        waiting += len(line)
        if following and (waiting > MOST_CHARACTERS or i - first >= MOST_TENTATIVE):
            following = None
        if following in _TENTATIVE:
            state, i = following, i + 1
            continue
        if not following and first < i:
            # what was tentative is not of this record: once more from there
            state, i, waiting = "nothing", first, 0
            continue
        if not following:
            begin, size = i, 0
            following = _HEADS.get(shape) or ("plain" if not bad else "exception" if "exception" in shape else "error")
        elif i - begin >= MOST_LINES or size + waiting > MOST_CHARACTERS:
            begin, size = first, 0
        flags[max(first, begin + 1) : i + 1] = [True] * (i + 1 - max(first, begin + 1))
        state, size, waiting, i = following, size + waiting, 0, i + 1
        first = i
    if begin <= first < len(lines):
        # if nothing comes that says they belong to it, they do not
        flags[first:] = continuations(lines[first:], levels[first:])[0]
    return flags, 0 if state in _CLOSED else len(lines) - begin


def _next(state: str, shape: str, text: str) -> str | None:
    """The state that a line of ``shape`` leads to if it belongs to what is before it."""
    if state == ".NET":
        return state if text.startswith("      ") else None
    following = _FOLLOWING[state]
    found = following.get(shape)
    if found is None and shape != "blank":
        found = following.get("indented" if shape in _INDENTED else "other")
    return "properties" if found == "stack" and shape == "frame" and text.endswith("{") else found

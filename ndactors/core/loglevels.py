"""How bad a line of output is, by how its program writes it. The formats are data: a rule for each, and one expression
made of all.

A line is read from its beginning and never searched: what a message mentions is not its level. Whatever repeats in the
expression is bounded or possessive, so a line takes time in proportion to its length, whatever is in it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

DEBUG, INFO, WARNING, ERROR, CRITICAL = range(5)
DEFAULT = INFO
"""Of a line that does not tell, by whatever stream it came."""
LOOKED_AT = 512
"""What is looked at of a line with colours, in characters. In others every part has a bound of its own."""
_UNTOLD, _LOOK_CLOSER = 5, 6

# -- what words mean -------------------------------------------------------------------------------

_WRITTEN = (
    "trace trce trac trc verbose vrb debug debug1 debug2 debug3 debug4 debug5 dbg dbug debu",
    "info information informational inf notice note log success system detail hint statement context query location",
    "warning warn wrn deprecation",
    "error err erro severe fail failure",
    "critical crit fatal fata ftl alert emergency emerg panic pani dpanic",
)
"""Levels in any case where a format has its level. What is often not one (``system``) is of info, as all that do not
tell; ``detail`` and its like begin lines that accompany one of PostgreSQL's."""
_VALUES = ("fine finer finest silly sill verb d t v", "http i", "w", "eror e", "f c")
"""Levels only as values of a field that is called level, or in capitals."""


class _Words(dict[str, int]):
    """A word's level, in any case. Given are the words of each level, from debug to critical."""

    def __init__(self, *groups: str) -> None:
        for level, words in enumerate(groups):
            for word in words.split():
                self.update({word: level, word.upper(): level, word.capitalize(): level})

    def __missing__(self, word: str) -> int:
        return _level_of_number(int(word)) if word.isdecimal() and len(word) <= 3 else self.get(word.lower(), _UNTOLD)


class _Always(dict[str, int]):
    """The same level, whatever the word."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __missing__(self, word: str) -> int:
        return self.level


def _level_of_number(number: int) -> int:
    """pino and bunyan count from 10 to 60, Monolog from 100 to 600."""
    if 10 <= number <= 60:
        return (DEBUG, DEBUG, INFO, WARNING, ERROR, CRITICAL)[number // 10 - 1]
    if 100 <= number <= 600:
        return (DEBUG, INFO, WARNING, ERROR, CRITICAL, CRITICAL)[number // 100 - 1]
    return _UNTOLD


_WORDS = _Words(*(f"{written} {value}" for written, value in zip(_WRITTEN, _VALUES, strict=True)))
_WORDS.update({str(number): _level_of_number(number) for number in (10, 20, 30, 40, 50, 60)})
_LETTERS = _Words("d t v", "i a n", "w", "e", "f c")
_STATUS = {"1": INFO, "2": INFO, "3": INFO, "4": WARNING, "5": ERROR}
_SEVERITIES = (CRITICAL, CRITICAL, CRITICAL, ERROR, WARNING, INFO, INFO, DEBUG)
"""Of syslog, by number."""
_PRIORITIES = {str(number): _SEVERITIES[number % 8] for number in range(192)}
_REDIS = {".": DEBUG, "-": DEBUG, "*": INFO, "#": WARNING}
_SIGNS = {"✓": INFO, "✔": INFO, "○": INFO, "▲": INFO, "ℹ": INFO, "⚠": WARNING, "⨯": ERROR, "✘": ERROR, "✖": ERROR}
_NEXT = _Words("debug trace", "info event wait ready", "warn", "error", "")
_NPM = _Words("verb verbose sill silly timing", "notice info http", "warn warning", "error err!", "")
_REPORTS = _Words("", "info progress", "warning", "error crash supervisor", "")
_PHP = {
    **dict.fromkeys(("Fatal error", "Parse error", "Core error", "Compile error"), CRITICAL),
    **{"Recoverable fatal error": ERROR, "Warning": WARNING, "Deprecated": WARNING, "Notice": INFO},
}
_DJANGO = {
    **dict.fromkeys(("Not Found", "Bad Request", "Forbidden", "Unauthorized", "Method Not Allowed", "Gone"), WARNING),
    **{"Internal Server Error": ERROR, "Invalid HTTP_HOST header": ERROR},
}

# -- pieces of expressions -------------------------------------------------------------------------


def _one_of(words: Iterable[str], any_case: bool = False) -> str:
    """An expression for the longest of ``words`` that is there, letter by letter: most misses show at the first one."""
    below: dict[str, list[str]] = {}
    for word in words:
        below.setdefault(word[:1], []).append(word[1:])
    may_end = below.pop("", None) is not None
    ways = []
    for letter, rests in below.items():
        first = f"[{letter.upper()}{letter}]" if any_case and letter.isalpha() else re.escape(letter)
        ways.append(first + (_one_of(rests, any_case) if any(rests) else ""))
    found = ways[0] if len(ways) == 1 and not may_end else f"(?:{'|'.join(ways)})" if ways else ""
    return f"{found}?+" if may_end and found else found


_N = "A-Za-z0-9_"
_ALL = ["info", "error", "warning", "warn", "debug", *" ".join(_WRITTEN).split()]
_LEVEL = f"({_one_of(_ALL, any_case=True)})"
_CAPITALS = rf"({_one_of(word.upper() for word in (*_ALL, 'fine', 'finer', 'finest'))})(?:[\s:|\[\]/\(](?!=)|$)"
_COLON = r":(?=\s|$)(?![ \t]{1,9}+(?:null|none|None|undefined|nil|false|0)(?:[\s,.]|$))"
"""``error: null`` is a field of some object."""
_LEVEL_IS = r"""(?:level|lvl|severity|log[._]?level)=["']?([A-Za-z]{1,15}+)(?=["'\s,;]|$)"""
_PAIR = (
    rf"""[{_N}.@/-]{{1,60}}+=(?:"[^"\\\n]{{0,400}}+(?:\\.[^"\\\n]{{0,400}}+){{0,99}}+"|'[^'\n]{{0,400}}+'"""
    r"""|[^\s"']{0,400}+)[ \t]{1,4}+"""
)
_REQUEST = r'"[^"\\\n]{0,9000}+(?:\\.[^"\\\n]{0,9000}+){0,999}+"'
_CODE = r"([1-5])[0-9]{2}(?=\s|$)"
_ACCESS = rf"(?:[^\s\[]{{1,255}}+ ){{2,6}}\[[^\]\n]{{10,40}}+\] {_REQUEST} {_CODE}"
_MEASURED = r"[A-Z]{3,7} \S{1,2000}+ ([1-5])[0-9]{2} (?:in |[0-9-]{1,12} - )?[0-9.]{1,12}+ ?m?s\b"
_CLOCK = r"[0-9]{1,2}:[0-9:.,]{2,16}+"
_TIME = (
    r"(?:[0-9]{1,4}+[-/.:][0-9:/.,-]{2,30}+(?:[T ]{1,2}+[0-9][0-9:.,+-]{4,30}+)?+"
    rf"|[0-9]{{1,2}}[/-][A-Z][a-z]{{2}}[/-][0-9]{{4}}[ :]{_CLOCK}"
    r"|[0-9]{9,13}+(?:\.[0-9]{1,9}+)?+|[0-9.]{3,20}+e\+[0-9]{2})"
)
_DAY = rf"[A-Z][a-z]{{2}},? (?:[A-Z][a-z]{{2}} )?[ 0-9]?[0-9],? (?:[0-9]{{4}},? )?{_CLOCK}(?: [0-9]{{4}})?+"
_GAP = r"[\]Z \t|:,-]{0,16}+"
_ASIDE = (
    r"(?:\[[^\[\]\n]{0,120}+\]|\([^\(\)\n]{0,80}+\)|\{[^{}\n]{0,80}+\}|<[^<>\n]{0,80}+>"
    rf"|[+-]?[0-9][{_N}.:/+-]{{0,40}}+|(?:UTC|GMT|[AP]M|[A-Z]{{2,3}}T)(?=[ :\]])"
    rf"|[{_N}.-]{{1,40}}+=[^\s\[]{{0,120}}+){_GAP}"
)
"""What stands between a time and a level: something in brackets, a number, a time zone, ``pid=1``."""
_LOGGER = rf"[{_N}.@$#/*~-]{{1,80}}+{_GAP}(?:(?<=[ \t\]|:])|(?=\[))"
_INSIDE = rf"(?:[^\[\]\n/:]{{1,60}}+[:/])?[ \t]{{0,3}}+{_LEVEL}[ \t]{{0,12}}+\]"
"""Of brackets: a level, or one after a name, as in ``[core:error]`` and ``[Server thread/INFO]``."""
_TOLD = (
    rf"(?:{_CAPITALS}|(?:\[(?:[^\[\]\n/:]{{1,60}}+[:/])?+[ \t]{{0,3}}+|<)?+{_LEVEL}"
    rf"(?:{_COLON}|\t|[ \t]{{0,12}}+[\]>]))"
)
_LOGGERS = rf"(?!(?:[a-z]{{1,20}}+ ){{3}})(?:{_LOGGER}(?:{_ASIDE}){{0,2}}){{1,2}}?"
"""One or two names before a level; three words in a row are prose."""
_AND_LEVEL = rf"{_GAP}(?:{_ASIDE}){{0,6}}?(?:{_TOLD}|{_LOGGERS}{_CAPITALS})"
_CLASS = rf"(?:[a-z_][{_N}$]{{0,60}}+\.){{0,12}}+[A-Z][{_N}]{{0,100}}+(?:(?:::|[.$])[A-Z][{_N}]{{0,100}}+){{0,8}}+"
_RAILS_ERROR = r"[A-Z][A-Za-z]{1,60}+(?:(?:::[A-Z][A-Za-z]{1,60}+){1,4}+|(?<=Error))() \("
_KEYS = (
    *("level", "lvl", "levelname", "levelName", "level_name", "log.level", "log_level", "loglevel", "logLevel"),
    *("LogLevel", "Level", "LEVEL", "@level", "@l", "severity", "severity_text", "severityText", "SeverityText"),
)
_KEY = _one_of(_KEYS)
_STRING = r'"[^"\\]*+(?:"|(?:\\.[^"\\]*+)++")'
_NESTED = rf'\{{(?:[^{{}}"]++|{_STRING})*+\}}'
_NESTED = rf'\{{(?:[^{{}}"]++|{_STRING}|{_NESTED})*+\}}'
_TO_KEY = (
    rf'[^"{{]*+(?:"(?!{_KEY}"\s*+:|log"\s*+:\s*+\{{)[^"\\]*+": ?+'
    rf'(?:"[^"\\]*+"[^"{{]*+|[^"{{]++|{_STRING}[^"{{]*+|{_NESTED}[^"{{]*+))*+'
)
"""As far as the first key that may tell, or to what needs more than this to be read: a list of words, deep objects."""

# -- rules -----------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """How ``programs`` print a line. The group of ``expression`` holds what tells, and ``words`` say what that means.
    ``often``: worth a group in the expression that every line is matched with; groups cost time."""

    programs: str
    expression: str
    words: Mapping[str, int]
    often: bool = False


RULES: dict[str, tuple[Rule, ...]] = {
    r"\{": (
        Rule("MongoDB", r'"t":\{"\$date":"[^"]{1,40}+"\}, ?"s":"([A-Z])[0-9]?"', _LETTERS, often=True),
        Rule(
            "JSON",
            rf'{_TO_KEY}(?:"{_KEY}"\s*+:\s*+"?+([A-Za-z]{{1,15}}+(?=["\r\n]|$)|[0-9]{{2,3}}+(?=["\s,}}]|$))|["{{])',
            _WORDS,
            often=True,
        ),
    ),
    r"\[": (
        Rule("PHP", rf"[0-9]{{2}}-[A-Z][^\]\n]{{9,40}}+\] (?:NOTICE: PHP message: )?PHP ({_one_of(_PHP)}):", _PHP),
        Rule("Django", rf"[0-9]{{2}}/[^\]\n]{{10,30}}+\] {_REQUEST} {_CODE}", _STATUS, often=True),
        Rule("most with a time in brackets", f"{_TIME}{_AND_LEVEL}", _WORDS, often=True),
        Rule("most with a level in brackets", _INSIDE, _WORDS, often=True),
        Rule("Monolog", rf"{_TIME}{_GAP}[{_N}-]{{1,40}}+\.{_CAPITALS}", _WORDS),
        Rule("Gin", r"GIN\] [0-9/]{10} - [0-9:]{8} \| ([1-5])[0-9]{2} \|", _STATUS),
        Rule("Jupyter, Tornado", r"([DIWEC]) [0-9]{4}", _LETTERS),
        Rule("PHP's own server", rf"{_DAY}\] \S{{1,60}}+ \[([1-5])[0-9]{{2}}\]: ", _STATUS),
        Rule("Rails with tags", r"(?:[^\[\]\n]{1,100}+\] \[?){1,5}+Completed ([1-5])[0-9]{2} ", _STATUS),
        Rule("Rails with tags", rf"[^\[\]\n]{{8,100}}+\] {_RAILS_ERROR}", _Always(ERROR)),
        Rule(
            "most with something else in brackets",
            rf"[^\[\]\n]{{0,120}}+\]{_GAP}(?:{_TIME}{_GAP})?+(?:{_ASIDE}){{0,6}}?{_TOLD}",
            _WORDS,
            often=True,
        ),
        Rule("Gin", r"GIN-debug()\]", _Always(DEBUG)),
        Rule("Node", rf"Unhandled[{_N}]{{1,40}}+(): ", _Always(ERROR)),
    ),
    "(?=[0-9]{1,4}+[^0-9 ]|[0-9]{9})": (
        Rule("access logs", rf"(?=[0-9]{{1,3}}\.[0-9]{{1,3}}\.){_ACCESS}", _STATUS, often=True),
        Rule(
            "Redis",
            r"[0-9]{1,9}:[MCSX] [0-9]{2} [A-Z][a-z]{2} (?:[0-9]{4} )?[0-9:.]{8,15}+ ([.*#-]) ",
            _REDIS,
            often=True,
        ),
        Rule("most that begin with a time", f"{_TIME}{_AND_LEVEL}", _WORDS, often=True),
        Rule("logfmt", rf"{_TIME}{_GAP}(?=[a-z][{_N}.]{{0,40}}+=)(?:{_PAIR}){{0,6}}?{_LEVEL_IS}", _WORDS),
        Rule("Fiber", r"[0-9:]{8} \| ([1-5])[0-9]{2} \|", _STATUS),
        Rule(
            "HAProxy",
            rf"[0-9a-f.:]{{3,50}}+ \[[^\]\n]{{10,40}}+\] \S{{1,80}}+ \S{{1,80}}+ [0-9/+-]{{5,60}}+ {_CODE}",
            _STATUS,
        ),
        Rule("Go net/http", r"[0-9/]{10} [0-9:.]{8,15}+ http: panic serving() ", _Always(ERROR)),
        Rule("Gitea", r"[0-9/]{10} [0-9:.]{8,15}+ \S{1,100}+ \[([TDIWEF])\] ", _LETTERS),
        Rule(
            "PHP-FPM", rf"[0-9.]{{7,15}} - {{1,2}}\S{{0,60}}+ ?[0-9]{{2}}/[^\"\n]{{10,40}}+{_REQUEST} {_CODE}", _STATUS
        ),
        Rule("nginx's image", rf"[{_N}.-]{{1,100}}+(?<=\.sh): {_LEVEL}: ", _WORDS),
        Rule("access logs, IPv6", rf"(?=[0-9a-f]{{1,4}}:){_ACCESS}", _STATUS),
    ),
    # a word in small letters, and what comes after a space
    "(?=[a-z])": (
        Rule("npm", rf"npm ({_one_of((*_NPM,))})(?=\s)", _NPM),
        Rule("Next.js", rf"({_one_of(_NEXT)}) {{1,2}}- ", _NEXT),
        Rule("Rust", r"thread '[^'\n]{0,100}+' (?:\([0-9]{1,9}\) )?panicked() at", _Always(CRITICAL)),
        Rule("Go", "fatal error(): ", _Always(CRITICAL)),
    ),
    # something that belongs to the first word comes right after it
    rf"(?=[A-Za-z_/.<][{_N}/.$>@-]{{0,200}}+(?:[:=\n\r\[]| [\[\(]| [0-9]{{1,3}}\.|$))": (
        Rule("uvicorn", rf"[A-Z]{{4,8}}+: {{1,8}}+[0-9a-zA-Z.:]{{2,60}}+ - {_REQUEST} {_CODE}", _STATUS, often=True),
        Rule("PHP", rf"NOTICE: PHP message: PHP ({_one_of(_PHP)}):", _PHP),
        Rule("winston, .NET, PostgreSQL and many others", f"{_LEVEL}{_COLON}", _WORDS, often=True),
        Rule("logfmt", rf"(?:{_PAIR}){{0,16}}?{_LEVEL_IS}", _WORDS, often=True),
        Rule(
            "exceptions",
            rf"{_CLASS}(?:(?<=Error)|(?<=Exception)|(?<=Interrupt)|(?<=Rejection))()"
            r"(?: \[[A-Z0-9_]{1,60}+\])?+(?=: |:?\s*+$)",
            _Always(ERROR),
        ),
        Rule(
            "Python's exceptions",
            rf"(?:[a-z_]{{1,60}}+\.){{1,9}}+(?:(?<=exceptions\.)|(?<=errors\.)|(?<=exc\.))[A-Z][{_N}]{{0,100}}+()(?=: |$)",
            _Always(ERROR),
        ),
        Rule(
            "Python's warnings",
            rf"(?:[^\s:]{{1,255}}+:[0-9]{{1,6}}: )?[A-Z][{_N}.]{{0,100}}+(?<=Warning)(): ",
            _Always(WARNING),
        ),
        Rule(
            "a program's name, then the level",
            rf"[{_N}./-]{{1,100}}+(?:\[[0-9]{{1,9}}\])?+: (?:\[{_LEVEL}\] |{_LEVEL}{_COLON})",
            _WORDS,
        ),
        Rule("compilers", r"[^\s:]{1,255}+:[0-9]{1,6}(?::[0-9]{1,6})?: (?:fatal )?(error|warning): ", _WORDS),
        Rule("java.util.logging", r"(FINE(?:ST|R)?+): ", _WORDS),
        Rule("Rails", _RAILS_ERROR, _Always(ERROR)),
        Rule("access logs with a host", _ACCESS, _STATUS),
    ),
    "(?=[A-Z][A-Z0-9,])": (
        Rule("Ruby", r"([DIWEFA]), \[", _LETTERS, often=True),
        Rule(
            "klog, glog, absl",
            r"([IWEFD])[0-9]{4} [0-9:.]{8,15}+ {1,8}+[0-9]{1,9} [^\s:]{1,100}+:[0-9]{1,6}\]",
            _LETTERS,
            often=True,
        ),
        Rule("PHP", rf"PHP ({_one_of(_PHP)}):", _PHP),
        Rule("Next.js, morgan", _MEASURED, _STATUS),
        Rule("Python, logrus and many others", rf"(?!TRACE /){_CAPITALS}", _WORDS, often=True),
    ),
    "(?=[A-Z][a-z])": (
        Rule("Python", r"Traceback() \(most recent call last\)", _Always(ERROR)),
        Rule("Python, Java", "Exception() (?:in thread|ignored in|in callback)", _Always(ERROR)),
        Rule("Java", "Caused by(): ", _Always(ERROR)),
        Rule(".NET", r"Unhandled exception()\b", _Always(CRITICAL)),
        Rule(
            "Node", r"(?:Uncaught(?: exception|(?= [A-Z\(]))|Unhandled (?:[Pp]romise )?[Rr]ejection)()", _Always(ERROR)
        ),
        Rule("PHP, Python", "(?:Fatal (?:Python )?error|Segmentation fault)()", _Always(CRITICAL)),
        Rule("Rails", r"Completed ([1-5])[0-9]{2} ", _STATUS),
        Rule("Django", rf"({_one_of(_DJANGO)})(?: \([^\)\n]{{1,200}}+\))?+: [/']", _DJANGO),
        Rule("syslog", f"{_DAY}{_AND_LEVEL}", _WORDS),
    ),
    "(?=[^A-Za-z0-9])": (
        Rule("access logs without an address", rf" ?(?=[:-]){_ACCESS}", _STATUS),
        Rule("syslog", "<([0-9]{1,3})>", _PRIORITIES),
        Rule("a level in other brackets", rf"[<\(]{_LEVEL}[>\)]", _WORDS),
        Rule(
            "Node",
            r"\(node:[0-9]{1,9}\) (?:\[[A-Z0-9_]{1,40}+\] )?[A-Za-z]{0,80}+(?<=Warning)(): ",
            _Always(WARNING),
        ),
        Rule("Next.js, esbuild", rf" {{0,3}}([{''.join(_SIGNS)}])(?! \[)", _SIGNS),
        Rule("Next.js", rf" {{0,3}}- ({_one_of(_NEXT)}) ", _NEXT),
        Rule("Next.js, morgan", f" {_MEASURED}", _STATUS),
        Rule("Erlang", rf"=({_one_of(_REPORTS)}) REPORT====", _REPORTS),
        Rule("Elixir", r"\*\*() \([A-Za-z.]{1,100}+\) ", _Always(ERROR)),
        Rule("consola, pnpm, esbuild", rf"[ ✘▲]{{1,2}}+(?:{_CAPITALS}|\[{_LEVEL}\])", _WORDS),
        Rule("Consul", rf" {{1,4}}{_TIME}{_AND_LEVEL}", _WORDS),
        Rule("zerolog", rf"<nil> {_LEVEL} ", _WORDS),
    ),
}
"""By how lines begin, so that few are tried for each. Of ``[`` and ``{``, a rule tells what comes after them."""
_PROSE = "(?!(?!npm|fatal|Exception|Unhandled|Uncaught|Fatal|Segmentation|Caused)[A-Za-z][a-z]{0,20}+ [a-z])"
"""Words that follow one another tell nothing, but for those of a rule."""
_GROUP = re.compile(r"(?<!\\)\((?!\?)")


@functools.cache
def _expression(often_only: bool) -> tuple[re.Pattern[str], list[Mapping[str, int]]]:
    """All rules as one expression, and what its groups mean, from 1 on. ``often_only``: other rules match too, but have
    no group."""
    meanings: list[Mapping[str, int]] = [{}]
    families = []
    for beginning, rules in RULES.items():
        ways = []
        for rule in rules:
            grouped = rule.often or not often_only
            ways.append(rule.expression if grouped else _GROUP.sub("(?:", rule.expression))
            meanings += [rule.words] * len(_GROUP.findall(rule.expression)) * grouped
        families.append(f"{beginning}(?:{'|'.join(ways)})")
    return re.compile(f"{_PROSE}(?:{'|'.join(families)})"), meanings


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]{0,40}+[ -/]{0,9}+[@-~]|[@-Z\\^_])")
_TO_DEFAULT = bytes(DEFAULT if value == _UNTOLD else value for value in range(256))

_Record = msgspec.defstruct(
    "_Record",
    [*((f"field{number}", Any, None) for number in range(len(_KEYS))), ("log", Any, None)],
    rename={f"field{number}": key for number, key in enumerate(_KEYS)},
)
_decode = msgspec.json.Decoder(_Record).decode


def level_of(line: str) -> int | None:
    """The index into ``LEVELS``, or None if the line does not tell. It may end with a line break and have colours."""
    level = _level_of_plain(_plain(line))
    return None if level == _UNTOLD else level


def levels_of(lines: Sequence[str], text: str) -> bytes:
    """The level of each line, ``DEFAULT`` of those that do not tell. ``text`` is all ``lines`` joined."""
    if "\x1b" in text:
        lines = [_plain(line) for line in lines]
    expression, meanings = _expression(often_only=True)
    levels = bytes(
        [
            DEFAULT if match is None else meanings[group][match[group]] if (group := match.lastindex) else _LOOK_CLOSER
            for match in map(expression.match, lines)
        ]
    )
    place = levels.find(_LOOK_CLOSER)
    if place >= 0:
        closer = bytearray(levels)
        while place >= 0:
            closer[place] = _level_of_plain(lines[place])
            place = closer.find(_LOOK_CLOSER, place)
        levels = bytes(closer)
    return levels.translate(_TO_DEFAULT)


def _plain(line: str) -> str:
    return _ESCAPES.sub("", line[: 2 * LOOKED_AT])[:LOOKED_AT] if "\x1b" in line else line


def _level_of_plain(line: str) -> int:
    expression, meanings = _expression(often_only=False)
    match = expression.match(line)
    if match is None:
        return _UNTOLD
    if match.lastindex is None:
        return _level_in_json(line)
    return meanings[match.lastindex][match[match.lastindex]]


def _level_in_json(line: str) -> int:
    """Of a line that has to be read as a whole to know which fields are its own."""
    try:
        record = _decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return _UNTOLD
    *values, log = msgspec.structs.astuple(record)
    for key, value in zip(_KEYS, values, strict=True):
        if value is not None and (level := _level_of_value(key, value)) != _UNTOLD:
            return level
    return _level_of_value("level", log.get("level")) if isinstance(log, dict) else _UNTOLD


def _level_of_value(key: str, value: object) -> int:
    if isinstance(value, str):
        return _WORDS[value]
    if not isinstance(value, int) or isinstance(value, bool):
        return _UNTOLD
    return _SEVERITIES[value] if key == "severity" and 0 <= value <= 7 else _level_of_number(value)

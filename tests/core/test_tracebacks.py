"""Tracebacks are whole records, and ordinary lines are never part of one."""

from __future__ import annotations

from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core import tracebacks
from ndactors.core.loglevels import levels_of
from ndactors.core.tracebacks import MOST_CHARACTERS, MOST_LINES, TRIGGERS, continuations, may_have

TRACEBACKS = {
    "python": """\
Traceback (most recent call last):
  File "/app/shop/views.py", line 12, in get
    return int(text)
           ^^^^^^^^^
ValueError: invalid literal for int() with base 10: 'x'
""",
    "python, without a message": """\
Traceback (most recent call last):
  File "/app/run.py", line 3, in <module>
    main()
KeyboardInterrupt
""",
    "python, logged": """\
ERROR:shop.views:request failed
Traceback (most recent call last):
  File "/app/shop/views.py", line 12, in get
    return orders[id]
KeyError: 7
""",
    "python, during handling": """\
Traceback (most recent call last):
  File "/app/a.py", line 2, in f
    1 / 0
ZeroDivisionError: division by zero

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/a.py", line 4, in f
    raise shop.errors.Broken("x")
shop.errors.Broken: x
""",
    "python, direct cause": """\
2026-11-25 10:00:00,123 ERROR shop.db: no connection
Traceback (most recent call last):
  File "/app/db.py", line 9, in connect
    raise TimeoutError()
TimeoutError

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/db.py", line 11, in connect
    raise OperationalError from e
django.db.utils.OperationalError: timeout
""",
    "python, recursion": """\
Traceback (most recent call last):
  File "/app/a.py", line 1, in f
    f()
  [Previous line repeated 996 more times]
RecursionError: maximum recursion depth exceeded
""",
    "python, group": """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/a.py", line 3, in <module>
  |     raise ExceptionGroup("many", [ValueError(1), TypeError(2)])
  | ExceptionGroup: many (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | TypeError: 2
    +------------------------------------
""",
    "python, group in asgi": """\
ERROR:    Exception in ASGI application
  + Exception Group Traceback (most recent call last):
  |   File "/usr/lib/python3.11/site-packages/starlette/_utils.py", line 76, in collapse_excgroups
  |     yield
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/main.py", line 7, in root
    |     raise ValueError("x")
    | ValueError: x
    +------------------------------------
""",
    "python, syntax": """\
  File "/app/run.py", line 3
    def f(:
          ^
SyntaxError: invalid syntax
""",
    "python, sqlalchemy": """\
Traceback (most recent call last):
  File "/usr/lib/python3/site-packages/sqlalchemy/engine/base.py", line 1967, in _exec_single_context
    self.dialect.do_execute(
sqlalchemy.exc.ProgrammingError: (psycopg2.errors.UndefinedTable) relation "orders" does not exist
LINE 1: SELECT * FROM orders
                      ^

[SQL: SELECT * FROM orders]
(Background on this error at: https://sqlalche.me/e/20/f405)
""",
    "python, thread": """\
Exception in thread Thread-1 (run):
Traceback (most recent call last):
  File "/usr/lib/python3.11/threading.py", line 1045, in _bootstrap_inner
    self.run()
RuntimeError: x
""",
    "python, loguru": """\
2026-11-25 10:00:00.123 | ERROR    | __main__:<module>:9 - failed
Traceback (most recent call last):

> File "/app/run.py", line 7, in <module>
    f(0)
    └ <function f at 0x7f>

  File "/app/run.py", line 3, in f
    1 / x
        └ 0

ZeroDivisionError: division by zero
""",
    "python, rich": """\
╭─────────────────────── Traceback (most recent call last) ────────────────────────╮
│ /app/run.py:3 in f                                                               │
│ ❱ 3     1 / 0                                                                    │
╰──────────────────────────────────────────────────────────────────────────────────╯
ZeroDivisionError: division by zero
""",
    "node": """\
TypeError: Cannot read properties of undefined (reading 'id')
    at show (/app/orders.js:12:9)
    at Layer.handle [as handle_request] (/app/node_modules/express/lib/router/layer.js:95:5)
    at new Promise (<anonymous>)
    at /app/server.js:3:1
    at async Promise.all (index 0)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)
""",
    "node, properties": """\
Error: connect ECONNREFUSED 127.0.0.1:5432
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16) {
  errno: -111,
  code: 'ECONNREFUSED',
  address: '127.0.0.1',
  nested: {
    port: 5432
  }
}
""",
    "node, cause": """\
Error: cannot save
    at save (/app/db.js:3:9) {
  [cause]: Error: read only
      at write (/app/disk.js:7:9)
      at file:///app/disk.mjs:9:1
}
""",
    "node, uncaught": """\
/app/server.js:10
    throw new Error("x");
    ^

Error: x
    at Object.<anonymous> (/app/server.js:10:11)
    at Module._compile (node:internal/modules/cjs/loader:1364:14)

Node.js v20.18.0
""",
    "node, missing module": """\
node:internal/modules/cjs/loader:1228
  throw err;
  ^

Error: Cannot find module 'koa'
Require stack:
- /app/server.js
- /app/index.js
    at Module._resolveFilename (node:internal/modules/cjs/loader:1225:15) {
  code: 'MODULE_NOT_FOUND',
  requireStack: [ '/app/server.js' ]
}

Node.js v20.18.0
""",
    "node, module package": """\
node:internal/modules/esm/resolve:854
  throw new ERR_MODULE_NOT_FOUND(packageName, fileURLToPath(base), null);
        ^

Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'koa' imported from /app/server.js
    at packageResolve (node:internal/modules/esm/resolve:854:9) {
  code: 'ERR_MODULE_NOT_FOUND'
}
""",
    "node, within a message": """\
2026-11-25T10:00:00.123Z [error]: request failed Error: x
    at show (/app/orders.js:12:9)
""",
    "next": """\
 ⨯ Error: x
    at Page (./app/page.tsx:7:11)
    at stringify (<anonymous>)
""",
    "java": """\
2026-11-25T10:00:00.123Z ERROR 1 --- [nio-8080-exec-1] com.acme.Shop : request failed
java.lang.IllegalStateException: no connection
\tat com.acme.Shop.get(Shop.java:12)
\tat java.base/java.lang.Thread.run(Thread.java:1583)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.connect0(Native Method)
\t... 12 more
""",
    "java, of a thread": """\
Exception in thread "main" java.lang.NullPointerException: Cannot invoke "String.length()"
\tat com.acme.Shop.main(Shop.java:3)
""",
    "java, suppressed": """\
java.lang.RuntimeException: x
\tat com.acme.Shop.main(Shop.java:3)
\tSuppressed: java.io.IOException: y
\t\tat com.acme.Res.close(Res.java:7)
\t\t... 1 more
\tCaused by: java.io.IOException: z
\t\t... 2 more
""",
    "java, words of several lines": """\
ERROR c.a.Shop - failed
org.apache.ibatis.exceptions.PersistenceException: x
\tat com.acme.Shop.main(Shop.java:3)
Caused by: org.postgresql.util.PSQLException: ERROR: syntax error
  Position: 7
 and more
\tat org.postgresql.core.v3.QueryExecutorImpl.receive(QueryExecutorImpl.java:2725)
\t... 3 common frames omitted
""",
    "java, tomcat": """\
25-Nov-2026 10:00:00.123 SEVERE [exec-1] o.a.c.c.StandardWrapperValve.invoke Servlet threw exception with root cause

java.lang.NullPointerException: x
\tat com.acme.Shop.get(Shop.java:12)
""",
    "go": """\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48f2a5]

goroutine 1 [running]:
main.(*shop).get(...)
\t/app/main.go:12
main.main()
\t/app/main.go:7 +0x1d
exit status 2
""",
    "go, again": """\
panic: x [recovered]
\tpanic: y

goroutine 18 [running]:
panic({0x47b0e0?, 0x4b8f58?})
\t/usr/local/go/src/runtime/panic.go:770 +0x132
main.f({0xc000012345, 0x3})
\t/app/main.go:9 +0x65
created by main.main in goroutine 1
\t/app/main.go:5 +0x3d

goroutine 1 [select, 3 minutes]:
main.main()
\t/app/main.go:8 +0x9d
""",
    "go, deadlock": """\
fatal error: all goroutines are asleep - deadlock!

goroutine 1 [chan receive]:
main.main()
\t/app/main.go:5 +0x25
exit status 2
""",
    "go, http": """\
2026/11/25 10:00:00 http: panic serving 172.17.0.1:51234: boom
goroutine 34 [running]:
net/http.(*conn).serve.func1()
\t/usr/local/go/src/net/http/server.go:1898 +0xbe
created by net/http.(*Server).Serve in goroutine 1
\t/usr/local/go/src/net/http/server.go:3285 +0x4b4
""",
    "ruby": """\
/app/shop.rb:3:in `total': undefined method `sum' for nil (NoMethodError)
\tfrom /app/shop.rb:9:in `each'
\tfrom /app/run.rb:2:in '<main>'
""",
    "php": """\
PHP Fatal error:  Uncaught RuntimeException: x in /var/www/html/index.php:3
Stack trace:
#0 /var/www/html/index.php(7): f()
#1 {main}

Next LogicException: y in /var/www/html/index.php:5
Stack trace:
#0 {main}
  thrown in /var/www/html/index.php on line 5
""",
    "php, laravel": """\
[2026-11-25 10:00:00] production.ERROR: x {"exception":"[object] (RuntimeException(code: 0): x at /app/a.php:3)
[stacktrace]
#0 /app/b.php(7): f()
#1 {main}
"}
""",
    "rust": """\
thread 'main' panicked at src/main.rs:12:5:
index out of bounds: the len is 3 but the index is 7
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/std/src/panicking.rs:665:5
   1: core::panicking::panic_fmt
   2: shop::main
             at ./src/main.rs:12:5
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
""",
    "rust, assertion": """\
thread 'main' panicked at src/main.rs:12:5:
assertion `left == right` failed
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
""",
    "rust, older": """\
thread 'main' panicked at 'no connection', src/main.rs:12:5
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
""",
    ".net": """\
Unhandled exception. System.InvalidOperationException: x
 ---> System.IO.IOException: y
   at Shop.Disk.Read(String path) in /src/Disk.cs:line 12
   --- End of inner exception stack trace ---
   at Shop.Program.<Main>$(String[] args) in /src/Program.cs:line 3
--- End of stack trace from previous location ---
   at Shop.Program.<Main>(String[] args)
""",
    ".net, logged": """\
fail: Microsoft.AspNetCore.Server.Kestrel[13]
      Connection id "0HN8", Request id "0HN8:1": An unhandled exception was thrown by the application.
      System.InvalidOperationException: x
         at Shop.Orders.Get() in /src/Orders.cs:line 7
""",
}
PLAIN = [
    "2026-11-25 10:00:00,123 INFO shop: served",
    "listening on 8080",
    '172.17.0.1 - - [25/Nov/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 615',
    '{"level":30,"msg":"served"}',
    "     123",
    "  total   7",
    "  | a | b |",
    "+---+---+",
    "    indented words",
    "\tafter a tab",
    "at the end (of it)",
    "   at the end of it",
    "# a comment",
    "[worker] started",
    "- a list",
    "2026-11-25 10:00:00 no connection yet: retrying",
    'I, [2026-11-25T10:00:00.123456 #1]  INFO -- : Started GET "/"',
]
PRETTY = """\
{
  "name": "shop",
  "nested": {
    "list": [
      1,
      2
    ]
  }
}
""".splitlines(keepends=True)
TRACEBACK_LINES = [line for text in TRACEBACKS.values() for line in text.splitlines(keepends=True)]
any_line = st.one_of(
    st.sampled_from(TRACEBACK_LINES),
    st.sampled_from(PLAIN).map(lambda line: line + "\n"),
    st.text(max_size=30),
    st.just("\n"),
)
some_plain = st.lists(st.sampled_from(PLAIN).map(lambda line: line + "\n"), max_size=4)


def read(lines):
    return continuations(lines, levels_of(lines, "".join(lines)))


@pytest.mark.parametrize("name", TRACEBACKS)
def test_a_traceback_is_one_record(name):
    lines = TRACEBACKS[name].splitlines(keepends=True)
    assert may_have(TRACEBACKS[name])
    flags, left = read(lines)
    assert [line for line, flag in zip(lines[1:], flags[1:], strict=True) if not flag] == []
    assert not flags[0]
    assert left in (len(lines), 0)
    ended = lines[-1].startswith(("Node.js", "exit status")) or lines[-1] == '"}\n'
    assert (left == 0) == ended


@given(some_plain, st.sampled_from(sorted(TRACEBACKS)), some_plain, st.sampled_from(sorted(TRACEBACKS)), some_plain)
def test_ordinary_lines_around_tracebacks_stay_alone(before, first, between, second, after):
    lines, expected = list(before), [False] * len(before)
    for name, plain in ((first, between), (second, after)):
        own = TRACEBACKS[name].splitlines(keepends=True)
        lines += own + plain
        expected += [False] + [True] * (len(own) - 1) + [False] * len(plain)
    if between or not TRACEBACKS[second].startswith(("Traceback", "  +", "╭", "java.", "  File")):
        assert read(lines)[0] == expected


def test_there_are_enough_of_them():
    assert len(TRACEBACKS) >= 30


@pytest.mark.parametrize("line", PLAIN)
def test_ordinary_lines_are_closed(line):
    assert read([line + "\n"]) == ([False], 0)
    assert read([line + "\n"] * 3) == ([False] * 3, 0)


def test_what_is_only_indented_belongs_to_nothing():
    assert read(PRETTY) == ([False] * len(PRETTY), 0)
    table = ["ERROR x\n", "      1\n", "     12\n", "    123\n"]
    assert read(table) == ([False] * 4, 0)


@pytest.mark.parametrize("name", TRACEBACKS)
def test_a_traceback_that_is_still_being_written_is_open_from_its_head(name):
    lines = TRACEBACKS[name].splitlines(keepends=True)
    if name in ("node, uncaught", "node, missing module", "go", "go, deadlock", "php, laravel"):
        lines = lines[:-1]
    for length in range(1, len(lines) + 1):
        if lines[0].startswith("/app/shop.rb") and length == 1:
            continue  # only what follows says what it is
        flags, left = read(["2026 INFO served\n", *lines[:length]])
        assert left == length, lines[:length]


def test_a_line_of_level_error_is_open():
    assert read(["INFO x\n", "ERROR x\n"]) == ([False, False], 1)
    assert read(["ERROR x\n", "INFO x\n"]) == ([False, False], 0)


def test_only_a_line_of_level_error_takes_in_a_traceback():
    lines = ["WARNING:root:x\n", *TRACEBACKS["python"].splitlines(keepends=True)]
    assert not read(lines)[0][1]


def test_what_seemed_to_go_on_and_does_not_is_left_alone():
    end = TRACEBACKS["python"].splitlines(keepends=True)
    flags, left = read([*end, "\n", "\n", "served\n"])
    assert flags == [False] + [True] * 4 + [False] * 3
    assert left == 0
    place = ["/app/server.js:10\n", *TRACEBACKS["python"].splitlines(keepends=True)]
    assert read(place)[0] == [False, False, True, True, True, True]


def test_a_block_may_begin_in_the_middle():
    for text in TRACEBACKS.values():
        lines = text.splitlines(keepends=True)
        for begin in range(len(lines)):
            flags, _ = read(lines[begin:])
            assert not flags[0]


def test_a_record_has_at_most_so_many_lines():
    lines = ["panic: x\n", "\n", "goroutine 1 [running]:\n", *["main.f()\n", "\t/app/main.go:1 +0x1\n"] * 2000]
    flags, left = read(lines)
    heads = [i for i, flag in enumerate(flags) if not flag]
    assert all(b - a <= MOST_LINES for a, b in zip(heads, [*heads[1:], len(lines)], strict=True))
    assert len(heads) <= len(lines) // MOST_LINES + 2
    assert left <= MOST_LINES


def test_a_record_has_at_most_so_many_characters():
    lines = ["Error: x\n", *[f"    at f (/app/x.js:1:1) {'x' * 60_000}\n"] * 20]
    flags, left = read(lines)
    size = 0
    for line, flag in zip(lines, flags, strict=True):
        size = size + len(line) if flag else len(line)
        assert size <= MOST_CHARACTERS
    assert 2 <= flags.count(False) <= 8
    huge = ["Error: x\n", "    at f (" + "x" * MOST_CHARACTERS + ")\n", "INFO x\n"]
    assert read(huge) == ([False, False, False], 0)


@given(st.lists(any_line, max_size=30))
def test_any_text_gets_its_flags(lines):
    levels = levels_of(lines, "".join(lines))
    flags, left = continuations(lines, levels)
    assert len(flags) == len(lines)
    assert 0 <= left <= len(lines)
    assert not any(flags[:1])
    if left:
        assert not flags[-left]
    if any(flags):
        assert may_have("".join(lines))
    if lines and levels[-1] >= 3:
        assert left > 0


@given(st.lists(any_line, max_size=20), st.lists(any_line, max_size=20))
def test_what_is_closed_does_not_depend_on_what_comes(first, second):
    flags, left = read(first)
    together, _ = read(first + second)
    settled = len(first) - left
    assert together[:settled] == flags[:settled]


def test_every_trigger_is_a_trigger():
    assert may_have("x" + "".join(TRIGGERS) + "#^{\t")
    for trigger in TRIGGERS:
        assert may_have(f"x\n{trigger}#^{{\t\n"), trigger
    assert not may_have("\n".join(line for line in PLAIN if "   at " not in line))


def test_no_line_takes_more_than_time_in_proportion_to_its_length():
    """Only a bounded beginning is looked at, and within it what repeats gives little back."""

    def look(items, within):
        for kind, value in items:
            if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
                assert within * value[1] <= tracebacks.LOOKED_AT, value
                look(value[2], within * value[1])
            else:
                for part in value if isinstance(value, (list, tuple)) else ():
                    for piece in part if isinstance(part, list) else [part]:
                        if isinstance(piece, _parser.SubPattern):
                            look(piece, within)

    for shape in tracebacks._SHAPES.values():
        look(_parser.parse(shape), 1)


@pytest.mark.parametrize(
    "lines",
    [
        ["/app/server.js:10\n"],
        ["\n"],
        ['  File "/app/run.py", line 3\n'],
        ["Traceback (most recent call last):\n", "ValueError: x\n", "\n"],
        ["Error: x\n", "    at f (x:1:1)\n", "Caused by: x\n", "y\n"],
        ["ERROR x\n", "\n"],
        ["panic: x\n", "\n", "[signal x\n"],
        ["goroutine 1 [running]:\n", "main.f()\n"],
    ],
)
def test_no_lines_are_looked_at_more_than_a_few_times(lines, monkeypatch):
    looked_at = 0

    def count(text):
        nonlocal looked_at
        looked_at += 1
        return match(text)

    match = tracebacks._match
    monkeypatch.setattr(tracebacks, "_match", count)
    lines = [line for line in lines for _ in range(300)] + lines * 300
    read(lines)
    assert looked_at <= len(lines) * (tracebacks.MOST_TENTATIVE + 2)


def test_states_lead_to_states():
    for following in tracebacks._FOLLOWING.values():
        assert following.keys() <= {*tracebacks._SHAPES, "other"}
        assert set(following.values()) <= tracebacks._FOLLOWING.keys()
    assert tracebacks._HEADS.keys() <= tracebacks._SHAPES.keys()
    assert set(tracebacks._HEADS.values()) <= tracebacks._FOLLOWING.keys()

"""`logs`: stored records, records as they come, and what of them reaches a terminal."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from double import problem
from hypothesis import given
from hypothesis import strategies as st

import ndactors.cli.log_following
from ndactors.cli.log_following import Seen
from ndactors.cli.log_lines import Lines, Style, cleaned

ESCAPES = "a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\x07\x9bx\x7f"


def stamp(number: int) -> str:
    return f"2026-01-31T12:{number // 60:02}:{number % 60:02}.000000000Z"


def record(number: int, message: str | None = None, **more):
    return {
        "ts": stamp(number), "app": "shop", "process": "web", "container": "c1", "replica": 1, "stream": "stdout",
        "level": "info", "message": f"line {number}" if message is None else message, **more,
    }  # fmt: skip


def columns(*numbers: int, **more):
    return {
        "app": "shop", "process": "web", "container": "c1", "replica": 1, "times": [stamp(n) for n in numbers],
        "levels": "1" * len(numbers), "streams": "0" * len(numbers), "messages": [f"line {n}" for n in numbers],
        "gap": False, **more,
    }  # fmt: skip


def pages(double, *answers):
    """What questions are answered with, one after another; the last one again and again. Numbers are of records."""
    rows = [
        {"items": [record(n) if isinstance(n, int) else n for n in items], "next": cursor} for items, cursor in answers
    ]
    double.on("GET /api/v1/logs", lambda body: rows.pop(0) if len(rows) > 1 else rows[0])


def questions(double) -> list[dict[str, str]]:
    """What was asked of /logs."""
    paths = [urlsplit(path) for _, path, _ in double.asked]
    return [
        {name: values[0] for name, values in parse_qs(path.query).items()}
        for path in paths
        if path.path == "/api/v1/logs"
    ]


# -- stored ----------------------------------------------------------------------------------------


def test_the_newest_hundred_of_everything(run, local, double):
    pages(double, ([1, 2], None))
    done = run("logs")
    assert (done.code, done.out, done.err) == (0, "shop/web.1 | line 1\nshop/web.1 | line 2\n", "")
    assert questions(double) == [{"limit": "100"}]


def test_all_that_can_be_asked_for(run, local, double):
    pages(double, ([1], None))
    done = run(
        "logs", "shop/web", "--level", "info,error", "--grep", "/a b|c&d/", "--since", "2026-01-31T12:00:00+02:00",
        "--until", "5m", "--replica", "2", "--container", "nd-shop-web-1-1", "--stream", "stderr", "--request", "r+1",
        "-n", "7",
    )  # fmt: skip
    assert done.code == 0
    assert questions(double) == [
        {
            "app": "shop", "process": "web", "level": "info,error", "q": "/a b|c&d/", "limit": "7",
            "since": "2026-01-31T12:00:00+02:00", "until": "5m", "replica": "2", "container": "nd-shop-web-1-1",
            "stream": "stderr", "request_id": "r+1",
        }
    ]  # fmt: skip


def test_pages_are_asked_for_until_there_are_enough_also_after_empty_ones(run, local, double):
    pages(double, ([7, 8], "c1"), ([], "c2"), ([5, 6], "c3"), ([4], "c4"))
    done = run("logs", "-n", "5")
    assert done.out.splitlines() == [f"shop/web.1 | line {n}" for n in (4, 5, 6, 7, 8)]
    assert questions(double) == [
        {"limit": "5"},
        {"limit": "3", "cursor": "c1"},
        {"limit": "3", "cursor": "c2"},
        {"limit": "1", "cursor": "c3"},
    ]
    assert done.err == ""


def test_a_page_has_at_most_ten_thousand(run, local, double):
    pages(double, ([1], "c1"), ([0], None))
    assert run("logs", "-n", "25000").out.splitlines() == ["shop/web.1 | line 0", "shop/web.1 | line 1"]
    assert questions(double) == [{"limit": "10000"}, {"limit": "10000", "cursor": "c1"}]


@pytest.mark.parametrize("words", ["all", "0"])
def test_all_of_it_the_oldest_first(run, local, double, words):
    pages(double, ([1, 2], "c1"), ([], "c2"), ([3], None))
    done = run("logs", "shop", "--since", "10m", "-n", words)
    assert done.out.splitlines() == [f"shop/web.1 | line {n}" for n in (1, 2, 3)]
    asked = {"app": "shop", "since": "10m", "order": "oldest", "limit": "10000"}
    assert questions(double) == [asked, {**asked, "cursor": "c1"}, {**asked, "cursor": "c2"}]


def test_that_there_is_more_since_then_is_told(run, local, double):
    pages(double, ([1, 2], "c1"))
    assert "only the newest 2 records" in run("logs", "--since", "10m", "-n", "2").err
    assert run("logs", "-n", "2").err == ""


def test_what_was_found_is_shown_when_the_search_breaks(run, local, double):
    pages(double, ([3], "c1"))
    first = double.answers["GET /api/v1/logs"]
    answers = [first, lambda body: (504, problem(504, "logs did not answer"), {})]
    double.answers["GET /api/v1/logs"] = lambda body: answers.pop(0)(body)
    done = run("logs")
    assert (done.code, done.out) == (1, "shop/web.1 | line 3\n")
    assert done.err == "nextdeploy: logs did not answer\n"


def test_damage_is_told(run, local, double):
    double.on("GET /api/v1/logs", {"items": [record(1)], "next": None, "damaged": 1234})
    done = run("logs")
    assert done.code == 0 and "1,234 blocks of the log store are damaged" in done.err


def test_nothing_is_no_mistake(run, local, double):
    pages(double, ([], None))
    double.on("GET /api/v1/apps/shop", {"name": "shop"})
    for words, said in (([], "no log records\n"), (["shop", "--grep", "x"], "no log records match\n")):
        done = run("logs", *words)
        assert (done.code, done.out, done.err) == (0, "", said)


def test_an_app_that_is_not_there_is_one(run, local, double):
    pages(double, ([], None))
    double.on("GET /api/v1/apps/shup", problem(404, "There is no app called shup."), 404)
    done = run("logs", "shup")
    assert (done.code, done.out, done.err) == (1, "", "nextdeploy: There is no app called shup.\n")


@pytest.mark.parametrize(("status", "code"), [(401, 3), (403, 3), (404, 1), (422, 2), (503, 1)])
def test_refusals(run, local, double, status, code):
    double.on("GET /api/v1/logs", problem(status, "the reason"), status)
    done = run("logs", "--level", "bad")
    assert (done.code, done.out) == (code, "") and "the reason" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "many"], "write a number, or `all`"),
        (["-n", "-1"], "write a number"),
        (["a/b/c"], "write APP or APP/PROCESS"),
        (["shop/web", "--process", "worker"], "name two processes"),
        (["-f", "--until", "5m"], "takes no --until"),
        (["-f", "-n", "10001"], "at most 10000"),
        (["--stream", "both"], "--stream"),
        (["--replica", "0"], "--replica"),
    ],
)
def test_wrong_usage_asks_nobody(run, local, double, words, said):
    done = run("logs", *words)
    assert done.code == 2 and said in done.err and double.asked == []


def test_no_daemon(run, variables, tmp_path):
    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path)
    for words in ([], ["-f"]):
        done = run("logs", *words)
        assert done.code == 1 and "no daemon runs here" in done.err


def test_the_project_file_can_still_be_named(run, local, double, tmp_path):
    pages(double, ([1], None))
    (tmp_path / "other.yml").write_text("apps: {}\n")
    assert run("logs", "--file", str(tmp_path / "other.yml")).code == 0


def test_a_reader_that_has_enough_ends_it(local, double, variables, project):
    pages(double, ([record(n, "x" * 200) for n in range(60)] * 40, "more"))
    client = start(variables, project, "-n", "all")
    client.stdout.read(1000)
    client.stdout.close()
    assert client.wait(20) == 1
    assert client.stderr.read() == b""


# -- how records look ------------------------------------------------------------------------------


def test_every_line_of_a_record_has_the_prefix(run, local, double):
    trace = "Traceback (most recent call last):\n  File x\nKeyError"
    pages(double, ([record(1, trace), record(2, ""), record(3, "a\n")], None))
    assert run("logs").out == (
        "shop/web.1 | Traceback (most recent call last):\nshop/web.1 |   File x\nshop/web.1 | KeyError\n"
        "shop/web.1 | \nshop/web.1 | a\nshop/web.1 | \n"
    )
    assert run("logs", "--no-prefix").out == f"{trace}\n\na\n\n"


def test_times(run, local, double):
    pages(double, ([record(1, "a\nb")], None))
    assert run("logs", "-t").out == f"{stamp(1)} shop/web.1 | a\n{' ' * 31}shop/web.1 | b\n"


def test_in_a_pipe_messages_pass_as_they_are_and_names_are_not_padded(run, local, double):
    pages(double, ([record(1, ESCAPES), record(2, app="a", process="w", replica=10)], None))
    assert run("logs").out == f"shop/web.1 | {ESCAPES}\na/w.10 | line 2\n"
    assert run("logs", env={"NO_COLOR": "1"}).out.startswith(f"shop/web.1 | {ESCAPES}\n")


def test_without_colours_that_is_asked_for(run, local, double):
    pages(double, ([record(1, ESCAPES)], None))
    assert run("logs", "--no-color").out == "shop/web.1 | ared��x�\n"


def test_json_is_one_record_a_line_and_steers_no_terminal(run, local, double):
    rows = [record(1, ESCAPES + "\n\u2028ü\U0001f600", request_id="r1"), record(2, gap={"bytes": 5})]
    pages(double, (rows, None))
    done = run("logs", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == rows
    assert "ü" in done.out and not re.search(r"[\x00-\x1f\x7f-\x9f]", done.out.replace("\n", ""))


def test_on_a_terminal_names_and_levels_have_colours_and_nothing_else_steers_it(terminal, local, double):
    rows = [
        record(1, "fine"),
        record(2, "a\nb", level="error", app="blog", process="worker"),
        record(3, "w", level="warning"),
        record(4, "d", level="debug"),
        record(5, ESCAPES),
        record(6, "[gap]", gap={"bytes": 5}),
    ]
    pages(double, (rows, None))
    text = terminal("logs").rest().replace("\r\n", "\n")
    shop, blog = re.findall(r"\x1b\[\d+m(?:shop|blog)/\w+\.1 *\|\x1b\[0m ", text)[:2]
    assert shop.replace("shop/web.1   ", "") != blog.replace("blog/worker.1", ""), "an app has its colour"
    assert text == (
        f"{shop}fine\n{blog}\x1b[31ma\x1b[0m\n{blog}\x1b[31mb\x1b[0m\n{shop}\x1b[33mw\x1b[0m\n{shop}\x1b[2md\x1b[0m\n"
        f"{shop}a\x1b[31mred\x1b[0m��x�\x1b[0m\n{shop}\x1b[33m[gap]\x1b[0m\n"
    )
    assert "shop/web.1    |" in shop and "blog/worker.1 |" in blog, "names are aligned"


@pytest.mark.parametrize(("words", "more"), [([], {"NO_COLOR": "1"}), (["--no-color"], {}), ([], {"TERM": "dumb"})])
def test_on_a_terminal_without_colours(terminal, local, double, words, more):
    pages(double, ([record(1, ESCAPES, level="error")], None))
    assert terminal("logs", *words, **more).rest() == "shop/web.1 | ared��x�\r\n"


def test_line_ends_of_other_systems_leave_no_trace():
    assert cleaned("a\r\nb\r", colours=True) == "a\nb"
    assert cleaned("10%\r20%", colours=True) == "10%�20%"


SGR = re.compile(r"\x1b\[[0-9;:]*m")


def test_nothing_turns_the_order_of_what_is_shown():
    assert cleaned("a\u202eb\u2066c\u2069 \u05d0\u200f", colours=True) == "a\ufffdb\ufffdc\ufffd \u05d0\u200f"


@given(st.text() | st.lists(st.sampled_from(["\x1b", "[", "]", "0", ";", "m", "H", "\x07", "\\", "\x9b", "\n", "ü"])).map("".join))  # fmt: skip
def test_whatever_is_printed_nothing_but_colours_steers_a_terminal(text):
    coloured, plain = cleaned(text, colours=True), cleaned(text, colours=False)
    for left in (SGR.sub("", coloured), plain):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", left)
    if not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text):
        assert coloured == plain == text


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.booleans(), st.booleans(), st.booleans())
def test_records_and_batches_look_the_same_and_no_line_is_without_its_prefix(messages, colours, clean, times):
    style = Style(colours=colours, clean=clean, times=times)
    rows = [record(n, message, level="error") for n, message in enumerate(messages)]
    batch = columns(*range(len(rows)), messages=messages, levels="3" * len(rows))
    text = Lines(style).records(rows)
    assert Lines(style).columns(batch) == text
    for line in text.split("\n")[:-1]:
        assert re.match(r"(?:\x1b\[\d+m)*(?:[\d:.TZ-]{30}(?:\x1b\[0m)? | {31})?(?:\x1b\[\d+m)?shop/web\.1 \|", line)


def test_a_colour_belongs_to_an_app_whatever_came_before():
    style = Style(colours=True)
    alone = Lines(style).records([record(1)])
    assert Lines(style).records([record(1, app="blog"), record(1)]).endswith(alone)


def test_formatting_is_quick():
    """A microsecond a line, where nothing has a colour."""
    batch = columns(*range(500), messages=[f'10.0.0.1 - - "GET /products/{n} HTTP/1.1" 200 {n}' for n in range(500)])
    lines = Lines(Style())
    quickest = 1.0
    for _ in range(20):
        began = time.perf_counter()
        lines.columns(batch)
        quickest = min(quickest, time.perf_counter() - began)
    assert quickest / 500 < 1e-6


# -- as they come ----------------------------------------------------------------------------------


def start(variables, project, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "ndactors.cli", "logs", *words],
        env=variables,
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def follow(variables, project):
    """``follow(*words)``: the client with pipes, still running."""
    made = []

    def call(*words):
        made.append(start(variables, project, "-f", *words))
        return made[-1]

    yield call
    for each in made:
        if each.poll() is None:
            each.kill()
        each.communicate()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(ndactors.cli.log_following, "FIRST_PAUSE", 0.01)


class Scene:
    """Serves one WebSocket: sends ``messages``, then ends the link, or waits for the client's end."""

    def __init__(self, *messages, wait: bool = False, goodbye: bool = False):
        self.messages, self.wait, self.goodbye = messages, wait, goodbye
        self.asked = None
        self.over = threading.Event()

    def __call__(self, wire):
        try:
            self.asked = wire.receive()
            for message in self.messages:
                wire.send(topic="logs", **message)
            if self.goodbye:
                wire.close(1001, "the daemon stops")
            while self.wait and wire.receive() is not None:
                pass
        finally:
            self.over.set()


END = Scene({"error": "that is all", "status": 404})
"""Ends the client, so that what it printed can be looked at."""


def test_a_batch_after_another_and_the_tail_before_them(run, local, double):
    first = Scene({"data": [columns(1, 2), columns(3, app="blog")]}, {"data": [columns(4)]})
    double.live = [first, END]
    pages(double, ([], None))
    double.on("GET /api/v1/apps/shop", {"name": "shop"})
    done = run("logs", "shop", "-f", "-n", "7", "--level", "error", "--grep", "x")
    assert done.out.splitlines() == [
        "shop/web.1 | line 1", "shop/web.1 | line 2", "blog/web.1 | line 3", "shop/web.1 | line 4",
    ]  # fmt: skip
    filter = {"app": "shop", "level": "error", "q": "x"}
    assert first.asked == {"subscribe": "logs", "filter": filter, "batch": True, "tail": 7}
    assert done.code == 1 and done.err.splitlines()[-1] == "nextdeploy: that is all"


def test_an_app_that_is_not_there_is_not_waited_for(run, local, double):
    double.live = [END]
    double.on("GET /api/v1/apps/shup", problem(404, "There is no app called shup."), 404)
    done = run("logs", "-f", "shup")
    assert (done.code, done.err) == (1, "nextdeploy: There is no app called shup.\n")
    assert double.calls("GET /api/v1/ws") == []


def test_json_comes_record_by_record(run, local, double):
    first = Scene({"data": record(1)}, {"data": record(2, "a\nb")})
    double.live = [first, END]
    pages(double, ([record(2, "a\nb"), record(3)], None))
    done = run("logs", "-f", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == [record(1), record(2, "a\nb"), record(3)]
    assert first.asked["batch"] is False


def test_it_goes_on_after_a_break_without_a_line_twice_or_missing(run, local, double):
    """The first three are known, 4 came while nobody listened, 5 between the question and the subscription."""
    first = Scene({"data": [columns(1, 2, 3)]}, {"data": [columns(2, container="c2")]})
    second = Scene({"data": [columns(3, 4, 5)]}, {"data": [columns(2, 6, container="c2")]}, {"data": [columns(5)]})
    double.live = [first, second, END]
    pages(double, ([2, record(2, container="c2")], "p2"), ([3, 4], None), ([6], None))
    done = run("logs", "-f", "--level", "info")
    assert [line[-1] for line in done.out.splitlines()] == ["1", "2", "3", "2", "4", "5", "6", "5", "6"]
    asked = {"level": "info", "since": stamp(2), "order": "oldest", "limit": "10000"}
    assert questions(double)[:2] == [asked, {**asked, "cursor": "p2"}]
    assert second.asked == {
        "subscribe": "logs", "filter": {"level": "info", "since": stamp(2)}, "batch": True, "tail": 10000,
    }  # fmt: skip
    lines = done.err.splitlines()
    assert lines[0].endswith("trying again") and lines[1].endswith("answers again")


def test_a_goodbye_is_a_break(run, local, double):
    double.live = [Scene({"data": [columns(1)]}, goodbye=True, wait=True), END]
    pages(double, ([1], None))
    done = run("logs", "-f")
    assert done.out == "shop/web.1 | line 1\n"
    assert "the daemon ended it: the daemon stops; trying again" in done.err


def test_it_tries_until_the_daemon_is_there_again_and_says_so_once(run, local, double):
    double.live = [Scene({"data": [columns(1)]}), END]
    answers = [(503, problem(503, "away"), {})] * 3 + [(200, {"items": [record(1)], "next": None}, {})]
    double.answers["GET /api/v1/logs"] = lambda body: answers.pop(0)
    done = run("logs", "-f")
    assert len(done.err.splitlines()) == 3 and done.err.count("trying again") == done.err.count("answers again") == 1
    assert answers == []


def test_a_daemon_that_refuses_meanwhile_ends_it(run, local, double):
    double.live = [Scene({"data": [columns(1)]})]
    double.on("GET /api/v1/logs", problem(401, "The token is not valid any more."), 401)
    done = run("logs", "-f")
    assert done.code == 3 and "not valid any more" in done.err


def test_when_nothing_was_shown_it_begins_anew(run, local, double):
    second = Scene({"error": "that is all", "status": 404})
    double.live = [Scene(), second]
    run("logs", "-f", "-n", "3")
    assert second.asked == {"subscribe": "logs", "filter": {}, "batch": True, "tail": 3}
    assert questions(double) == []


def test_a_log_process_that_is_away_loses_nothing(run, local, double):
    """What is printed meanwhile is not sent: it is asked for."""
    double.live = [Scene({"data": [columns(1)]}, {"error": "reconnecting"}, wait=True), END]
    pages(double, ([1, 2], None))
    done = run("logs", "-f")
    assert done.out == "shop/web.1 | line 1\nshop/web.1 | line 2\n"
    assert "the log process is away; trying again" in done.err


def test_one_that_is_away_from_the_start_is_waited_for_on_the_same_link(run, local, double):
    double.live = [Scene({"error": "reconnecting"}, {"data": [columns(1)]}, {"error": "over", "status": 422})]
    done = run("logs", "-f")
    assert (done.code, done.out) == (2, "shop/web.1 | line 1\n")
    assert done.err.splitlines()[0] == "nextdeploy: the log process is away; waiting for it"
    assert len(double.calls("GET /api/v1/ws")) == 1


@pytest.mark.parametrize(("status", "code"), [(403, 3), (404, 1), (422, 2)])
def test_a_subscription_that_is_refused(run, local, double, status, code):
    double.live = [Scene({"error": "the reason", "status": status})]
    done = run("logs", "-f")
    assert (done.code, done.out, done.err) == (code, "", "nextdeploy: the reason\n")


def test_a_link_that_is_refused(run, local, double):
    double.on("GET /api/v1/ws", problem(429, "There are 80 live connections already."), 429)
    done = run("logs", "-f")
    assert (done.code, done.err) == (1, "nextdeploy: There are 80 live connections already.\n")


def test_what_was_missed_is_told(run, local, double):
    double.live = [Scene({"data": [columns(1)]}, {"gap": 1234}, {"data": [columns(2)]}), END]
    pages(double, ([], None))
    done = run("logs", "-f")
    assert done.out == "shop/web.1 | line 1\nshop/web.1 | line 2\n"
    assert done.err.splitlines()[0] == "--- 1,234 records missed: this terminal was too slow ---"


def test_everything_and_then_what_comes(run, local, double):
    live = Scene({"data": [columns(2, 3, 4)]}, {"error": "that is all", "status": 404})
    double.live = [live]
    pages(double, ([1, 2], "p2"), ([3], None), ([3], None))
    done = run("logs", "-f", "-n", "all", "--since", "1h")
    assert [line[-1] for line in done.out.splitlines()] == ["1", "2", "3", "4"]
    assert questions(double)[0]["since"] == "1h"
    assert live.asked["filter"] == {"since": stamp(3)}


def test_nothing_of_before_and_then_what_comes(run, local, double):
    live = Scene({"error": "that is all", "status": 404})
    double.live = [live]
    run("logs", "-f", "-n", "0")
    assert live.asked["tail"] == 0 and questions(double) == []


def test_everything_of_nothing_yet(run, local, double):
    live = Scene({"error": "that is all", "status": 404})
    double.live = [live]
    pages(double, ([], None))
    run("logs", "-f", "-n", "all", "--since", "1h")
    assert live.asked == {"subscribe": "logs", "filter": {"since": "1h"}, "batch": True, "tail": 10000}


def test_ctrl_c_ends_it(follow, local, double):
    scene = Scene({"data": [columns(1)]}, wait=True)
    double.live = [scene]
    client = follow()
    assert client.stdout.readline() == b"shop/web.1 | line 1\n"
    client.send_signal(signal.SIGINT)
    assert client.wait(20) == 130
    assert client.stderr.read() == b"" and scene.over.wait(10)


def test_a_reader_that_has_left_ends_it_though_nothing_comes(follow, local, double):
    scene = Scene({"data": [columns(1)]}, wait=True)
    double.live = [scene]
    client = follow()
    client.stdout.readline()
    client.stdout.close()
    assert client.wait(20) == 1
    assert client.stderr.read() == b"" and scene.over.wait(10)


def test_on_a_terminal_it_is_read_at_once(terminal, local, double):
    double.live = [Scene({"data": [columns(1, levels="3")]}, wait=True)]
    here = terminal("logs", "-f")
    assert "\x1b[31mline 1\x1b[0m" in here.read_until("line 1\x1b[0m")
    here.write("\x03")
    here.rest()
    assert here.process.returncode == 130


def test_over_ssh(follow, fake_ssh, double, local):
    double.live = [Scene({"data": [columns(1)]}, wait=True)]
    client = follow("--server", "ssh://deploy@example.com")
    assert client.stdout.readline() == b"shop/web.1 | line 1\n"
    client.send_signal(signal.SIGINT)
    assert client.wait(20) == 130


def test_over_http_with_a_token(run, double):
    from double import TOKEN, serving

    double.token = TOKEN
    double.live = [Scene({"data": [columns(1)]}, {"error": "that is all", "status": 404})]
    with serving(double) as address:
        done = run("logs", "-f", "--server", address, env={"NEXTDEPLOY_TOKEN": TOKEN})
        assert (done.code, done.out) == (1, "shop/web.1 | line 1\n")
        done = run("logs", "-f", "--server", address, env={"NEXTDEPLOY_TOKEN": "ndt_wrong"})
        assert (done.code, done.out) == (3, "")


# -- what was seen ---------------------------------------------------------------------------------


def test_it_is_asked_from_shortly_before_the_newest_but_not_before_the_first():
    seen = Seen()
    assert not seen and seen.resume() is None
    seen.take("a", [stamp(100), stamp(101)])
    seen.take("b", [stamp(104)])
    assert seen.resume() == stamp(101), "a may have written since its own last record"
    seen.take("b", [stamp(200)])
    assert seen.resume() == stamp(190), "a has been silent for long"
    assert Seen().take("a", [stamp(1)]) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=40), st.data())
def test_wherever_it_breaks_nothing_comes_twice_and_nothing_is_missing(writes, data):
    """Records arrive in the order of time; after a break everything from ``resume`` on is sent again."""
    stored = []
    for container, count in writes:
        stored.append((container, [stamp(len(stored) * 5 + n) for n in range(count)]))
    seen, shown, at = Seen(), [], 0
    for _ in range(4):
        until = data.draw(st.integers(at, len(stored)))
        since = seen.resume()
        first = 0 if since is None else at  # what was sent before the break, and what comes after it
        again = [(c, [t for t in times if since is not None and t >= since]) for c, times in stored[:first]]
        for container, times in [*again, *stored[first:until]]:
            if times:
                known = seen.take(container, times)
                shown += [(container, time) for time in times[known:]]
        at = max(at, until)
    assert shown == [(container, time) for container, times in stored[:at] for time in times]


# -- with the API as it is -------------------------------------------------------------------------


def test_with_the_real_api(follow, real_api):
    client = follow("-n", "2")
    assert [client.stdout.readline() for _ in range(3)] == [
        b"shop/web.1 | one\n", b"shop/web.1 | two\n", b"shop/web.1 | three\n",
    ]  # fmt: skip
    client = follow("--json", "--level", "error")
    assert json.loads(client.stdout.readline())["message"] == "of error"


def say(daemon, words: str) -> None:
    """The app prints it."""
    (row,) = daemon.containers().values()
    with socket.create_connection(("127.0.0.1", row["port"]), 20) as sock:
        sock.sendall(b"say " + words.encode())
        assert sock.recv(1) == b""


# the daemon is shared: other tests print, too, so what is looked for must be nobody else's
def test_with_a_whole_daemon(follow, process, at_real):
    say(at_real, "ERROR: the-very-first")
    client = follow("shop", "--grep", "the-very-first", "-n", "1")
    assert client.stdout.readline() == b"shop/web.1 | ERROR: the-very-first\n"
    say(at_real, "nothing")
    say(at_real, "not the-very-first")
    assert client.stdout.readline() == b"shop/web.1 | not the-very-first\n"
    stored = process("logs", "shop", "--level", "error", "--json")
    assert json.loads(stored.out.splitlines()[-1])["message"] == "ERROR: the-very-first"
    (container,) = at_real.containers()
    assert process("logs", "--container", container, "-n", "1").out == "shop/web.1 | not the-very-first\n"
    refused = process("logs", "-f", "--grep", "/(/")
    assert refused.code == 2 and "regular expression" in refused.err


@pytest.fixture
def real_api(tmp_path, variables):
    """The API of the daemon on a socket, in a thread with an event loop of its own; the log process is a fake."""
    import real_api

    variables["NEXTDEPLOY_STATE_DIR"] = str(tmp_path / "state")
    with real_api.serving(tmp_path / "state" / "control.sock"):
        yield

"""Help and document say the same, and neither costs anything: verbs are loaded when they are called."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest

from ndactors.cli.main import ALIASES, VERBS, nextdeploy
from ndactors.cli.options import shared

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text()
SHARED = {name for option in shared() for name in option.opts}
HEAVY = ("gevent", "docker", "flask", "yaml", "marshmallow", "msgspec", "http.client", "ssl", "ndactors.adapters")


def section(verb: str) -> str:
    match = re.search(rf"^### `{verb}`\n(.*?)(?=^### |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None, f"docs/cli.md has no section for {verb}"
    return match[1]


def command(verb: str) -> click.Command:
    return import_module(f"ndactors.cli.{verb}").command


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_in_its_help_and_json(verb, run):
    done = run(verb, "--help")
    assert done.code == 0 and done.err == ""
    assert re.search(rf"^  Example:\n    nextdeploy {verb}\b", done.out, re.MULTILINE), done.out
    if verb not in ("stdio", "exec", "forward"):
        assert "--json" in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_the_document_has_its_example_and_its_options(verb):
    text = section(verb)
    examples = re.findall(r"^nextdeploy (\S+)", text, re.MULTILINE)
    assert examples and set(examples) <= {verb, *(a for a, b in ALIASES.items() if b == verb)}
    own = {name for p in command(verb).params if isinstance(p, click.Option) for name in p.opts} - SHARED
    own |= {"-f", "--file"} if verb == "config" else set()
    told = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*(?![\w-])", text)) - SHARED
    told |= {"-f", "--file"} if verb == "config" else set()
    assert own - told == set(), "options that the document does not tell of"
    lines = re.findall(rf"^nextdeploy {verb} .*$", text, re.MULTILINE)
    mine = {word for line in lines for word in re.findall(r"(?<= )--[a-z-]+", line.partition(" -- ")[0])}
    assert mine <= own | SHARED, "options of examples that do not exist"


def test_the_document_has_no_other_verbs():
    assert re.findall(r"^### `(\w+)`", DOCUMENT, re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_help_and_document_are_understood(verb):
    """Each parses to the end: no option or argument that the verb would refuse."""
    import shlex

    lines = re.findall(
        rf"^\s*nextdeploy ({verb}\b[^\n]*)$", (command(verb).epilog or "") + "\n" + section(verb), re.MULTILINE
    )
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" < ")[0], comments=True)[1:]
        with command(verb).make_context(verb, words, parent=nextdeploy.make_context("nextdeploy", ["status"])):
            pass


def test_help_loads_nothing_heavy(variables):
    script = (
        "import json, sys; sys.argv = ['nextdeploy', '--help']\n"
        "from ndactors.cli.main import main\n"
        "main(['--help']); sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stderr)
    assert [name for name in loaded if name in HEAVY or name.startswith(tuple(f"{h}." for h in HEAVY))] == []
    assert [name for name in loaded if name.startswith("ndactors.cli.") and name.rpartition(".")[2] in VERBS] == []


@pytest.mark.parametrize("words", [["deploy"], ["status"], ["validate"], ["plan"], ["run", "a", "--", "b"], ["config"]])
def test_no_verb_loads_what_the_daemon_needs(words, variables, project, tmp_path):
    (project / "nextdeploy.yml").write_text("apps: {a: {image: a}}\n")
    script = (
        "import sys\nfrom ndactors.cli.main import main\n"
        f"main({[*words, '--state-dir', str(tmp_path)]!r})\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('gevent', 'docker', 'flask', 'sqlite3', 'web', 'requests')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick(process):
    process("--help")
    quickest = 10.0
    for _ in range(5):
        began = time.monotonic()
        assert process("--help").code == 0
        quickest = min(quickest, time.monotonic() - began)
    assert quickest < 0.2


def test_version_and_module(process):
    from ndactors import __version__

    assert process("--version").out == f"nextdeploy {__version__}\n"


def test_a_fault_of_ours_is_one_line(variables, project):
    script = (
        "import sys\nfrom ndactors.cli import main\n"
        "def broken(*a): raise KeyError('boom')\n"
        "main.Verbs.get_command = broken\nsys.exit(main.main(['status']))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nextdeploy: KeyError: 'boom'") and "Traceback" not in done.stderr
    more = {**variables, "NEXTDEPLOY_DEBUG": "1"}
    shown = subprocess.run([sys.executable, "-c", script], env=more, capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr

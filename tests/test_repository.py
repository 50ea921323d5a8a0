"""What the documents and the layout promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [p for folder in ("ndactors", "web") for p in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_files_and_folders_that_documents_name_exist(document):
    for name in re.findall(r"`((?:ndactors|tests|web|conf|docs|examples|packaging)/[\w./-]*)`", document.read_text()):
        assert (ROOT / name.rstrip("/")).exists(), name


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        for target in re.findall(r"`?make ([a-z]+)`", document.read_text()):
            assert target in targets, f"{document.name}: make {target}"


def test_every_source_file_says_its_rule_first():
    for path in SOURCES:
        text = path.read_text()
        assert not text or text.startswith('"""'), path


def test_every_dependency_is_explained():
    told = (ROOT / "docs" / "architecture.md").read_text().lower()
    for line in (ROOT / "requirements.txt").read_text().split():
        name = line.partition("==")[0].lower().replace("_", "-")
        assert f"| {name} " in told, name


def test_imports_go_one_way():
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(tool)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]

"""What a bundle holds, against folders made by chance, an oracle that shares no code, and Docker's own client."""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.cli import project_file
from ndactors.cli.bundling import package
from ndactors.cli.collecting import collect
from ndactors.cli.failures import Failure, Invalid
from ndactors.cli.project_file import Place
from ndactors.core.manifests import Manifest

CONTEXT = (Place("context", "", "apps.a.build", "a", "Dockerfile"),)


def made(folder: Path, text: str, **files: str | bytes) -> Path:
    (folder / "nextdeploy.yml").write_text(text)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "nextdeploy.yml"


def bundle_of(path: Path, variables: dict[str, str] | None = None, environment: str = "dev"):
    cache = {"XDG_CACHE_HOME": str(path.parent.parent / "cache")}
    return package(project_file.read(path, environment, variables or {}), {**(variables or {}), **cache})


def paths(packed) -> set[str]:
    return {file.path for file in packed.bundle.files}


# -- against an oracle -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "a.log", "ab", ".git", ".env", "x y", "ü"])
TREES = st.recursive(
    st.dictionaries(NAMES, st.sampled_from([b"", b"1", b"22"]), max_size=4),
    lambda below: st.dictionaries(NAMES, st.one_of(st.sampled_from([b"", b"1"]), below), max_size=4),
    max_leaves=12,
)
PARTS = st.sampled_from(["a", "b", "c", "*", "*.log", "?", "**", "a*", ".git", ".env"])
PATTERNS = st.builds(
    lambda keeps, parts, end: ("!" if keeps else "") + "/".join(parts) + end,
    st.booleans(),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)


def write(folder: Path, tree: dict) -> None:
    for name, value in tree.items():
        if isinstance(value, dict):
            (folder / name).mkdir(exist_ok=True)
            write(folder / name, value)
        elif not (folder / name).exists():
            (folder / name).write_bytes(value)


def as_regex(pattern: str) -> str:
    """A pattern of the small grammar above, for a path and everything below it."""
    parts = pattern.strip("/").split("/")
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:.*/)?"
            continue
        text += "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in part) + ("" if last else "/")
    return f"(?:{text})(?:/.*)?"


def oracle(folder: Path, patterns: list[str]) -> dict[str, str]:
    rules = [(p.startswith("!"), re.compile(as_regex(p.lstrip("!")), re.DOTALL)) for p in ["**/.git", *patterns]]
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(os.path.join(at, name), folder)
            ignored = False
            for keeps, rule in rules:
                if rule.fullmatch(path):
                    ignored = not keeps
            if not ignored or path in ("Dockerfile", ".dockerignore"):
                found[path] = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    return found


@settings(max_examples=150, deadline=None)
@given(tree=TREES, patterns=st.lists(PATTERNS, max_size=5))
def test_a_bundle_is_the_folder_less_what_is_ignored(tmp_path_factory, tree, patterns):
    folder = tmp_path_factory.mktemp("tree")
    made(folder, "apps: {a: {build: .}}\n", Dockerfile="FROM scratch\n")
    (folder / ".dockerignore").write_text("\n".join(patterns))
    write(folder, tree)
    packed = bundle_of(folder / "nextdeploy.yml")
    assert {file.path: file.sha256 for file in packed.bundle.files} == oracle(folder, patterns)
    assert [file.path for file in packed.bundle.files] == sorted(paths(packed))
    assert {digest: blob.path.read_bytes() for digest, blob in packed.blobs.items()} == {
        hashlib.sha256(content).hexdigest(): content
        for content in {(folder / path).read_bytes() for path in paths(packed)}
    }
    Manifest(packed.bundle.files)


def test_it_is_what_dockers_own_client_sends(tmp_path, engine_address):
    rules = "*.log\n!keep.log\nout\n!out/kept\n**/tmp\n# comment\n/docs/*.md\n!docs/README.md\nweb/[a-c].js\n"
    files = {
        "Dockerfile": "FROM scratch\nCOPY . /\n",
        ".dockerignore": rules,
        **dict.fromkeys(["a.log", "keep.log", "out/gone", "out/kept", "out/deep/gone", "x/tmp/y", "x/z"], "1"),
        **dict.fromkeys(["docs/a.md", "docs/README.md", "docs/sub/b.md", "web/a.js", "web/d.js", "sub/b.log"], "2"),
    }
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", **files)
    (tmp_path / "p" / "x" / "link").symlink_to("z")
    done = subprocess.run(
        ["docker", "build", "--quiet", "--network=none", str(path.parent)],
        env={**os.environ, "DOCKER_HOST": engine_address, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    image = done.stdout.strip()
    try:
        saved = subprocess.run(
            ["docker", "save", image],
            env={**os.environ, "DOCKER_HOST": engine_address},
            capture_output=True,
            check=True,
        ).stdout
    finally:
        subprocess.run(
            ["docker", "rmi", image], env={**os.environ, "DOCKER_HOST": engine_address}, capture_output=True, check=True
        )
    sent = set()
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        for member in archive:
            if member.name.endswith("layer.tar") and member.isfile():
                with tarfile.open(fileobj=archive.extractfile(member)) as layer:
                    sent |= {entry.name for entry in layer if not entry.isdir()}
    assert sent and paths(bundle_of(path)) == sent | {"Dockerfile", ".dockerignore"}


# -- what else is named ----------------------------------------------------------------------------


def test_env_files_mounts_and_pages_come_along_though_ignored(tmp_path):
    text = """
project: p
apps:
  a:
    build: {context: web, dockerfile: docker/App.Dockerfile}
    env_file: .env
    volumes: ["./conf/nginx.conf:/etc/nginx.conf:ro", "./data:/data", "named:/x", "/srv/host:/y"]
    http: {error_pages: pages}
    processes:
      web: {}
      worker: {command: w, env_file: env/worker.env}
"""
    (tmp_path / "p").mkdir()
    path = made(
        tmp_path / "p",
        text,
        **{
            ".env": "A=1\n",
            "env/worker.env": "B=2\n",
            "conf/nginx.conf": "c",
            "conf/other": "no",
            "data/one": "1",
            "data/.git/config": "no",
            "pages/404.html": "4",
            "web/docker/App.Dockerfile": "FROM scratch\n",
            "web/docker/App.Dockerfile.dockerignore": "*\n!main\n",
            "web/.dockerignore": "main\n",
            "web/main": "m",
            "web/other": "o",
            "unnamed": "no",
        },
    )
    assert paths(bundle_of(path)) == {
        *(".env", "env/worker.env", "conf/nginx.conf", "data/one", "pages/404.html", "web/main"),
        *("web/docker/App.Dockerfile", "web/docker/App.Dockerfile.dockerignore"),
    }


def test_the_folder_of_an_app_on_the_host_comes_along(tmp_path):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {command: ./run, workdir: api}}\n", **{"api/run": "r", "other": "o"})
    assert paths(bundle_of(path)) == {"api/run"}


def test_git_contexts_and_images_send_nothing(tmp_path):
    (tmp_path / "p").mkdir()
    text = "apps: {a: {build: {context: 'https://example.com/r.git#main'}}, b: {image: 'b:1'}, c: {build: 'git@h:r.git'}}\n"
    assert paths(bundle_of(made(tmp_path / "p", text, other="o"))) == set()


def test_an_overlay_decides_what_is_named(tmp_path):
    (tmp_path / "p").mkdir()
    text = "apps: {a: {image: a}}\nenvironments: {prod: {apps: {a: {env_file: '${WHICH:-prod}.env'}}}}\n"
    path = made(tmp_path / "p", text, **{"prod.env": "A=1", "other.env": "A=2"})
    assert paths(bundle_of(path)) == set()
    assert paths(bundle_of(path, environment="prod")) == {"prod.env"}
    packed = bundle_of(path, {"WHICH": "other", "NOT": "named"}, environment="prod")
    assert paths(packed) == {"other.env"} and packed.bundle.variables == {"WHICH": "other"}


def test_git_is_left_out_unless_it_is_asked_for(tmp_path):
    (tmp_path / "p").mkdir()
    files = {"Dockerfile": "FROM scratch\n", ".git/HEAD": "h", "sub/.git": "gitdir: x", "sub/.gitignore": "i"}
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", **files)
    assert paths(bundle_of(path)) == {"Dockerfile", "nextdeploy.yml", "sub/.gitignore"}
    (path.parent / ".dockerignore").write_text("!.git\n")
    assert ".git/HEAD" in paths(bundle_of(path)) and "sub/.git" not in paths(bundle_of(path))


def test_links_stay_links_and_places_behind_links_are_found(tmp_path):
    (tmp_path / "p").mkdir()
    path = made(
        tmp_path / "p",
        "apps: {a: {build: app, env_file: conf/env, volumes: ['./conf/dir:/d']}}\n",
        **{"src/Dockerfile": "FROM scratch\n", "src/main": "m", "real/env.1": "A=1\n", "real/files/x": "x"},
    )
    folder = path.parent
    (folder / "app").symlink_to("src")
    (folder / "conf").symlink_to("real")
    (folder / "real" / "env").symlink_to("env.1")
    (folder / "real" / "dir").symlink_to("../real/files")
    (folder / "src" / "again").symlink_to("main")
    found = {file.path: file.link for file in bundle_of(path).bundle.files}
    assert found == {
        "app": "src",
        "conf": "real",
        "real/env": "env.1",
        "real/dir": "../real/files",
        "real/env.1": None,
        "real/files/x": None,
        "src/Dockerfile": None,
        "src/main": None,
        "src/again": "main",
    }


@pytest.mark.parametrize(
    ("app", "line"),
    [
        ("build: ../other", "1:19: apps.a.build: `../other` is not in the project's folder."),
        ("build: {context: /srv/app}", "apps.a.build.context: `/srv/app` is not in the project's folder."),
        ("build: {dockerfile: ../Dockerfile}", "apps.a.build.dockerfile: It must be in the build context."),
        ("image: a, volumes: ['../data:/data']", "apps.a.volumes[0]: `../data` is not in the project's folder."),
        ("image: a, http: {error_pages: ../../pages}", "apps.a.http.error_pages: `../../pages` is not in"),
        ("image: a, volumes: ['./a/../../b:/data']", "`./a/../../b` is not in the project's folder."),
    ],
)
def test_places_outside_are_refused_with_their_line(tmp_path, app, line):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", f"apps: {{a: {{{app}}}}}\n")
    with pytest.raises(Invalid) as invalid:
        bundle_of(path)
    assert line in invalid.value.message and "nextdeploy.yml:1:" in invalid.value.message


def test_what_cannot_be_sent_is_named_all_at_once(tmp_path):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", Dockerfile="FROM scratch\n", fine="f")
    folder = path.parent
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "sock"))
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "outside").symlink_to("../x")
    (folder / os.fsdecode(b"bad\xff")).write_text("x")
    with pytest.raises(Failure) as failure:
        bundle_of(path)
    text = failure.value.message
    for words in (
        "pipe: it is a pipe",
        "sock: it is a socket",
        "absolute: a symbolic link that",
        "outside: a symbolic",
    ):
        assert words in text
    assert "bad\\xff" not in text and "its name is not UTF-8" in text
    (folder / ".dockerignore").write_text("pipe\nsock\nabsolute\noutside\nbad*\n")
    assert "fine" in paths(bundle_of(path))


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", Dockerfile="FROM scratch\n")
    (path.parent / "a").symlink_to("b")
    (path.parent / "b").symlink_to("a")
    with pytest.raises(Failure, match="circle"):
        bundle_of(path)


@pytest.mark.parametrize("target", ["loop", "../up", "/etc", "gone"])
def test_a_context_behind_a_bad_link(tmp_path, target):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: loop}}\n")
    (path.parent / "loop").symlink_to(target)
    with pytest.raises(Failure) as failure:
        bundle_of(path)
    assert failure.value.code == 2


def test_too_many_files_and_too_long_paths(tmp_path, monkeypatch):
    from ndactors.cli import collecting

    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", Dockerfile="FROM scratch\n")
    monkeypatch.setattr(collecting, "MAX_FILES", 1)
    with pytest.raises(Failure, match="more than 1 files"):
        bundle_of(path)
    monkeypatch.undo()
    monkeypatch.setattr(collecting, "MAX_PATH", 5)
    with pytest.raises(Failure, match="longer than 5"):
        bundle_of(path)


def test_an_ignored_folder_is_not_even_opened(tmp_path, monkeypatch):
    opened = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(str(path)) or real(path))
    (tmp_path / "node_modules" / "deep").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("node_modules\n")
    collect(tmp_path, CONTEXT)
    assert opened == [str(tmp_path)]


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps: {a: {build: .}}\n", **{"Dockerfile": "FROM scratch\n", "private/x": "p"})
    real = os.scandir

    def refused(path):
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(Failure, match="private: Permission denied"):
        bundle_of(path)


def test_mistakes_of_the_file_come_all_at_once(tmp_path):
    (tmp_path / "p").mkdir()
    path = made(tmp_path / "p", "apps:\n  a: {image: x, port: many, replica: 2}\nedge: {}\n")
    with pytest.raises(Invalid) as invalid:
        bundle_of(path)
    lines = invalid.value.message.split("\n")
    assert [re.sub(r"^.*nextdeploy.yml:(\d+):.*", r"\1", line) for line in lines] == ["2", "2", "3"]

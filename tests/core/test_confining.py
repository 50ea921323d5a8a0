"""What hostile project files try. Each refusal is for one key; a table says of every key what holds it."""

from __future__ import annotations

import hashlib

import pytest

from ndactors.adapters.yaml_file import opened, scalar
from ndactors.core.confining import JUDGED, below, confined, image_words, inside, paths_of, placed, written
from ndactors.core.environments import interpolated
from ndactors.core.manifests import Manifest
from ndactors.core.model import Allow, App, Process, Settings
from ndactors.core.settings import settings_of
from ndactors.messages.projects import BundleFile

SENT = ("Dockerfile", "api/Dockerfile", "api/main.py", ".env", "conf/app.ini", "pages/404.html", "other/Dockerfile")


def files(*more: BundleFile, paths=SENT) -> Manifest:
    sha = hashlib.sha256(b"x").hexdigest()
    return Manifest([*(BundleFile(path=path, sha256=sha, size=1) for path in paths), *more])


def settings(text: str) -> Settings:
    document, problems, _ = opened(text.encode(), "f", "dev", role="project")
    problems += interpolated(document, {}, scalar)
    assert problems == []
    return settings_of(
        document, source="f", environment="dev", role="project", folder_name="own", env_files={}
    ).settings


def refused(keys: str, *, allow: Allow | None = None, sent: Manifest | None = None, images=None) -> list[str]:
    """Dotted places of what is refused of an app with these keys."""
    text = f"apps: {{shop: {{{keys}}}}}"
    wrong = confined(settings(text), allow or Allow(), sent or files(), lambda app: app.on_host, images)
    return [".".join(map(str, path[2:])) for path, words in wrong if words]


def test_every_key_is_judged():
    """Whoever adds a key to the model says here what a hostile file could do with it."""
    assert set(JUDGED) == {*App.__struct_fields__, *Process.__struct_fields__}


@pytest.mark.parametrize(
    "keys",
    [
        "image: nginx",
        "image: ghcr.io/a/b:1@sha256:" + "0" * 64,
        "image: nextdeploy/own/shop:x",
        "image: x, volumes: ['data:/x', './conf:/y:ro', './new/folder:/z', './conf/app.ini:/q:ro', './:/all']",
        "build: .",
        "build: ./api",
        "build: {context: ., dockerfile: api/Dockerfile, secrets: [NPM, 'A:b.c']}",
        "build: 'https://h.test/r.git#main:web'",
        "image: x, env_file: .env, http: {error_pages: pages}",
        "image: x, http: {error_pages: ./pages/404.html}",
        "image: x, user: root, workdir: /etc, entrypoint: /bin/sh, cap_drop: [ALL]",
        "image: x, workdir: relative",
    ],
)
def test_what_is_fine(keys):
    assert refused(keys) == []


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        # the host's files
        ("image: x, volumes: ['/etc:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['a:/a', '/:/host:ro']", "processes.web.volumes.1"),
        ("image: x, volumes: ['../other:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['./a/../../b:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['..//etc:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['~/.ssh:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['conf/x:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['./nothing:/x:ro']", "processes.web.volumes.0"),
        ("image: x, volumes: ['./.env/below:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['./out:/x']", "processes.web.volumes.0"),
        ("image: x, volumes: ['/var/run/docker.sock:/s']", "processes.web.volumes.0"),
        ("image: x, env_file: /etc/passwd", "processes.web.env_file"),
        ("image: x, env_file: ../.env", "processes.web.env_file"),
        ("image: x, env_file: api", "processes.web.env_file"),
        ("image: x, env_file: nothing", "processes.web.env_file"),
        ("image: x, http: {error_pages: /etc/passwd}", "http.error_pages"),
        ("image: x, http: {error_pages: ../../etc}", "http.error_pages"),
        ("build: /etc", "build.context"),
        ("build: ..", "build.context"),
        ("build: ./api/../../x", "build.context"),
        ("build: ./conf/app.ini", "build.context"),
        ("build: ./nothing", "build.context"),
        ("build: ./conf", "build.context"),
        ("build: {dockerfile: /etc/passwd}", "build.dockerfile"),
        ("build: {dockerfile: ../Dockerfile}", "build.dockerfile"),
        ("build: {context: ./api, dockerfile: ../Dockerfile}", "build.dockerfile"),
        ("build: {context: ./linked}", "build.dockerfile"),
        # other networks: clones, and what listens on this host
        ("build: 'http://127.0.0.1:8090/r'", "build.context"),
        ("build: 'http://h.test/r'", "build.context"),
        ("build: 'file:///etc'", "build.context"),
        ("build: 'git@h.test:r'", "build.context"),
        ("build: 'ext::sh -c id'", "build.context"),
        ("build: 'https://h.test/r#--upload-pack=id'", "build.context"),
        ("image: x, networks: [host]", "processes.web.networks.0"),
        ("image: x, networks: [none]", "processes.web.networks.0"),
        ("image: x, networks: [nd-other-abcdef]", "processes.web.networks.0"),
        # the host's powers
        ("command: id", ""),
        ("command: id, processes: {web: {}, worker: {}}", ""),
        ("image: x, cap_add: [SYS_ADMIN]", "processes.web.cap_add.0"),
        ("image: x, cap_add: [CAP_NET_RAW]", "processes.web.cap_add.0"),
        ("image: x, cap_add: [ALL]", "processes.web.cap_add.0"),
        ("build: {secrets: ['id=x,src=/etc/shadow']}", "build.secrets.0"),
        ("build: {secrets: ['../x']}", "build.secrets.0"),
        # other projects' images
        ("image: nextdeploy/other/app:1", "image"),
        ("image: docker.io/nextdeploy/other/app:1", "image"),
        ("image: nextdeploy/ownx/app", "image"),
        ("image: 'sha256:" + "a" * 64 + "'", "image"),
        ("image: 3f2a", "image"),
    ],
)
def test_what_is_refused(keys, at):
    sent = files(
        BundleFile(path="linked/Dockerfile", link="../other/Dockerfile"), BundleFile(path="out/x", link="../conf")
    )
    assert refused(keys, sent=sent) == [at]


def test_what_the_server_allows():
    allow = Allow(
        host_paths=("/srv/data/", "relative", "/opt//x/../y"),
        host_commands=True,
        capabilities=("CAP_NET_ADMIN", "SYS_PTRACE"),
        networks=("shared", "nd-fixed"),
    )
    for keys in (
        "image: x, volumes: ['/srv/data:/a', '/srv/data/b:/b', '/srv//data/./c:/c', '/opt/y/z:/d']",
        "command: id",
        "command: id, workdir: ./api",
        "command: id, workdir: /srv/data/x",
        "image: x, cap_add: [NET_ADMIN, CAP_SYS_PTRACE]",
        "image: x, networks: [shared]",
    ):
        assert refused(keys, allow=allow) == [], keys
    for keys in (
        "image: x, volumes: ['/srv/database:/a']",
        "image: x, volumes: ['/srv/data/../etc:/a']",
        "image: x, volumes: ['/srv:/a']",
        "image: x, volumes: ['/opt/x:/a']",
        "command: id, workdir: /etc",
        "command: id, workdir: ../x",
        "command: id, workdir: ./.env",
        "image: x, cap_add: [NET_RAW]",
        "image: x, networks: [nd-fixed]",
        "image: x, networks: [other]",
    ):
        assert len(refused(keys, allow=allow)) == 1, keys


def test_an_app_with_an_image_that_would_run_on_the_host():
    """Where there is no Engine, or the server says `engine: process`, commands run on the host whatever the file says."""
    found = settings("apps: {shop: {image: x, command: id}}")
    assert confined(found, Allow(), files(), lambda app: True)
    assert not confined(found, Allow(host_commands=True), files(), lambda app: True)


def test_images_that_came_built():
    image = BundleFile(path="shop.tar", sha256="0" * 64, size=1)
    assert refused("build: ./not/sent", images={"shop": image}) == []
    assert refused("build: {context: ., secrets: ['src=/x']}", images={"shop": image}) == ["build.secrets.0"]
    assert refused("image: x", images={"shop": image}) == [""]
    assert refused("image: x", images={"strange": image}) == [""]


def test_too_many_apps():
    text = "apps: {" + ", ".join(f"a{n}: {{image: x}}" for n in range(201)) + "}"
    assert len(confined(settings(text), Allow(), files(), lambda app: app.on_host)) == 1


def test_mistakes_stand_where_they_were_written():
    tree = {"apps": {"shop": {"volumes": [], "processes": {"worker": {"env_file": "x"}, "web": None}}}}
    process = ("apps", "shop", "processes", "worker")
    assert written(tree, (*process, "env_file")) == (*process, "env_file")
    assert written(tree, (*process, "volumes", 0)) == ("apps", "shop", "volumes", 0)
    assert written(tree, ("apps", "shop", "processes", "web", "volumes", 0)) == ("apps", "shop", "volumes", 0)
    assert written(tree, ("apps", "shop", "image")) == ("apps", "shop", "image")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("./a", "a"),
        ("a/../b", "b"),
        (".", ""),
        ("./", ""),
        ("a//b", "a/b"),
        ("", None),
        ("/a", None),
        ("..", None),
        ("./..", None),
        ("a/../..", None),
        ("a\0", None),
        ("..a", "..a"),
    ],
)
def test_inside(path, found):
    assert inside(path) == found


@pytest.mark.parametrize(
    ("path", "well"),
    [("/a", True), ("/a/b", True), ("/a/", True), ("//a", True), ("/ab", False), ("/a/../b", False), ("/", False)],
)
def test_below(path, well):
    assert below(path, ("/a", "c")) is well
    assert below(path, ("/",)) is True
    assert below(path, ()) is False


@pytest.mark.parametrize(
    "image", ["cafe:latest", "registry.test/3f2a", "a/b", "nextdeploy/own/x", "nextdeployx/y", "zz"]
)
def test_images_by_name(image):
    assert image_words(image, "own") is None


def test_paths_are_placed():
    text = """
apps:
  shop:
    build: ./api
    http: {error_pages: pages}
    volumes: ["data:/a", "/srv/x:/b", "./conf:/c:ro", "./new:/d"]
    processes: {web: {}, worker: {volumes: ["./conf:/c"]}}
  host: {command: x, processes: {web: {}, other: {workdir: ./api}, fixed: {workdir: /srv}}}
  git: {build: "https://h.test/r"}
  built: {build: ./gone}
"""
    found = settings(text).apps

    def place(use, path):
        return f"/{use}:{path}"

    shop = placed(found["shop"], place, runs_on_host=False, built=False)
    assert shop.build.context == "/context:./api"
    assert shop.http.error_pages == "/tree:pages"
    sources = [volume.source for volume in shop.processes["web"].volumes]
    assert sources == ["data", "/srv/x", "/tree:./conf", "/kept:./new"]
    assert shop.processes["worker"].volumes[0].source == "/kept:./conf"
    assert shop.processes["web"].workdir is None
    assert paths_of(shop) == {"/srv/x", "/tree:./conf", "/kept:./new", "/kept:./conf", "/tree:pages", "/context:./api"}
    host = placed(found["host"], place, runs_on_host=True, built=False)
    assert {n: p.workdir for n, p in host.processes.items()} == {
        "web": "/whole:.",
        "other": "/whole:./api",
        "fixed": "/srv",
    }
    assert placed(found["git"], place, runs_on_host=False, built=False).build.context == "https://h.test/r"
    assert placed(found["built"], place, runs_on_host=False, built=True).build.context == "./gone"

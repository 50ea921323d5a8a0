"""A project's file as the server understands it: whose variables, which secrets, which files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ndactors.adapters.blob_store import BlobFiles
from ndactors.adapters.bundles import Bundles
from ndactors.adapters.project_files import ProjectLoader
from ndactors.core.model import Allow, SecretRef
from ndactors.core.specs import Secrets, environment
from ndactors.errors import ConfigurationError, Invalid, MissingBlobs
from ndactors.messages.projects import Bundle, BundleFile


def at_once(call):
    return call()


class Ground:
    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.blobs = BlobFiles(self.state / "blobs", at_once)
        self.bundles = Bundles(self.state / "projects", self.blobs, at_once)
        self.loader = ProjectLoader(self.state, self.bundles, self.blobs, at_once, lambda app: app.on_host)
        self.files: dict[str, bytes | str] = {}
        self.secrets: dict[str, set[str]] = {}
        self.asked: list[str] = []

    def bundle(self, text: str, *, send: bool = True, **more) -> Bundle:
        rows = []
        for path, content in self.files.items():
            if isinstance(content, str):
                rows.append(BundleFile(path=path, link=content))
                continue
            digest = hashlib.sha256(content).hexdigest()
            rows.append(BundleFile(path=path, sha256=digest, size=len(content)))
            if send:
                self.blobs.add([(digest, content)])
        return Bundle(text=text, files=tuple(rows), **more)

    def load(
        self, text: str, *, plan: bool = False, send: bool = True, allow: Allow | None = None, project="own", **more
    ):
        bundle = self.bundle(text, send=send, **more)
        folder = None if plan else self.bundles.lay_out(project, bundle)
        return self.loader.load(project, bundle, folder, self._names, allow or Allow())

    def _names(self, app: str) -> set[str]:
        self.asked.append(app)
        return self.secrets.get(app, set())

    def web(self, text: str, process: str = "web", **more):
        return self.load(text, **more).settings.apps["shop"].processes[process]

    def wrong(self, text: str, **more) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.load(text, **more)
        return caught.value.lines()


@pytest.fixture
def ground(tmp_path, monkeypatch):
    monkeypatch.setenv("DAEMON_ONLY", "of the daemon")
    return Ground(tmp_path)


# -- variables -------------------------------------------------------------------------------------


def test_variables_are_the_clients_never_the_daemons(ground):
    text = 'apps: {shop: {image: "x:${TAG}", port: "${PORT}", env: {A: "${A:-none}", B: "${TAG}$$"}}}'
    web = ground.web(text, variables={"TAG": "1", "PORT": "81"})
    assert (web.port, web.env) == (81, {"A": "none", "B": "1$"})
    assert ground.wrong('apps: {shop: {image: x, env: {A: "${DAEMON_ONLY}"}}}') == [
        "nextdeploy.yml:1:34: apps.shop.env.A: `DAEMON_ONLY` is neither a secret of this app nor set where this is "
        "deployed from."
    ]
    assert ground.wrong('project: "${DAEMON_ONLY}"\napps: {}') == [
        "nextdeploy.yml:1:10: project: The variable `DAEMON_ONLY` is not set where this is deployed from."
    ]


def test_overlays_are_the_bundles(ground):
    text = "apps: {shop: {image: x}}\nenvironments: {prod: {apps: {shop: {replicas: 3}}}}"
    assert ground.web(text, environment="prod").replicas == 3
    assert ground.web(text).replicas == 1
    assert "There is no environment `prdo`; did you mean `prod`?" in ground.wrong(text, environment="prdo")[0]


# -- secrets ---------------------------------------------------------------------------------------


def test_secrets_in_env_become_templates(ground):
    ground.secrets = {"shop": {"PASSWORD", "TOKEN"}, "other": {"ELSE"}}
    text = """
apps:
  shop:
    image: x
    env:
      PLAIN: "${HOST}"
      URL: "postgres://u:${PASSWORD}@${HOST}/$${x}?a=$b"
      BOTH: "${TOKEN}${PASSWORD}"
      SAME: "${TOKEN:-unused}"
"""
    web = ground.web(text, variables={"HOST": "db$1${TOKEN}", "PASSWORD": "the client's"})
    assert web.env == {"PLAIN": "db$1${TOKEN}"}
    assert web.templates["BOTH"] == "${TOKEN}${PASSWORD}"
    assert web.templates["SAME"] == "${TOKEN}"
    assert "the client's" not in str(web)
    filled = environment(web, Secrets(values={"PASSWORD": "p$w${TOKEN}", "TOKEN": "t"}))
    assert filled == {
        "PLAIN": "db$1${TOKEN}",
        "URL": "postgres://u:p$w${TOKEN}@db$1${TOKEN}/${x}?a=$b",
        "BOTH": "tp$w${TOKEN}",
        "SAME": "t",
    }
    assert ground.asked == ["shop"]


def test_secrets_of_another_app_are_not_secrets(ground):
    ground.secrets = {"other": {"PASSWORD"}}
    text = 'apps: {shop: {image: x, env: {A: "${PASSWORD}"}}, other: {image: x, env: {A: "${PASSWORD}"}}}'
    assert len(ground.wrong(text)) == 1
    loaded = ground.load(text, variables={"PASSWORD": "mine"})
    assert loaded.settings.apps["shop"].processes["web"].env == {"A": "mine"}
    assert loaded.settings.apps["other"].processes["web"].templates == {"A": "${PASSWORD}"}


def test_secrets_that_are_listed_go_by_their_own_name(ground):
    ground.secrets = {"shop": {"SHOP_KEY"}}
    text = """
apps:
  shop:
    image: x
    secrets: ["KEY:SHOP_KEY", LATER]
    env: ["A=${KEY}", "B=x", "C=${LATER}", "D=${SHOP_KEY}"]
    processes:
      web: {env: {B: "${KEY}", A: plain}}
      worker: {secrets: ["OWN:SHOP_KEY"], env: {E: "${OWN}"}}
"""
    apps = ground.load(text).settings.apps["shop"].processes
    assert apps["web"].env == {"A": "plain"}
    assert apps["web"].templates == {"B": "${SHOP_KEY}", "C": "${LATER}", "D": "${SHOP_KEY}"}
    assert apps["worker"].env == {"B": "x"}
    assert apps["worker"].templates == {
        "A": "${SHOP_KEY}",
        "C": "${LATER}",
        "D": "${SHOP_KEY}",
        "E": "${SHOP_KEY}",
    }
    assert apps["worker"].secrets == (SecretRef(name="OWN", store_name="SHOP_KEY"),)
    # what is only listed, and set by the client, is the client's
    assert ground.web(text, variables={"LATER": "now"}).env == {"A": "plain", "C": "now"}


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        ('image: "x:${TOKEN}"', "image"),
        ('image: x, command: "run ${TOKEN}"', "command"),
        ('image: x, command: [run, "${TOKEN}"]', "command[1]"),
        ('build: {args: {A: "${TOKEN}"}}', "build.args.A"),
        ('image: x, domains: ["${TOKEN}.test"]', "domains[0]"),
        ('image: x, volumes: ["./${TOKEN}:/x"]', "volumes[0]"),
        ('image: x, healthcheck: {command: [c, "${TOKEN}"]}', "healthcheck.command[1]"),
        ('image: x, http: {headers: {A: "${TOKEN}"}}', "http.headers.A"),
    ],
)
def test_elsewhere_a_secret_is_refused(ground, keys, at):
    ground.secrets = {"shop": {"TOKEN"}}
    text = f"apps: {{shop: {{{keys}}}}}"
    (line,) = ground.wrong(text)
    assert line.endswith(f"apps.shop.{at}: `TOKEN` is a secret of this app: only `env` can have it.")
    if at == "image":  # what the client sets is there for it
        assert ground.load(text, variables={"TOKEN": "1"}).settings.apps["shop"].image == "x:1"


def test_a_stored_name_that_a_template_cannot_have(ground):
    ground.secrets = {"shop": {"shop.key"}}
    (line,) = ground.wrong('apps: {shop: {image: x, secrets: ["KEY:shop.key"], env: {A: "${KEY}"}}}')
    assert "stored as `shop.key`" in line


def test_mistakes_keep_their_places(ground):
    text = 'apps:\n  shop:\n    image: x\n    env:\n      - "A=${NOPE}"\n      - "B=${1}"\n    prot: 1\n'
    assert [line.split(" ")[0] for line in ground.wrong(text)] == ["nextdeploy.yml:5:9:", "nextdeploy.yml:6:9:"]


# -- files -----------------------------------------------------------------------------------------


def test_env_files_are_those_that_were_sent(ground):
    ground.files = {"conf/prod.env": b"A=1\nB='x y'\n", ".env": "conf/prod.env", "two": b"B=2\nC=${HOME}\n"}
    text = "apps: {shop: {image: x, env_file: .env, env: {D: 4}, processes: {web: {env_file: ./two}}}}"
    assert ground.web(text).env == {"A": "1", "B": "2", "C": "${HOME}", "D": "4"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "nothing", "folder", "folder/../../x", "link"])
def test_env_files_from_elsewhere(ground, path, tmp_path):
    (tmp_path / "secret").write_text("A=daemon's\n")
    ground.files = {"folder/x": b"A=1\n", "link": "folder"}
    (line,) = ground.wrong(f"apps: {{shop: {{image: x, env_file: {path}}}}}")
    assert line.startswith("nextdeploy.yml:1:35: apps.shop.env_file: ")
    assert "daemon's" not in line


def test_a_file_of_somebody_else_is_not_read(ground):
    """By its digest alone: who asks sees none of the blobs that are there."""
    ground.files = {".env": b"PASSWORD=theirs\n"}
    bundle = ground.bundle("apps: {shop: {image: x, env_file: .env}}")

    class Nothing:
        def missing(self, digests):
            return list(digests)

    loaded = ground.loader.load("own", bundle, None, lambda app: set(), Allow(), Nothing())
    assert loaded.settings.apps["shop"].processes["web"].env == {}
    with pytest.raises(MissingBlobs):
        ground.bundles.lay_out("own", bundle, Nothing())


def test_broken_env_files(ground):
    ground.files = {".env": b"A=1\nnonsense\n", "big": b"A=" + b"x" * (1024 * 1024)}
    assert ground.wrong("apps: {shop: {image: x, env_file: .env}}") == [
        "nextdeploy.yml:1:35: apps.shop.env_file: .env:2: Not a line like NAME=value."
    ]
    assert "larger than 1 MiB" in ground.wrong("apps: {shop: {image: x, env_file: big}}")[0]


def test_paths_are_of_the_bundle(ground):
    ground.files = {
        "api/Dockerfile": b"FROM x",
        "api/main.py": b"main",
        "conf/app.ini": b"[a]",
        "one.txt": b"1",
        "pages/404.html": b"404",
        "data/seed.json": b"{}",
        "linked": "conf",
    }
    text = """
apps:
  shop:
    build: ./api
    http: {error_pages: pages}
    volumes: ["./conf:/conf:ro", "./linked/:/linked:ro", "./one.txt:/one:ro", "./data:/data", "./new/dir:/new", "n:/n"]
"""
    app = ground.load(text).settings.apps["shop"]
    sources = {volume.target: volume.source for volume in app.processes["web"].volumes}
    own = ground.state / "projects" / "own"
    assert Path(app.build.context, "main.py").read_bytes() == b"main"
    assert app.build.context.startswith(str(own / "bundles"))
    assert Path(sources["/conf"], "app.ini").read_bytes() == b"[a]"
    assert sources["/conf"] == sources["/linked"] and sources["/conf"].startswith(str(own / "trees"))
    assert Path(sources["/one"]).read_bytes() == b"1"
    assert Path(app.http.error_pages, "404.html").read_bytes() == b"404"
    assert Path(sources["/data"], "seed.json").read_bytes() == b"{}"
    assert sources["/data"].startswith(str(own / "kept"))
    assert list(Path(sources["/new"]).iterdir()) == []
    assert sources["/n"] == "n"


def test_what_did_not_change_keeps_its_path(ground):
    """A deploy of other files is no reason for a new container of an app that mounts some."""
    text = "apps: {shop: {build: ., volumes: ['./conf:/conf:ro', './data:/data'], http: {error_pages: pages}}}"
    ground.files = {"Dockerfile": b"1", "conf/a": b"a", "data/d": b"d", "pages/404.html": b"4", "main.py": b"old"}
    first = ground.load(text).settings.apps["shop"]
    ground.files["main.py"] = b"new"
    second = ground.load(text).settings.apps["shop"]
    assert first.processes == second.processes and first.http == second.http
    assert first.build != second.build
    ground.files["conf/a"] = b"b"
    third = ground.load(text).settings.apps["shop"]
    assert third.processes["web"].volumes[0] != second.processes["web"].volumes[0]
    assert third.processes["web"].volumes[1] == second.processes["web"].volumes[1]


def test_what_containers_wrote_stays_and_that_is_told(ground):
    text = "apps: {shop: {image: x, volumes: ['./data:/data']}}"
    ground.files = {"data/a": b"1"}
    place = Path(ground.web(text).volumes[0].source)
    (place / "a").write_text("theirs")
    assert ground.load(text).warnings == ()
    ground.files = {"data/a": b"2"}
    (warning,) = ground.load(text).warnings
    assert "`./data` is as the apps have left it" in warning
    assert (place / "a").read_text() == "theirs"


def test_a_folder_with_links_out_of_it_stays_among_the_others(ground):
    ground.files = {"pages/404.html": "../common.html", "common.html": b"404"}
    app = ground.load("apps: {shop: {image: x, http: {error_pages: pages}}}").settings.apps["shop"]
    assert Path(app.http.error_pages, "404.html").read_bytes() == b"404"


def test_host_processes_run_in_the_bundle(ground):
    ground.files = {"server.py": b"x", "api/a": b"x"}
    text = "apps: {shop: {command: python3 server.py, processes: {web: {}, api: {workdir: api}}}}"
    processes = ground.load(text, allow=Allow(host_commands=True)).settings.apps["shop"].processes
    assert Path(processes["web"].workdir, "server.py").exists()
    assert Path(processes["api"].workdir) == Path(processes["web"].workdir) / "api"
    assert "host" in ground.wrong(text)[0]


def test_a_plan_makes_nothing_and_means_the_same(ground):
    ground.files = {
        "Dockerfile": b"FROM x",
        "conf/a": b"a",
        "data/d": b"d",
        ".env": b"A=1\n",
        "pages/404.html": b"4",
    }
    text = (
        "apps: {shop: {build: ., env_file: .env, volumes: ['./conf:/conf:ro', './data:/data'],"
        " http: {error_pages: pages}}}"
    )
    planned = ground.load(text, plan=True, send=False)
    assert not (ground.state / "projects").exists()
    assert any("`.env` is not here yet" in line for line in planned.warnings)
    assert planned.settings.apps["shop"].build.context == "."
    deployed = ground.load(text).settings.apps["shop"]
    again = ground.load(text, plan=True)
    assert not any("not here yet" in line for line in again.warnings)
    assert again.settings.apps["shop"].processes == deployed.processes
    assert again.settings.apps["shop"].http == deployed.http


# -- what it may not -------------------------------------------------------------------------------


def test_everything_hostile_at_once_with_its_places(ground):
    text = """project: own
apps:
  shop:
    image: x
    volumes:
      - data:/a
      - /etc:/b
    cap_add: [SYS_ADMIN]
    processes:
      web: {}
      worker:
        networks: [host]
        env_file: ../x
  host:
    command: id
"""
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in ground.wrong(text)] == [
        "nextdeploy.yml:7:9 apps.shop.volumes[1]",
        "nextdeploy.yml:8:15 apps.shop.cap_add[0]",
        "nextdeploy.yml:12:20 apps.shop.processes.worker.networks[0]",
        "nextdeploy.yml:13:19 apps.shop.processes.worker.env_file",
        "nextdeploy.yml:15:5 apps.host",
    ]


@pytest.mark.parametrize("key", ["state_dir: /", "allow: {host_commands: true}", "registries: {}", "webhook: {}"])
def test_keys_of_the_servers_own_file(ground, key):
    (line,) = ground.wrong(f"apps: {{}}\n{key}\n")
    assert line.endswith("Only the server's own file may have this key.")


def test_the_original_layout_loads_without_what_is_the_servers(ground):
    text = "app: {name: shop, domain: a.test}\ndocker: {image: x}\nmonitoring: {enabled: true}\nssl: {email: a@b}\n"
    loaded = ground.load(text)
    assert loaded.settings.apps["shop"].domains == ("a.test",)
    told = [line.split(": ")[1] for line in loaded.warnings]
    assert sorted(told) == ["monitoring", "ssl"]


def test_the_project_is_the_one_it_is_deployed_as(ground):
    assert ground.load("apps: {shop: {image: x}}").settings.apps["shop"].project == "own"
    (line,) = ground.wrong("project: other\napps: {}")
    assert line == "nextdeploy.yml:1:10: project: This is deployed as `own`."
    with pytest.raises(Invalid):
        ground.load("apps: {}", plan=True, project="../x")


def test_host_paths_by_where_they_lead(ground, tmp_path):
    given = tmp_path / "given"
    (given / "inside").mkdir(parents=True)
    (given / "out").symlink_to("/etc")
    (given / "state").symlink_to(ground.state)
    (given / "real").symlink_to(given / "inside")
    allow = Allow(host_paths=(str(given),))

    def volume(path, allow=allow):
        return ground.web(f"apps: {{shop: {{image: x, volumes: ['{path}:/x']}}}}", allow=allow)

    assert volume(given / "inside").volumes[0].source == str(given / "inside")
    volume(given / "real")
    volume(given / "not/there/yet")
    for path in (given / "out", given / "out" / "ssl", given / "state", "/etc", tmp_path):
        with pytest.raises(ConfigurationError):
            volume(path)
    everything = Allow(host_paths=("/",))
    for path in ("/", "/var/run", "/run", "/var/run/docker.sock", ground.state, ground.state / "blobs", tmp_path):
        with pytest.raises(ConfigurationError):
            volume(path, everything)
    volume("/srv", everything)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\0", "\ud800", "a: &a [*a]", "x" * (1024 * 1024 + 1), "[" * 5000])
def test_texts_that_are_none(ground, text):
    assert ground.wrong(text, plan=True)


def test_too_many_variables(ground):
    with pytest.raises(Invalid):
        ground.load("apps: {}", variables={f"V{n}": "" for n in range(10_001)})


def test_what_a_loader_leaves_around(ground, tmp_path):
    """Nothing beside the project's folder and the blobs."""
    ground.files = {"Dockerfile": b"x", "data/d": b"d"}
    ground.load("apps: {shop: {build: ., volumes: ['./data:/d', './n:/n']}}")
    assert sorted(os.listdir(ground.state)) == ["blobs", "projects"]
    assert sorted(os.listdir(ground.state / "projects")) == ["own"]
    assert sorted(os.listdir(ground.state / "projects" / "own")) == ["bundles", "kept", "lock", "partial"]
    assert os.listdir(ground.state / "projects" / "own" / "partial") == []

"""Whose is a project, and what is on disk before that is known."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from ndactors.adapters.bundles import Bundles
from ndactors.adapters.claimed_blobs import BlobClaims, SharedBlobs
from ndactors.adapters.configuration import Configuration
from ndactors.adapters.image_archive import renamed
from ndactors.adapters.project_files import ProjectLoader
from ndactors.adapters.state_files import StateFiles
from ndactors.core.confining import more_of_the_machine
from ndactors.core.model import Allow, App, Process, Settings, Volume
from ndactors.errors import ConfigurationError, Conflict, Invalid, NotFound
from ndactors.messages.operations import Origin
from ndactors.messages.projects import Bundle, BundleFile

CONTENT = b"x" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class OwnFile:
    path = Path("nextdeploy.yml")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def current(self) -> Settings:
        return self.settings


class Secrets:
    def names(self, app: str) -> dict[str, str]:
        return {"DBPASS": "2026"} if app == "theirs" else {}


@pytest.fixture
def make(tmp_path):
    def call(work):
        return work()

    claims = BlobClaims(tmp_path / "claims.db", lambda *_: None, call)
    blobs = SharedBlobs(tmp_path / "blobs", claims, call)

    def made(settings: Settings | None = None) -> Configuration:
        state = StateFiles(tmp_path / "state", lambda *_: None)
        bundles = Bundles(tmp_path / "projects", blobs, call)
        loader = ProjectLoader(tmp_path, bundles, blobs, call, lambda app: False)
        own = OwnFile(settings or Settings(project="server"))
        return Configuration(own, state, bundles, loader, blobs, Secrets())  # type: ignore[arg-type]

    made.blobs = blobs
    yield made
    claims.close()


def text(project: str, app: str, more: str = "") -> str:
    return f'version: "1.0"\nproject: {project}\napps:\n  {app}:\n    image: shop:1\n{more}'


def deploy(configuration: Configuration, project: str, bundle: Bundle, only: tuple[str, ...] | None = None) -> None:
    checked = configuration.check(project, bundle, lay_out=True, only=only)
    configuration.accept(project, checked, Origin(by="me"), ())


def test_whoever_is_limited_gets_into_no_project_that_has_other_apps(make):
    configuration = make()
    deploy(configuration, "victim", Bundle(text=text("victim", "theirs")))
    with pytest.raises(NotFound):
        deploy(configuration, "victim", Bundle(text=text("victim", "mine")), ("mine",))
    assert set(configuration.current().apps) == {"theirs"}
    configuration.remove("theirs")
    with pytest.raises(NotFound):
        deploy(configuration, "victim", Bundle(text=text("victim", "mine")), ("mine",))
    deploy(configuration, "own", Bundle(text=text("own", "mine")), ("mine",))
    deploy(configuration, "own", Bundle(text=text("own", "mine")), ("mine",))
    assert configuration.current().apps["mine"].project == "own"


@pytest.mark.parametrize("only", [None, ("mine",)])
def test_nobody_gets_into_the_servers_own_project(make, only):
    own = Settings(project="server", apps={"old": App(name="old", image="x:1", processes={"web": Process(name="web")})})
    with pytest.raises(Conflict, match="server's own"):
        deploy(make(own), "server", Bundle(text=text("server", "mine")), only)


def test_what_is_refused_leaves_nothing_on_disk(make, tmp_path):
    configuration = make()
    make.blobs.seen_by(("mine",)).add([(DIGEST, CONTENT)])
    files = tuple(BundleFile(path=f"up/{n}", sha256=DIGEST, size=len(CONTENT)) for n in range(50))
    volumes = '    volumes: ["./up:/up"]\n'
    with pytest.raises(NotFound):
        deploy(configuration, "third", Bundle(text=text("third", "theirs", volumes), files=files), ("mine",))
    with pytest.raises(ConfigurationError):
        deploy(configuration, "third", Bundle(text="nonsense: [", files=files), ("mine",))
    assert not (tmp_path / "projects").exists()


def test_secrets_of_others_cannot_be_guessed(make):
    def words(secret: str) -> str:
        more = f'    env: {{A: "${{{secret}}}"}}\n'
        with pytest.raises((ConfigurationError, NotFound)) as told:
            make().check("p", Bundle(text=text("p", "theirs", more)), lay_out=False, only=("mine",))
        return f"{type(told.value).__name__} {told.value}".replace(secret, "SECRET")

    assert words("DBPASS") == words("NOPE")


def test_an_older_version_brings_back_nothing_of_the_machine():
    def app(*sources: str, cap_add: tuple[str, ...] = ()) -> App:
        volumes = tuple(Volume(source=source, target="/x") for source in sources)
        return App(name="shop", processes={"web": Process(name="web", volumes=volumes, cap_add=cap_add)})

    assert more_of_the_machine(app("data", "/srv"), app("/srv")) is None
    assert "/srv" in (more_of_the_machine(app("/srv"), app("data")) or "")
    assert "SYS_ADMIN" in (more_of_the_machine(app(cap_add=("SYS_ADMIN",)), app()) or "")
    assert Allow() == Allow(host_paths=(), capabilities=())


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE])
def test_heads_of_an_archive_are_not_read_into_memory(tmp_path, kind):
    head, path = tarfile.TarInfo("x"), tmp_path / "bomb.tar"
    head.type, head.size = kind, 100 * 1024 * 1024
    with path.open("wb") as file:
        file.write(head.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + head.size)
        file.seek(512 + head.size)
        file.write(tarfile.TarInfo("manifest.json").tobuf() + bytes(1024))
    with pytest.raises(Invalid, match=r"longer names|sparse"):
        list(renamed(path, "a:b"))

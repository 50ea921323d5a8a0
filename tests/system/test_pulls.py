"""Pulling from a registry that wants a login, over HTTP on this machine (RFC 7617; the OCI distribution protocol, as far as
an Engine needs it to pull)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest

from ndactors.adapters.docker_images import DockerImages
from ndactors.core.model import Registry
from ndactors.errors import EngineError, ImageNotFound

USER, PASSWORD = "puller", "s3cr3t-of-the-registry"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Shelf:
    """The blobs and the manifest of one image, called ``shop:1``."""

    def __init__(self, archive: bytes) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            (listed,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
            config = tar.extractfile(listed["Config"]).read()  # type: ignore[union-attr]
            layers = [gzip.compress(tar.extractfile(name).read(), 1) for name in listed["Layers"]]  # type: ignore[union-attr]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._shelved(config, "application/vnd.docker.container.image.v1+json"),
            "layers": [self._shelved(row, "application/vnd.docker.image.rootfs.diff.tar.gzip") for row in layers],
        }
        self.manifest = json.dumps(manifest).encode()

    def _shelved(self, content: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"mediaType": kind, "size": len(content), "digest": digest}

    def find(self, path: str) -> tuple[str, bytes] | None:
        if path == "/v2/":
            return "application/json", b"{}"
        if path in ("/v2/shop/manifests/1", f"/v2/shop/manifests/sha256:{hashlib.sha256(self.manifest).hexdigest()}"):
            return MANIFEST, self.manifest
        content = self.blobs.get(path.removeprefix("/v2/shop/blobs/"))
        return ("application/octet-stream", content) if content is not None else None


@pytest.fixture(scope="module")
def shelf(engine_address: str, test_image: str) -> Shelf:
    client = docker.APIClient(base_url=engine_address, timeout=120)
    archive = b"".join(client.get_image(test_image))
    client.close()
    return Shelf(archive)


@pytest.fixture
def registry(shelf: Shelf) -> Iterator[str]:
    """Its host and port."""
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shelf.asked.append(self.path)
            found = shelf.find(self.path) if self.headers.get("Authorization") == wanted else None
            status = 200 if found else 404 if self.headers.get("Authorization") == wanted else 401
            kind, content = found or ("application/json", b'{"errors":[{"code":"UNAUTHORIZED"}]}')
            if status == 404:
                content = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            if kind == MANIFEST:
                self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def images(engine_address: str) -> DockerImages:
    return DockerImages("test", engine_address, lambda call: call())


@pytest.fixture
def removed(engine_address: str) -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    client = docker.APIClient(base_url=engine_address, timeout=60)
    for name in names:
        client.remove_image(name, force=True)
    client.close()


def test_an_image_is_pulled_with_the_login_of_its_registry_and_only_once(images, registry, shelf, removed):
    name, said = f"{registry}/shop:1", []
    accounts = {registry: Registry(username=USER, password=PASSWORD)}
    found = images.pull(name, accounts, said.append)
    removed.append(name)
    assert images.find(name).id == found.id
    assert PASSWORD not in "".join(said)
    shelf.asked.clear()
    again = images.pull(name, accounts, said.append)
    assert (again.id, again.cached) == (found.id, True)
    assert "nothing new" in said[-1]
    assert not [path for path in shelf.asked if "/blobs/" in path]


@pytest.mark.parametrize(
    ("accounts", "kind"),
    [({}, EngineError), ({"HOST": Registry(username=USER, password="wrong-" + PASSWORD)}, EngineError)],
)
def test_without_a_right_login_it_is_refused_in_words_without_secrets(images, registry, accounts, kind):
    accounts = {registry if key == "HOST" else key: account for key, account in accounts.items()}
    with pytest.raises(kind, match=r"refused|wants a login") as told:
        images.pull(f"{registry}/shop:1", accounts, lambda line: None)
    assert PASSWORD not in str(told.value)


def test_what_a_registry_does_not_have(images, registry):
    accounts = {registry: Registry(username=USER, password=PASSWORD)}
    with pytest.raises(ImageNotFound, match="does not have it"):
        images.pull(f"{registry}/shop:2", accounts, lambda line: None)


def test_a_registry_that_nobody_answers_for(images):
    with pytest.raises(ImageNotFound, match="no registry could be reached"):
        images.pull("127.0.0.1:9/shop:1", {}, lambda line: None)

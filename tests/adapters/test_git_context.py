"""Fetching from a real git server on loopback, friendly or not."""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import os
import shutil
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ndactors.adapters import git_context
from ndactors.adapters.git_context import environment, fetch
from ndactors.core.git_urls import git_context as parsed
from ndactors.errors import BuildFailed, BuildTimeout, Invalid, TooLarge

BACKEND = "/usr/lib/git-core/git-http-backend"
pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not os.path.exists(BACKEND), reason="git with its HTTP server is needed"
)
AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@a.test",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@a.test",
}


def at_once(call):
    return call()


class Repository:
    """A bare one, with commits made from dictionaries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)

    def git(self, *arguments: str, stdin: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            input=stdin,
            capture_output=True,
            check=True,
            env={**os.environ, **AUTHOR, **env},
        )
        return done.stdout.decode().strip()

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def tree(self, rows: list[tuple[str, str, str]]) -> str:
        """Rows of mode, object and name: whatever they are."""
        kinds = {"040000": "tree", "160000": "commit"}
        lines = b"".join(f"{m} {kinds.get(m, 'blob')} {o}\t".encode() + os.fsencode(n) + b"\0" for m, o, n in rows)
        return self.git("mktree", "--missing", "-z", stdin=lines)

    def commit(self, tree: str, ref: str = "refs/heads/main") -> str:
        sha = self.git("commit-tree", tree, "-m", "x")
        self.git("update-ref", ref, sha)
        return sha

    def files(self, files: dict[str, bytes | tuple[str, bytes]], ref: str = "refs/heads/main") -> str:
        index = str(self.path / "an-index")
        Path(index).unlink(missing_ok=True)
        for path, content in files.items():
            mode, content = content if isinstance(content, tuple) else ("100644", content)
            self.git(
                "update-index", "--add", "--cacheinfo", f"{mode},{self.blob(content)},{path}", GIT_INDEX_FILE=index
            )
        return self.commit(self.git("write-tree", GIT_INDEX_FILE=index), ref)


class Server:
    """`git http-backend` behind a small HTTP server. ``login`` is wanted if it is not empty."""

    def __init__(self, root: Path, *, login: str = "", certificate: Path | None = None, slow: float = 0.0) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.redirect = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except ConnectionError:  # the client was ended
                    self.close_connection = True

            def do_GET(self):
                outer.seen.append((self.path, self.headers.get("Authorization")))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                wanted = "Basic " + base64.b64encode(login.encode()).decode()
                if outer.redirect:
                    return self.answer(301, {"Location": outer.redirect + self.path}, b"")
                if login and self.headers.get("Authorization") != wanted:
                    return self.answer(401, {"WWW-Authenticate": "Basic realm=x"}, b"no")
                if slow and self.command == "POST":
                    time.sleep(slow)
                path, _, query = self.path.partition("?")
                env = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
                }
                done = subprocess.run([BACKEND], input=body, capture_output=True, env=env, check=False)
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                status = int(fields.pop("Status", "200").split()[0])
                return self.answer(status, fields, content)

            do_POST = do_GET

            def answer(self, status, fields, content):
                self.send_response(status)
                for name, value in {**fields, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"{scheme}://{self.host}/r"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "srv" / "r")


@pytest.fixture
def serve(tmp_path, repository):
    made = []

    def start(**options):
        made.append(Server(tmp_path / "srv", **options))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def get(tmp_path):
    def call(url, *, timeout=30.0, progress=lambda line: None, **options):
        into = tmp_path / "contexts" / "shop"
        into.parent.mkdir(exist_ok=True)
        try:
            sha = fetch(url, into, progress, timeout, apply=at_once, **options)
        finally:
            assert [p.name for p in into.parent.iterdir()] in ([], ["shop"])  # nothing else stays
        return sha, into

    return call


def everything(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in folder.rglob("*")
        if p.is_symlink() or p.is_file()
    }


def test_a_branch_a_tag_a_commit_a_folder(repository, serve, get, tmp_path):
    old = repository.files({"a.txt": b"old"})
    repository.git("update-ref", "refs/tags/v1", old)
    big = os.urandom(1_500_000)
    new = repository.files(
        {
            "a.txt": b"new",
            "web/run.sh": ("100755", b"#!/bin/sh\n"),
            "web/deep/er/x": b"",
            "web/big": big,
            "link": ("120000", b"web/deep"),
            '\u00e9 "quoted"\\': b"odd",
            "copy": big,
        }
    )
    repository.files({"only": b"side"}, "refs/heads/feature/side")
    server = serve()
    sha, folder = get(server.url)
    assert sha == new
    found = everything(folder)
    assert found == {
        "a.txt": b"new",
        "web/run.sh": b"#!/bin/sh\n",
        "web/deep/er/x": b"",
        "web/big": big,
        "link": "web/deep",
        '\u00e9 "quoted"\\': b"odd",
        "copy": big,
    }
    assert os.access(folder / "web/run.sh", os.X_OK) and not os.access(folder / "a.txt", os.X_OK)
    assert not (folder / ".git").exists()
    for ref, wanted, content in (("v1", old, b"old"), ("main", new, b"new"), (old, old, b"old"), (new, new, b"new")):
        shutil.rmtree(folder)
        sha, folder = get(f"{server.url}#{ref}")
        assert (sha, (folder / "a.txt").read_bytes()) == (wanted, content)
    shutil.rmtree(folder)
    sha, folder = get(f"{server.url}#feature/side")
    assert everything(folder) == {"only": b"side"}
    shutil.rmtree(folder)
    sha, folder = get(f"{server.url}#main:web/deep")
    assert everything(folder) == {"er/x": b""}


def test_progress_is_told(repository, serve, get):
    repository.files({f"f{n}": b"%d" % n for n in range(50)})
    lines = []
    sha, _ = get(serve().url, progress=lines.append)
    assert any("objects" in line for line in lines)
    assert lines[-1].endswith(f"is at {sha[:12]}")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("#nope", "no `nope` in it"),
        ("#" + "0" * 40, "no `000"),
        ("#main:nope", "no such folder"),
        ("/no", "cannot be fetched"),
    ],
)
def test_what_is_not_there(repository, serve, get, what, words):
    repository.files({"a": b"a"})
    with pytest.raises((BuildFailed, Invalid), match=words):
        get(serve().url + what)


def test_nobody_answers(get):
    with pytest.raises(BuildFailed, match="cannot be fetched"):
        get("http://127.0.0.1:9/r")


def test_no_git(repository, serve, get, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildFailed, match="no `git`"):
        get(serve().url)


# -- logins ----------------------------------------------------------------------------------------


def test_a_login_is_used_and_never_seen(repository, serve, get, tmp_path):
    sha = repository.files({"a": b"a"})
    server = serve(login="ana:hunter2", slow=0.5)
    seen = set()
    watching = threading.Event()

    def watch():
        """Every command line of the machine, all the time."""
        while not watching.is_set():
            for line in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = line.read_bytes()
                except OSError:
                    continue
                if b"git" in text:
                    seen.add(text)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lines = []
    try:
        assert get(f"http://ana:hunter2@{server.host}/r", progress=lines.append)[0] == sha
    finally:
        watching.set()
        watcher.join()
    assert any(b"remote-http" in text for text in seen)
    hidden = (b"hunter2", base64.b64encode(b"ana:hunter2"))
    assert not any(secret in text for text in seen for secret in hidden)
    assert not any(secret.decode() in line for line in lines for secret in hidden)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "contexts").rglob("*") if p.is_file())
    assert not any(secret in stored for secret in hidden)


def test_a_wrong_login_is_told_without_it(repository, serve, get):
    repository.files({"a": b"a"})
    server = serve(login="ana:hunter2")
    with pytest.raises(BuildFailed, match="needs another login") as caught:
        get(f"http://ana:wrongpass@{server.host}/r")
    assert "wrongpass" not in str(caught.value) and "ana" not in str(caught.value)
    with pytest.raises(BuildFailed, match="needs a login"):
        get(server.url)


def test_a_login_does_not_follow_redirects(repository, serve, get):
    repository.files({"a": b"a"})
    thief = serve()
    server = serve(login="ana:hunter2")
    server.redirect = f"http://{thief.host}"
    with pytest.raises(BuildFailed):
        get(f"http://ana:hunter2@{server.host}/r")
    assert thief.seen == []
    get(server.url)  # without one the first answer may be a redirect
    assert thief.seen and all(login is None for _, login in thief.seen)


def test_redirects_lead_to_https_only(repository, serve, get):
    server = serve()
    server.redirect = "file:///etc/passwd?"
    with pytest.raises(BuildFailed):
        get(server.url)


def test_the_daemons_environment_and_settings_are_not_gits(repository, serve, get, tmp_path, monkeypatch):
    repository.files({"a": b"a"})
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[http]\n\textraHeader = "Authorization: Basic c2VjcmV0"\n')
    (home / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    for name, value in {
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_EXEC_PATH": "/nonexistent",
        "GIT_ASKPASS": "/bin/echo",
        "NEXTDEPLOY_ADMIN_PASSWORD": "geheim",
        "GIT_TRACE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    server = serve()
    get(server.url)
    assert all(login is None for _, login in server.seen)
    given = environment(parsed(server.url), tmp_path)
    assert "geheim" not in str(given) and not {"GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_TRACE"} & given.keys()


def test_https(repository, serve, get, tmp_path, monkeypatch):
    sha = repository.files({"a": b"a"})
    certificate = _certificate(tmp_path / "cert.pem")
    server = serve(certificate=certificate)
    with pytest.raises(BuildFailed):
        get(server.url)  # nobody vouches for it
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(server.url)[0] == sha


def _certificate(path: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


# -- hostile repositories --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [b"/etc/passwd", b"../../x", b"..", b"sub/../../x", b"self", b"", b"a\nb", b"\xff", b"x" * 2000]
)
def test_links_that_lead_out(repository, serve, get, target):
    repository.files({"self": ("120000", target), "sub/a": b"a"})
    with pytest.raises(Invalid):
        get(serve().url)


def test_a_file_through_a_link(repository, serve, get, tmp_path):
    """A tree with the same name twice: as a link, and as a folder."""
    victim = tmp_path / "victim"
    victim.mkdir()
    link = repository.blob(str(victim).encode())
    inner = repository.tree([("100644", repository.blob(b"evil"), "x")])
    repository.commit(repository.tree([("120000", link, "d"), ("040000", inner, "d")]))
    with pytest.raises((Invalid, BuildFailed)):
        get(serve().url)
    assert list(victim.iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", "a\nb", "\udcff"])
def test_names_that_are_none(repository, serve, get, name):
    try:
        inner = repository.tree([("100644", repository.blob(b"evil"), "x")])
        repository.commit(repository.tree([("040000", inner, name)]))
    except subprocess.CalledProcessError:
        pytest.skip("git itself does not make it")
    with pytest.raises((Invalid, BuildFailed)):
        get(serve().url)


def test_submodules_are_left_out_and_hooks_do_not_run(repository, serve, get, tmp_path):
    marker = tmp_path / "ran"
    rows = [
        ("160000", "1" * 40, "sub"),
        (
            "100644",
            repository.blob(b'[submodule "sub"]\n\tpath = sub\n\turl = ext::touch ' + bytes(marker)),
            ".gitmodules",
        ),
        ("100644", repository.blob(b"* filter=evil\n*.txt export-ignore\n"), ".gitattributes"),
        ("100644", repository.blob(b"a"), "a.txt"),
    ]
    repository.commit(repository.tree(sorted(rows, key=lambda row: row[2])))
    _, folder = get(serve().url)
    assert set(everything(folder)) == {".gitmodules", ".gitattributes", "a.txt"}
    assert not marker.exists()


def test_a_bomb_of_trees(repository, serve, get):
    """A hundred objects that stand for 10^10 files."""
    row = [("100644", repository.blob(b"boom"), f"f{n}") for n in range(10)]
    for _ in range(9):
        tree = repository.tree(row)
        row = [("040000", tree, f"d{n}") for n in range(10)]
    repository.commit(repository.tree(row))
    began = time.monotonic()
    with pytest.raises((BuildFailed, TooLarge)):
        get(serve().url, timeout=60)
    assert time.monotonic() - began < 30


def test_a_bomb_without_files(repository, serve, get):
    tree = repository.tree([])
    for _ in range(30):
        tree = repository.tree([("040000", tree, "a"), ("040000", tree, "b")])
    repository.commit(tree)
    began = time.monotonic()
    with pytest.raises(BuildTimeout):
        get(serve().url, timeout=2)
    assert time.monotonic() - began < 10


def test_a_file_that_unpacks_to_too_much(repository, serve, get):
    repository.files({"zeros": b"\0" * 30_000_000})
    with pytest.raises(TooLarge):
        get(serve().url, max_bytes=20_000_000)


def test_a_repository_that_is_too_large(repository, serve, get):
    repository.files({"noise": os.urandom(3_000_000)})
    with pytest.raises(TooLarge, match="larger than 1000000 bytes"):
        get(serve().url, max_bytes=1_000_000)


def test_who_takes_too_long_is_ended_with_all_children(repository, serve, get):
    repository.files({"a": b"a"})
    server = serve(slow=30)
    began = time.monotonic()
    with pytest.raises(BuildTimeout, match="within 1 s"):
        get(server.url, timeout=1)
    assert time.monotonic() - began < 5
    port = server.host.rpartition(":")[2].encode()
    deadline = time.monotonic() + 5
    while any(port in _command(p) and b"git" in _command(p) for p in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_the_server_says_is_bounded_and_clean(repository, serve, get, monkeypatch):
    monkeypatch.setattr(git_context, "MAX_LINES", 3)
    repository.files({f"f{n}": b"%d" % n for n in range(5)})
    lines = []
    get(serve().url, progress=lines.append)
    assert len(lines) <= 4
    assert all(line.isprintable() and len(line) <= 500 for line in lines)


def test_a_place_that_is_taken(repository, serve, get, tmp_path):
    repository.files({"a": b"a"})
    server = serve()
    (tmp_path / "contexts" / "shop").mkdir(parents=True)
    (tmp_path / "contexts" / "shop" / "mine").write_text("mine")
    from ndactors.errors import StateError

    with pytest.raises(StateError):
        get(server.url)
    assert (tmp_path / "contexts" / "shop" / "mine").read_text() == "mine"

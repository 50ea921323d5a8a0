from __future__ import annotations

import grp
import os
import stat

import gevent.socket
import pytest

from ndactors.adapters import control_socket
from ndactors.adapters.control_socket import ControlClient, ControlServer, RemoteRef
from ndactors.errors import (
    ConfigurationError,
    MissingBlobs,
    NotFound,
    Problem,
    SecretsUnreadable,
    StateError,
    StateLocked,
)
from ndactors.messages.access import CreatedToken, CreateToken, TokenIdentity, TokenView, VerifyToken
from ndactors.messages.config import (
    ConfigHistory,
    ConfigVersion,
    ConfigWritten,
    GetConfig,
    GetConfigHistory,
    PutConfig,
)
from ndactors.messages.operations import BeginOperation, DeployApp, Git, Origin
from ndactors.messages.secrets import ChangeSecrets, EnvItem, EnvView, GetEnv, GetSecretNames, RotateSecrets
from ndactors.messages.sources import GetSource, SourceView


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to a group takes root")
def test_the_group_can_reach_the_socket_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "GROUP", "daemon")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    server = ControlServer(folder / "control.sock", {}, lambda environ, start_response: [])
    group = grp.getgrnam("daemon").gr_gid
    assert (folder / "control.sock").stat().st_gid == folder.stat().st_gid == group
    assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o660
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    server.close()


def test_without_the_group_it_stays_the_owners(tmp_path, monkeypatch):
    monkeypatch.setattr(control_socket, "GROUP", "no-such-group-here")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    server = ControlServer(folder / "control.sock", {}, lambda environ, start_response: [])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.close()


# -- asking over it --------------------------------------------------------------------------------


class Askee:
    """Answers with what it is given, or raises it."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def ask(self, message, timeout=5.0):
        self.asked.append(message)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def connect(tmp_path, monkeypatch):
    """Both ends in this thread, so they need sockets that let others go on, as those of our processes are."""
    servers = []
    for name in ("connect_unix", "listen_unix"):
        real = getattr(control_socket, name)
        cooperative = lambda *given, real=real: gevent.socket.socket(fileno=real(*given).detach())  # noqa: E731
        monkeypatch.setattr(control_socket, name, cooperative)

    def connected(**askees) -> dict[str, RemoteRef]:
        server = ControlServer(tmp_path / f"{len(servers)}.sock", askees, lambda environ, start_response: [])
        server.start()
        servers.append(server)
        client = ControlClient(tmp_path / f"{len(servers) - 1}.sock")
        return {name: RemoteRef(client, name) for name in askees}

    yield connected
    for server in servers:
        server.stop(timeout=0.01)


def test_every_error_arrives_as_it_was(connect):
    wrong = ConfigurationError("nextdeploy.yml", [Problem(18, 7, "apps.shop.port", "Not a valid integer.")])
    for error in (
        wrong,
        MissingBlobs(["a" * 64]),
        NotFound("none"),
        SecretsUnreadable("the key is lost"),
        StateError("full"),
    ):
        ref = connect(config=Askee(error))["config"]
        with pytest.raises(type(error)) as told:
            ref.ask(PutConfig(text="x", by="api:ana"))
        assert type(told.value) is type(error)
        assert str(told.value) == str(error)
        assert getattr(told.value, "digests", None) == getattr(error, "digests", None)
        assert getattr(told.value, "problems", None) == getattr(error, "problems", None)
    ref = connect(config=Askee(StateLocked("x")), other=Askee(None))
    with pytest.raises(StateLocked):
        ref["config"].ask(GetConfig())


def test_questions_and_answers_keep_their_types(connect):
    token = TokenView(id="t", name="ci", role="operator", apps=("shop",), created_at=1.0, created_by="x")
    cases = [
        (CreateToken(name="ci", apps=("shop",), by="x"), CreatedToken(token=token, secret="ndt_x")),
        (VerifyToken(digest="d"), TokenIdentity(id="t", name="ci", role="operator", apps=("shop",))),
        (ChangeSecrets(app="shop", set={"A": "ü"}, unset=("B",)), None),
        (GetSecretNames(app="shop"), {"A": "2026"}),
        (RotateSecrets(), 3),
        (PutConfig(text="x" * 1024 * 1024, by="x", if_match=("a", "b")), ConfigWritten(version=1, etag="e")),
        (GetConfigHistory(), ConfigHistory(items=(ConfigVersion(version=1, at="t", by="file"),), next=1)),
        (GetEnv(app="shop"), EnvView(items=(EnvItem(name="A", value="1", process="web"),), on_host=True)),
        (GetSource(app="shop"), SourceView(context="https://git.test/a.git")),
        (BeginOperation(app="shop", change=DeployApp(image="x"), origin=Origin(by="hook", git=Git(sha="1"))), "op1"),
    ]
    for question, answer in cases:
        askee = Askee(answer)
        assert connect(x=askee)["x"].ask(question) == answer
        assert askee.asked == [question]

"""The one that changes secrets."""

from __future__ import annotations

import pytest

from ndactors.actors.secret import SecretActor
from ndactors.adapters.secrets_box import SecretBox
from ndactors.adapters.state_files import StateFiles
from ndactors.errors import Invalid, NotFound, SecretsUnreadable, StateError
from ndactors.messages.secrets import ChangeSecrets, GetSecretNames, RotateSecrets
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


@pytest.fixture
def events():
    return Ref("events")


@pytest.fixture
def start(tmp_path, events):
    roots = []

    def started() -> Ref:
        while roots:
            assert roots.pop().stop(5)
        box = SecretBox(StateFiles(tmp_path / "state", lambda kind, words: None), tmp_path, "dev")
        ref = Ref("secrets")
        child = Child(ref, SecretActor, box, events)
        roots.append(
            Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        )
        assert roots[0].wait_started(5)
        return ref

    yield started
    for root in roots:
        assert root.stop(5)


@pytest.fixture
def values(tmp_path):
    """What a container would get now."""
    return lambda app: SecretBox(StateFiles(tmp_path / "state", lambda kind, words: None), tmp_path, "dev").values(app)


def kinds(events):
    return [(event.kind, event.app, event.reason) for event in events.mailbox.items]


def test_set_and_unset_together(start, values, events):
    ref = start()
    assert ref.ask(ChangeSecrets(app="shop", set={"A": "hunter1", "B": "hunter2"})) is None
    assert ref.ask(ChangeSecrets(app="shop", set={"C": "hunter3"}, unset=("A",))) is None
    assert values("shop") == {"B": "hunter2", "C": "hunter3"}
    assert list(ref.ask(GetSecretNames(app="shop"))) == ["B", "C"]
    assert ref.ask(GetSecretNames(app="blog")) == {}
    assert kinds(events) == [
        ("secret.set", "shop", "A"),
        ("secret.set", "shop", "B"),
        ("secret.set", "shop", "C"),
        ("secret.deleted", "shop", "A"),
    ]
    assert "hunter" not in str(list(events.mailbox.items))


def test_values_are_in_no_representation():
    message = ChangeSecrets(app="shop", set={"A": "hunter1"}, unset=("B",))
    assert "hunter" not in repr(message)
    assert "hunter" not in str(message)
    assert "'A'" in repr(message)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ChangeSecrets(app="shop", set={"A": "new", "not a name": "x"}), Invalid),
        (ChangeSecrets(app="shop", set={"A": "new"}, unset=("NONE",)), NotFound),
        (ChangeSecrets(app="../x", set={"A": "new"}), NotFound),
    ],
)
def test_all_or_nothing(start, values, message, error, events):
    ref = start()
    ref.ask(ChangeSecrets(app="shop", set={"A": "old"}))
    with pytest.raises(error):
        ref.ask(message)
    assert values("shop") == {"A": "old"}
    assert len(kinds(events)) == 1
    assert ref.restarts == 0


def test_trouble_with_key_or_disk_is_an_answer_not_a_crash(start, tmp_path, monkeypatch):
    ref = start()
    ref.ask(ChangeSecrets(app="shop", set={"A": "old"}))
    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", lambda *_: (_ for _ in ()).throw(StateError("the disk is full")))
        with pytest.raises(StateError, match="full"):
            ref.ask(ChangeSecrets(app="shop", set={"A": "new"}))
    (tmp_path / "secrets.key").rename(tmp_path / "elsewhere")
    for message in (ChangeSecrets(app="shop", set={"A": "new"}), RotateSecrets()):
        with pytest.raises(SecretsUnreadable, match="lost"):
            ref.ask(message)
    assert list(ref.ask(GetSecretNames(app="shop"))) == ["A"]
    assert ref.restarts == 0


def test_a_new_key(start, values, tmp_path, events):
    ref = start()
    ref.ask(ChangeSecrets(app="shop", set={"A": "one"}))
    old = (tmp_path / "secrets.key").read_bytes()
    assert ref.ask(RotateSecrets()) == 1
    assert (tmp_path / "secrets.key").read_bytes() != old
    assert values("shop") == {"A": "one"}
    assert kinds(events)[-1] == ("secrets.rotated", None, "1 secrets have a new key")


def test_a_rotation_that_was_interrupted_is_ended_at_the_start(start, values, tmp_path, events):
    start().ask(ChangeSecrets(app="shop", set={"A": "one"}))
    (tmp_path / "secrets.key.next").write_text("ab" * 32)
    (tmp_path / "secrets.key.next").chmod(0o600)
    ref = start()
    assert ref.ask(GetSecretNames(app="shop"))
    assert not (tmp_path / "secrets.key.next").exists()
    assert (tmp_path / "secrets.key").read_text() == "ab" * 32
    assert values("shop") == {"A": "one"}
    assert kinds(events)[-1][0] == "secrets.rotated"


def test_one_that_cannot_be_ended_is_told_and_stops_nobody(start, tmp_path, events):
    start().ask(ChangeSecrets(app="shop", set={"A": "one"}))
    (tmp_path / "secrets.key").write_text("cd" * 32)
    (tmp_path / "secrets.key.next").write_text("ab" * 32)
    (tmp_path / "secrets.key.next").chmod(0o600)
    ref = start()
    assert list(ref.ask(GetSecretNames(app="shop"))) == ["A"]
    assert ref.restarts == 0
    assert kinds(events)[-1][0] == "secrets.refused"

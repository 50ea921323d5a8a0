"""API tokens: told once, kept as digests, gone when revoked."""

from __future__ import annotations

import hashlib
import re

import pytest

from ndactors.actors import access
from ndactors.actors.access import AccessActor
from ndactors.adapters.state_files import StateFiles
from ndactors.errors import Invalid, NotFound, StateError, TooLarge
from ndactors.messages.access import CreateToken, GetTokens, RevokeToken, TokenIdentity, VerifyToken
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path):
    return StateFiles(tmp_path / "state", lambda kind, words: None)


@pytest.fixture
def events():
    """Nobody lives there: what was told stays in the mailbox."""
    return Ref("events")


@pytest.fixture
def start(state, clock, events):
    """The actor's ref, as a daemon that starts now has it."""
    roots = []

    def started() -> Ref:
        while roots:
            assert roots.pop().stop(5)
        ref = Ref("access")
        child = Child(ref, AccessActor, state, events, clock)
        roots.append(
            Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        )
        assert roots[0].wait_started(5)
        return ref

    yield started
    for root in roots:
        assert root.stop(5)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def test_a_token_is_told_once_and_kept_as_a_digest(start, tmp_path):
    ref = start()
    made = ref.ask(CreateToken(name="ci", role="operator", apps=("shop",), by="api:ana"))
    assert re.fullmatch(r"ndt_[a-z2-7]{52}", made.secret)
    assert made.secret not in repr(made)
    assert (made.token.name, made.token.apps, made.token.created_by) == ("ci", ("shop",), "api:ana")
    on_disk = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert made.secret[4:].encode() not in on_disk
    assert digest(made.secret).encode() in on_disk
    assert made.secret not in str(ref.ask(GetTokens()))
    identity = TokenIdentity(id=made.token.id, name="ci", role="operator", apps=("shop",))
    assert ref.ask(VerifyToken(digest=digest(made.secret))) == identity
    assert start().ask(VerifyToken(digest=digest(made.secret))) == identity, "it outlives the daemon"


def test_tokens_differ(start):
    ref = start()
    secrets = {ref.ask(CreateToken(name="ci", by="x")).secret for _ in range(50)}
    assert len(secrets) == len({row.id for row in ref.ask(GetTokens())}) == 50


def test_a_wrong_or_revoked_one_is_nobody(start):
    ref = start()
    made = ref.ask(CreateToken(name="ci", by="x"))
    for wrong in ("", digest("ndt_"), digest(made.secret)[:-1], made.secret, digest(made.secret).upper()):
        with pytest.raises(NotFound):
            ref.ask(VerifyToken(digest=wrong))
    assert ref.ask(RevokeToken(id=made.token.id)).name == "ci"
    for restarted in (False, True):
        again = start() if restarted else ref
        with pytest.raises(NotFound):
            again.ask(VerifyToken(digest=digest(made.secret)))
        with pytest.raises(NotFound):
            again.ask(RevokeToken(id=made.token.id))
        assert again.ask(GetTokens()) == ()


def test_a_hook_is_no_key_and_a_key_no_hook(start):
    ref = start()
    hook = ref.ask(CreateToken(name="git", kind="hook", apps=("shop",), role="viewer", by="x"))
    key = ref.ask(CreateToken(name="ci", apps=("shop",), by="x"))
    assert hook.secret.startswith("ndh_")
    assert ref.ask(VerifyToken(digest=digest(hook.secret), kind="hook")).apps == ("shop",)
    for secret, kind in ((hook.secret, "api"), (key.secret, "hook")):
        with pytest.raises(NotFound):
            ref.ask(VerifyToken(digest=digest(secret), kind=kind))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " "},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"apps": ()},
        {"apps": ("shop", "../x")},
        {"apps": ("Shop",)},
        {"apps": tuple(f"a{n}" for n in range(101))},
        {"apps": ("shop",), "role": "admin"},
        {"kind": "hook"},
        {"kind": "hook", "apps": ("shop", "blog")},
        {"kind": "hook", "apps": ()},
    ],
)
def test_what_makes_no_sense_is_refused(start, wrong):
    ref = start()
    with pytest.raises(Invalid):
        ref.ask(CreateToken(**{"name": "ci", "by": "x", **wrong}))
    assert ref.ask(GetTokens()) == ()


def test_apps_are_kept_once_each(start):
    assert start().ask(CreateToken(name="ci", apps=("b", "a", "b"), by="x")).token.apps == ("a", "b")


def test_there_are_only_so_many(start, monkeypatch):
    monkeypatch.setattr(access, "MAX_TOKENS", 2)
    ref = start()
    made = [ref.ask(CreateToken(name="ci", by="x")) for _ in range(2)]
    with pytest.raises(TooLarge):
        ref.ask(CreateToken(name="ci", by="x"))
    ref.ask(RevokeToken(id=made[0].token.id))
    ref.ask(CreateToken(name="ci", by="x"))


def test_when_it_was_used_is_known_roughly_and_not_written_each_time(start, state, clock, monkeypatch):
    ref = start()
    made = ref.ask(CreateToken(name="ci", by="x"))
    saves = []
    real = StateFiles.save
    monkeypatch.setattr(StateFiles, "save", lambda self, name, value: (saves.append(name), real(self, name, value)))
    assert ref.ask(GetTokens())[0].used_at is None
    first = clock.now
    for _ in range(100):
        ref.ask(VerifyToken(digest=digest(made.secret)))
        clock.now += 30
    assert ref.ask(GetTokens())[0].used_at == first
    assert saves == ["tokens"]
    clock.now += 3600
    ref.ask(VerifyToken(digest=digest(made.secret)))
    assert start().ask(GetTokens())[0].used_at == clock.now
    clock.now -= 86_400  # the clock was set back
    ref = start()
    ref.ask(VerifyToken(digest=digest(made.secret)))
    assert ref.ask(GetTokens())[0].used_at == clock.now


def test_a_full_disk_is_an_answer_and_changes_nothing(start, monkeypatch):
    ref = start()
    made = ref.ask(CreateToken(name="ci", by="x"))

    def full(self, name, value):
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", full)
        with pytest.raises(StateError, match="full"):
            ref.ask(CreateToken(name="more", by="x"))
        with pytest.raises(StateError, match="full"):
            ref.ask(RevokeToken(id=made.token.id))
        assert ref.ask(VerifyToken(digest=digest(made.secret))).name == "ci", "who has one may go on"
    assert ref.restarts == 0
    assert [row.name for row in ref.ask(GetTokens())] == ["ci"]


def test_making_and_revoking_are_events_without_the_secret(start, events):
    ref = start()
    made = ref.ask(CreateToken(name="ci", apps=("shop",), by="api:ana"))
    ref.ask(RevokeToken(id=made.token.id))
    told = list(events.mailbox.items)
    assert [(event.kind, event.reason) for event in told] == [
        ("token.created", "ci (api, operator, for shop) by api:ana"),
        ("token.revoked", "ci (api, operator, for shop)"),
    ]
    assert made.secret not in str(told)

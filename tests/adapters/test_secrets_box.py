"""Secrets on disk: encrypted, bound to their place, safe over every accident of their key."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import stat

import msgspec
import pytest

from ndactors.adapters import secret_keys, secrets_box, state_files
from ndactors.adapters.secrets_box import Record, SecretBox
from ndactors.adapters.state_files import Envelope, StateFiles
from ndactors.errors import Invalid, NotFound, SecretsUnreadable, StateError, TooLarge


@pytest.fixture
def reports():
    return []


@pytest.fixture
def make(tmp_path, reports):
    """A box as a daemon that starts now has it."""

    def made(environment: str = "dev", credentials=None) -> SecretBox:
        files = StateFiles(tmp_path / "state", lambda kind, words: reports.append(kind))
        return SecretBox(
            files, tmp_path, environment, credentials=credentials, report=lambda kind, _: reports.append(kind)
        )

    return made


@pytest.fixture
def record_of(tmp_path):
    """Reads an app's record, or writes one as somebody would who knows the format but not the key."""
    path = tmp_path / "state" / "secrets"

    def access(app: str, change: Record | bytes | None = None) -> Record:
        file = path / f"{app}.json"
        if change is not None:
            data = change if isinstance(change, bytes) else msgspec.json.encode(change)
            digest = hashlib.sha256(data).hexdigest()
            file.write_bytes(msgspec.json.encode(Envelope(sha256=digest, data=msgspec.Raw(data))))
        return msgspec.json.decode(msgspec.json.decode(file.read_bytes(), type=Envelope).data, type=Record)

    return access


def files_below(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_set_values_names_delete(make):
    box = make()
    assert (box.names("shop"), box.values("shop"), box.marks("shop")) == ({}, {}, {})
    box.set("shop", "DATABASE_URL", "postgres://ü\n\u2028")
    box.set("shop", "empty", "")
    assert make().values("shop") == {"DATABASE_URL": "postgres://ü\n\u2028", "empty": ""}
    assert list(make().names("shop")) == ["DATABASE_URL", "empty"]
    assert make().names("shop")["empty"].endswith("Z")
    box.delete("shop", "empty")
    assert make().values("shop") == {"DATABASE_URL": "postgres://ü\n\u2028"}
    with pytest.raises(NotFound):
        box.delete("shop", "empty")


def test_nothing_of_a_value_is_on_disk(make, tmp_path):
    value = "correct-horse-battery-staple"
    make().set("shop", "KEY", value)
    everything = files_below(tmp_path)
    for form in (
        value.encode(),
        base64.b64encode(value.encode())[:-4],
        value[:12].encode(),
        value.encode().hex().encode(),
    ):
        assert form not in everything
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_what_was_deleted_or_replaced_is_in_no_copy(make, record_of, tmp_path):
    box = make()
    box.set("shop", "A", "one")
    first = record_of("shop").environments["dev"]["A"].box
    box.set("shop", "A", "two")
    second = record_of("shop").environments["dev"]["A"].box
    assert first.encode() not in files_below(tmp_path)
    box.delete("shop", "A")
    assert second.encode() not in files_below(tmp_path)


def test_apps_and_environments_have_their_own(make):
    make("dev").set("shop", "A", "dev")
    make("prod").set("shop", "A", "prod")
    make("prod").set("blog", "A", "blog")
    assert make("dev").values("shop") == {"A": "dev"}
    assert make("prod").values("shop") == {"A": "prod"}
    assert make("dev").values("blog") == {}


@pytest.mark.parametrize(
    ("app", "name", "value", "error"),
    [
        ("shop", "", "x", Invalid),
        ("shop", "A B", "x", Invalid),
        ("shop", "A\n", "x", Invalid),
        ("shop", "../../A", "x", Invalid),
        ("shop", "A" * 129, "x", Invalid),
        ("shop", "A", "x\0", Invalid),
        ("shop", "A", "\ud800", Invalid),
        ("shop", "A", "ü" * 32769, TooLarge),
        ("../shop", "A", "x", NotFound),
        ("shop/x", "A", "x", NotFound),
        ("", "A", "x", NotFound),
        ("shop\n", "A", "x", NotFound),
    ],
)
def test_bad_input_changes_nothing(make, tmp_path, app, name, value, error):
    make().set("shop", "GOOD", "x")
    before = files_below(tmp_path)
    with pytest.raises(error):
        make().change(app, {"OTHER": "y", name: value}, ())
    assert files_below(tmp_path) == before


def test_limits(make):
    box = make()
    box.set("shop", "A", "x" * 65536)
    with pytest.raises(TooLarge, match="1 MiB"):
        box.change("shop", {f"B{n}": "x" * 65536 for n in range(16)}, ())
    box.change("many", {f"N{n}": "x" for n in range(1000)}, ())
    with pytest.raises(TooLarge, match="1000"):
        box.set("many", "MORE", "x")
    box.change("many", {"MORE": "x"}, ("N0",))
    assert len(box.names("many")) == 1000


def test_one_that_is_not_there_stops_the_whole_change(make):
    box = make()
    box.set("shop", "A", "1")
    with pytest.raises(NotFound):
        box.change("shop", {"A": "2"}, ("B",))
    assert box.values("shop") == {"A": "1"}


# -- marks -----------------------------------------------------------------------------------------


def test_marks_follow_the_value_and_nothing_else(make):
    box = make()
    box.set("shop", "A", "one")
    first = box.marks("shop")
    box.set("shop", "A", "one")
    assert box.marks("shop") == first
    box.set("shop", "A", "two")
    assert box.marks("shop") != first
    box.set("shop", "A", "one")
    assert make().marks("shop") == first
    box.set("shop", "B", "one")
    box.set("blog", "A", "one")
    make("prod").set("shop", "A", "one")
    marks = [*box.marks("shop").values(), *box.marks("blog").values(), *make("prod").marks("shop").values()]
    assert len(set(marks)) == 4, "equal values do not show"
    assert hashlib.sha256(b"one").hexdigest()[:8] not in str(marks)


def test_marks_stay_when_the_key_changes_so_that_nothing_restarts(make):
    box = make()
    box.set("shop", "A", "one")
    first = box.marks("shop")
    assert box.rotate() == 1
    assert make().marks("shop") == first
    make().set("shop", "A", "one")
    assert make().marks("shop") == first


def test_marks_need_no_key(make, tmp_path):
    make().set("shop", "A", "one")
    first = make().marks("shop")
    (tmp_path / "secrets.key").unlink()
    assert make().marks("shop") == first


# -- somebody writes to the disk -------------------------------------------------------------------


def test_every_changed_byte_is_noticed(make, record_of, tmp_path):
    make().change("shop", {"A": "one", "B": "two"}, ())
    data = msgspec.json.encode(record_of("shop"))
    right = {"A": "one", "B": "two"}
    refused = 0
    for place in range(len(data)):
        for bit in (0, 4):
            for copy in (tmp_path / "state" / "secrets").glob("shop*"):
                copy.unlink()
            changed = data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]
            try:
                record_of("shop", changed)
            except msgspec.DecodeError:
                pass  # no record any more: the store must live with that too
            try:
                found = make().values("shop")
            except SecretsUnreadable:
                refused += 1
            else:
                assert not found or found == right or found.items() < right.items(), (place, changed)
                assert found != right or changed == data
    assert refused > len(data), "most places are protected by the key, not only by the format"


def test_every_truncated_ciphertext_is_refused(make, record_of):
    make().set("shop", "A", "one")
    record = record_of("shop")
    entry = record.environments["dev"]["A"]
    box = base64.b64decode(entry.box)
    for length in range(len(box)):
        short = msgspec.structs.replace(entry, box=base64.b64encode(box[:length]).decode())
        record_of("shop", Record(environments={"dev": {"A": short}}))
        with pytest.raises(SecretsUnreadable):
            make().values("shop")
    record_of("shop", record)
    assert make().values("shop") == {"A": "one"}


def test_records_cannot_be_swapped(make, record_of):
    make("dev").change("shop", {"A": "one", "B": "two"}, ())
    make("prod").set("shop", "A", "three")
    make("dev").set("blog", "A", "four")
    shop, blog = record_of("shop"), record_of("blog")
    dev, prod = shop.environments["dev"], shop.environments["prod"]
    swaps = {
        "names": {"dev": {"A": dev["B"], "B": dev["A"]}},
        "environments": {"dev": prod, "prod": dev},
        "apps": {"dev": blog.environments["dev"]},
        "time": {"dev": {"A": msgspec.structs.replace(dev["A"], set_at="2020-01-01T00:00:00Z")}},
        "mark": {"dev": {"A": msgspec.structs.replace(dev["A"], mark=dev["B"].mark)}},
        "size": {"dev": {"A": msgspec.structs.replace(dev["A"], size=1)}},
    }
    for what, environments in swaps.items():
        record_of("shop", Record(environments=environments))
        with pytest.raises(SecretsUnreadable, match="changed on disk"):
            make("dev").values("shop")
        assert what


def test_a_changed_secret_can_be_set_again(make, record_of):
    make().change("shop", {"A": "one", "B": "two"}, ())
    record = record_of("shop")
    dev = record.environments["dev"]
    record_of("shop", Record(environments={"dev": {"A": dev["B"], "B": dev["B"]}}))
    with pytest.raises(SecretsUnreadable):
        make().rotate()
    make().set("shop", "A", "one")
    assert make().values("shop") == {"A": "one", "B": "two"}


# -- keys ------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_for_its_owner_alone(make, tmp_path):
    make().values("shop")
    make().names("shop")
    assert not (tmp_path / "secrets.key").exists()
    make().set("shop", "A", "one")
    key = (tmp_path / "secrets.key").read_bytes()
    assert stat.S_IMODE((tmp_path / "secrets.key").stat().st_mode) == 0o600
    make().set("blog", "A", "one")
    assert (tmp_path / "secrets.key").read_bytes() == key
    assert len(bytes.fromhex(key.decode())) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o777])
def test_a_key_that_others_could_read_is_closed_with_a_warning(make, tmp_path, reports, caplog, mode):
    make().set("shop", "A", "one")
    (tmp_path / "secrets.key").chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert make().values("shop") == {"A": "one"}
    assert stat.S_IMODE((tmp_path / "secrets.key").stat().st_mode) == 0o600
    assert reports == ["secrets.key_exposed"]
    assert f"{mode:04o}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_a_key_of_somebody_else_that_others_can_read_is_refused(make, tmp_path):
    make().set("shop", "A", "one")
    key = tmp_path / "secrets.key"
    key.chmod(0o644)
    os.chown(key, 12345, 12345)
    with pytest.raises(SecretsUnreadable, match="another user"):
        make().values("shop")
    assert stat.S_IMODE(key.stat().st_mode) == 0o644


@pytest.mark.parametrize("accident", ["lost", "another", "short", "empty", "long", "folder", "link to nothing"])
def test_a_key_that_is_lost_or_wrong_loses_nothing(make, tmp_path, accident):
    make().set("shop", "A", "one")
    key = tmp_path / "secrets.key"
    right = key.read_bytes()
    key.unlink()
    if accident == "folder":
        key.mkdir()
    elif accident == "link to nothing":
        key.symlink_to(tmp_path / "nothing")
    elif accident != "lost":
        key.write_bytes({"another": b"ab" * 32, "short": b"x" * 31, "empty": b"", "long": b"x" * 4097}[accident])
        key.chmod(0o600)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    box = make()
    for attempt in (
        lambda: box.values("shop"),
        lambda: box.set("shop", "A", "two"),
        lambda: box.set("shop", "B", "two"),
        lambda: box.set("blog", "A", "two"),
        lambda: box.delete("shop", "A"),
        box.rotate,
    ):
        with pytest.raises(SecretsUnreadable) as told:
            attempt()
        assert str(key) in str(told.value)
    assert list(box.names("shop")) == ["A"], "names are told all the same"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    if key.is_dir():
        key.rmdir()
    else:
        key.unlink(missing_ok=True)
    key.write_bytes(right)
    key.chmod(0o600)
    assert box.values("shop") == {"A": "one"}, "put back, it is used without a restart"


def test_a_key_replaced_while_we_run_is_not_written_with(make, tmp_path):
    box = make()
    box.set("shop", "A", "one")
    (tmp_path / "secrets.key").write_bytes(b"ab" * 32)
    assert box.values("shop") == {"A": "one"}, "containers are still made"
    with pytest.raises(SecretsUnreadable):
        box.set("shop", "B", "two")


def test_the_key_of_systemd_comes_first(make, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "nextdeploy-key").write_bytes(os.urandom(32))
    (credentials / "nextdeploy-key").chmod(0o440)
    make(credentials=credentials).set("shop", "A", "one")
    assert not (tmp_path / "secrets.key").exists()
    assert make(credentials=credentials).values("shop") == {"A": "one"}
    with pytest.raises(SecretsUnreadable):
        make().values("shop")


def test_credentials_without_ours_leave_the_file(make, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    make(credentials=credentials).set("shop", "A", "one")
    assert (tmp_path / "secrets.key").exists()


# -- rotation --------------------------------------------------------------------------------------


def test_rotation_changes_the_key_and_every_ciphertext(make, tmp_path, record_of):
    make("dev").change("shop", {"A": "one", "B": "two"}, ())
    make("prod").set("blog", "C", "three")
    old = (tmp_path / "secrets.key").read_bytes()
    before = [
        entry.box for app in ("shop", "blog") for e in record_of(app).environments.values() for entry in e.values()
    ]
    box = make("dev")
    assert box.rotate() == 3
    assert (tmp_path / "secrets.key").read_bytes() != old
    assert not (tmp_path / "secrets.key.next").exists()
    everything = files_below(tmp_path)
    assert not [part for part in before if part.encode() in everything]
    for one in (box, make("dev")):
        assert one.values("shop") == {"A": "one", "B": "two"}
    assert make("prod").values("blog") == {"C": "three"}
    (tmp_path / "secrets.key").write_bytes(old)
    with pytest.raises(SecretsUnreadable):
        make("dev").values("shop")


def test_nothing_to_rotate(make, tmp_path):
    assert make().rotate() == 0
    assert make().resume() == 0
    assert not (tmp_path / "secrets.key").exists()


class Crash(BaseException):
    """The process ends here."""


def steps_of(monkeypatch, until: int, *, error: type[BaseException] = Crash) -> list[str]:
    """Let ``until`` changes of the disk happen and fail at the next. Returns what was done."""
    done: list[str] = []
    real_replace, real_rename, real_link = state_files.replace_file, os.rename, os.link

    def step(name):
        if len(done) >= until:
            raise error(name) if error is Crash else error(28, "No space left on device")
        done.append(name)

    def rename(source, target, *more, **named):
        step("before rename")
        real_rename(source, target, *more, **named)
        step("after rename")

    def link(source, target, *more, **named):
        step("before link")
        real_link(source, target, *more, **named)

    def replace(*given, **named):
        step("write")
        real_replace(*given, **named)
        step("written")

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "link", link)
    for module in (state_files, secret_keys):
        monkeypatch.setattr(module, "replace_file", replace)
    return done


@pytest.mark.parametrize("error", [Crash, OSError], ids=["killed", "disk full"])
def test_a_rotation_that_ends_at_any_step_loses_nothing_and_can_go_on(make, tmp_path, monkeypatch, error):
    values = {"shop": {"A": "one", "B": "two"}, "blog": {"A": "three"}}
    for app, those in values.items():
        make().change(app, those, ())
    first = (tmp_path / "secrets.key").read_bytes()
    step = 0
    while True:
        box = make()
        with monkeypatch.context() as patch:
            done = steps_of(patch, step, error=error)
            try:
                box.rotate()
                ended = True
            except (Crash, StateError):
                ended = False
        for reader in (box, make()):
            assert {app: reader.values(app) for app in values} == values, (step, done)
        make().set("shop", "B", "two")
        assert make().values("shop") == values["shop"], "one can go on working in the middle of it"
        if ended:
            break
        step += 1
    assert step > 15
    assert (tmp_path / "secrets.key").read_bytes() != first
    assert not (tmp_path / "secrets.key.next").exists()


def test_an_interrupted_rotation_is_ended_at_the_next_start(make, tmp_path, monkeypatch):
    make().change("shop", {"A": "one", "B": "two"}, ())
    old = (tmp_path / "secrets.key").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Crash):
        steps_of(patch, 8)
        make().rotate()
    assert (tmp_path / "secrets.key.next").exists()
    assert make().resume() == 2
    assert not (tmp_path / "secrets.key.next").exists()
    assert (tmp_path / "secrets.key").read_bytes() != old
    assert make().values("shop") == {"A": "one", "B": "two"}
    assert make().resume() == 0


def test_the_last_good_copy_is_readable_after_a_rotation(make, tmp_path, reports):
    make().set("shop", "A", "one")
    make().rotate()
    (tmp_path / "state" / "secrets" / "shop.json").write_bytes(b"damaged")
    assert make().values("shop") == {"A": "one"}
    assert reports == ["state.corrupt"]


def test_from_a_file_to_a_credential_and_to_another_credential(make, tmp_path):
    make().set("shop", "A", "one")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "nextdeploy-key").write_bytes(b"first" * 8)
    box = make(credentials=credentials)
    assert box.values("shop") == {"A": "one"}
    assert box.rotate() == 1
    (tmp_path / "secrets.key").unlink()
    assert make(credentials=credentials).values("shop") == {"A": "one"}
    (credentials / "nextdeploy-key").rename(credentials / "nextdeploy-key-old")
    (credentials / "nextdeploy-key").write_bytes(b"second" * 8)
    box = make(credentials=credentials)
    assert box.values("shop") == {"A": "one"}
    box.set("shop", "B", "two")
    assert box.rotate() == 2
    (credentials / "nextdeploy-key-old").unlink()
    assert make(credentials=credentials).values("shop") == {"A": "one", "B": "two"}


def test_a_disk_that_is_full_is_told_and_loses_nothing(make, monkeypatch):
    make().set("shop", "A", "one")
    with monkeypatch.context() as patch:
        steps_of(patch, 0, error=OSError)
        with pytest.raises(StateError, match=r"is full|No space left"):
            make().set("shop", "A", "two")
    assert make().values("shop") == {"A": "one"}


def test_what_blocks_runs_where_it_is_told_to(tmp_path):
    calls = []

    def apply(call):
        calls.append(call)
        return call()

    box = SecretBox(StateFiles(tmp_path / "state", lambda kind, words: None), tmp_path, "dev", apply=apply)
    box.set("shop", "A", "one")
    assert len(calls) == 3, "the key, and the record twice"
    assert secrets_box.FOLDER == "secrets"

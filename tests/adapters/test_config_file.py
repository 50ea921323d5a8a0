"""The configuration file, written while it is in force: all or nothing, and never without a way back."""

from __future__ import annotations

import datetime
import itertools
import os
import stat
import threading

import msgspec
import pytest

from ndactors.adapters.config_file import ConfigFile
from ndactors.adapters.config_history import ConfigVersions
from ndactors.adapters.state_files import StateFiles
from ndactors.core.masking import MASK
from ndactors.errors import ConfigurationError, Conflict, Invalid, NotFound, StateError, TooLarge
from ndactors.messages.config import GetConfigHistory

ONE = "apps: {shop: {command: one, env: {API_KEY: hunter1}}}\n"
TWO = "apps: {shop: {command: two, env: {API_KEY: hunter2}}}\n"


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "nextdeploy.yml"
    path.write_text(ONE)
    return path


@pytest.fixture
def file(path):
    return ConfigFile(path, "dev", (), {}, lambda call: call())


@pytest.fixture
def versions_of(tmp_path):
    """As a daemon that starts now has them."""
    clock = itertools.count()

    def make(file: ConfigFile) -> ConfigVersions:
        state = StateFiles(tmp_path / "state", lambda kind, words: None)
        return ConfigVersions(
            file,
            state,
            now=lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=next(clock)),
        )

    return make


def only_file(path):
    return [other.name for other in path.parent.iterdir()] == [path.name]


def fail_to_rename(patch, path, error):
    """The last step fails, and only that."""
    real = os.rename

    def rename(source, target):
        if os.fspath(target) == os.fspath(path):
            raise error
        real(source, target)

    patch.setattr(os, "rename", rename)


def command(file):
    return file.current().apps["shop"].processes["web"].command


# -- the file --------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_loaded_next(file, path):
    before = file.etag()
    assert file.write(TWO) == file.etag() != before
    assert path.read_text() == TWO == file.text()
    assert command(file) == "one", "not before it is told to"
    settings, _ = file.reload()
    assert settings.apps["shop"].processes["web"].command == "two"
    assert only_file(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("apps: {shop: {command: x, prot: 1}}\n", ":1:27: apps.shop.prot: Unknown key; did you mean `port`?"),
        ("apps: [\n", "Not valid YAML"),
        ("", "The file is empty."),
        ("apps: {shop: {command: x, env_file: gone.env}}", "`gone.env` cannot be read"),
        ("apps: {shop: {command: '${NOT_SET}'}}", "The variable `NOT_SET` is not set."),
    ],
)
def test_a_wrong_text_changes_nothing_and_says_where(file, path, text, line):
    inode = path.stat().st_ino
    with pytest.raises(ConfigurationError) as told:
        file.write(text)
    assert line in str(told.value)
    assert str(told.value).startswith(str(path)), "the file that is meant, not a temporary one"
    assert (path.read_text(), path.stat().st_ino) == (ONE, inode)
    assert only_file(path)


def test_too_much_and_no_text(file, path):
    with pytest.raises(TooLarge):
        file.write(ONE + "#" * 1024 * 1024)
    with pytest.raises(Invalid):
        file.write("a: \ud800")
    assert path.read_text() == ONE


def test_relative_paths_count_from_the_files_folder(file, path):
    (path.parent / "shop.env").write_text("A=1\n")
    file.write("apps: {shop: {command: x, env_file: shop.env}}\n")
    assert file.reload()[0].apps["shop"].processes["web"].env == {"A": "1"}


def test_a_change_by_hand_is_a_conflict(file, path):
    read = file.etag()
    path.write_text(TWO)
    with pytest.raises(Conflict):
        file.write(ONE, (read,))
    assert path.read_text() == TWO
    file.write(ONE, ("other", file.etag()))
    assert path.read_text() == ONE


def test_a_change_by_hand_at_the_last_moment_is_a_conflict_too(file, path, monkeypatch):
    check = ConfigFile._check

    def slow(self, temporary):
        check(self, temporary)
        path.write_text("# by hand\n" + ONE)

    monkeypatch.setattr(ConfigFile, "_check", slow)
    with pytest.raises(Conflict):
        file.write(TWO)
    assert path.read_text() == "# by hand\n" + ONE
    assert only_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664])
def test_the_mode_stays(file, path, mode):
    path.chmod(mode)
    file.write(TWO)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_the_owner_stays(file, path):
    os.chown(path, 12345, 54321)
    file.write(TWO)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_link_is_followed_to_its_target(path, tmp_path):
    target = tmp_path / "elsewhere" / "real.yml"
    target.parent.mkdir()
    (target.parent / "shop.env").write_text("A=1\n")
    path.rename(target)
    path.symlink_to("../elsewhere/real.yml")
    file = ConfigFile(path, "dev", (), {}, lambda call: call())
    file.write("apps: {shop: {command: x, env_file: shop.env}}\n")
    assert path.is_symlink()
    assert "env_file" in target.read_text()
    assert only_file(path)


def test_a_file_that_is_read_only_is_left(file, path):
    path.chmod(0o444)
    with pytest.raises(StateError, match=r"read-only \(mode 0444\)"):
        file.write(TWO)
    assert path.read_text() == ONE
    assert only_file(path)


@pytest.mark.parametrize(
    ("number", "words"), [(30, "read-only"), (16, "mount"), (13, "may not write"), (28, "disk is full")]
)
@pytest.mark.parametrize("call", ["open", "rename"])
def test_a_folder_that_cannot_be_written_is_told_in_words(file, path, monkeypatch, number, words, call):
    real_open = os.open

    def refuse(*given, **named):
        if call == "open" and not given[1] & os.O_CREAT:
            return real_open(*given, **named)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StateError, match=words):
        file.write(TWO)
    monkeypatch.undo()
    assert path.read_text() == ONE
    assert only_file(path)


def test_a_file_that_is_gone_can_be_written_again(file, path):
    path.unlink()
    assert (file.text(), file.etag()) == (None, "")
    file.write(TWO)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == TWO


def test_nobody_ever_sees_half_a_file(file, path):
    long = [f"apps: {{shop: {{command: {word * 5000}}}}}\n" for word in ("x", "y")]
    seen, over = set(), threading.Event()

    def look():
        while not over.is_set():
            seen.add(path.read_text())

    looker = threading.Thread(target=look)
    looker.start()
    for number in range(20):
        file.write(long[number % 2])
    over.set()
    looker.join()
    assert seen <= {ONE, *long}


# -- versions --------------------------------------------------------------------------------------


def rows(versions, **query):
    page = versions.page(GetConfigHistory(**query))
    return [(row.version, row.by, row.message) for row in page.items]


def test_the_first_version_is_what_was_there(file, versions_of):
    versions = versions_of(file)
    view = versions.view()
    assert (view.version, view.text) == (None, ONE)
    assert "hunter1" not in view.effective
    written = versions.put(TWO, "api:ana", "two", (view.etag,))
    assert (written.version, written.etag) == (2, file.etag())
    assert rows(versions) == [(2, "api:ana", "two"), (1, "file", None)]
    newest = versions.page(GetConfigHistory()).items[0]
    assert newest.at == "2026-01-01T00:00:01Z"
    assert newest.diff == (
        "--- version 1\n+++ version 2\n@@ -1 +1 @@\n"
        f"-apps: {{shop: {{command: one, env: {{API_KEY: {MASK}}}}}}}\n"
        f"+apps: {{shop: {{command: two, env: {{API_KEY: {MASK}}}}}}}\n"
    )
    assert versions_of(file).view().version == 2


def test_a_change_by_hand_is_a_version(file, path, versions_of):
    versions = versions_of(file)
    assert versions.observe() == 1
    assert versions.observe() == 1
    path.write_text(TWO)
    assert versions.view().version is None, "not loaded yet"
    assert versions.observe() == 2
    versions.put(ONE, "api:ana")
    path.write_text(TWO + "# more\n")
    versions.put(ONE + "# less\n", "api:ana")
    assert [by for _, by, _ in rows(versions)] == ["api:ana", "file", "api:ana", "file", "file"]


def test_rollback_is_a_version_of_its_own(file, path, versions_of):
    versions = versions_of(file)
    versions.put(TWO, "api:ana")
    assert versions.rollback(1, "api:bob").version == 3
    assert path.read_text() == ONE
    assert rows(versions, limit=1) == [(3, "api:bob", "back to version 1")]
    for wrong in (0, 4, 99):
        with pytest.raises(NotFound):
            versions.rollback(wrong, "api:bob")


def test_what_is_refused_leaves_no_version(file, path, versions_of, monkeypatch):
    versions = versions_of(file)
    versions.observe()
    for text, if_match, error in (
        ("apps: 5", (), ConfigurationError),
        (TWO, ("other",), Conflict),
        (ONE, ("other",), Conflict),
    ):
        with pytest.raises(error):
            versions.put(text, "api:ana", None, if_match)
    with monkeypatch.context() as patch:
        fail_to_rename(patch, path, OSError(28, "No space left on device"))
        with pytest.raises(StateError):
            versions.put(TWO, "api:ana")
    assert path.read_text() == ONE
    assert rows(versions) == rows(versions_of(file)) == [(1, "file", None)]
    assert versions.put(TWO, "api:ana").version == 2


def test_a_history_that_cannot_be_kept_stops_the_change(file, path, versions_of, monkeypatch):
    versions = versions_of(file)
    versions.observe()

    def full(self, name, value):
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", full)
        with pytest.raises(StateError):
            versions.put(TWO, "api:ana")
    assert path.read_text() == ONE


def test_the_same_text_again_is_no_version(file, versions_of):
    versions = versions_of(file)
    versions.put(TWO, "api:ana")
    assert versions.put(TWO, "api:bob").version == 2
    assert len(rows(versions)) == 2


def test_at_most_a_hundred_are_kept(file, versions_of, tmp_path):
    versions = versions_of(file)
    for number in range(105):
        versions.put(f"{ONE}# {number}\n", "api:ana")
    assert [version for version, _, _ in rows(versions)] == list(range(106, 6, -1))
    assert len(list((tmp_path / "state" / "config").glob("*[0-9].json"))) == 100
    with pytest.raises(NotFound):
        versions.rollback(6, "api:ana")
    assert versions.rollback(7, "api:ana").version == 107
    page = versions.page(GetConfigHistory(limit=30))
    assert (len(page.items), page.next) == (30, 78)
    page = versions.page(GetConfigHistory(limit=100, before=10))
    assert ([row.version for row in page.items], page.next) == ([9, 8], None)


def test_a_lost_index_gives_no_number_twice(file, versions_of, tmp_path):
    versions_of(file).put(TWO, "api:ana")
    for record in (tmp_path / "state").glob("config*.json"):
        record.unlink()
    versions = versions_of(file)
    assert versions.observe() == 3
    assert versions.view().version == 3


def test_a_daemon_that_dies_in_between_leaves_the_old_file(file, path, versions_of, monkeypatch):
    class Died(BaseException):
        pass

    versions = versions_of(file)
    versions.observe()
    with monkeypatch.context() as patch, pytest.raises(Died):
        fail_to_rename(patch, path, Died())
        patch.setattr(ConfigVersions, "_forget", lambda self, before, version: None)  # who is dead tidies nothing up
        versions.put(TWO, "api:ana")
    assert path.read_text() == ONE
    again = versions_of(file)
    assert again.observe() == 3
    assert [by for _, by, _ in rows(again)] == ["file", "api:ana", "file"]
    assert again.view().version == 3


def test_records_hold_what_messages_promise(file, versions_of):
    versions = versions_of(file)
    versions.put(TWO, "api:ana", "m" * 1000)
    for value in (versions.view(), versions.page(GetConfigHistory())):
        msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value))
        assert "hunter" not in repr(value)
    assert len(rows(versions)[0][2]) == 500

"""Secrets on disk, each encrypted and bound to its app, environment and name: one that is swapped, changed or put back
under another name is refused. One greenlet changes them (SecretActor); anybody may read."""

from __future__ import annotations

import base64
import datetime
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from ..core.schema import NAME, STORE_NAME
from ..errors import Invalid, NotFound, SecretsUnreadable, TooLarge
from .off_loop import Apply, run
from .secret_keys import Key, KeyFolder, Keys
from .state_files import StateFiles

log = logging.getLogger("ndactors.secrets")

FOLDER = "secrets"
NONCE_BYTES = 12
MAX_NAME = 128
MAX_VALUE = 64 * 1024
MAX_MANY = 1000
MAX_ALL = 1024 * 1024
"""Bytes of all values of one app and environment: more than a process can be given anyway."""


class Entry(Struct, frozen=True, kw_only=True):
    """``key`` is the id of the key that encrypted ``box`` (base64 of nonce and ciphertext). ``mark`` stays the same when
    the key changes, so that no container is made anew for that. ``size`` is the value's, in bytes."""

    key: str
    set_at: str
    mark: str
    size: int
    box: str


class Record(Struct, frozen=True, kw_only=True):
    """The secrets of one app: environment → name → entry."""

    environments: dict[str, dict[str, Entry]] = field(default_factory=dict)


class SecretBox:
    """``ndactors.ports.SecretStore``. ``apply`` runs what blocks off the event loop; ``now`` gives the time in UTC;
    ``credentials`` is ``$CREDENTIALS_DIRECTORY``."""

    def __init__(
        self,
        state: StateFiles,
        folder: Path,
        environment: str,
        *,
        credentials: Path | None = None,
        report: Callable[[str, str], None] = lambda kind, words: None,
        apply: Apply = lambda call: call(),
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._state = state
        self._place = folder
        self._environment = environment
        self._apply = apply
        self._now = now
        self._folder = KeyFolder(folder, credentials, report, apply)
        self._seen: dict[str, Key] = {}
        self._cached: dict[str, Record] = {}
        """As they are on disk: only we change them."""

    # -- reading -----------------------------------------------------------------------------------

    def names(self, app: str) -> dict[str, str]:
        return {name: entry.set_at for name, entry in sorted(self._entries(app).items())}

    def marks(self, app: str) -> dict[str, str]:
        return {name: entry.mark for name, entry in self._entries(app).items()}

    def values(self, app: str) -> dict[str, str]:
        """``SecretsUnreadable`` if one of them cannot be decrypted: an app never starts with some of its secrets."""
        entries = self._entries(app)
        return {name: self._open(entry, app, self._environment, name) for name, entry in entries.items()}

    # -- changing ----------------------------------------------------------------------------------

    def set(self, app: str, name: str, value: str) -> None:
        self.change(app, {name: value}, ())

    def delete(self, app: str, name: str) -> None:
        self.change(app, {}, (name,))

    def change(self, app: str, values: Mapping[str, str], removed: Sequence[str]) -> None:
        """All of it, or nothing. ``Invalid``, ``TooLarge``, ``NotFound`` for one to remove that is not there,
        ``SecretsUnreadable`` while the key of what is there is missing: nothing is overwritten then."""
        if re.fullmatch(NAME, app) is None:
            raise NotFound(f"There is no app called {app[:60]}.")
        for name, value in values.items():
            _check(name, value)
        records = self._records()
        record = records.get(app, Record())
        entries = dict(record.environments.get(self._environment, {}))
        for name in removed:
            if entries.pop(name, None) is None:
                raise NotFound(f"{app} has no secret called {name[:MAX_NAME]}.")
        if not values and not removed:
            return
        keys = self._keys_on_disk(records, make=bool(values))
        for name, value in values.items():
            entries[name] = self._sealed(app, name, value, entries.get(name), keys.current)
        if len(entries) > MAX_MANY:
            raise TooLarge(f"An app has at most {MAX_MANY} secrets.")
        if sum(entry.size for entry in entries.values()) > MAX_ALL:
            raise TooLarge("All secrets of an app together have at most 1 MiB.")
        self._save(app, replace(record, environments={**record.environments, self._environment: entries}))

    def rotate(self) -> int:
        """Encrypt everything with a new key: one made now, or the credential that was changed. How many secrets there
        are. Stopped at any moment, all of them can still be read, and the next call goes on.

        ``SecretsUnreadable`` if one of them cannot be read: then the old key stays."""
        records = self._records()
        if not any(_entries_of(record) for record in records.values()):
            self._folder.end_rotation()
            return 0
        self._keys_on_disk(records)
        for app, record in records.items():
            for environment, name, entry in _entries_of(record):
                self._open(entry, app, environment, name)
        self._folder.begin_rotation()
        key = self._keys_on_disk(records).current
        count = 0
        for app, record in records.items():
            environments: dict[str, dict[str, Entry]] = {environment: {} for environment in record.environments}
            for environment, name, entry in _entries_of(record):
                environments[environment][name] = self._resealed(entry, app, environment, name, key)
                count += 1
            self._save(app, replace(record, environments=environments))
        self._folder.end_rotation()
        return count

    def resume(self) -> int:
        """End a rotation that was interrupted, if there is one."""
        keys = self._folder.load()
        return self.rotate() if keys is not None and keys.rotating else 0

    # -- keys --------------------------------------------------------------------------------------

    def _keys_on_disk(self, records: Mapping[str, Record], *, make: bool = False) -> Keys:
        """``SecretsUnreadable`` unless they can read everything there is; so nothing is ever encrypted with a key that
        was put in place of the right one."""
        entries = [entry for record in records.values() for _, _, entry in _entries_of(record)]
        keys = self._folder.load()
        if keys is None and make and not entries:
            self._folder.make()
            keys = self._folder.load()
        if keys is None:
            raise self._no_key()
        for entry in entries:
            if entry.key not in keys.all:
                raise self._wrong_key(entry)
        self._seen.update(keys.all)
        return keys

    def _key(self, entry: Entry) -> Key:
        """Keys seen once are remembered: whoever has read an entry may still need the one before."""
        if entry.key not in self._seen:
            keys = self._folder.load()
            if keys is None:
                raise self._no_key()
            self._seen.update(keys.all)
        if entry.key not in self._seen:
            raise self._wrong_key(entry)
        return self._seen[entry.key]

    def _no_key(self) -> SecretsUnreadable:
        return SecretsUnreadable(
            f"The secrets' key {self._folder.place} is lost: put it back. Without it they cannot be read; to set them "
            f"anew, move the folder {FOLDER} of the state away first."
        )

    def _wrong_key(self, entry: Entry) -> SecretsUnreadable:
        return SecretsUnreadable(
            f"The secrets were encrypted with another key (its id is {entry.key}) than the one at {self._folder.place}: "
            "put the right one back. Nothing was changed."
        )

    # -- one secret --------------------------------------------------------------------------------

    def _sealed(self, app: str, name: str, value: str, before: Entry | None, key: Key) -> Entry:
        mark = _mark(key, app, self._environment, name, value)
        if before is not None:
            try:
                mark = before.mark if self._open(before, app, self._environment, name) == value else mark
            except SecretsUnreadable:
                log.warning("the secret %s of %s could not be read and is set anew", name, app)
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = Entry(key=key.id, set_at=stamp, mark=mark, size=len(value.encode()), box="")
        return _closed(entry, app, self._environment, name, value, key)

    def _resealed(self, entry: Entry, app: str, environment: str, name: str, key: Key) -> Entry:
        if entry.key == key.id:
            return entry
        value = self._open(entry, app, environment, name)
        return _closed(replace(entry, key=key.id), app, environment, name, value, key)

    def _open(self, entry: Entry, app: str, environment: str, name: str) -> str:
        from cryptography.exceptions import InvalidTag

        key = self._key(entry)
        try:
            box = base64.b64decode(entry.box, validate=True)
            value = key.cipher.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], _bound(entry, app, environment, name))
            return value.decode()
        except (InvalidTag, ValueError) as error:
            raise SecretsUnreadable(
                f"The secret {name} of {app} was changed on disk by somebody else: it is not used. Set it again."
            ) from error

    # -- records -----------------------------------------------------------------------------------

    def _entries(self, app: str) -> dict[str, Entry]:
        if re.fullmatch(NAME, app) is None:
            return {}
        record = self._cached.get(app) or self._state.load(f"{FOLDER}/{app}", Record)
        if record is None:
            return {}
        self._cached[app] = record
        return record.environments.get(self._environment, {})

    def _records(self) -> dict[str, Record]:
        found = {}
        for path in self._state.names(FOLDER):
            record = self._state.load(path, Record)
            if record is not None:
                found[path.removeprefix(f"{FOLDER}/")] = record
        return found

    def _save(self, app: str, record: Record) -> None:
        """Twice, so that the last good copy has nothing either that was removed, or that an old key can read."""
        for _ in range(2):
            run(self._apply, lambda: self._state.save(f"{FOLDER}/{app}", record), self._place)
            self._cached[app] = record


def _entries_of(record: Record) -> list[tuple[str, str, Entry]]:
    """Environment, name, entry."""
    return [
        (environment, name, entry) for environment, all in record.environments.items() for name, entry in all.items()
    ]


def _check(name: str, value: str) -> None:
    if len(name) > MAX_NAME or re.fullmatch(STORE_NAME, name) is None:
        raise Invalid(f"Not a valid name of a secret; use A-Z, a-z, 0-9, _ . and -, at most {MAX_NAME}.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"The value of {name} is no valid text.") from error
    if "\0" in value:
        raise Invalid(f"The value of {name} has a NUL character, which no variable can hold.")
    if size > MAX_VALUE:
        raise TooLarge(f"The value of {name} is longer than 64 KiB.")


def _parts(*texts: str) -> bytes:
    """Unambiguous: no two lists of texts give the same bytes."""
    return b"".join(f"{len(text.encode())}:".encode() + text.encode() for text in texts)


def _bound(entry: Entry, app: str, environment: str, name: str) -> bytes:
    """What a secret's ciphertext is bound to."""
    return _parts("1", app, environment, name, entry.key, entry.set_at, entry.mark, str(entry.size))


def _closed(entry: Entry, app: str, environment: str, name: str, value: str, key: Key) -> Entry:
    nonce = secrets.token_bytes(NONCE_BYTES)
    box = nonce + key.cipher.encrypt(nonce, value.encode(), _bound(entry, app, environment, name))
    return replace(entry, box=base64.b64encode(box).decode())


def _mark(key: Key, app: str, environment: str, name: str, value: str) -> str:
    return hmac.digest(key.marking, _parts(app, environment, name, value), "sha256").hex()[:32]

"""Trees of files, written into a folder of ours by descriptors: no name is ever looked up through a link, and nothing
that is there already is ever opened."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..core.manifests import Entry
from ..errors import Invalid

E = TypeVar("E", bound=Entry)

PIECE = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_SHARING = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_tree(root: Path, entries: Iterable[E], fill: Callable[[E, int], None], *, shared: bool = False) -> None:
    """Make ``entries``, sorted as a ``Manifest`` sorts them, in the empty folder ``root``. ``fill`` writes a file's
    content to the descriptor it gets. Readable by everybody who can come here; ``shared``: writable too. ``Invalid``
    when two names are one to this file system. Not durable before ``sync``."""
    folder_mode, file_mode = (0o777, 0o666) if shared else (0o755, 0o644)
    with opened_folder(root) as descriptor:
        os.fchmod(descriptor, folder_mode)
        here: list[tuple[str, int]] = []
        try:
            for entry in entries:
                *folders, name = entry.path.split("/")
                common = 0
                while common < min(len(here), len(folders)) and here[common][0] == folders[common]:
                    common += 1
                while len(here) > common:
                    os.close(here.pop()[1])
                for folder in folders[common:]:
                    parent = here[-1][1] if here else descriptor
                    os.mkdir(folder, 0o700, dir_fd=parent)
                    here.append((folder, os.open(folder, _FOLDER, dir_fd=parent)))
                    os.fchmod(here[-1][1], folder_mode)
                parent = here[-1][1] if here else descriptor
                if entry.link is not None:
                    os.symlink(entry.link, name, dir_fd=parent)
                    continue
                file = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
                try:
                    fill(entry, file)
                    os.fchmod(file, file_mode | (0o111 if entry.executable else 0))
                finally:
                    os.close(file)
        except FileExistsError as error:
            raise Invalid(f"{entry.path}: another file has this name here") from error
        finally:
            for _, below in here:
                os.close(below)


def copy(source: int, target: int, size: int) -> int:
    """Copy up to ``size`` bytes between descriptors; returns how many there were. File systems that can (btrfs, XFS)
    share the blocks until one side changes."""
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, size - done)
        except OSError as error:
            if error.errno not in _NO_SHARING:
                raise
            break
        if not count:
            return done
        done += count
    while done < size:
        data = os.read(source, min(PIECE, size - done))
        if not data:
            break
        write_all(target, data)
        done += len(data)
    return done


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Path) -> None:
    """Everything that was written to the file system of ``path`` is durable. One call for a whole tree: a sync of each
    of thousands of files would take minutes on a slow disk."""
    with opened_folder(path) as descriptor:
        if _syncfs is None:
            os.sync()
        elif _syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))


def sync_folder(path: Path) -> None:
    """What was renamed into it is durable."""
    with opened_folder(path) as descriptor:
        os.fsync(descriptor)


def remove(path: Path) -> None:
    """A file or a whole folder, links not followed; nothing there is no error."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if os.name == "posix" else None

"""Read, write, lock and remove files. What may be anything is opened so that a pipe never hangs."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from catalyst_pxeboot.util.errors import PublishError, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that is open for reading: its bytes, and the name that messages give it."""

    path: Path
    bytes: int
    stream: BinaryIO


class Section(io.RawIOBase):
    """A part of a file as a file of its own: `length` bytes from `start` of the descriptor `fd`."""

    def __init__(self, fd: int, start: int, length: int) -> None:
        super().__init__()
        self._fd, self._start, self._length, self._at = fd, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._length - self._at), 0)
        read = os.preadv(self._fd, [view[:count]], self._start + self._at) if count else 0
        self._at += read
        return read


@contextmanager
def open_input(path: Path) -> Iterator[InputFile]:
    """Open the regular file at `path` for a reader; raises `OSError` as `open_regular`."""
    with open_regular(path) as stream:
        yield InputFile(path, os.fstat(stream.fileno()).st_size, stream)


def open_regular(path: Path) -> BinaryIO:
    """Open the regular file at `path` for reading.

    Raises `OSError` as `open` does, and where it is a folder, a pipe, a socket or a device.
    """
    # O_NONBLOCK: opening a pipe would wait for its other end.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path, *, limit: int) -> bytes:
    """Return all of a regular file of at most `limit` bytes; raises `OSError` as `open_regular`."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"More than {limit} bytes", str(path))
    return content


def is_inside(path: str) -> bool:
    """Whether `path` names a file below the folder that it is relative to, and in one way only."""
    return path.isprintable() and all(part not in ("", ".", "..") for part in path.split("/"))


def take_lock(path: Path) -> int | None:
    """Take the lock file at `path`, making it if need be; None if another process holds it."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before removed the name, then let go: such a lock is of no file now.
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)


def list_files(folder: Path) -> list[str]:
    """Return every name below `folder` but folders', relative to it, sorted."""
    found = []
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        found += [str((Path(root) / name).relative_to(folder)) for name in (*files, *links)]
    return sorted(found)


def remove_tree(folder: Path) -> None:
    """Remove `folder` if it is there. What was hard-linked into it keeps its other names."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_MAX_OLD = 16 * 1024 * 1024  # bytes


def write_files(files: Sequence[tuple[Path, bytes]], *, force: bool = False) -> None:
    """Write each file by a rename, making its folders.

    A file that is there already stays if it is the same; if it is not, nothing at all is written
    and `PublishError` says so, unless `force`.
    """
    try:
        wanted = [
            (path, content) for path, content in files if not _is_there(path, content, force=force)
        ]
        for path, content in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    except OSError as error:
        raise from_os_error(error, "the export cannot be written", hint="check --output") from error


def _is_there(path: Path, content: bytes, *, force: bool) -> bool:
    if path.is_dir():
        raise PublishError(f"{path}: is a folder, not a file", hint="give another --output")
    if not os.path.lexists(path):
        return False
    try:
        same = not path.is_symlink() and read_regular(path, limit=_MAX_OLD) == content
    except OSError as error:
        raise PublishError(
            f"{path}: is in the way: {error.strerror}", hint="give another --output"
        ) from error
    if not same and not force:
        raise PublishError(
            f"{path}: is already there and not the same",
            hint="give another --output, or --force to replace it",
        )
    return same


def _replace(path: Path, content: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with staged.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        staged.chmod(0o644)
        staged.replace(path)
    except BaseException:
        with suppress(OSError):
            staged.unlink()
        raise


FILE_MODE = 0o644


def create_file(path: Path) -> int:
    """Create a file for writing; it must not be there yet, not even as a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, FILE_MODE)


def write_file(path: Path, content: bytes, *, time: int) -> None:
    """Write a new file with the tree's mode and time, whatever the umask."""
    fd = create_file(path)
    try:
        with os.fdopen(fd, "wb", closefd=False) as stream:
            stream.write(content)
        finish_file(fd, time)
    finally:
        os.close(fd)


def open_new(path: Path) -> BinaryIO:
    """Open a new file for writing, with the tree's mode whatever the umask; follows no link."""
    stream = os.fdopen(create_file(path), "wb")
    os.fchmod(stream.fileno(), FILE_MODE)
    return stream


def finish_file(fd: int, time: int) -> None:
    os.fchmod(fd, FILE_MODE)
    os.utime(fd, (time, time))
    os.fsync(fd)


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What shows whether a file is still the one that was read."""

    device: int
    inode: int
    bytes: int
    modified: int  # nanoseconds since 1970

    @classmethod
    def of(cls, info: os.stat_result) -> FileStamp:
        """Return the stamp of a file by its status."""
        return cls(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)

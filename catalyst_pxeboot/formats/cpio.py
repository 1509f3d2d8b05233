"""The newc cpio archive, which an initramfs is.

Source of the format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from catalyst_pxeboot.util.errors import FormatError

#: The largest member in bytes: the size field is 32 bits wide.
MAX_MEMBER = 0xFFFFFFFF

MAGICS = (b"070701", b"070702")  # the second has checksums of the members, they are not checked

_HEADER = 110  # bytes: the magic and thirteen fields of eight hexadecimal digits
_FIELDS = re.compile(rb"[0-9A-Fa-f]{104}")
_MAX_NAME = 4096  # PATH_MAX: the kernel skips members with longer names
_TRAILER = "TRAILER!!!"
_BLOCK = 1 << 20
_ARCHIVE_BLOCK = 512  # bytes of which an archive is a multiple, as cpio's own are
_TYPE, _FILE, _LINK = 0o170000, 0o100000, 0o120000

#: Modes of members.
MEMBER_PROGRAM, MEMBER_FILE, MEMBER_FOLDER = 0o100755, 0o100644, 0o040755

Content = TypeVar("Content", bytes, "bytes | Path")


class Readable(Protocol):
    """What the readers ask of a stream; every binary file has it."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none only at the end."""


class Budget:
    """What all archives of one file may hold; real images have a tenth of it at most."""

    def __init__(self, where: str, *, members: int = 200_000, archives: int = 64) -> None:
        self._where = where  # the file, in errors
        self._most = {"members": members, "archives": archives}
        self._left = dict(self._most)

    def spend(self, what: str) -> None:
        """Count one of `what`; raises `FormatError` if it is one too many."""
        self._left[what] -= 1
        if self._left[what] < 0:
            raise FormatError(
                f"{self._where}: has more than {self._most[what]} {what}",
                hint="check that the file is an initramfs",
            )


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive: `size` in bytes; `content` only where it was asked for.

    `name` has no leading `./` or `/`; bytes that are not UTF-8 are escaped in it. A
    symbolic link's content is its target.
    """

    name: str
    mode: int
    size: int
    content: bytes | None

    @property
    def is_file(self) -> bool:
        """Tell whether the member is a regular file."""
        return self.mode & _TYPE == _FILE


def _every(_name: str) -> bool:
    return True


def member_header(name: str, size: int, *, mode: int = 0o100444, mtime: int = 0) -> bytes:
    """Return the header of one member, after which its `size` bytes of content follow.

    The result is a multiple of 4 bytes long, as the content must begin on one. `mtime` is in
    seconds since 1970. Raises `FormatError` where a field cannot hold its value.
    """
    if not 0 <= size <= MAX_MEMBER:
        raise FormatError(
            f"{name}: {size} bytes cannot be embedded in an initramfs, "
            f"a cpio member holds at most {MAX_MEMBER} bytes",
            hint="fetch the image over the network instead, or make it smaller",
        )
    if not 0 <= mode <= MAX_MEMBER or not 0 <= mtime <= MAX_MEMBER:
        raise FormatError(
            f"{name}: mode {mode:o} or time {mtime} does not fit a cpio header",
            hint="give numbers from 0 to 2**32-1",
        )
    try:
        raw = name.encode() + b"\0"
    except UnicodeEncodeError as error:
        raise FormatError(
            f"{name!a}: expected a member name that UTF-8 can express", hint="rename the file"
        ) from error
    if b"\0" in raw[:-1] or not 1 < len(raw) <= _MAX_NAME:
        raise FormatError(
            f"{name!a}: expected a member name of 1 to {_MAX_NAME - 1} bytes without zero bytes",
            hint="rename the file",
        )
    # The kernel looks at inode numbers only where links > 1; one fixed number keeps equal
    # input giving equal bytes.
    fields = (1, mode, 0, 0, 1, mtime, size, 0, 0, 0, 0, len(raw), 0)
    head = MAGICS[0] + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4)


def write_archive(members: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return an archive of `members`: the name, the mode and the content of each, in this order.

    All belong to root and are dated 0, so equal members give equal bytes. The archive ends with
    a trailer and zeros up to a multiple of 512 bytes; another one may follow it. Raises
    `FormatError` as `member_header` does.
    """
    return b"".join(archive_parts(members))


def archive_parts(members: Iterable[tuple[str, int, Content]]) -> Iterator[bytes | Content]:
    """Yield an archive as `write_archive` returns it, piece by piece.

    Where the content of a member is a path, that path is yielded in place of the file's bytes.
    """
    total = 0
    for name, mode, content in members:
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        header = member_header(name, size, mode=mode)
        padding = -size % 4
        yield header
        yield content
        yield bytes(padding)
        total += len(header) + size + padding
    trailer = member_header(_TRAILER, 0, mode=0)
    yield trailer + bytes(-(total + len(trailer)) % _ARCHIVE_BLOCK)


def parse_member_header(data: bytes) -> tuple[str, int]:
    """Return the name and the size in bytes that `member_header` wrote into `data`.

    `data` must be one header and its padding, nothing more. Raises `FormatError`.
    """
    where = "the cpio header"
    _mode, size, name_size = _parse_fields(data[:_HEADER], 0, where)
    end = _HEADER + name_size
    if len(data) != end + -end % 4:
        raise FormatError(
            f"{where}: expected {end + -end % 4} bytes, found {len(data)}",
            hint="build the tree again",
        )
    if any(data[end:]):
        raise FormatError(f"{where}: expected zeros after the name", hint="build the tree again")
    return _parse_name(data[_HEADER:end], 0, where), size


def read_members(
    stream: Readable,
    *,
    where: str,
    wanted: Callable[[str], bool] = _every,
    limit: int = 1 << 20,
    budget: Budget | None = None,
) -> Iterator[Member]:
    """Yield the members of the archive at the position of `stream`, up to its trailer.

    The content of regular files and symbolic links is kept where `wanted(name)` says so and it
    has at most `limit` bytes; all else is read past in blocks. The stream is left behind the
    trailer and its padding. `where` names the archive in errors. Raises `FormatError` for
    anything but a complete newc archive and for more than `budget` allows.
    """
    budget = budget or Budget(where)
    budget.spend("archives")
    position = 0
    while True:
        mode, size, name_size = _parse_fields(_read(stream, _HEADER, where), position, where)
        head = _HEADER + name_size
        raw = _read(stream, name_size + -head % 4, where)
        name = _parse_name(raw[:name_size], position, where)
        if name == _TRAILER:
            # Some writers give it content; the reader goes on behind it.
            _skip(stream, size + -size % 4, where)
            return
        content = None
        if mode & _TYPE in (_FILE, _LINK) and size <= limit and wanted(_plain(name)):
            content = _read(stream, size + -size % 4, where)[:size]
        else:
            _skip(stream, size + -size % 4, where)
        position += head + -head % 4 + size + -size % 4
        budget.spend("members")
        yield Member(_plain(name), mode, size, content)


def _plain(name: str) -> str:
    while name.startswith(("./", "/")):
        name = name.removeprefix(".").lstrip("/")
    return name


def _parse_fields(data: bytes, position: int, where: str) -> tuple[int, int, int]:
    """Return mode, size and size of the name, both in bytes."""
    if data[:6] not in MAGICS:
        raise FormatError(
            f"{where}: expected a newc cpio header (070701) at byte {position} of the archive, "
            f"found {data[:6].hex(' ') or 'nothing'}",
            hint="the file is damaged or not a newc archive; build it again",
        )
    if not _FIELDS.fullmatch(data, 6):
        raise FormatError(
            f"{where}: expected hexadecimal digits in the cpio header "
            f"at byte {position} of the archive",
            hint="the file is damaged; build it again",
        )
    mode, size, name_size = (int(data[at : at + 8], 16) for at in (14, 54, 94))
    if not 1 <= name_size <= _MAX_NAME:
        raise FormatError(
            f"{where}: expected a name of 1 to {_MAX_NAME} bytes "
            f"at byte {position} of the archive, found {name_size}",
            hint="the file is damaged; build it again",
        )
    return mode, size, name_size


def _parse_name(raw: bytes, position: int, where: str) -> str:
    # Kernels since 6.1.120 refuse a name without its zero byte, so this one does too.
    if not raw.endswith(b"\0"):
        raise FormatError(
            f"{where}: expected a zero byte after the member name "
            f"at byte {position} of the archive",
            hint="the program that wrote the archive is at fault; use another one",
        )
    return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


def _read(stream: Readable, size: int, where: str) -> bytes:
    """Read exactly `size` bytes, which must be few enough to hold."""
    data = stream.read(size)
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            raise _ends_early(where)
        data += more
    return data


def _skip(stream: Readable, size: int, where: str) -> None:
    while size:
        data = stream.read(min(size, _BLOCK))
        if not data:
            raise _ends_early(where)
        size -= len(data)


def _ends_early(where: str) -> FormatError:
    return FormatError(
        f"{where}: ends early, expected a cpio archive with its trailer",
        hint="the file is truncated; copy or build it again",
    )

"""The files of an ISO 9660 image: where each lies in it, without mounting it.

Source of the format: ECMA-119; Rock Ridge is IEEE P1282. pycdlib reads the directories. The image
may be anybody's: what is read of it is bounded, and a name that leads elsewhere is refused.
"""

from __future__ import annotations

import os
import posixpath
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from catalyst_pxeboot.util.errors import FormatError, PxebootError
from catalyst_pxeboot.util.files import FileStamp, open_regular
from catalyst_pxeboot.util.text import one_line

if TYPE_CHECKING:
    from pycdlib.dr import DirectoryRecord

SECTOR: Final = 2048  # bytes
_DESCRIPTORS: Final = 16 * SECTOR  # what lies before them is for boot loaders
_MAX_READ: Final = 4 * 1024 * 1024  # bytes of directories; those of a real image have some 500 KiB
_SMALL: Final = 16 * 1024  # bytes of a directory, or a path table, that may be in any order
_MAX_DISORDER: Final = 100  # records of a directory that do not rise; files over 4 GiB have some
_LABEL: Final = slice(40, 72)  # of a volume descriptor
_MAX_DEPTH: Final = 64
_MAX_LINKS: Final = 8  # symlinks in a row
_FAR: Final = 1 << 44  # bytes; farther than any 32-bit sector number

#: The hint where an image is not whole.
AGAIN: Final = "fetch or make the ISO again"


@dataclass(frozen=True, slots=True)
class IsoFile:
    """A file of the image: `offset` and `bytes` say where it lies, `time` is seconds since 1970.

    `time` is 0 where the image has none. `link` is a symlink's target, empty for a plain file.
    """

    path: str
    offset: int
    bytes: int
    mode: int
    time: int
    link: str = ""


@dataclass(frozen=True, slots=True)
class Iso:
    """An image and its files by path, without a slash at the start."""

    path: Path
    volume: str  # its label
    stamp: FileStamp
    files: Mapping[str, IsoFile]

    def find(self, path: str) -> IsoFile | None:
        """Return the plain file that `path` is or means by symlinks; None where there is none."""
        for _ in range(_MAX_LINKS):
            file = self.files.get(path)
            if file is None or not file.link:
                return file
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), file.link))
        return None


def is_iso(path: Path) -> bool:
    """Say whether `path` is meant as an ISO: a file of that name, or with an ISO's descriptor."""
    meant = path.suffix.lower() == ".iso"
    try:
        if path.is_dir():
            return False
        if not meant:
            with open_regular(path) as file:
                file.seek(_DESCRIPTORS + 1)
                meant = file.read(5) == b"CD001"
    except OSError:
        pass  # opening it as the one or the other says why
    return meant


def read_volume_label(path: Path) -> str:
    """Return the label of the ISO at `path` (ECMA-119, 8.4.7); empty where it cannot be read."""
    try:
        with open_regular(path) as file:
            file.seek(_DESCRIPTORS)
            descriptor = file.read(_LABEL.stop)
    except OSError:
        return ""  # opening it says why
    if descriptor[1:6] != b"CD001":
        return ""
    return one_line(descriptor[_LABEL].decode("ascii", "replace").rstrip())


def read_iso(path: Path, *, wanted: str) -> Iso:
    """Read the directories of the ISO at `path`.

    Its names are Rock Ridge's, or else Joliet's, or else the plain ones in lower case: the first
    of them by which there is a file `wanted`. Raises `FormatError` where it is not an ISO, is
    truncated or damaged, and `OSError` where it cannot be read.
    """
    with open_regular(path) as file:
        stamp = FileStamp.of(os.fstat(file.fileno()))
        _check_volume(path, file, stamp.bytes)
        try:
            volume, listings = _read_listings(path, file)
        except (PxebootError, OSError, ImportError):
            raise
        except Exception as error:
            # pycdlib has its own errors, and meets what is damaged with any other as well.
            raise _unreadable(path, error) from error
        listing: dict[str, IsoFile] = {}
        for records in listings:
            found = _list_files(path, records, stamp.bytes)
            listing = listing or found
            if wanted in found:
                listing = found
                break
    return Iso(path, volume, stamp, listing)


def _check_volume(path: Path, file: BinaryIO, size: int) -> None:
    """Raise unless the file has a primary volume descriptor (ECMA-119, 8.4) and is all there."""
    file.seek(_DESCRIPTORS)
    head = file.read(SECTOR)
    if head[1:6] != b"CD001":
        raise FormatError(
            f"{path}: not an ISO 9660 image: {size} bytes without a volume descriptor at byte"
            f" {_DESCRIPTORS}",
            hint="give the ISO of a livecd-stage2 build",
        )
    if len(head) < SECTOR:
        raise FormatError(
            f"{path}: truncated: {size} bytes, which end in its volume descriptor", hint=AGAIN
        )
    if head[0] != 1:
        return  # allowed, and pycdlib finds it further on
    (sectors,) = struct.unpack_from("<I", head, 80)
    (block,) = struct.unpack_from("<H", head, 128)
    if block != SECTOR:
        raise _damaged(path, f"its volume descriptor names blocks of {block} bytes, not {SECTOR}")
    if size < sectors * SECTOR:
        raise FormatError(
            f"{path}: truncated: {size} bytes, its volume says {sectors * SECTOR}", hint=AGAIN
        )


def _damaged(path: Path, what: str) -> FormatError:
    return FormatError(f"{path}: damaged: {what}", hint=AGAIN)


def _unreadable(path: Path, error: Exception) -> FormatError:
    return _damaged(path, f"its directories cannot be read ({error!r})")


def _read_listings(path: Path, file: BinaryIO) -> tuple[str, list[Iterator[_Entry]]]:
    """Return the volume's label and a walk through its files for each kind of names it has."""
    from pycdlib import PyCdlib

    image: Any = PyCdlib()
    image.open_fp(cast(BinaryIO, _Window(path, file)))
    volume = image.pvd.volume_identifier.decode("ascii", "backslashreplace").strip(" \0")
    root = image.pvd.root_directory_record()
    listings = [_walk(root, _rock_ridge_name)] if image.has_rock_ridge() else []
    if image.joliet_vd is not None:
        listings.append(_walk(image.joliet_vd.root_directory_record(), _joliet_name))
    listings.append(_walk(root, _plain_name))
    return volume, listings


class _Window:
    """The ISO as pycdlib sees it: without boot sectors, and with an end to its patience.

    The system area is empty, as pycdlib would want partition tables in it to be faultless. The
    end is far off, as pycdlib cuts files short that lie beyond it.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._at = 0
        self._left = _MAX_READ

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: _FAR}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise _damaged(self._path, f"its directories take more than {_MAX_READ} bytes")
        self._left -= count
        if self._at < _DESCRIPTORS:
            content = bytes(min(count, _DESCRIPTORS - self._at))
        else:
            self._file.seek(self._at)
            content = self._file.read(count)
            if count > _SMALL and _disorder(content) > _MAX_DISORDER:
                raise _damaged(self._path, f"the directory at byte {self._at} is not sorted")
        self._at += len(content)
        return content


def _disorder(directory: bytes) -> int:
    """Count the records whose names do not rise (ECMA-119, 9.3).

    Each costs pycdlib a walk over all others of the directory. Whether they are records is for
    pycdlib to check: other bytes give any number here.
    """
    names, at = [], 0
    while at + 33 < len(directory):
        if length := directory[at]:
            names.append(directory[at + 33 : at + 33 + directory[at + 32]])
            at += length
        else:
            at += SECTOR - at % SECTOR
    highest, count = b"", 0
    for name in names[2:]:  # the folder itself and the one above it are first
        count += name <= highest
        highest = max(name, highest)
    return count


class _Fault(Exception):
    """Directories say what those of a live image never do."""


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    record: DirectoryRecord
    link: str


def _walk(root: DirectoryRecord, name_of: Any) -> Iterator[_Entry]:
    folders = [(root, "", 0)]
    while folders:
        folder, path, depth = folders.pop()
        for record in folder.children:
            if record.is_dot() or record.is_dotdot():
                continue
            if depth > _MAX_DEPTH:
                raise _Fault(f"folders that are more than {_MAX_DEPTH} deep")
            name = name_of(record)
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise _Fault(f"a file of {path or '/'} is named {name!r}")
            if record.is_dir():
                folders.append((record, f"{path}{name}/", depth + 1))
                continue
            ridge = record.rock_ridge
            link = ridge.symlink_path() if ridge is not None and ridge.is_symlink() else b""
            yield _Entry(f"{path}{name}", record, link.decode(errors="backslashreplace"))


def _rock_ridge_name(record: DirectoryRecord) -> str:
    ridge = record.rock_ridge
    name = ridge.name() if ridge is not None else b""
    return name.decode(errors="backslashreplace") or _plain_name(record)


def _joliet_name(record: DirectoryRecord) -> str:
    name = record.file_identifier().decode("utf-16-be", "backslashreplace")
    return re.sub(r";[0-9]+$", "", name)


def _plain_name(record: DirectoryRecord) -> str:
    name = record.file_identifier().decode("ascii", "backslashreplace")
    return re.sub(r"\.?(;[0-9]+)?$", "", name).lower()


def _list_files(path: Path, entries: Iterator[_Entry], size: int) -> dict[str, IsoFile]:
    files: dict[str, IsoFile] = {}
    try:
        for entry in entries:
            file = _read_entry(entry)
            before = files.get(file.path)
            if before is not None:
                file = _join(before, file)
            if not file.link and file.bytes and file.offset + file.bytes > size:
                raise FormatError(
                    f"{path}: truncated: {size} bytes, but {file.path} ends at byte"
                    f" {file.offset + file.bytes}",
                    hint=AGAIN,
                )
            files[file.path] = file
    except _Fault as error:
        raise _damaged(path, str(error)) from error
    except PxebootError:
        raise
    except Exception as error:
        # As above: pycdlib's records are only as sound as the image.
        raise _unreadable(path, error) from error
    return files


def _read_entry(entry: _Entry) -> IsoFile:
    record = entry.record
    if record.file_unit_size or record.interleave_gap_size or record.xattr_len:
        raise _Fault(f"{entry.path} does not lie in one piece")
    mode = 0o644
    if record.rock_ridge is not None:
        areas = (record.rock_ridge.dr_entries, record.rock_ridge.ce_entries)
        for area in (area for area in areas if area is not None):
            if area.px_record is not None:
                mode = area.px_record.posix_file_mode & 0o7777
    return IsoFile(
        path=entry.path,
        offset=record.extent_location() * SECTOR,
        bytes=record.data_length,  # its own: get_data_length() is of the first file at this place
        mode=mode,
        # Not Rock Ridge's: pycdlib 1.22 takes its times of access for those of modification.
        time=_seconds(record.date),
        link=entry.link,
    )


def _seconds(date: Any) -> int:
    """Return a directory record's time (ECMA-119, 9.1.5) in seconds since 1970, 0 for none."""
    try:
        moment = datetime(
            1900 + date.years_since_1900, date.month, date.day_of_month,
            date.hour, date.minute, date.second,
            tzinfo=timezone(timedelta(minutes=15 * date.gmtoffset)),
        )  # fmt: skip
    except ValueError:
        return 0
    return max(0, int(moment.timestamp()))


def _join(first: IsoFile, second: IsoFile) -> IsoFile:
    """Join two sections of a file (ECMA-119, 9.1.6: one of 4 GiB or more has several)."""
    low, high = sorted((first, second), key=lambda file: file.offset)
    if first.link or second.link or low.offset + low.bytes != high.offset:
        raise _Fault(f"{first.path} is there twice, or does not lie in one piece")
    return IsoFile(low.path, low.offset, low.bytes + high.bytes, low.mode, low.time)

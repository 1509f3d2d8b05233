"""The superblock of a squashfs image.

Source of the format: the kernel's Documentation/filesystems/squashfs.rst and
fs/squashfs/squashfs_fs.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.files import InputFile

_FIELDS: Final = struct.Struct("<4sIIIIHHHHHHQQ")
SUPERBLOCK: Final = 96  # bytes of the whole superblock; the rest are places of tables
_COMPRESSIONS: Final = ("gzip", "lzma", "lzo", "xz", "lz4", "zstd")
_HINT: Final = "copy the image again, or build livecd-stage2 again"


@dataclass(frozen=True, slots=True)
class Squashfs:
    """A squashfs image: `bytes` is the file's size, `used` what the file system takes of it."""

    path: Path
    bytes: int
    used: int
    compression: str  # gzip, lzma, lzo, xz, lz4 or zstd
    version: tuple[int, int]
    block_size: int  # bytes
    created: int  # seconds since 1970


def read_squashfs(source: InputFile) -> Squashfs:
    """Read the superblock of a squashfs, 96 bytes.

    Raises `FormatError` where the file is not a squashfs 4.0 or shorter than its superblock says;
    `OSError` where it cannot be read.
    """
    path, size = source.path, source.bytes
    head = source.stream.read(SUPERBLOCK)
    if head[:4] != b"hsqs":
        found = "nothing" if not head else head[:4].hex(" ")
        raise FormatError(
            f"{path}: expected a squashfs image (it begins with hsqs), found {found}", hint=_HINT
        )
    if len(head) < SUPERBLOCK:
        raise FormatError(
            f"{path}: truncated: a squashfs superblock has {SUPERBLOCK} bytes, the file has"
            f" {len(head)}",
            hint=_HINT,
        )
    fields = _FIELDS.unpack_from(head)
    created, block_size, _fragments, code, block_log = fields[2:7]
    major, minor, _root, used = fields[9:13]
    if (major, minor) != (4, 0):
        raise FormatError(
            f"{path}: expected squashfs 4.0, found {major}.{minor}",
            hint="make the image with squashfs-tools 4.0 or later",
        )
    if not 12 <= block_log <= 20 or block_size != 1 << block_log:
        raise FormatError(
            f"{path}: expected a block size that is a power of two from 4 KiB to 1 MiB, "
            f"found {block_size} bytes",
            hint=_HINT,
        )
    if not 1 <= code <= len(_COMPRESSIONS):
        raise FormatError(
            f"{path}: expected one of the compressions {', '.join(_COMPRESSIONS)}, "
            f"found number {code}",
            hint="make the image with a compression that the kernel knows",
        )
    if used > size:
        raise FormatError(
            f"{path}: truncated: superblock says {used} bytes, file has {size}", hint=_HINT
        )
    if used < SUPERBLOCK:
        raise FormatError(
            f"{path}: damaged: superblock says {used} bytes, fewer than it has itself", hint=_HINT
        )
    return Squashfs(
        path=path,
        bytes=size,
        used=used,
        compression=_COMPRESSIONS[code - 1],
        version=(major, minor),
        block_size=block_size,
        created=created,
    )

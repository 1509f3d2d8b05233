"""ISO 9660 images written byte by byte, to say what no tool would write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

SECTOR = 2048
_ROOT = 20  # sector of the root folder, behind descriptors and path tables
_DATE = bytes((126, 11, 22, 17, 0, 0, 0))
_RIDGE = b"SP\x07\x01\xbe\xef\0" + b"ER" + bytes((18, 1, 10, 0, 0, 1)) + b"RRIP_1991A"


def record(
    name: bytes, sector: int = 0, size: int = 0, *, flags: int = 0, use: bytes = b""
) -> bytes:
    """Return a directory record (ECMA-119, 9.1); `use` is its system use area."""
    padding = b"" if len(name) % 2 else b"\0"
    length = 33 + len(name) + len(padding) + len(use)
    return (
        bytes((length, 0)) + _both(sector, "I") + _both(size, "I") + _DATE + bytes((flags, 0, 0))
        + _both(1, "H") + bytes((len(name),)) + name + padding + use
    )  # fmt: skip


def rock_ridge_name(name: bytes) -> bytes:
    """Return the field of a system use area that has the file's real name."""
    return b"NM" + bytes((5 + len(name), 1, 0)) + name


def write_raw_iso(
    path: Path, folders: Sequence[Sequence[bytes]], *, ridge: bool = False, at: int | None = None
) -> Path:
    """Write an ISO whose root has `folders`, each of these records as they are.

    With `ridge` it says that it has Rock Ridge names. All folders lie in sector `at`, if given.
    """
    names = [b"D%05d" % number for number in range(len(folders))]
    own = rock_ridge_name(b"name") if ridge else b""
    entry = len(record(names[0], use=own))
    root_size = _sectors([record(b"\0", use=_RIDGE), record(b"\1"), *[bytes(entry)] * len(names)])
    place = _ROOT + len(root_size) // SECTOR
    bodies, entries, tables = [], [], [b"", b""]
    for name, records in zip(names, folders, strict=True):
        size = len(_sectors([record(b"\0", use=own), record(b"\1", use=own), *records]))
        sector = place if at is None else at
        dots = (
            record(b"\0", sector, size, flags=2, use=own),
            record(b"\1", _ROOT, len(root_size), flags=2, use=own),
        )
        bodies.append(_sectors([*dots, *records]))
        entries.append(record(name, sector, size, flags=2, use=own))
        for index, order in enumerate("<>"):
            tables[index] += struct.pack(f"{order}BBIH", len(name), 0, sector, 1) + name
        place += size // SECTOR
    dots = (
        record(b"\0", _ROOT, len(root_size), flags=2, use=_RIDGE if ridge else b""),
        record(b"\1", _ROOT, len(root_size), flags=2),
    )
    tables = [
        struct.pack(f"{order}BBIH", 1, 0, _ROOT, 1) + b"\0\0" + table
        for order, table in zip("<>", tables, strict=True)
    ]
    path.write_bytes(
        bytes(16 * SECTOR)
        + _descriptor(place, len(tables[0]), len(root_size))
        + b"\xffCD001\x01".ljust(SECTOR, b"\0")
        + b"".join(table.ljust(SECTOR, b"\0") for table in tables)
        + _sectors([*dots, *entries])
        + b"".join(bodies)
    )
    return path


def _descriptor(sectors: int, table: int, root: int) -> bytes:
    """Return a primary volume descriptor (ECMA-119, 8.4)."""
    content = bytearray(b"\x01CD001\x01".ljust(SECTOR, b"\0"))
    content[8:72] = b" " * 64
    content[80:88] = _both(sectors, "I")
    content[120:132] = _both(1, "H") + _both(1, "H") + _both(SECTOR, "H")
    content[132:152] = _both(table, "I") + struct.pack("<II", 18, 0) + struct.pack(">I", 19)
    content[156:190] = record(b"\0", _ROOT, root, flags=2)
    content[190:813] = b" " * 623
    content[813:881] = 4 * b"2026112217000000\0"
    content[881] = 1
    return bytes(content)


def _sectors(records: Sequence[bytes]) -> bytes:
    """Lay records into sectors; none lies in two."""
    content = bytearray()
    for one in records:
        if len(content) % SECTOR + len(one) > SECTOR:
            content += bytes(-len(content) % SECTOR)
        content += one
    return bytes(content + bytes(-len(content) % SECTOR))


def _both(number: int, form: str) -> bytes:
    return struct.pack(f"<{form}", number) + struct.pack(f">{form}", number)

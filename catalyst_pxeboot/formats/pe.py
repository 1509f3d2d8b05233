"""PE files, as UEFI starts them: whether one is signed."""

from __future__ import annotations

import struct
from pathlib import Path

from catalyst_pxeboot.util.files import open_regular


def is_signed(file: Path) -> bool:
    """Tell whether a UEFI program carries a signature, whoever made it.

    PE format, "The Attribute Certificate Table".
    """
    with open_regular(file) as stream:
        data = stream.read(4096)
        size = stream.seek(0, 2)
    if data[:2] != b"MZ" or len(data) < 64:
        return False
    header = struct.unpack_from("<I", data, 60)[0] + 24
    if data[header - 24 : header - 20] != b"PE\0\0" or header + 152 > len(data):
        return False
    # The table of data directories lies behind the fields of a 32-bit or of a 64-bit header.
    directories = {0x10B: 96, 0x20B: 112}.get(struct.unpack_from("<H", data, header)[0])
    if directories is None:
        return False
    place, count = struct.unpack_from("<II", data, header + directories + 4 * 8)
    return bool(count and place + count <= size)

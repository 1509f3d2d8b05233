"""EFI programs for tests: a PE file with a section, as systemd's stub is one."""

from __future__ import annotations

import struct

_HEADERS = 0x400


def efi_program(
    content: bytes = b"#### LoaderInfo: systemd-stub 252.1 ####\0", *, room: int = 8
) -> bytes:
    """Return a PE32+ file for x86-64 with one section, and room for `room` more in its header."""
    sections = 1
    optional = struct.pack(
        "<HBBIIIII" "QIIHHHHHHIIIIHHQQQQII",
        0x20B, 2, 0, 0x200, 0, 0, 0x1000, 0x1000,
        0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, 0x3000, _HEADERS, 0, 10, 0, 0, 0, 0, 0, 0, 16,
    )  # fmt: skip
    optional += bytes(16 * 8)
    head = b"MZ" + bytes(58) + struct.pack("<I", 64)
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, sections, 0, 0, 0, len(optional), 0x22)
    head += optional
    size = _HEADERS if room else len(head) + 40
    at = -(-size // 0x200) * 0x200 if room else size
    stored = -(-len(content) // 0x200) * 0x200
    head += struct.pack(
        "<8sIIIIIIHHI", b".text", len(content), 0x1000, stored, at, 0, 0, 0, 0, 0x60000020
    )
    return head + bytes(at - len(head)) + content + bytes(stored - len(content))

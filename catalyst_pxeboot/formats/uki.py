"""Unified kernel images: a PE file that holds kernel, initrds and command line.

Source: the UAPI group's specification "Unified Kernel Image"; systemd-stub(7), whose stub of the
build host is the program in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from catalyst_pxeboot.util.errors import FormatError, needs_extra

#: Bytes of an image: firmware holds it twice, and a PE file's addresses end at 4 GiB.
MAX_UKI: Final = 2 << 30

_ENTRY: Final = struct.Struct("<8sIIIIIIHHI")  # IMAGE_SECTION_HEADER
_READ_DATA: Final = 0x40000040  # IMAGE_SCN_MEM_READ | IMAGE_SCN_CNT_INITIALIZED_DATA
_SIGNATURE: Final = 4  # IMAGE_DIRECTORY_ENTRY_SECURITY
#: The kernel's EFI stub and objcopy want sections at multiples of this; the stub's own are, too.
_ALIGNED: Final = 1 << 16


def make_uki(stub: bytes, sections: Mapping[str, bytes], *, where: str) -> bytes:
    """Return the PE file of the program `stub` with `sections` behind its own, in their order.

    `where` names the stub in a message. Raises `FormatError` if it is none, or has no room.
    """
    image = _parse(stub, where)
    own = image.sections
    align = image.OPTIONAL_HEADER.FileAlignment
    table = own[-1].get_file_offset() + _ENTRY.size
    first = min(section.PointerToRawData for section in own if section.SizeOfRawData)
    if table + len(sections) * _ENTRY.size > first or image.OPTIONAL_HEADER.SizeOfHeaders > first:
        raise FormatError(f"{where}: its header has no room for {len(sections)} sections more")
    address = max(section.VirtualAddress + section.Misc_VirtualSize for section in own)
    # What lies behind the sections, as symbols and a signature, is left out: firmware hashes
    # nothing between two sections, so a signature would not cover it.
    last = max(section.PointerToRawData + section.SizeOfRawData for section in own)
    if last > len(stub):
        raise FormatError(f"{where}: it ends before its last section; install its package again")
    end = _round(last, align)
    rows, data = [], [bytes(end - last)]
    for name, content in sections.items():
        address = _round(address, _ALIGNED)
        stored = _round(len(content), align)
        rows.append(
            _ENTRY.pack(
                name.encode(), len(content), address, stored, end, 0, 0, 0, 0, _READ_DATA
            )
        )  # fmt: skip
        data += [content, bytes(stored - len(content))]
        address += len(content)
        end += stored
    image.FILE_HEADER.NumberOfSections += len(sections)
    image.OPTIONAL_HEADER.SizeOfImage = _round(address, image.OPTIONAL_HEADER.SectionAlignment)
    image.OPTIONAL_HEADER.SizeOfHeaders = max(
        image.OPTIONAL_HEADER.SizeOfHeaders, _round(table + len(rows) * _ENTRY.size, align)
    )
    image.OPTIONAL_HEADER.CheckSum = 0  # of no use to UEFI
    image.FILE_HEADER.PointerToSymbolTable = image.FILE_HEADER.NumberOfSymbols = 0
    signature = image.OPTIONAL_HEADER.DATA_DIRECTORY[_SIGNATURE]
    signature.VirtualAddress = signature.Size = 0
    head = bytearray(image.write()[:last])
    head[table : table + len(rows) * _ENTRY.size] = b"".join(rows)
    return b"".join([head, *data])


def read_sections(content: bytes, *, where: str) -> Mapping[str, bytes]:
    """Return the sections of a PE file by name. Raises `FormatError` if it is none."""
    return {
        section.Name.rstrip(b"\0").decode("ascii", "replace"): content[
            section.PointerToRawData : section.PointerToRawData
            + min(section.Misc_VirtualSize, section.SizeOfRawData)
        ]
        for section in _parse(content, where).sections
    }


def _parse(content: bytes, where: str) -> Any:
    with needs_extra("uki", "pxeboot/loaders: uki"):
        import pefile

    try:
        return pefile.PE(data=content, fast_load=True)
    except pefile.PEFormatError as error:
        raise FormatError(f"{where}: not a UEFI program: {error}") from error


def _round(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple

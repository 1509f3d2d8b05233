"""Read the text on a client's screen: what a live system without a serial prompt shows.

Kernels and VGA cards draw text in cells of 8 by 16 pixels (9 by 16 in a card's text mode) with the
font that IBM's VGA card had. QEMU's VGA BIOS holds it, so it is taken from there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from catalyst_pxeboot.util.errors import FormatError

_HEADER = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")
_HEIGHT = 16  # pixels of a cell, and bytes of a glyph
_TEXT_MODE = (720, 400)  # of a VGA card: 80 by 25 cells of 9 by 16
_FIRST_FONT = (
    "/usr/share/seabios/vgabios-stdvga.bin",  # Debian
    "/usr/share/qemu/vgabios-stdvga.bin",  # QEMU's own, Gentoo
    "/usr/share/seabios/vgabios.bin",
)
# The font is found in the file by its letter A; this one and the kernel's have it alike.
_LETTER_A = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")
_NEAR = 6  # pixels in which a glyph of another such font may differ
# Linux draws these otherwise on a frame buffer (its lib/fonts/font_8x16.c, for cells of 8 pixels).
_LINUX = {
    "0": "0000386cc6c6d6d6c6c66c3800000000",
    "M": "0000c6eefefed6c6c6c6c6c600000000",
    "T": "00007e7e5a1818181818183c00000000",
    "V": "0000c6c6c6c6c6c6c66c381000000000",
    "W": "0000c6c6c6c6d6d6d6feee6c00000000",
    "X": "0000c6c66c7c38387c6cc6c600000000",
    "Y": "0000666666663c181818183c00000000",
    "Z": "0000fec6860c183060c2c6fe00000000",
    "`": "0030180c000000000000000000000000",
    "f": "00001c36323078303030307800000000",
    "m": "0000000000ecfed6d6d6d6c600000000",
    "v": "0000000000c6c6c6c6c66c3800000000",
    "w": "0000000000c6c6d6d6d6fe6c00000000",
    "x": "0000000000c66c3838386cc600000000",
    "|": "00001818181818181818181800000000",
    "~": "0076dc00000000000000000000000000",
}


def find_font() -> bytes:
    """Find the VGA font: 256 glyphs of 16 bytes, in the order of code page 437.

    Empty where QEMU's VGA BIOS is not found or holds another one.
    """
    for name in _FIRST_FONT:
        try:
            content = Path(name).read_bytes()
        except OSError:
            continue
        start = content.find(_LETTER_A) - ord("A") * _HEIGHT
        if start >= 0 and len(content) >= start + 256 * _HEIGHT:
            return content[start : start + 256 * _HEIGHT]
    return b""


def read_screen(picture: bytes, font: bytes) -> tuple[str, ...]:
    """Read the lines of text of a picture (PPM, binary, 8 bits), without spaces at their ends.

    What is no glyph of `font` becomes a question mark. Raises `FormatError` for another format.
    """
    width, height, start = _read_header(picture)
    wide = 9 if (width, height) == _TEXT_MODE else 8
    lines = []
    for top in range(0, height - height % _HEIGHT, _HEIGHT):
        rows = [
            picture[start + (top + y) * width * 3 : start + (top + y + 1) * width * 3]
            for y in range(_HEIGHT)
        ]
        if not any(row.strip(row[:3]) for row in rows):  # one colour: nothing is written here
            lines.append("")
            continue
        cells = (_read_cell(rows, left * 3, font) for left in range(0, width - wide + 1, wide))
        lines.append("".join(cells).rstrip())
    return tuple(lines)


def _read_header(picture: bytes) -> tuple[int, int, int]:
    """Return width, height and where the pixels begin."""
    found = _HEADER.match(picture)
    if found:
        width, height = int(found[1]), int(found[2])
        if len(picture) == found.end() + width * height * 3:
            return width, height, found.end()
    raise FormatError("a picture of the screen is no whole PPM picture")


def _read_cell(rows: list[bytes], left: int, font: bytes) -> str:
    pixels = [row[x : x + 3] for row in rows for x in range(left, left + 24, 3)]
    ground, count = Counter(pixels).most_common(1)[0]
    if count == len(pixels):
        return " "
    glyph = bytearray(_HEIGHT)
    for number, pixel in enumerate(pixels):
        if pixel != ground:
            glyph[number // 8] |= 0x80 >> number % 8
    return _name_glyph(bytes(glyph), font)


@cache
def _glyphs(font: bytes) -> Mapping[bytes, str]:
    # The lower half comes last, as it counts where two glyphs are alike.
    codes = [*range(128, 256), *range(32, 127)]
    known = {
        font[code * _HEIGHT : (code + 1) * _HEIGHT]: bytes([code]).decode("cp437") for code in codes
    }
    return known | {bytes.fromhex(shape): text for text, shape in _LINUX.items()}


@cache
def _name_glyph(glyph: bytes, font: bytes) -> str:
    known = _glyphs(font)
    if glyph in known:
        return known[glyph]
    seen = int.from_bytes(glyph, "big")
    distance, nearest = min(
        ((int.from_bytes(other, "big") ^ seen).bit_count(), text) for other, text in known.items()
    )
    return nearest if distance <= _NEAR else "?"

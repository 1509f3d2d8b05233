"""PXELINUX: the check of its configuration."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.pxelinux import PXELINUX

CONFIG = """# a comment
SERIAL 0 115200
UI menu.c32
PROMPT 0
TIMEOUT 50
ONERROR menu.c32
MENU TITLE A title
LABEL one
  MENU LABEL The first
  MENU DEFAULT
  LINUX boot/gentoo
  INITRD boot/gentoo.igz,image.squashfs
  APPEND a=b "c"
  SYSAPPEND 2
MENU SEPARATOR
LABEL two
  LOCALBOOT 0
"""


def test_a_sound_configuration() -> None:
    files = ("boot/gentoo", "boot/gentoo.igz", "image.squashfs", "menu.c32")
    assert PXELINUX.check(CONFIG) == Config(files, (), files)


@pytest.mark.parametrize("line", ["NOHALT 1", "MENU BACKGROUND x.png", "MENU RESOLUTION 640 480"])
def test_another_directive_is_accepted(line: str) -> None:
    assert PXELINUX.check(CONFIG.replace("PROMPT 0", f"PROMPT 0\n{line}")).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  LINUX", "  LINIX", 'line 8: the entry "one" starts nothing'),
        ("SERIAL 0 115200\nUI menu.c32", "UI menu.c32\nSERIAL 0 115200",
         "line 3: SERIAL must be the first directive"),
        ("ONERROR menu.c32", "DEFAULT three", 'line 6: unknown label "three"'),
        ("ONERROR menu.c32", "ONERROR three", 'line 6: unknown label "three"'),
        ("LABEL two", "LABEL one", 'line 16: label "one" is already on line 8'),
        ("LABEL two", "LABEL two three", "line 16: LABEL wants one word"),
        ("  LOCALBOOT 0\n", "", 'line 16: the entry "two" starts nothing'),
        ("  LOCALBOOT 0\n", "  LOCALBOOT no\n", 'line 17: LOCALBOOT wants a number, not "no"'),
        ("  LOCALBOOT 0\n", "  LOCALBOOT\n", "line 17: LOCALBOOT wants a value"),
        ("  SYSAPPEND 2\n", "  KERNEL x\n", 'line 14: the entry "one" starts two things'),
        ("igz,image", "igz, image",
         "line 12: INITRD wants one word, its files separated by commas"),
        ("LINUX boot", "LINUX /boot", 'line 11: "/boot/gentoo" leads out of the tree'),
        ("APPEND a=b", "APPEND " + "a" * 2050,
         "line 13: is longer than the 2047 bytes that PXELINUX reads"),
        ("MENU TITLE A title", "MENU LABEL A title", "line 7: MENU LABEL is before any LABEL"),
        ("igz,image", "igz,,image", "line 12: a file name is empty"),
    ],
)  # fmt: skip
def test_pxelinux_problems(old: str, new: str, problem: str) -> None:
    assert old in CONFIG
    assert problem in PXELINUX.check(CONFIG.replace(old, new, 1)).problems

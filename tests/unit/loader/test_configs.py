"""The checks of loader configurations find what a boot would trip over."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader import CHECKS
from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.grub import check_grub
from catalyst_pxeboot.loader.ipxe import check_ipxe
from catalyst_pxeboot.loader.pxelinux import check_pxelinux
from catalyst_pxeboot.model.loader import Loader

IPXE = """#!ipxe
# a comment with || and ${
set base http://192.0.2.1/
set menu_timeout 5000
:start
menu -- Title || goto start
item one The first
item --gap --
iseq ${platform} efi && item two The second ||
choose --default one --timeout ${menu_timeout} selected || goto failed
goto ${selected}
:one
kernel --name k ${base}boot/gentoo a=b ${cmdline} || goto failed
initrd ${base}image.squashfs /image.squashfs.img || goto failed
boot || goto failed
:two
chain http://192.0.2.7/other.ipxe || shell
:failed
exit 1
"""

PXELINUX = """# a comment
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

GRUB = """# a comment with 'a quote
if [ -z "$base" ]; then
    if ! regexp --set=1:base '^(.*[)/])boot' "$config_directory"; then set base="($root)/"; fi
    export base; for x in "$base" /; do if [ -s "$x" ]; then break; fi; done
elif true; then
    true
else
    false
fi
set default=one
function failed {
    echo 'it; failed }'
    read
}
menuentry 'It'\\''s' --id one {
    if linux "${base}boot/gentoo" 'a;b' $cmdline; then
        initrd "${base}boot/gentoo.igz" "${base}image.squashfs"
        boot
    fi
    failed
}
menuentry Disk { chainloader (hd0)+1
}
"""


def test_sound_configurations() -> None:
    assert check_ipxe(IPXE) == Config(("boot/gentoo", "image.squashfs"), ())
    assert check_pxelinux(PXELINUX) == Config(
        ("boot/gentoo", "boot/gentoo.igz", "image.squashfs", "menu.c32"), ()
    )
    assert check_grub(GRUB.replace("Disk { ", "Disk {\n")) == Config(
        ("boot/gentoo", "boot/gentoo.igz", "image.squashfs"), ()
    )
    assert set(CHECKS) == set(Loader)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("#!ipxe\n", "", "line 1: not #!ipxe"),
        ("#!ipxe\n", "#!ipxescript\n", "line 1: not #!ipxe"),
        ("boot ||", "boots ||", 'line 15: unknown command "boots"'),
        ("|| goto failed\ngoto", "|| goto fialed\ngoto",
         'line 10: goto: there is no label "fialed"'),
        ("--default one", "--default ony",
         'line 10: choose: the default "ony" is no item of the menu'),
        ("item two", "item tow", 'line 9: item: there is no label "tow"'),
        ("goto ${selected}", "goto ${selection}", 'line 11: goto: nothing sets "selection"'),
        ("set menu_timeout 5000", "set selected none",
         'line 11: goto ${selected}: there is no label "none"'),
        (":two", ":one", 'line 16: label "one" is already on line 12'),
        (":start", ":st$art", 'line 5: label "st$art" holds more than letters, digits, _ and -'),
        ("--timeout $", "--time $", 'line 10: choose: unknown option "--time"'),
        ("goto ${selected}", "goto one two", "line 11: goto: wants one label"),
        ("item one The first", "item one", "line 7: item: wants a label and a text"),
        (" || goto failed\nboot", "\nboot",
         "line 14: initrd: nothing says what to do when it fails"),
        ("item two The second ||", "item two The second", None),
        ("${base}boot/gentoo", "${base}/boot/gentoo",
         'line 13: "/boot/gentoo" leads out of the tree'),
        ("${base}boot/gentoo", "${base}boot//gentoo",
         'line 13: "boot//gentoo" holds a double slash'),
        ("${base}boot/gentoo", "${bsae}boot/gentoo",
         'line 13: "${bsae}boot/gentoo" depends on a setting that is not known here'),
        ("${base}boot/gentoo", "../gentoo", 'line 13: "../gentoo" leads out of the tree'),
        ("${cmdline}", "${cmdline", 'line 13: "${cmdline" opens a setting and does not close it'),
        ("boot || goto failed", "boot || goto failed \\",
         "line 15: ends in a backslash, which continues it on the next line"),
        ("kernel --name k ${base}boot/gentoo a=b ${cmdline}", "kernel --name k",
         "line 13: kernel: wants a file"),
        ("set menu_timeout 5000", "set", "line 4: set: wants the name of a setting"),
        ("timeout ${menu_timeout} selected", "timeout 5", None),
        ("timeout ${menu_timeout} selected", "timeout 5 a b",
         "line 10: choose: wants the name of one setting"),
    ],
)  # fmt: skip
def test_ipxe_problems(old: str, new: str, problem: str | None) -> None:
    assert old in IPXE
    problems = check_ipxe(IPXE.replace(old, new, 1)).problems
    if problem is not None:
        assert problem in problems
        assert "line" in problems[0]


def test_ipxe_problems_stand_alone() -> None:
    assert check_ipxe(IPXE.replace("goto fail", "goto fial")).problems == (
        'line 10: goto: there is no label "fialed"',
        'line 13: goto: there is no label "fialed"',
        'line 14: goto: there is no label "fialed"',
        'line 15: goto: there is no label "fialed"',
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("UI menu.c32", "UX menu.c32", 'line 3: unknown directive "UX" before the first LABEL'),
        ("  LINUX", "  LINIX", 'line 11: unknown directive "LINIX" in the entry "one"'),
        ("MENU TITLE", "MENU TITEL", 'line 7: unknown directive "MENU TITEL"'),
        ("SERIAL 0 115200\nUI menu.c32", "UI menu.c32\nSERIAL 0 115200",
         "line 3: SERIAL must be the first directive"),
        ("ONERROR menu.c32", "DEFAULT three", 'line 6: there is no label "three"'),
        ("ONERROR menu.c32", "ONERROR three", 'line 6: there is no label "three"'),
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
        ("MENU TITLE A title", "MENU LABEL A title", "line 7: MENU LABEL stands before any LABEL"),
        ("igz,image", "igz,,image", "line 12: a file name is empty"),
    ],
)  # fmt: skip
def test_pxelinux_problems(old: str, new: str, problem: str) -> None:
    assert old in PXELINUX
    assert problem in check_pxelinux(PXELINUX.replace(old, new, 1)).problems


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("        boot\n", "        bot\n", 'line 18: unknown command "bot"'),
        ("    failed\n", "    fialed\n", 'line 20: unknown command "fialed"'),
        ("set default=one", "set default=two", 'line 10: the default "two" is no entry\'s id'),
        ("else\n    false\nfi", "else\n    false", 'line 2: not closed by "fi"'),
        ("    fi\n    failed", "    failed", 'line 20: "}" closes nothing'),
        ("set default=one", "set default=one\nfi", 'line 11: "fi" closes nothing'),
        ("set default=one", "set default=one\n}", 'line 11: "}" closes nothing'),
        ("set default=one", "else\nset default=one", 'line 10: "else" stands in no if'),
        ("chainloader (hd0)+1", "echo 'open", "line 23: a quote is not closed"),
        ("menuentry Disk {", "menuentry Disk\n{",
         "line 22: menuentry: wants a title and { at the line's end"),
        ("function failed {", "function {", "line 11: function: wants a name and {"),
        ("for x in", "for x", "line 4: for: wants a name, the word in and values"),
        ("fi; done\n", "fi\n", 'line 4: not closed by "done"'),
        ("-z \"$base\" ]", "-z \"$base\"", 'line 2: "[" without "]"'),
        ("${base}boot/gentoo\"", "${base}/boot/gentoo\"",
         'line 16: "/boot/gentoo" leads out of the tree'),
        ("${base}boot/gentoo\"", "$base/boot/gentoo\"",
         'line 16: "$base/boot/gentoo" depends on a setting that is not known here'),
        ("initrd \"${base}boot/gentoo.igz\" \"${base}image.squashfs\"", "initrd",
         "line 17: initrd: wants a file"),
    ],
)  # fmt: skip
def test_grub_problems(old: str, new: str, problem: str) -> None:
    text = GRUB.replace("Disk { ", "Disk {\n")
    assert old in text
    assert problem in check_grub(text.replace(old, new, 1)).problems


@pytest.mark.parametrize("loader", list(Loader))
@pytest.mark.parametrize(
    "text",
    ["", "\n", "\0", "'", '"', "{", "}", "if", ":", "||", "MENU", "goto", "set", "item", "function",
     "menuentry", "\\", "LABEL", "initrd", "linux", "[", "DEFAULT", "kernel --name"],
)  # fmt: skip
def test_odd_text_is_no_crash(loader: Loader, text: str) -> None:
    CHECKS[loader](text)

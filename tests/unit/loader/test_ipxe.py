"""iPXE: the check of its scripts."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.ipxe import IPXE

SCRIPT = """#!ipxe
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


def test_a_sound_script() -> None:
    files = ("boot/gentoo", "image.squashfs")
    assert IPXE.check(SCRIPT) == Config(files, (), files)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("boot ||", "cpair --foreground 1 0\nboot ||"),
        ("boot ||", "nstat\nboot ||"),
        ("--timeout $", "--unheard-of --timeout $"),
    ],
)
def test_a_command_of_another_ipxe_is_accepted(old: str, new: str) -> None:
    assert IPXE.check(SCRIPT.replace(old, new, 1)).problems == ()


def test_files_in_variables_are_found() -> None:
    script = (
        "#!ipxe\nset kernel boot/one\nset kernel boot/two\n"
        "kernel ${base}${kernel} || exit\nimgverify k ${base}${kernel}.p7s || exit\n"
    )
    files = ("boot/one", "boot/one.p7s", "boot/two", "boot/two.p7s")
    assert IPXE.check(script) == Config(files, (), files)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("#!ipxe\n", "", "line 1: not #!ipxe"),
        ("#!ipxe\n", "#!ipxescript\n", "line 1: not #!ipxe"),
        ("|| goto failed\ngoto", "|| goto fialed\ngoto",
         'line 10: goto: unknown label "fialed"'),
        ("--default one", "--default ony",
         'line 10: choose: the default "ony" is not an item of the menu'),
        ("item two", "item tow", 'line 9: item: unknown label "tow"'),
        ("goto ${selected}", "goto ${selection}", 'line 11: goto: nothing sets "selection"'),
        ("set menu_timeout 5000", "set selected none",
         'line 11: goto ${selected}: unknown label "none"'),
        (":two", ":one", 'line 16: label "one" is already on line 12'),
        (":start", ":st$art", 'line 5: label "st$art" holds more than letters, digits, _ and -'),
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
    assert old in SCRIPT
    problems = IPXE.check(SCRIPT.replace(old, new, 1)).problems
    if problem is not None:
        assert problem in problems
        assert "line" in problems[0]


def test_ipxe_problems_stand_alone() -> None:
    assert IPXE.check(SCRIPT.replace("goto fail", "goto fial")).problems == (
        'line 10: goto: unknown label "fialed"',
        'line 13: goto: unknown label "fialed"',
        'line 14: goto: unknown label "fialed"',
        'line 15: goto: unknown label "fialed"',
    )

"""GRUB: the check of its configuration."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.grub import GRUB

CONFIG = """# a comment with 'a quote
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
menuentry Disk {
chainloader (hd0)+1
}
"""


def test_a_sound_configuration() -> None:
    files = ("boot/gentoo", "boot/gentoo.igz", "image.squashfs")
    assert GRUB.check(CONFIG) == Config(files, (), files)


def test_another_command_is_accepted() -> None:
    assert GRUB.check(CONFIG.replace("set default", "loadfont x.pf2\nset default")).problems == ()


def test_files_in_variables_are_found() -> None:
    text = (
        "function go {\nset files=\n"
        'for file in $initrds; do set files="$files ${base}${file}"; done\n'
        'initrd $files\n}\nmenuentry One --id one {\nset initrds="boot/a image.squashfs"\ngo\n}\n'
    )
    assert GRUB.check(text) == Config(
        ("boot/a", "image.squashfs"), (), ("boot/a", "image.squashfs")
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("set default=one", "set default=two",
         'line 10: the default "two" is not the id of an entry'),
        ("else\n    false\nfi", "else\n    false", 'line 2: not closed by "fi"'),
        ("    fi\n    failed", "    failed", 'line 20: "}" closes nothing'),
        ("set default=one", "set default=one\nfi", 'line 11: "fi" closes nothing'),
        ("set default=one", "set default=one\n}", 'line 11: "}" closes nothing'),
        ("set default=one", "else\nset default=one", 'line 10: "else" is not in an if'),
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
    text = CONFIG
    assert old in text
    assert problem in GRUB.check(text.replace(old, new, 1)).problems

"""GRUB menus: catalyst's own, exactly, and the shapes that people give theirs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats.grubcfg import GrubConfig, GrubEntry, parse_grub_cfg
from catalyst_pxeboot.util.errors import FormatError
from tests.support.paths import DATA

DATA = DATA / "grub-cfg"


def parse(text: str) -> GrubConfig:
    return parse_grub_cfg(text, where="grub.cfg")


def live(title: str, arguments: str, *, submenus: tuple[str, ...] = ()) -> GrubEntry:
    return GrubEntry(
        title=title,
        submenus=submenus,
        kernel="boot/gentoo",
        arguments=tuple(arguments.split()),
        initrds=("boot/gentoo.igz",),
    )


def memtest(title: str, *, kernel: str | None = None, efi: str | None = None) -> GrubEntry:
    return GrubEntry(title, (), kernel, chainloader=efi)


def dracut_entries(head: str, label: str) -> tuple[GrubEntry, ...]:
    line = f"{head} root=live:CDLABEL={label} rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot"
    return (
        live("Boot LiveCD (kernel: gentoo)", line),
        live("Boot LiveCD (kernel: gentoo) (cached)", f"{line} rd.live.ram=1"),
        live("Boot LiveCD (kernel: gentoo) (accessibility)", f"{line} dospeakup"),
    )


GENKERNEL = "dokeymap looptype=squashfs loop=/image.squashfs cdroot"
SERIAL = ("Special console options (kernel: gentoo)",)
SAMPLES = {
    "amd64-dracut.cfg": (
        *dracut_entries("dokeymap nodhcp", "Gentoo-amd64-20261122"),
        memtest("Memtest86+ 64bit BIOS", kernel="memtest64.bios"),
        memtest("Memtest86+ 64bit UEFI", efi="memtest.efi64"),
    ),
    "arm64-dracut.cfg": dracut_entries("dokeymap", "Gentoo-arm64-20261122"),
    "ppc-genkernel.cfg": (
        live("Boot LiveCD (kernel: gentoo)", GENKERNEL),
        live("Boot LiveCD (kernel: gentoo) (cached)", f"{GENKERNEL} docache"),
        live("Boot LiveCD (kernel: gentoo) (accessibility)", f"{GENKERNEL} dospeakup"),
        live(
            "Boot LiveCD (kernel: gentoo console=ttyS0,9600)",
            f"{GENKERNEL} console=ttyS0,9600",
            submenus=SERIAL,
        ),
        live(
            "Boot LiveCD (kernel: gentoo console=hvc0)",
            f"{GENKERNEL} console=hvc0",
            submenus=SERIAL,
        ),
    ),
    "x86-dracut.cfg": (
        *dracut_entries("dokeymap nodhcp", "Gentoo-x86-20261122"),
        memtest("Memtest86+ 32bit BIOS", kernel="memtest32.bios"),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_catalysts_own_menus(name: str) -> None:
    text = (DATA / name).read_text()
    assert parse(text) == GrubConfig(default=0, timeout=10, entries=SAMPLES[name])


def test_every_sample_is_tested() -> None:
    assert sorted(path.name for path in DATA.iterdir()) == sorted(SAMPLES)


@pytest.mark.parametrize(
    ("text", "default", "timeout"),
    [
        ("", 0, None),
        ("set default=2\nset timeout=0", 2, 0),
        ("default=1; timeout=5", 1, 5),
        ("set default=\"Boot me\"\nset timeout='3'", "Boot me", 3),
        ("set default=1>2\nset timeout=-1", "1>2", None),
        ('set default="${saved_entry}"\n', "${saved_entry}", None),
        ("set a=4\nset default=$a\nset timeout=${a}2", 4, 42),
        ("set timeout=5\nunset timeout", 0, None),
        ("if [ $x = y ]; then\nset default=1\nelse\nset default=3\nfi", 3, None),
    ],
)
def test_settings(text: str, default: int | str, timeout: int | None) -> None:
    assert parse(text) == GrubConfig(default=default, timeout=timeout, entries=())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("linux /k a  b\tc", ("a", "b", "c")),
        ("linux /k 'a b' \"c d\"", ("a b", "c d")),
        ("linux /k a'b'\"c\"d", ("abcd",)),
        (r"linux /k a\ b \"c\' d\\e", ("a b", "\"c'", "d\\e")),
        (r'linux /k "a\"b\$c\\d\e"', ('a"b$c\\d\\e',)),
        ("linux /k '' \"\"", ("", "")),
        ("linux /k a \\\n b", ("a", "b")),
        ("linux /k a\\\nb", ("ab",)),
        ("linux /k a#b # comment", ("a#b",)),
        ("linux /k a;linux /k b", ("b",)),
        ("linux /k $unknown ${other}x $", ("$unknown", "${other}x", "$")),
        ("set w='a  b'\nlinux /k $w", ("a", "b")),
        ("set w='a  b'\nlinux /k \"$w\" x${w}y", ("a  b", "xa", "by")),
        ("set w=' a '\nlinux /k x${w}y", ("x", "a", "y")),
        ("set w=\nlinux /k x $w y", ("x", "y")),
        ("set w=a\nlinux /k '$w' \\$w", ("$w", "$w")),
        ("linux16 /k a\r", ("a",)),
        ("linuxefi /k a", ("a",)),
        ("linux /k a \\\r\n b\r\n", ("a", "b")),
        ("linux /k a\xa0b \x1c", ("a\xa0b", "\x1c")),  # GRUB splits at ASCII white space only
    ],
)
def test_words(line: str, words: tuple[str, ...]) -> None:
    (entry,) = parse(f"menuentry 'x' {{\n{line}\n}}").entries
    assert (entry.kernel, entry.arguments) == ("k", words)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/boot/gentoo", "boot/gentoo"),
        ("boot/gentoo", "boot/gentoo"),
        ("//boot/gentoo", "boot/gentoo"),
        ("(hd0,gpt1)/boot/gentoo", "boot/gentoo"),
        ("($root)/boot/gentoo", "boot/gentoo"),
        ("$prefix/gentoo", "$prefix/gentoo"),
        ('"/boot/my kernel"', "boot/my kernel"),
        ("$dir/gentoo", "kernels/gentoo"),
    ],
)
def test_paths(written: str, path: str) -> None:
    text = f"set dir=/kernels\nmenuentry x {{\nlinux {written}\ninitrd16 {written} /b\n}}"
    (entry,) = parse(text).entries
    assert (entry.kernel, entry.initrds) == (path, (path, "b"))


@pytest.mark.parametrize(
    "head",
    [
        "menuentry 'My title' --class a --class b",
        "menuentry --class a --id x --hotkey=k --unrestricted 'My title'",
        'menuentry "My title" --users "" $menuentry_id_option \'gnu\'',
        "menuentry My\\ title",
    ],
)
def test_titles(head: str) -> None:
    assert [e.title for e in parse(head + " { linux /k; }").entries] == ["My title"]


def test_both_ways_of_an_if_are_read() -> None:
    text = """
if [ "x$grub_platform" = xpc ]; then menuentry a { chainloader /a; }
elif [ -f /x ]; then menuentry b { chainloader /b; }
else menuentry c { chainloader /c; }; fi
if true
then
    menuentry d { chainloader --force /d; }
else
    menuentry e { chainloader /e; }
    if [ -e /g ]; then menuentry g { chainloader /g; }; fi
fi
"""
    assert [(e.title, e.chainloader) for e in parse(text).entries] == [(x, x) for x in "abcdeg"]


def test_an_entry_that_differs_by_platform() -> None:
    text = """menuentry 'Memtest' {
  if [ "$grub_platform" = pc ]; then
    linux16 /memtest64.bios
  else
    chainloader /memtest.efi64
  fi
}"""
    assert parse(text).entries == (
        memtest("Memtest", kernel="memtest64.bios"),
        memtest("Memtest", efi="memtest.efi64"),
    )


def test_passes_over_what_is_no_menu() -> None:
    text = """
insmod all_video
export i
menuentry 'sub' --class x { true; }
submenu one { submenu two { menuentry 'deep' { load video; linux /k; } } }
linux /outside
"""
    assert parse(text).entries == (
        GrubEntry("sub", ()),
        GrubEntry("deep", ("one", "two"), "k"),
    )


DEEP = "submenu a {\n" * 65
GROWING = "set a=xxxxxxxxxxxxxxxx\n" + 'set a="$a$a"\n' * 40


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("\nmenuentry 'a {\n", "line 2: ' is never closed", "add a '"),
        ('\n\nset a="b\n\n', 'line 3: " is never closed', 'add a "'),
        ('set a=b\\\n"c\n\n', 'line 2: " is never closed', 'add a "'),
        ("menuentry a {\nlinux /k\n", "line 1: { is never closed", "add a }"),
        ("menuentry a {\n}\n}\n", "line 3: } closes no {", "remove the }"),
        ("menuentry --class a {\n}", "line 1: menuentry has no title", "give it one in quotes"),
        ("if true; then\n:", "line 1: if is never closed", "add a fi"),
        *(
            (
                f"insmod x\n{word} x; do\n",
                f"line 2: {word} cannot be read, only entries, submenus and if",
                f"write the ISO's menu without {word}",
            )
            for word in ("for", "while", "until", "function")
        ),
        ("load x {\n}\n", "line 1: { opens no menuentry or submenu", "remove the {"),
        ("fi", "line 1: fi closes no if", "remove the fi"),
        ("then", "line 1: then without if", "remove the then"),
        ("else", "line 1: else without if", "remove the else"),
        (
            "menuentry a {\nif true; then\n}\nfi",
            "line 3: } closes no {",
            "remove the }",
        ),
        (DEEP, "line 65: is nested deeper than 64", "flatten the menu"),
        (GROWING, "line 13: variables make too long a text", "use fewer variables"),
    ],
)
def test_damage(text: str, message: str, hint: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text)
    assert caught.value.message == f"grub.cfg: {message}"
    assert caught.value.hint == hint


def test_nesting_up_to_the_limit() -> None:
    text = "submenu a {\n" * 63 + "menuentry b { linux /k; }" + "}" * 63
    assert len(parse(text).entries[0].submenus) == 63


def test_is_bounded() -> None:
    parse(" " * (512 << 10))
    with pytest.raises(FormatError) as caught:
        parse(" " * ((512 << 10) + 1))
    assert caught.value.message == "grub.cfg: expected a boot menu of at most 524288 characters"
    parse("menuentry a { linux /k; }\n" * 256)
    with pytest.raises(FormatError) as caught:
        parse("menuentry a { linux /k; }\n" * 257)
    assert caught.value.message == "grub.cfg: line 257: has more than 256 menu entries"


PIECES = st.sampled_from(
    [
        *"{};\n'\"\\$# =[]!",
        *(f" {word} " for word in ("if", "then", "elif", "else", "fi", "for", "while")),
        *(f" {word} " for word in ("until", "do", "done", "function")),
        *("menuentry a ", "submenu b ", "set a=$a", "linux /k ", "initrd /i ", "${a}", "${", "$1"),
        *("$grub_platform", " = ", "pc", "\r", "chainloader ", "unset a\n", "\\\n", "--class "),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=60).map("".join)))
def test_only_format_errors(text: str) -> None:
    try:
        parse(text)
    except FormatError as error:
        assert error.message.startswith("grub.cfg: line ")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1), st.text(max_size=3), st.integers(0, 9))
def test_mutated_samples(name: str, where: float, junk: str, drop: int) -> None:
    text = (DATA / name).read_text()
    place = int(where * len(text))
    try:
        parse(text[:place] + junk + text[place + drop :])
    except FormatError as error:
        assert error.message.startswith("grub.cfg: line ")

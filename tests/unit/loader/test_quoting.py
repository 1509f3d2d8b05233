"""Values are quoted for each loader's grammar, or refused with the reason and the hint."""

from __future__ import annotations

import pytest

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import TemplateError

IPXE, PXELINUX, GRUB, UBOOT = Loader.IPXE, Loader.PXELINUX, Loader.GRUB, Loader.UBOOT
NAMES = {kind: loader.name for kind, loader in LOADERS.items()}

IPXE_WAY_OUT = "write it without, or leave ipxe out of pxeboot/loaders"
GRUB_QUOTE = (
    "holds a quote or backslash, before which GRUB puts a backslash of its own;"
    " write it without, or leave grub out of pxeboot/loaders"
)

UBOOT_EXPANDS = (
    "holds '$', a quote or a backslash, which U-Boot expands;"
    " write it without, or leave uboot out of pxeboot/loaders"
)


@pytest.mark.parametrize("loader", list(Loader))
@pytest.mark.parametrize(
    "word",
    ["quiet", "console=ttyS0,115200n8", "root=live:/image.squashfs.img", "ip=dhcp",
     "a.b_c-d+e%f@g", "rd.live.overlay.overlayfs=1", "nfsroot=192.0.2.1:/srv/x"],
)  # fmt: skip
def test_plain_arguments_stay_as_they_are(loader: Loader, word: str) -> None:
    assert LOADERS[loader].quote_arguments(["before", word]) == f"before {word}"


def test_no_arguments_are_an_empty_text() -> None:
    assert LOADERS[GRUB].quote_arguments([]) == ""


@pytest.mark.parametrize(
    "word",
    ["a;b", "{a}", "}", "$a", "${a}", "a|b", "||", "a&b", "&&", "<a", "a>b", "a#b", "#a", "a*",
     "a?", "[a]", "!", "`a`", "(hd0)", "~a", "a^b"],
)  # fmt: skip
def test_grub_gets_single_quotes_around_what_it_would_read(word: str) -> None:
    assert LOADERS[GRUB].quote_arguments(["x=1", word, "y"]) == f"x=1 '{word}' y"


@pytest.mark.parametrize("word", ["a;b", "a||b", "a&&b", "{a}", "}", "$a", "a#b", "'a'", '"a"',
                                  "\\a", "a\\b", "|", "&"])  # fmt: skip
def test_ipxe_takes_what_is_no_command_of_its_own(word: str) -> None:
    assert LOADERS[IPXE].quote_arguments([word]) == word


@pytest.mark.parametrize("word", ['a="b"', "${a}", "||", "#a", "a\\", ";", "--", "-a"])
def test_pxelinux_takes_a_line_as_it_is(word: str) -> None:
    assert LOADERS[PXELINUX].quote_arguments([word]) == word


@pytest.mark.parametrize(
    ("loader", "word", "message"),
    [
        (IPXE, "${net0/ip}", "holds '${', which iPXE expands and has no quoting for; "
         + IPXE_WAY_OUT),
        (IPXE, "a${", "holds '${', which iPXE expands and has no quoting for; " + IPXE_WAY_OUT),
        (IPXE, "||", "holds the word '||', which ends an iPXE command; " + IPXE_WAY_OUT),
        (IPXE, "&&", "holds the word '&&', which ends an iPXE command; " + IPXE_WAY_OUT),
        (IPXE, ";", "holds the word ';', which ends an iPXE command; " + IPXE_WAY_OUT),
        (IPXE, "#", "holds a word that begins with '#', an iPXE comment; " + IPXE_WAY_OUT),
        (IPXE, "#a", "holds a word that begins with '#', an iPXE comment; " + IPXE_WAY_OUT),
        (IPXE, "a\\", "holds a word that ends in a backslash, which continues an iPXE line; "
         + IPXE_WAY_OUT),
        (GRUB, 'a="b"', GRUB_QUOTE),
        (GRUB, "it's", GRUB_QUOTE),
        (GRUB, "a\\b", GRUB_QUOTE),
        (PXELINUX, "-", "means 'no arguments' in an APPEND line; leave it out"),
        (UBOOT, "${a}", UBOOT_EXPANDS),
        (UBOOT, "it's", UBOOT_EXPANDS),
        (UBOOT, "a\\b", UBOOT_EXPANDS),
        (UBOOT, "#a", "begins with '#', which starts a comment there; begin otherwise"),
    ],
)  # fmt: skip
def test_one_loader_refuses_an_argument(loader: Loader, word: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        LOADERS[loader].quote_arguments(["good", word])
    assert str(caught.value) == f'{NAMES[loader]}: the kernel argument "{word}" {message}'


@pytest.mark.parametrize("loader", list(Loader))
@pytest.mark.parametrize(
    ("word", "shown", "message"),
    [
        ("", "", "is empty; leave it out"),
        ("a\nb", "a\\nb", "holds a line break or control character; write it without"),
        ("a\rb", "a\\rb", "holds a line break or control character; write it without"),
        ("a\0", "a\\x00", "holds a line break or control character; write it without"),
        ("a\tb", "a\\tb", "holds a line break or control character; write it without"),
        ("\x1b[2J", "\\x1b[2J", "holds a line break or control character; write it without"),
        ("\x7f", "\\x7f", "holds a line break or control character; write it without"),
        ("a\x85b", "a\\x85b", "holds a line break or control character; write it without"),
        ("a\u2028b", "a\\u2028b", "holds a line break or control character; write it without"),
        ("a b", "a b", "holds white space; give each word as an argument of its own"),
        ("é", "é", "holds other characters than ASCII, which loaders hand over in different"
         " encodings; write it in ASCII"),
        ("initrd=x", "initrd=x", "is written by the loader itself; leave it out"),
    ],
)  # fmt: skip
def test_every_loader_refuses_an_argument(
    loader: Loader, word: str, shown: str, message: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        LOADERS[loader].quote_arguments([word])
    assert str(caught.value) == f'{NAMES[loader]}: the kernel argument "{shown}" {message}'


@pytest.mark.parametrize(
    ("loader", "text", "quoted"),
    [
        (IPXE, "Boot LiveCD (kernel: gentoo)", "Boot LiveCD (kernel: gentoo)"),
        (IPXE, 'it\'s 100% "good" {a} 1', 'it\'s 100% "good" {a} 1'),
        (PXELINUX, 'it\'s "good" #1 ${a} || \\', 'it\'s "good" #1 ${a} || \\'),
        (GRUB, "Boot LiveCD", "'Boot LiveCD'"),
        (GRUB, "it's", r"'it'\''s'"),
        (GRUB, '"a" \\ ; } $b', "'\"a\" \\ ; } $b'"),
        (GRUB, "Démarrer", "'Démarrer'"),
        (UBOOT, 'it\'s "good" #1 ${a} \\', 'it\'s "good" #1 ${a} \\'),
    ],
)
def test_titles(loader: Loader, text: str, quoted: str) -> None:
    assert LOADERS[loader].quote_title(text) == quoted


@pytest.mark.parametrize(
    ("loader", "text", "message"),
    [
        (IPXE, "a ${b}", 'iPXE: the title "a ${b}" holds \'${\', which iPXE expands and has no'
         " quoting for; " + IPXE_WAY_OUT),
        (IPXE, "a || b", 'iPXE: the title "a || b" holds the word \'||\', which ends an iPXE'
         " command; " + IPXE_WAY_OUT),
        (IPXE, "No #1", 'iPXE: the title "No #1" holds a word that begins with \'#\', an iPXE'
         " comment; " + IPXE_WAY_OUT),
        (IPXE, "a\\", 'iPXE: the title "a\\" holds a word that ends in a backslash, which'
         " continues an iPXE line; " + IPXE_WAY_OUT),
        (PXELINUX, "^Boot", 'PXELINUX: the title "^Boot" holds \'^\', which marks a hot key'
         " there; leave '^' out"),
        (UBOOT, "#1", 'U-Boot: the title "#1" begins with \'#\', which starts a comment there;'
         " begin otherwise"),
        (GRUB, " ", 'GRUB: the title " " is empty; give it a text'),
        (GRUB, "a\nb", 'GRUB: the title "a\\nb" holds a line break or control character;'
         " write it without"),
    ],
)  # fmt: skip
def test_refused_titles(loader: Loader, text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        LOADERS[loader].quote_title(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("path", ["image.squashfs", "boot/gentoo-6.1_x+y.igz", "a/b/c"])
def test_paths(path: str) -> None:
    assert {LOADERS[loader].quote_path(path) for loader in Loader} == {path}


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a,b", "a$b", "a'b", "a\n", "ä", "a\\b"],
)
def test_refused_paths(path: str) -> None:
    with pytest.raises(TemplateError) as caught:
        LOADERS[GRUB].quote_path(path)
    shown = path.replace("\n", "\\n")
    assert str(caught.value) == (
        f'GRUB: the file name "{shown}" holds more than letters, digits and . _ + - between'
        " single slashes; rename the file"
    )


def test_labels() -> None:
    assert LOADERS[IPXE].quote_label("gentoo-2") == "gentoo-2"
    for name in ("", "-a", "a_b", "a b", "a\n"):
        with pytest.raises(TemplateError, match=r"rename the entry$"):
            LOADERS[IPXE].quote_label(name)

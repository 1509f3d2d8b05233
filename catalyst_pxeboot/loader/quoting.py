"""Check and quote one value for the grammar of one loader.

What passes here stands in the rendered file exactly as it was meant and cannot become a command.
A loader that has no way to write a value down refuses it; nothing is changed in silence.

Sources: iPXE core/exec.c, core/settings.c and image/script.c (words split at white space, no
quotes; `${` expands; `||`, `&&` and `;` as words of their own separate commands; a word that
begins with `#` starts a comment; a backslash before the line's end continues it). GRUB manual,
"Quoting" (nothing is special between single quotes; the kernel gets a backslash before each
`"`, `'` and `\\`). Syslinux com32/menu/readconfig.c (lines are raw; `^` marks a hot key). U-Boot
boot/pxe_utils.c (lines are raw, but cannot begin with `#`) and common/cli_simple.c, which goes over
the kernel's arguments.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from catalyst_pxeboot.model.loader import LOADER_NAMES, Loader
from catalyst_pxeboot.util.errors import TemplateError

_PATH = re.compile(r"[A-Za-z0-9._+-]+(?:/[A-Za-z0-9._+-]+)*")


_LABEL = re.compile(r"[A-Za-z0-9-]+")


_GRUB_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@%-]+")


_IPXE_SEPARATORS = frozenset({"||", "&&", ";"})


def quote_arguments(loader: Loader, words: Iterable[str]) -> str:
    """Return kernel arguments as they stand in a line of the loader's configuration.

    Raises `TemplateError` naming the first word that the loader cannot hand to a kernel.
    """
    return " ".join(_argument(loader, word) for word in words)


def quote_title(loader: Loader, text: str) -> str:
    """Return a title as it stands in a line of the loader's configuration.

    Raises `TemplateError` if the loader would read something else in it.
    """
    what = "title"
    if not text.strip():
        raise _refused(what, text, loader, "is empty", "give it a text")
    _check_printable(what, text, loader)
    match loader:
        case Loader.IPXE:
            _check_ipxe(what, text.split(), text, loader)
        case Loader.PXELINUX:
            if "^" in text:
                raise _refused(
                    what, text, loader, "holds '^', which marks a hot key there", "leave '^' out"
                )
        case Loader.GRUB:
            return "'" + text.replace("'", r"'\''") + "'"
        case Loader.UBOOT:
            _check_uboot_start(what, text, loader)
    return text


def quote_shell(text: str) -> str:
    """Return a text as one word of a POSIX shell's script.

    Raises `TemplateError` for what would not stay in its line.
    """
    if not text.isprintable():
        raise TemplateError(
            f'kexec.sh: the value "{text}" holds a line break or control character',
            hint="write it without",
        )
    return shlex.quote(text)


def quote_path(loader: Loader, path: str) -> str:
    """Return the path of a file in the tree; only characters that no loader reads pass."""
    if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise _refused(
            "file name",
            path,
            loader,
            "holds more than letters, digits and . _ + - between single slashes",
            "rename the file",
        )
    return path


def quote_label(loader: Loader, name: str) -> str:
    """Return an entry's name, which every loader takes as a label."""
    if not _LABEL.fullmatch(name) or name.startswith("-"):
        raise _refused(
            "entry name",
            name,
            loader,
            "holds more than letters, digits and hyphens, or begins with one",
            "rename the entry",
        )
    return name


def _argument(loader: Loader, word: str) -> str:
    what = "kernel argument"
    if not word:
        raise _refused(what, word, loader, "is empty", "leave it out")
    _check_printable(what, word, loader)
    if not word.isascii():
        raise _refused(
            what,
            word,
            loader,
            "holds other characters than ASCII, which loaders hand over in different encodings",
            "write it in ASCII",
        )
    if any(c.isspace() for c in word):
        raise _refused(
            what, word, loader, "holds white space", "give each word as an argument of its own"
        )
    if word.startswith("initrd="):
        raise _refused(what, word, loader, "is the loader's own to write", "leave it out")
    match loader:
        case Loader.IPXE:
            _check_ipxe(what, [word], word, loader)
        case Loader.PXELINUX:
            if word == "-":
                raise _refused(
                    what, word, loader, "means 'no arguments' in an APPEND line", "leave it out"
                )
        case Loader.GRUB:
            if any(c in "\"'\\" for c in word):
                raise _refused(
                    what,
                    word,
                    loader,
                    "holds a quote or backslash, before which GRUB puts a backslash of its own",
                    "write it without, or leave grub out of pxeboot/loaders",
                )
            if not _GRUB_PLAIN.fullmatch(word):
                return f"'{word}'"
        case Loader.UBOOT:
            _check_uboot_start(what, word, loader)
            if any(c in "$'\\" for c in word):
                raise _refused(
                    what,
                    word,
                    loader,
                    "holds '$', a quote or a backslash, which U-Boot expands",
                    "write it without, or leave uboot out of pxeboot/loaders",
                )
    return word


def _check_uboot_start(what: str, text: str, loader: Loader) -> None:
    if text.startswith("#"):
        raise _refused(
            what, text, loader, "begins with '#', which starts a comment there", "begin otherwise"
        )


def _check_ipxe(what: str, words: Iterable[str], text: str, loader: Loader) -> None:
    way_out = "write it without, or leave ipxe out of pxeboot/loaders"
    if "${" in text:
        raise _refused(
            what, text, loader, "holds '${', which iPXE expands and has no quoting for", way_out
        )
    for word in words:
        if word in _IPXE_SEPARATORS:
            raise _refused(
                what, text, loader, f"holds the word '{word}', which ends an iPXE command", way_out
            )
        if word.startswith("#"):
            raise _refused(
                what, text, loader, "holds a word that begins with '#', an iPXE comment", way_out
            )
        if word.endswith("\\"):
            raise _refused(
                what,
                text,
                loader,
                "holds a word that ends in a backslash, which continues an iPXE line",
                way_out,
            )


def _check_printable(what: str, text: str, loader: Loader) -> None:
    if not text.isprintable():
        raise _refused(
            what, text, loader, "holds a line break or control character", "write it without"
        )


def _refused(what: str, value: str, loader: Loader, why: str, way_out: str) -> TemplateError:
    shown = f'{what} "{value}"'
    return TemplateError(f"{LOADER_NAMES[loader]}: the {shown} {why}", hint=way_out)

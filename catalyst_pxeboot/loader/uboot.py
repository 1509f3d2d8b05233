"""U-Boot's `pxe get` and `pxe boot`, which read a part of PXELINUX's grammar.

Sources: U-Boot boot/pxe_utils.c (lines are raw, but cannot begin with `#`) and common/cli_simple.c,
which reads the kernel's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.loader.common import BootLoader, Config, make_config, note_file, note_root
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.menu import LiveEntry

_ENTRY = frozenset(
    {"append", "devicetree", "devicetreedir", "fdt", "fdtdir", "initrd", "ipappend", "kernel",
     "linux", "localboot", "menu"}
)  # fmt: skip
_FILES = frozenset({"kernel", "linux", "initrd", "fdt", "devicetree"})
_NUMBERS = frozenset({"timeout", "ipappend", "localboot"})
_KINDS = frozenset({"kernel", "linux", "localboot"})


class UBoot(BootLoader):
    """U-Boot on arm and arm64."""

    kind = Loader.UBOOT
    name = "U-Boot"
    configs = ("pxelinux.cfg/default-arm",)  # it calls itself arm on arm64, too
    cannot_start: ClassVar[Mapping[KernelImage, str]] = {
        KernelImage.GZIP: "it unpacks none unless its kernel_comp_addr_r and kernel_comp_size are"
        " set",
        KernelImage.ZBOOT: "it starts EFI programs by bootefi, not by pxe boot",
    }
    on_efi = False  # it reserves no memory for services, as a BIOS
    initrds_below_2_gib = False
    joins_initrds = True
    root_inside = "initrd"
    loads_device_trees = True
    boot_file_in_tree = True
    line_bytes = 512

    def initrds(self, entry: LiveEntry) -> tuple[str, ...]:
        return (entry.joined,) if entry.joined else entry.parts

    def _quote_title(self, text: str) -> str:
        self._check_start("title", text)
        return text

    def _quote_argument(self, word: str) -> str:
        self._check_start("kernel argument", word)
        if any(c in "$'\\" for c in word):
            raise self._refused(
                "kernel argument",
                word,
                "holds '$', a quote or a backslash, which U-Boot expands",
            )
        return word

    def _check_start(self, what: str, text: str) -> None:
        if text.startswith("#"):
            raise self._refused(
                what, text, "begins with '#', which starts a comment there", "begin otherwise"
            )

    def check(self, text: str) -> Config:
        return _check(text)


UBOOT = UBoot()


def _check(text: str) -> Config:
    problems: list[str] = []
    files: set[str] = set()
    roots: set[str] = set()
    labels: dict[str, int] = {}
    given: dict[str, dict[str, int]] = {}
    wanted: list[tuple[int, str]] = []
    entry = ""
    for number, line in enumerate(text.split("\n"), 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        key, value = words[0].lower(), words[1].rstrip() if len(words) > 1 else ""
        if key == "menu":
            sub, _, shown = value.partition(" ")
            if not shown.strip() and sub.lower() != "default":
                problem(f"MENU {sub.upper()} wants a text")
            elif shown.strip().startswith("#"):
                problem(f"MENU {sub.upper()}: its text begins with #, a comment")
            continue
        if key == "label":
            if value in labels:
                problem(f'label "{value}" is already on line {labels[value]}')
            if len(value.split()) != 1:
                problem("LABEL wants one word")
            labels[value] = number
            given[value] = {}
            entry = value
        elif not value or value.startswith("#"):
            problem(f"{words[0]} wants a value")
        elif key in _NUMBERS and not re.fullmatch(r"-?\d+", value):
            problem(f'{words[0]} wants a number, not "{value}"')
        elif key in {"default", "ontimeout"}:
            wanted.append((number, value))
        elif key in _FILES and len(value.split()) != 1:
            problem(f"{words[0]} wants one file")
        elif key in _FILES and "," in value:
            problem(f"{words[0]} takes one file; U-Boot splits no list at commas")
        elif key in _FILES:
            note_file(value, files, problem)
        elif key in {"fdtdir", "devicetreedir"}:
            # U-Boot chooses the file there by its own board's name.
            note_file(value, set(), problem)
        elif key == "append":
            note_root(value.split(), roots)
            if re.search(r"[$'\\]", value):
                problem("APPEND holds $, a quote or a backslash, which U-Boot expands")
        if entry and key in _ENTRY:
            kind = "kernel" if key in _KINDS else key
            if kind in given[entry]:
                problem(f'{words[0]} is already on line {given[entry][kind]} of "{entry}"')
            given[entry].setdefault(kind, number)
    for number, label in wanted:
        if label not in labels:
            problems.append(f'line {number}: unknown label "{label}"')
    for label, number in labels.items():
        if "kernel" not in given[label]:
            problems.append(f'line {number}: the entry "{label}" starts nothing')
    return make_config(files, roots, problems)

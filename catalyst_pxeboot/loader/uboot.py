"""U-Boot: the check of its configuration."""

from __future__ import annotations

import re

from catalyst_pxeboot.loader.common import Config, make_config, note_file, note_root

# --- U-Boot -------------------------------------------------------------------------------------

# What boot/pxe_utils.c reads of PXELINUX's grammar, without what asks for more files at run time.
# Anything else ends an entry and is ignored, so that the rest of the entry is lost.
_UBOOT_GLOBAL = frozenset({"default", "menu", "ontimeout", "prompt", "timeout"})


_UBOOT_ENTRY = frozenset(
    {"append", "devicetree", "devicetreedir", "fdt", "fdtdir", "initrd", "ipappend", "kernel",
     "linux", "localboot", "menu"}
)  # fmt: skip


_UBOOT_FILES = frozenset({"kernel", "linux", "initrd", "fdt", "devicetree"})


_UBOOT_NUMBERS = frozenset({"timeout", "ipappend", "localboot"})


_UBOOT_KINDS = frozenset({"kernel", "linux", "localboot"})


def check_uboot(text: str) -> Config:
    """Check a configuration for U-Boot's `pxe boot`."""
    problems: list[str] = []
    files: set[str] = set()
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
            if sub.lower() not in ({"label", "default"} if entry else {"title"}):
                problem(f'unknown directive "MENU {sub.upper()}"')
            elif not shown.strip() and sub.lower() != "default":
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
        elif key not in (_UBOOT_ENTRY if entry else _UBOOT_GLOBAL):
            where = f'in the entry "{entry}"' if entry else "before the first LABEL"
            problem(f'unknown directive "{words[0]}" {where}')
        elif not value or value.startswith("#"):
            problem(f"{words[0]} wants a value")
        elif key in _UBOOT_NUMBERS and not re.fullmatch(r"-?\d+", value):
            problem(f'{words[0]} wants a number, not "{value}"')
        elif key in {"default", "ontimeout"}:
            wanted.append((number, value))
        elif key in _UBOOT_FILES and len(value.split()) != 1:
            problem(f"{words[0]} wants one file")
        elif key in _UBOOT_FILES and "," in value:
            problem(f"{words[0]} takes one file; U-Boot splits no list at commas")
        elif key in _UBOOT_FILES:
            note_file(value, files, problem)
        elif key in {"fdtdir", "devicetreedir"}:
            # U-Boot chooses the file there by its own board's name.
            note_file(value, set(), problem)
        elif key == "append":
            note_root(value.split(), files)
            if re.search(r"[$'\\]", value):
                problem("APPEND holds $, a quote or a backslash, which U-Boot expands")
        if entry and key in _UBOOT_ENTRY:
            kind = "kernel" if key in _UBOOT_KINDS else key
            if kind in given[entry]:
                problem(f'{words[0]} is already on line {given[entry][kind]} of "{entry}"')
            given[entry].setdefault(kind, number)
    for number, label in wanted:
        if label not in labels:
            problems.append(f'line {number}: there is no label "{label}"')
    for label, number in labels.items():
        if "kernel" not in given[label]:
            problems.append(f'line {number}: the entry "{label}" starts nothing')
    return make_config(files, problems)

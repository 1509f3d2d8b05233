"""iPXE.

Sources: iPXE core/exec.c, core/settings.c and image/script.c (words split at white space, no
quotes; `${` expands; `||`, `&&` and `;` as words of their own separate commands; a word that
begins with `#` starts a comment; a backslash before the line's end continues it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.loader.common import (
    BootLoader,
    Config,
    RootVariables,
    expand_files,
    make_config,
    note_file,
    note_root,
)
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.menu import LiveEntry

#: What OVMF and iPXE hold while the kernel's EFI stub runs, and memory below 21 MiB, which OVMF
#: keeps: 35 and 21 MiB by the kernel's own list of that moment (`efi=debug`), and what lies in the
#: middle of the free memory. With 32 MiB less, 1 boot of 8 failed.
_EFI_MEMORY = 91 << 20

_SEPARATORS = frozenset({"||", "&&", ";"})

#: Options with a value, of the commands that are looked at.
_WITH_VALUE = frozenset({"--default", "--key", "--menu", "--name", "--signer", "--timeout"})

_FETCHES = frozenset({"kernel", "initrd", "chain", "imgfetch"})

#: Commands that must say what to do when they fail.
_MAY_FAIL = frozenset(
    {"choose", "cpuid", "imgverify", "initrd", "iseq", "isset", "kernel", "prompt"}
)


class Ipxe(BootLoader):
    """iPXE of any age since 2019, on BIOS and UEFI."""

    kind = Loader.IPXE
    name = "iPXE"
    configs = ("boot.ipxe",)
    flat_ending = "ipxe"
    cannot_start: ClassVar[Mapping[KernelImage, str]] = {
        KernelImage.GZIP: "UEFI starts PE programs only, and iPXE unpacks none before 2021"
    }
    memtest_firmware = frozenset(Firmware)
    root_variables = RootVariables(
        url="${root_url}",
        nfs_server="${nfs_server}",
        address="${address}",
        genkernel_address="${gk_address}",
        mac="${netX/mac}",
    )
    needs_efi_stub = True

    def initrds(self, entry: LiveEntry) -> tuple[str, ...]:
        # It makes the header of the live root itself; only under an old UEFI iPXE it takes ours.
        return tuple(part for part in entry.parts if part != entry.root_header)

    def add_arguments(self, text: str, words: str) -> str:
        return f"#!ipxe\nset cmdline {words} ${{cmdline}}\n{text}"

    def _memory_efi(self, kernel: int, resident: int, loaded: int, before: int) -> int:
        # iPXE keeps what it has fetched while the kernel's EFI stub makes a copy, in one piece; one
        # of what came before the last file is there as well then. Since 6.6 (and 6.1.84) the stub
        # first unpacks the kernel to a random address (KASLR), which cuts the free memory in two;
        # it is sure to suffice only where each half would hold the copy. Measured with 129 MiB: by
        # luck from 452 on, with 514 in 8 boots of 10, with 559 in 7 of 8; with nokaslr from
        # 2 * loaded. Two kernels: the file, and what the firmware loaded it to.
        return 3 * loaded + before + 2 * kernel + resident + _EFI_MEMORY

    def read_version(self, data: bytes) -> str | None:
        version = rb"\d+\.\d+\.\d+(?:[+.-][0-9A-Za-z.+~-]*)?(?: ?\([0-9a-z+]+\))?"
        wide = rb"((?:\d\0)+\.\0(?:\d\0)+\.\0(?:\d\0)+(?:[+0-9A-Za-z.~-]\0)*)\0\0"
        found = (
            re.search(rb"iPXE/(" + version + rb")", data)
            or re.search(rb"\0(" + version + rb")\0", data)
            or re.search(wide, data)
        )
        return found[1].decode("ascii", "replace").replace("\0", "") if found else None

    def _quote_title(self, text: str) -> str:
        self._check_words("title", text.split(), text)
        return text

    def _quote_argument(self, word: str) -> str:
        self._check_words("kernel argument", [word], word)
        return word

    def _check_words(self, what: str, words: Iterable[str], text: str) -> None:
        if "${" in text:
            raise self._refused(what, text, "holds '${', which iPXE expands and has no quoting for")
        for word in words:
            if word in _SEPARATORS:
                raise self._refused(
                    what, text, f"holds the word '{word}', which ends an iPXE command"
                )
            if word.startswith("#"):
                raise self._refused(
                    what, text, "holds a word that begins with '#', an iPXE comment"
                )
            if word.endswith("\\"):
                raise self._refused(
                    what,
                    text,
                    "holds a word that ends in a backslash, which continues an iPXE line",
                )

    def check(self, text: str) -> Config:
        return _check(text)


IPXE = Ipxe()


def _check(text: str) -> Config:
    problems: list[str] = []
    files: set[str] = set()
    roots: set[str] = set()
    labels: dict[str, int] = {}
    items: dict[str, int] = {}
    jumps: list[tuple[int, str, str]] = []
    variable_jumps: list[tuple[int, str]] = []
    prefix_jumps: list[tuple[int, str]] = []  # to one of the labels that begin so, or to none
    assigned: dict[str, set[str]] = {}
    fetched: list[tuple[int, str]] = []
    lines = text.split("\n")
    if not re.match(r"#!ipxe\s*$", lines[0]):
        problems.append("line 1: not #!ipxe")
    for number, line in enumerate(lines, 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        if line.endswith("\\"):
            problem("ends in a backslash, which continues it on the next line")
        line = line.strip()
        if line.startswith(":"):
            label, _, line = line[1:].partition(" ")
            if not re.fullmatch(r"[A-Za-z0-9_-]+", label):
                problem(f'label "{label}" holds more than letters, digits, _ and -')
            if label in labels:
                problem(f'label "{label}" is already on line {labels[label]}')
            labels[label] = number
        commands = _split(line)
        for index, (words, after) in enumerate(commands):
            if not words:
                continue
            name = words[0]
            values, rest = _split_options(words[1:])
            if name in _MAY_FAIL and not after and index == len(commands) - 1:
                problem(f"{name}: nothing says what to do when it fails")
            if name == "goto":
                if len(rest) != 1:
                    problem("goto: wants one label")
                elif match := re.fullmatch(r"\$\{([^}]+)\}", rest[0]):
                    variable_jumps.append((number, match[1]))
                elif match := re.fullmatch(r"(\w+)\$\{[^}]+\}", rest[0]):
                    prefix_jumps.append((number, match[1]))
                else:
                    jumps.append((number, "goto", rest[0]))
            elif name == "choose":
                if len(rest) != 1:
                    problem("choose: wants the name of one setting")
                else:
                    assigned.setdefault(rest[0], set()).update(items)
                default = values.get("--default")
                if default is not None and "$" not in default and default not in items:
                    problem(f'choose: the default "{default}" is not an item of the menu')
            elif name == "menu":
                items = {}
            elif name == "item":
                if "--gap" not in values:
                    if len(rest) < 2:
                        problem("item: wants a label and a text")
                    else:
                        items[rest[0]] = number
                        jumps.append((number, "item", rest[0]))
            elif name == "set":
                if rest:
                    setting = rest[0].split(":")[0]
                    assigned.setdefault(setting, set()).add(" ".join(rest[1:]))
                    note_root(rest[1:], roots)
                else:
                    problem("set: wants the name of a setting")
            elif name == "imgverify":
                if len(rest) != 2:
                    problem("imgverify: wants an image and the file of its signature")
                else:
                    fetched += [(number, rest[1])]
            elif name in _FETCHES:
                if not rest:
                    problem(f"{name}: wants a file")
                else:
                    fetched += [(number, rest[0])]
            for word in words:
                if word.count("${") > word.count("}"):
                    problem(f'"{word}" opens a setting and does not close it')
    for number, what, label in jumps:
        if label not in labels:
            problems.append(f'line {number}: {what}: unknown label "{label}"')
    for number, prefix in prefix_jumps:
        if not any(label.startswith(prefix) for label in labels):
            problems.append(f'line {number}: goto: no label begins with "{prefix}"')
    for number, setting in variable_jumps:
        if setting not in assigned:
            problems.append(f'line {number}: goto: nothing sets "{setting}"')
        for label in sorted(assigned.get(setting, ())):
            if label not in labels:
                problems.append(f'line {number}: goto ${{{setting}}}: unknown label "{label}"')
    for number, word in fetched:
        # The signature of a file in a variable.
        word, ending = (word[:-4], word[-4:]) if word.endswith("}.p7s") else (word, "")
        for path in expand_files(word, assigned):

            def problem(what: str, number: int = number) -> None:
                problems.append(f"line {number}: {what}")

            note_file(path + ending, files, problem)
    return make_config(files, roots, problems)


def _split(line: str) -> list[tuple[list[str], str]]:
    """Split a line into commands, each with the separator that follows it."""
    commands: list[tuple[list[str], str]] = []
    words: list[str] = []
    for word in line.split():
        if word.startswith("#"):
            break
        if word in {"||", "&&", ";"}:
            commands.append((words, word))
            words = []
        else:
            words.append(word)
    if words or not commands:
        commands.append((words, ""))
    return commands


def _split_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split options from what follows them; return their values and the rest."""
    values: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        values[word] = rest.pop(0) if word in _WITH_VALUE and rest else ""
    return values, rest

"""GRUB.

Source: the GRUB manual, "Quoting": nothing is special between single quotes; the kernel gets a
backslash before each `"`, `'` and backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

#: The configuration inside GRUB's own network images; not a file of the tree.
GRUB_EARLY = "boot/grub/early.cfg"

_MIB = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=+@%-]+")
_FETCHES = frozenset({"linux", "initrd", "chainloader", "configfile", "source", "devicetree"})
_BLOCKS = {"if": "fi", "while": "done", "until": "done"}


class Grub(BootLoader):
    """GRUB 2, on BIOS and UEFI."""

    kind = Loader.GRUB
    name = "GRUB"
    # The second and third lead a GRUB that was not made for the tree to the first.
    configs = ("boot/grub/grub.cfg", "grub.cfg", "grub/grub.cfg")
    flat_ending = "cfg"
    cannot_start: ClassVar[Mapping[KernelImage, str]] = {
        KernelImage.ZBOOT: "before 2.12 it asks for the plain Image's header, unless patched"
    }
    memtest_firmware = frozenset(Firmware)
    root_variables = RootVariables(
        url="${root_url}", nfs_server="${nfs_server}", mac="$net_default_mac"
    )

    def quote_variables(self, word: str) -> str:
        return f'"{word}"' if "$" in word else word

    def quote_value(self, words: Iterable[str]) -> str:
        given = list(words)
        self.quote_arguments(given)  # which have no quotes of their own
        return "'" + " ".join(given) + "'"

    def add_arguments(self, text: str, words: str) -> str:
        return f'set cmdline="{words} $cmdline"\nexport cmdline\n{text}'

    def _memory_efi(self, kernel: int, resident: int, loaded: int, before: int) -> int:
        # OVMF keeps 108 MiB or so; GRUB's own pool is a quarter of what is free, so that small
        # machines fail below a fixed size.
        return max(2 * loaded + resident + 108 * _MIB, resident + 202 * _MIB)

    def read_version(self, data: bytes) -> str | None:
        # The revocation data of shim and of a signed GRUB (shim's SBAT.md) has lines of
        # component,generation,vendor,package,version,URL; the last one is nearest to the package.
        lines = re.finditer(rb"(?m)^(?:grub|shim)[^,\n]*,\d+,[^,\n]*,[^,\n]*,([^,\n]+),", data)
        found = max(lines, key=re.Match.start, default=None) or re.search(
            rb"GRUB(?: version)? (\d+\.\d+[!-~]*)", data
        )
        return found[1].decode("ascii", "replace").replace("\0", "") if found else None

    def _quote_title(self, text: str) -> str:
        return "'" + text.replace("'", r"'\''") + "'"

    def _quote_argument(self, word: str) -> str:
        if any(c in "\"'\\" for c in word):
            raise self._refused(
                "kernel argument",
                word,
                "holds a quote or backslash, before which GRUB puts a backslash of its own",
            )
        return word if _PLAIN.fullmatch(word) else f"'{word}'"

    def check(self, text: str) -> Config:
        return _check(text)


GRUB = Grub()


@dataclass(frozen=True, slots=True)
class _Word:
    text: str  # without its quotes
    raw: str
    line: int


def _check(text: str) -> Config:
    problems: list[str] = []
    files: set[str] = set()
    roots: set[str] = set()
    ids: dict[str, int] = {}
    default: tuple[int, str] | None = None
    assigned: dict[str, set[str]] = {}
    fetches: list[tuple[int, str]] = []
    blocks: list[tuple[str, int]] = []
    for words in _split(text, problems):
        line = words[0].line

        def problem(what: str, line: int = line) -> None:
            problems.append(f"line {line}: {what}")

        rest = list(words)
        # Words that open, go on with or close a block, and may be followed by a command.
        while rest and rest[0].raw in {"if", "elif", "then", "else", "fi", "while", "until", "do",
                                       "done", "!", "{", "}"}:  # fmt: skip
            keyword = rest.pop(0).raw
            if keyword in _BLOCKS:
                blocks.append((_BLOCKS[keyword], line))
            elif keyword == "{":
                blocks.append(("}", line))
            elif keyword in {"fi", "done", "}"}:
                if not blocks or blocks[-1][0] != keyword:
                    problem(f'"{keyword}" closes nothing')
                else:
                    blocks.pop()
            elif keyword in {"elif", "then", "else"} and (not blocks or blocks[-1][0] != "fi"):
                problem(f'"{keyword}" is not in an if')
        if not rest:
            continue
        name, arguments = rest[0].text, rest[1:]
        if name == "for":
            if len(arguments) < 3 or arguments[1].text != "in":
                problem("for: wants a name, the word in and values")
            blocks.append(("done", line))
            values = " ".join(word.text for word in arguments[2:])
            assigned.setdefault(arguments[0].text, set()).add(values)
            continue
        if name == "function":
            if len(arguments) != 2 or arguments[1].raw != "{":
                problem("function: wants a name and {")
            else:
                blocks.append(("}", line))
            continue
        if name in {"menuentry", "submenu"}:
            if not arguments or arguments[-1].raw != "{":
                problem(f"{name}: wants a title and {{ at the line's end")
                continue
            blocks.append(("}", line))
            texts = [word.text for word in arguments]
            if "--id" in texts[:-1]:
                identity = texts[texts.index("--id") + 1]
                if identity in ids and name == "submenu":
                    problem(f'the id "{identity}" is already on line {ids[identity]}')
                ids.setdefault(identity, line)
            continue
        if name == "[" and (not arguments or arguments[-1].text != "]"):
            problem('"[" without "]"')
        if name == "set" and arguments and arguments[0].text.startswith("default="):
            default = (line, arguments[0].text.removeprefix("default="))
        if name == "set" and arguments:
            variable, _, value = arguments[0].text.partition("=")
            assigned.setdefault(variable, set()).add(value)
        note_root((word.text for word in arguments), roots)
        if name in _FETCHES:
            fetched = arguments if name == "initrd" else arguments[:1]
            if not fetched:
                problem(f"{name}: wants a file")
            fetches += [(line, word.text) for word in fetched]
    for line, word in fetches:

        def problem(what: str, line: int = line) -> None:
            problems.append(f"line {line}: {what}")

        for path in expand_files(word, assigned):
            if not path.startswith("("):
                note_file(path, files, problem)
    problems.extend(f'line {line}: not closed by "{end}"' for end, line in blocks)
    if default and not default[1].isdigit() and default[1] not in ids:
        problems.append(f'line {default[0]}: the default "{default[1]}" is not the id of an entry')
    return make_config(files, roots, problems)


def _split(text: str, problems: list[str]) -> list[list[_Word]]:
    """Split GRUB script into commands of words, at line ends and at `;` outside of quotes."""
    commands: list[list[_Word]] = []
    words: list[_Word] = []
    position, line = 0, 1
    token = re.compile(
        r"""(?P<space>[ \t\r]+)|(?P<comment>\#[^\n]*)|(?P<end>[;\n])
        |(?P<word>(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;])+)""",
        re.VERBOSE | re.DOTALL,
    )
    while position < len(text):
        match = token.match(text, position)
        if match is None:
            problems.append(f"line {line}: a quote is not closed")
            break
        if match["word"] is not None:
            words.append(_Word(_unquote(match["word"]), match["word"], line))
        elif match["end"] is not None and words:
            commands.append(words)
            words = []
        line += match[0].count("\n")
        position = match.end()
    if words:
        commands.append(words)
    return commands


def _unquote(raw: str) -> str:
    parts = re.findall(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)|([^'"\\]+)""", raw, re.DOTALL)
    return "".join(
        single or re.sub(r'\\(["\\$])', r"\1", double) or escaped or plain
        for single, double, escaped, plain in parts
    )

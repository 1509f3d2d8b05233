"""PXELINUX.

Source: Syslinux com32/menu/readconfig.c: lines are raw; `^` marks a hot key.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from catalyst_pxeboot.loader.common import BootLoader, Config, make_config, note_file, note_root
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import MAC, UUID
from catalyst_pxeboot.util.errors import TemplateError

#: menu.c32 and the loader's core cut a command line at this many bytes (its final zero included).
_LINE = 2048

#: A machine's own menu; 01 is Ethernet, the kind of its address.
_HOST_CONFIG = re.compile(rf"pxelinux\.cfg/(?:01-{MAC.pattern}|{UUID.pattern})")
_KINDS = frozenset({"linux", "kernel", "com32", "config", "localboot"})
_NUMBERS = frozenset({"prompt", "timeout", "totaltimeout", "localboot"})
_WITH_VALUE = _KINDS | _NUMBERS | {"append", "default", "initrd", "onerror", "ontimeout", "ui"}


class Pxelinux(BootLoader):
    """PXELINUX, which runs on a BIOS only."""

    kind = Loader.PXELINUX
    name = "PXELINUX"
    configs = ("pxelinux.cfg/default",)
    flat_ending = "cfg"
    memtest_firmware = frozenset({Firmware.BIOS})
    on_efi = False

    def host_configs(self, name: str) -> tuple[str, ...]:
        if MAC.fullmatch(name):
            return (f"pxelinux.cfg/01-{name}",)
        # The bytes as the network card's program has them: in order, or as in SMBIOS's table.
        swapped = uuid.UUID(bytes_le=uuid.UUID(name).bytes)
        return (f"pxelinux.cfg/{name}", f"pxelinux.cfg/{swapped}")

    def own_config(self, text: str, words: Iterable[str], archive: str | None) -> str:
        quoted = self.quote_arguments(words)
        if quoted:
            text = self.add_arguments(text, quoted)
        if archive:
            path = self.quote_path(archive)
            text = re.sub(
                r"^( *INITRD \S+)$", rf"\1,{path}", text, flags=re.MULTILINE | re.IGNORECASE
            )
        return text

    def reads(self, path: str) -> bool:
        return path in self.configs or _HOST_CONFIG.fullmatch(path) is not None

    def check_entry(self, title: str, kernel: str, arguments: str, initrds: Iterable[str]) -> None:
        line = f".linux {kernel} {arguments} initrd={','.join(initrds)} BOOTIF=01-00-00-00-00-00-00"
        if len(line) >= _LINE:
            raise TemplateError(
                f'PXELINUX: the command line of "{title}" is {len(line)} bytes long, more than'
                f" its {_LINE - 1}",
                hint="shorten the arguments, or leave pxelinux out of pxeboot/loaders",
            )

    def read_version(self, data: bytes) -> str | None:
        found = re.search(rb"\b(?:SYS|PXE|ISO)?LINUX (\d+\.\d+[!-~]*)", data)
        return found[1].decode("ascii", "replace") if found else None

    def _quote_title(self, text: str) -> str:
        if "^" in text:
            raise self._refused(
                "title", text, "holds '^', which marks a hot key there", "leave '^' out"
            )
        return text

    def _quote_argument(self, word: str) -> str:
        if word == "-":
            raise self._refused(
                "kernel argument", word, "means 'no arguments' in an APPEND line", "leave it out"
            )
        return word

    def check(self, text: str) -> Config:
        return _check(text)


PXELINUX = Pxelinux()


def _check(text: str) -> Config:
    problems: list[str] = []
    files: set[str] = set()
    roots: set[str] = set()
    labels: dict[str, int] = {}
    kinds: dict[str, str] = {}
    wanted: list[tuple[int, str]] = []
    entry = ""
    first = True
    for number, line in enumerate(text.split("\n"), 1):

        def problem(what: str, number: int = number) -> None:
            problems.append(f"line {number}: {what}")

        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(line.encode()) >= _LINE:
            problem("is longer than the 2047 bytes that PXELINUX reads")
        key, value = words[0].lower(), " ".join(words[1:])
        if key == "serial" and not first:
            problem("SERIAL must be the first directive")
        first = False
        if key == "menu":
            sub = words[1].lower() if len(words) > 1 else ""
            if sub in {"label", "indent"} and not entry:
                problem(f"MENU {sub.upper()} is before any LABEL")
        elif key == "label":
            if value in labels:
                problem(f'label "{value}" is already on line {labels[value]}')
            if len(words) != 2:
                problem("LABEL wants one word")
            labels[value] = number
            entry = value
        elif key in _WITH_VALUE and not value:
            problem(f"{words[0]} wants a value")
        elif key in _NUMBERS and not re.fullmatch(r"-?\d+", value):
            problem(f'{words[0]} wants a number, not "{value}"')
        elif key in {"default", "ontimeout", "onerror"} and not words[1].endswith(".c32"):
            wanted.append((number, words[1]))
        elif key == "config" and not (len(words) == 3 and words[2].endswith("/")):
            problem("CONFIG wants a file and a folder with a slash at its end")
        elif key in {"ui", "default", "ontimeout", "onerror", "linux", "kernel", "com32", "config"}:
            note_file(words[1], files, problem)
        elif key == "initrd":
            if len(words) != 2:
                problem("INITRD wants one word, its files separated by commas")
            for name in words[1].split(","):
                note_file(name, files, problem)
        if key == "append":
            note_root(words[1:], roots)
        if entry and key in _KINDS:
            if entry in kinds:
                problem(f'the entry "{entry}" starts two things')
            kinds[entry] = key
    for number, label in wanted:
        if label not in labels:
            problems.append(f'line {number}: unknown label "{label}"')
    for label, number in labels.items():
        if label not in kinds:
            problems.append(f'line {number}: the entry "{label}" starts nothing')
    return make_config(files, roots, problems)

"""What every boot loader is asked, and what their modules share.

A value that passes `quote_…` is in the rendered file exactly as it was meant and cannot become a
command. A loader that has no way to write a value down refuses it; nothing is changed silently.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.menu import LiveEntry
from catalyst_pxeboot.util.errors import TemplateError

_MIB = 1 << 20
_PATH = re.compile(r"[A-Za-z0-9._+-]+(?:/[A-Za-z0-9._+-]+)*")
_LABEL = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration asks for.

    `files` are paths in the tree, relative to its root, sorted; `opened` are those of them that the
    loader opens itself, without live roots that the initramfs fetches. `problems` are lines of the
    form `line 12: what is wrong`.
    """

    files: tuple[str, ...]
    problems: tuple[str, ...]
    opened: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RootVariables:
    """Text that a loader replaces by what only it knows when it boots.

    `url` is the tree on its web server, with a slash at the end; empty values are not known to it.
    """

    url: str = ""
    nfs_server: str = ""
    address: str = "ip=dhcp"  # of the client, for dracut
    genkernel_address: str = "ip=dhcp"
    mac: str = ""  # of the network card that it booted by


class BootLoader(ABC):
    """A boot loader: its facts, the grammar of its configuration, and its needs.

    Everything that differs between loaders is asked here. A new loader is one subclass.
    """

    kind: ClassVar[Loader]
    name: ClassVar[str]  # as people write it
    #: What it reads: paths in the tree, the menu first. Its templates have these names and `.j2`.
    configs: ClassVar[tuple[str, ...]]
    #: The ending of its configuration among flat release files; None: it has none there.
    flat_ending: ClassVar[str | None] = None
    #: Kernels that it cannot start, and why. It gets the plain Image within.
    cannot_start: ClassVar[Mapping[KernelImage, str]] = {}
    #: The firmware under which it can start memtest86+.
    memtest_firmware: ClassVar[frozenset[Firmware]] = frozenset()
    #: Its variables for a root on a server; None: it cannot learn the server's address.
    root_variables: ClassVar[RootVariables | None] = None
    #: Whether UEFI starts it, where an architecture has UEFI; otherwise a BIOS or its like.
    on_efi: ClassVar[bool] = True
    #: Whether a BIOS starts it, where an architecture has one.
    on_bios: ClassVar[bool] = True
    #: Whether it is one file with all that it boots inside, made for each kernel.
    self_contained: ClassVar[bool] = False
    #: Whether an add-on in it learns where the tree is, if the command line does not say it.
    finds_tree: ClassVar[bool] = False
    #: Whether it puts initrds below 2 GiB on a BIOS.
    initrds_below_2_gib: ClassVar[bool] = True
    #: The ending of its own files that have the live root inside; empty: it has none.
    root_inside: ClassVar[str] = ""
    #: Whether it loads one initrd only, which has all others inside.
    joins_initrds: ClassVar[bool] = False
    #: Whether it passes the kernel a folder of device trees to choose from.
    loads_device_trees: ClassVar[bool] = False
    #: Whether DHCP must name a file of the tree, in whose folder it looks for its configuration.
    boot_file_in_tree: ClassVar[bool] = False
    #: Whether UEFI clients start a kernel by it only if that has an EFI stub.
    needs_efi_stub: ClassVar[bool] = False
    #: The bytes of a command line that it reads on any usual board; None: the kernel's limit.
    line_bytes: ClassVar[int | None] = None

    def host_configs(self, name: str) -> tuple[str, ...]:
        """Name the menus that only the machine `name` reads, a MAC address or UUID with hyphens.

        Without any, the menu for all has what single machines get.
        """
        return ()

    def reads(self, path: str) -> bool:
        """Say whether a file of the tree is a configuration of this loader."""
        return path in self.configs

    @abstractmethod
    def check(self, text: str) -> Config:
        """Check a configuration: labels, jumps, blocks, and the files of the tree it asks for.

        Not the loader's own parser, but strict where a mistake would only be seen at a boot.
        """

    def add_arguments(self, text: str, words: str) -> str:
        """Return a configuration with more kernel arguments, `words`, for every entry.

        Here for those whose entries have APPEND lines and that know no variables.
        """
        text = re.sub(r"^( *APPEND) -$", r"\1", text, flags=re.MULTILINE | re.IGNORECASE)
        return re.sub(
            r"^ *APPEND\b.*$", lambda line: f"{line[0]} {words}", text,
            flags=re.MULTILINE | re.IGNORECASE,
        )  # fmt: skip

    def own_config(self, text: str, words: Iterable[str], archive: str | None) -> str:
        """Return the menu `text` for a single machine: more kernel arguments, an initrd more.

        Raises `TemplateError`. Only for those that have `host_configs`.
        """
        raise NotImplementedError(f"{self.name} has one menu for all")

    @abstractmethod
    def _quote_title(self, text: str) -> str:
        """Quote a title that is printable and not empty."""

    @abstractmethod
    def _quote_argument(self, word: str) -> str:
        """Quote a kernel argument that is printable ASCII without white space."""

    def quote_title(self, text: str) -> str:
        """Return a title as it is written in a line of the configuration.

        Raises `TemplateError` if the loader would read something else in it.
        """
        if not text.strip():
            raise self._refused("title", text, "is empty", "give it a text")
        self._check_printable("title", text)
        return self._quote_title(text)

    def quote_arguments(self, words: Iterable[str]) -> str:
        """Return kernel arguments as they are written in a line of the configuration.

        Raises `TemplateError` naming the first word that the loader cannot hand to a kernel.
        """
        return " ".join(map(self.quote_argument, words))

    def quote_variables(self, word: str) -> str:
        """Return a kernel argument that holds `root_variables`, for a line of the configuration."""
        return word

    def quote_value(self, words: Iterable[str]) -> str:
        """Return kernel arguments as the value of a variable that becomes words again."""
        return self.quote_arguments(words)

    def quote_path(self, path: str) -> str:
        """Return the path of a file in the tree; only characters that no loader reads pass."""
        if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
            raise self._refused(
                "file name",
                path,
                "holds more than letters, digits and . _ + - between single slashes",
                "rename the file",
            )
        return path

    def quote_label(self, name: str) -> str:
        """Return an entry's name, which every loader takes as a label."""
        if not _LABEL.fullmatch(name) or name.startswith("-"):
            raise self._refused(
                "entry name",
                name,
                "holds more than letters, digits and hyphens, or begins with one",
                "rename the entry",
            )
        return name

    def check_entry(  # noqa: B027 (most loaders have no such limit)
        self, title: str, kernel: str, arguments: str, initrds: Iterable[str]
    ) -> None:
        """Raise `TemplateError` if the loader cannot take a finished entry as a whole."""

    def kernel(self, entry: LiveEntry) -> str:
        """Return the kernel's path in the form that the loader takes."""
        unpacked = entry.unpacked if self.kind in entry.unpacked_for else None
        return unpacked or entry.kernel

    def initrds(self, entry: LiveEntry) -> tuple[str, ...]:
        """Return the files that the loader loads behind the kernel, in order."""
        return entry.parts

    def firmwares(self, *, bios: bool) -> tuple[Firmware, ...]:
        """Return the firmware that starts the loader where an architecture has a BIOS, or not."""
        if not self.on_efi:
            return (Firmware.BIOS,)
        return (Firmware.BIOS, Firmware.EFI) if bios and self.on_bios else (Firmware.EFI,)

    def memory(
        self, firmware: Firmware, *, kernel: int, resident: int, loaded: int, before: int
    ) -> int:
        """Return the bytes in use when the loader is done, its firmware included.

        `kernel` is the kernel's file, `resident` what it takes in memory, `loaded` all initrds and
        `before` those before the last one, in bytes.
        """
        if firmware is Firmware.EFI:
            return self._memory_efi(kernel, resident, loaded, before)
        return loaded + kernel + resident + 16 * _MIB

    def _memory_efi(self, kernel: int, resident: int, loaded: int, before: int) -> int:
        raise NotImplementedError(f"{self.name} is not started by UEFI")

    def read_version(self, data: bytes) -> str | None:
        """Find the loader's version in the first bytes of its binary."""
        return None

    def quote_argument(self, word: str) -> str:
        """Return one kernel argument, as `quote_arguments`."""
        what = "kernel argument"
        if not word:
            raise self._refused(what, word, "is empty", "leave it out")
        self._check_printable(what, word)
        if not word.isascii():
            raise self._refused(
                what,
                word,
                "holds other characters than ASCII, which loaders hand over in different encodings",
                "write it in ASCII",
            )
        if any(c.isspace() for c in word):
            raise self._refused(
                what, word, "holds white space", "give each word as an argument of its own"
            )
        if word.startswith("initrd="):
            raise self._refused(what, word, "is written by the loader itself", "leave it out")
        return self._quote_argument(word)

    def _check_printable(self, what: str, text: str) -> None:
        if not text.isprintable():
            raise self._refused(
                what, text, "holds a line break or control character", "write it without"
            )

    def _refused(self, what: str, value: str, why: str, hint: str = "") -> TemplateError:
        hint = hint or f"write it without, or leave {self.kind} out of pxeboot/loaders"
        return TemplateError(f'{self.name}: the {what} "{value}" {why}', hint=hint)


# dracut's root=live: with an address or a setting that holds one. A root in the initramfs has a
# path after the colon.
_FETCHED_ROOT = re.compile(
    r"(?:root=live:|pxeboot\.url=)(?:[a-z0-9]+:|\$).*[/}](?P<file>[A-Za-z0-9._+-]+)"
)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[A-Za-z0-9_-]+)\}|(?P<plain>[A-Za-z0-9_]+))")


def expand_files(
    word: str, assigned: Mapping[str, Iterable[str]], seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yield each file that `word` can name, relative to the tree.

    `assigned` are the values that a script gives to each of its variables; a variable that is not
    among them is left as it is.
    """
    path = word.removeprefix("${base}")
    found = _VARIABLE.fullmatch(path)
    name = (found["braced"] or found["plain"]) if found else ""
    if name not in assigned:
        yield path
    elif name not in seen:
        for value in sorted(assigned[name]):
            for part in value.split():
                yield from expand_files(part, assigned, seen | {name})


def note_file(path: str, files: set[str], problem: Callable[[str], None]) -> None:
    """Note a file of the tree, or the problem with its name. Other servers' files are theirs."""
    if "://" in path:
        return
    if "$" in path:
        problem(f'"{path}" depends on a setting that is not known here')
    elif "//" in path:
        problem(f'"{path}" holds a double slash')
    elif path.startswith("/") or ".." in path.split("/"):
        problem(f'"{path}" leads out of the tree')
    elif not path:
        problem("a file name is empty")
    else:
        files.add(path)


def note_root(words: Iterable[str], roots: set[str]) -> None:
    """Note the tree's file that kernel arguments name as a root in the network."""
    given = list(words)
    for word in given:
        if found := _FETCHED_ROOT.fullmatch(word):
            roots.add(found["file"])
    if any(word.startswith("nfsroot=") for word in given):
        roots.update(word.removeprefix("loop=/") for word in given if word.startswith("loop=/"))


def make_config(opened: set[str], roots: set[str], problems: list[str]) -> Config:
    return Config(
        tuple(sorted(opened | roots)),
        tuple(sorted(problems, key=line_number)),
        tuple(sorted(opened)),
    )


def line_number(problem: str) -> int:
    match = re.match(r"line (\d+)", problem)
    return int(match[1]) if match else 0

"""What the ISO's GRUB menu says of the live image, without what only a disc needs.

catalyst's ISO script gives every kernel an entry, the same "cached" and "accessibility", and
one for each console; then memtest. The network menu offers the same, so it is read from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from catalyst_pxeboot.formats.grubcfg import GrubConfig, GrubEntry
from catalyst_pxeboot.model.loader import Firmware
from catalyst_pxeboot.model.settings import MAX_TITLE

#: Words that say where the live root lies. A network boot says that itself. `cdroot` is among
#: them as every entry of either generator needs it and it is added again.
_ROOT_WORDS = frozenset(
    {
        "cdroot", "init", "initrd", "loop", "looptype", "nfsroot", "rd.live.dir", "rd.live.image",
        "rd.live.squashimg", "real_init", "real_root", "root", "BOOT_IMAGE",
    }
)  # fmt: skip

#: Words that copy the live root into memory: a network boot always has it there.
_CACHE_WORDS = frozenset({"docache", "rd.live.ram"})


@dataclass(frozen=True, slots=True)
class IsoEntry:
    """One way to start a kernel: `extra` are the words beyond the kernel's main entry's."""

    title: str
    extra: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IsoKernel:
    """A kernel of the menu: paths relative to the ISO's root, and its ways to start.

    `arguments` are the main entry's, without those that say where the live root lies. The first
    of `entries` is that main entry.
    """

    name: str
    path: str
    initramfs: str
    arguments: tuple[str, ...]
    entries: tuple[IsoEntry, ...]


@dataclass(frozen=True, slots=True)
class IsoMemtest:
    """A memtest86+ entry: a Linux-like image for BIOS, an application for EFI."""

    title: str
    path: str
    firmware: Firmware
    bits: int


@dataclass(frozen=True, slots=True)
class IsoMenu:
    """The menu. `default` is a kernel's name; `timeout` is in seconds, None waits for ever."""

    kernels: tuple[IsoKernel, ...]
    memtests: tuple[IsoMemtest, ...]
    default: str | None
    timeout: int | None
    left_out: tuple[str, ...]  # titles of entries that are neither

    def find(self, name: str) -> IsoKernel | None:
        """Return the kernel called `name`, or None."""
        return next((kernel for kernel in self.kernels if kernel.name == name), None)


def read_iso_menu(config: GrubConfig) -> IsoMenu:
    """Sort the entries of the ISO's grub.cfg into kernels, memtest and the rest."""
    by_path: dict[str, list[GrubEntry]] = {}
    memtests: dict[str, IsoMemtest] = {}
    left_out: list[str] = []
    for entry in config.entries:
        image = entry.kernel or entry.chainloader
        if entry.kernel and entry.initrds:
            by_path.setdefault(entry.kernel, []).append(entry)
        elif image and PurePosixPath(image).name.startswith("memtest"):
            memtests.setdefault(image.lstrip("/"), _memtest(entry, image.lstrip("/")))
        else:
            left_out.append(entry.title)
    kernels = tuple(_kernel(path, entries) for path, entries in by_path.items())
    return IsoMenu(
        kernels=kernels,
        memtests=tuple(memtests.values()),
        default=_default(config, kernels),
        timeout=None if config.timeout is not None and config.timeout < 0 else config.timeout,
        left_out=tuple(left_out),
    )


def _kernel(path: str, entries: Sequence[GrubEntry]) -> IsoKernel:
    main = entries[0]
    arguments = without_root(main.arguments)
    known = frozenset(arguments)
    kept: dict[tuple[str, ...], IsoEntry] = {}
    for entry in entries:
        extra = tuple(word for word in without_root(entry.arguments) if word not in known)
        kept.setdefault(extra, IsoEntry(title=_shorten(entry.title), extra=extra))
    return IsoKernel(
        name=PurePosixPath(path).name,
        path=path,
        initramfs=main.initrds[-1],
        arguments=arguments,
        entries=tuple(kept.values()),
    )


def without_root(words: Iterable[str]) -> tuple[str, ...]:
    """Return kernel arguments without those that say where the live root lies or cache it."""
    dropped = _ROOT_WORDS | _CACHE_WORDS
    return tuple(word for word in words if word.partition("=")[0] not in dropped)


def _memtest(entry: GrubEntry, path: str) -> IsoMemtest:
    # The ISO starts the EFI build with `chainloader`. The BIOS build has no condition
    # on x86, though it starts on a BIOS only.
    firmware = Firmware.EFI if entry.chainloader else Firmware.BIOS
    bits = 32 if "32" in PurePosixPath(path).name else 64
    return IsoMemtest(title=_shorten(entry.title), path=path, firmware=firmware, bits=bits)


def _shorten(title: str) -> str:
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 3] + "..."


def _default(config: GrubConfig, kernels: Sequence[IsoKernel]) -> str | None:
    """Return the name of the kernel that `set default` points at, by title or by position."""
    # A submenu counts as one entry of the top level, as GRUB counts.
    top: list[GrubEntry] = []
    for entry in config.entries:
        if not (top and entry.submenus and entry.submenus[:1] == top[-1].submenus[:1]):
            top.append(entry)
    chosen: GrubEntry | None
    if isinstance(config.default, int):
        chosen = top[config.default] if 0 <= config.default < len(top) else None
    else:
        chosen = next((entry for entry in config.entries if entry.title == config.default), None)
    path = chosen.kernel if chosen else None
    named = next((kernel.name for kernel in kernels if kernel.path == path), None)
    return named or (kernels[0].name if kernels else None)

"""Architectures, as data: arch.toml, one table each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.records import decode
from catalyst_pxeboot.util.resources import read_table
from catalyst_pxeboot.util.text import nearest


@dataclass(frozen=True, slots=True)
class DhcpClient:
    """One `[[x.dhcp]]` table: a kind of client that asks a DHCP server for a loader."""

    name: str
    title: str
    codes: tuple[int, ...]
    http_codes: tuple[int, ...]
    loaders: tuple[str, ...]
    http_loaders: tuple[str, ...]
    uki: bool = False


@dataclass(frozen=True, slots=True)
class Qemu:
    """An `[x.qemu]` table: how QEMU starts a client that boots from the network."""

    command: str
    boot_file: str
    http: bool
    firmware: Firmware


@dataclass(frozen=True, slots=True)
class Arch:
    """One table of arch.toml; the file says what each key means."""

    name: str
    subarches: tuple[str, ...]
    kernels: tuple[str, ...]
    ipxe: tuple[str, ...]
    command_line: int  # bytes
    loaders: tuple[Loader, ...]
    console: str
    uname: tuple[str, ...]
    grub: Mapping[str, str]
    dhcp: tuple[DhcpClient, ...]
    more_loaders: tuple[Loader, ...] = ()
    uefi: str | None = None
    qemu: Qemu | None = None

    @property
    def has_bios(self) -> bool:
        """Whether clients may have a BIOS; all others have UEFI."""
        return any(platform.endswith("-pc") for platform in self.grub)


@cache
def all_arches() -> tuple[Arch, ...]:
    """Return every architecture of arch.toml, in its order."""
    return tuple(
        decode(Arch, {"name": name, **table}, name)
        for name, table in read_table("model/arch.toml").items()
    )


def find_arch(subarch: str) -> Arch:
    """Return the architecture that catalyst's `subarch` belongs to, or raise `PxebootError`."""
    for arch in all_arches():
        if subarch in arch.subarches:
            return arch
    known = [name for arch in all_arches() for name in arch.subarches]
    raise PxebootError(
        f"subarch: {subarch!r} has no network boot here{nearest(subarch, known)}",
        hint="use a subarch of " + ", ".join(arch.name for arch in all_arches()),
    )


@dataclass(frozen=True, slots=True)
class KernelMachine:
    """A machine that kernels are for.

    `buildarch` is the ${buildarch} of the iPXE that is native to it; `platforms` are the GRUB
    platforms, as $grub_cpu-$grub_platform, that start its kernels.
    """

    name: str
    buildarch: str
    platforms: tuple[str, ...]


@cache
def all_machines() -> tuple[KernelMachine, ...]:
    """Return every machine, in the order of arch.toml.

    An architecture's first kernel and first iPXE are its own; those after them are what else runs
    on it.
    """
    return tuple(
        KernelMachine(arch.kernels[0], arch.ipxe[0], tuple(sorted(arch.grub)))
        for arch in all_arches()
    )

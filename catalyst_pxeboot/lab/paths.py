"""The paths from a client to the live root: one row each, as data.

A path is passed when the live root was reached *and* every step of its chain is in the
servers' logs, so a client that got there by another way does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.lab.machine import (
    BIOS,
    MACHINES,
    UBOOT_ARM,
    UBOOT_ARM64,
    UEFI_ARM,
    UEFI_ARM64,
    UEFI_IA32,
    UEFI_X64,
    UEFI_X64_SECURE,
    Machine,
    starts_from_disk,
)
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import BootProgram, Firmware, Loader
from catalyst_pxeboot.tree.manifest import read_config
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest


class Scheme(StrEnum):
    """How a file reaches the client."""

    TFTP = "tftp"
    HTTP = "http"


class DhcpMode(StrEnum):
    """Whose DHCP server names the boot file."""

    OWN = "own"  # the one that gives the address
    PROXY = "proxy"  # a second one; the first knows nothing of network boots


@dataclass(frozen=True, slots=True)
class Step:
    """A file of the tree that the client must fetch, and how."""

    scheme: Scheme
    file: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.file}"


@dataclass(frozen=True, slots=True)
class BootPath:
    """One way to the live root.

    `number` is the group that paths of a kind share; `arches` are the trees that serve it
    (names of arch.toml). The first step of `chain` is what the firmware fetches, its boot file.
    `payload` says how kernel and live root come. `closed` says why no client gets
    through if the tree's DHCP configuration does not offer the boot file; it is not run then.
    """

    number: int
    name: str
    arches: tuple[str, ...]
    machine: Machine
    loader: Loader
    chain: tuple[Step, ...]
    payload: Scheme
    dhcp: DhcpMode = DhcpMode.OWN
    closed: str = ""

    def offered(self, tree: Path) -> bool:
        """Say whether the tree's own DHCP configuration names the boot file."""
        name = "dnsmasq-proxy.conf" if self.dhcp is DhcpMode.PROXY else "dnsmasq.conf"
        config = f"dhcp/{name}"
        # As PXE's: the URL of HTTP Boot is in a comment, for those who can use it.
        return (tree / config).is_file() and f",{self.boot_file}\n" in read_config(tree, config)

    @property
    def boot_file(self) -> str:
        """The file that the DHCP answer names first: a path in the tree."""
        return self.chain[0].file

    @property
    def http_boot(self) -> bool:
        """Whether the firmware itself fetches by HTTP (UEFI HTTP Boot) and not by PXE."""
        return self.chain[0].scheme is Scheme.HTTP

    @property
    def script(self) -> str:
        """iPXE's script, which DHCP names to iPXE once that runs; empty for other loaders."""
        return self.chain[-1].file if self.loader is Loader.IPXE else ""

    @property
    def entry(self) -> str:
        """The file that a server names that knows one for all askers, as QEMU's own."""
        return self.script or self.boot_file

    @property
    def is_simple(self) -> bool:
        """Whether QEMU's user network, whose server names one file, can stand in for the path's."""
        if self.dhcp is not DhcpMode.OWN or self.http_boot or self.http_prefix:
            return False
        if self.machine is UEFI_X64_SECURE:  # UEFI_X64 takes its place
            return False
        if starts_from_disk(self.machine, self.loader):
            return self.machine is UEFI_X64
        return self.named_by_dhcp

    @property
    def http_prefix(self) -> bool:
        """Whether DHCP must send the loader to HTTP (option 210, RFC 5071)."""
        return self.loader is Loader.PXELINUX and self.chain[-1].scheme is Scheme.HTTP

    @property
    def root(self) -> str:
        """The end of the name of the file that holds the live root, after its dot."""
        return LOADERS[self.loader].root_inside or "squashfs"

    @property
    def named_by_dhcp(self) -> bool:
        """Whether DHCP must name the boot file; U-Boot looks for its menu without."""
        return self.loader is not Loader.UBOOT

    @property
    def disguised(self) -> bool:
        """Whether the client's network ROM, an iPXE, must not be seen as one."""
        return self.machine.firmware is Firmware.BIOS

    def lacks(self, tree: Path) -> tuple[str, ...]:
        """Name the files of the chain that the tree does not have."""
        return tuple(step.file for step in self.chain if not (tree / step.file).is_file())


def _steps(*words: str) -> tuple[Step, ...]:
    parted = (word.split(":", 1) for word in words)
    return tuple(Step(Scheme(scheme), file) for scheme, file in parted)


#: Words for kinds of client, as people choose them: the names of the machines.
FIRMWARE: Mapping[str, tuple[str, ...]] = {
    BIOS.name: (BIOS.name,),
    "uefi": tuple(kind.name for kind in MACHINES.values() if kind.firmware is Firmware.EFI),
    "efi": tuple(kind.name for kind in MACHINES.values() if kind.firmware is Firmware.EFI),
    UEFI_X64.name: (UEFI_X64.name, UEFI_X64_SECURE.name),
    UEFI_IA32.name: (UEFI_IA32.name,),
    UEFI_ARM64.name: (UEFI_ARM64.name,),
    UEFI_ARM.name: (UEFI_ARM.name,),
}

#: The unified kernel image of a kernel of the usual name; `for_tree` has the tree's own.
_UKI_FILE = "boot/gentoo.efi"

_AMD64 = ("amd64",)
_X86 = ("x86",)
_PC = ("amd64", "x86")
_ARM64 = ("arm64",)
_ARM = ("arm",)

_UNDIONLY = _steps("tftp:undionly.kpxe", "http:boot.ipxe")
_SNPONLY = _steps("tftp:snponly.efi", "http:boot.ipxe")
_PXELINUX = _steps("tftp:pxelinux.0", "tftp:pxelinux.cfg/default")
_LPXELINUX = _steps("tftp:lpxelinux.0", "http:pxelinux.cfg/default")
_UBOOT = _steps("tftp:pxelinux.cfg/default-arm")


def _grub(scheme: str, platform: str, name: str = "core.efi") -> tuple[Step, ...]:
    return _steps(f"{scheme}:boot/grub/{platform}/{name}", f"{scheme}:boot/grub/grub.cfg")


def _uki(scheme: str) -> tuple[Step, ...]:
    return _steps(f"{scheme}:{_UKI_FILE}")


_TFTP, _HTTP = Scheme.TFTP, Scheme.HTTP
_IPXE, _LINUX, _GRUB = Loader.IPXE, Loader.PXELINUX, Loader.GRUB
_PROXY = DhcpMode.PROXY
_GRUB_AND_PROXY = (
    "GRUB knows the DHCP server's answer only, not the proxy's, and looks for its files on the "
    "DHCP server (tried with GRUB 2.06); build the tree with pxeboot/server to get through"
)

#: Every path, in the order of its number.
PATHS: tuple[BootPath, ...] = (
    BootPath(1, "bios-ipxe", _AMD64, BIOS, _IPXE, _UNDIONLY, _HTTP),
    BootPath(2, "bios-pxelinux", _AMD64, BIOS, _LINUX, _PXELINUX, _TFTP),
    BootPath(2, "bios-lpxelinux", _AMD64, BIOS, _LINUX, _LPXELINUX, _HTTP),
    BootPath(3, "bios-grub", _AMD64, BIOS, _GRUB, _grub("tftp", "i386-pc", "core.0"), _TFTP),
    BootPath(4, "x64-ipxe", _AMD64, UEFI_X64, _IPXE, _SNPONLY, _HTTP),
    BootPath(5, "x64-grub", _AMD64, UEFI_X64, _GRUB, _grub("tftp", "x86_64-efi"), _TFTP),
    BootPath(6, "x64-http-grub", _AMD64, UEFI_X64, _GRUB, _grub("http", "x86_64-efi"), _HTTP),
    BootPath(
        6, "x64-http-ipxe", _AMD64, UEFI_X64, _IPXE, _steps("http:ipxe.efi", "http:boot.ipxe"),
        _HTTP,
    ),
    BootPath(
        7, "x64-secure-grub", _AMD64, UEFI_X64_SECURE, _GRUB,
        _steps("tftp:shimx64.efi", "tftp:grubx64.efi"), _TFTP,
    ),
    BootPath(8, "ia32-grub", _PC, UEFI_IA32, _GRUB, _grub("tftp", "i386-efi"), _TFTP),
    BootPath(9, "x86-bios-ipxe", _X86, BIOS, _IPXE, _UNDIONLY, _HTTP),
    BootPath(9, "x86-bios-pxelinux", _X86, BIOS, _LINUX, _PXELINUX, _TFTP),
    BootPath(9, "x86-bios-grub", _X86, BIOS, _GRUB, _grub("tftp", "i386-pc", "core.0"), _TFTP),
    BootPath(10, "arm64-grub", _ARM64, UEFI_ARM64, _GRUB, _grub("tftp", "arm64-efi"), _TFTP),
    BootPath(10, "arm64-http-grub", _ARM64, UEFI_ARM64, _GRUB, _grub("http", "arm64-efi"), _HTTP),
    BootPath(
        10, "arm64-ipxe", _ARM64, UEFI_ARM64, _IPXE,
        _steps("tftp:snponly-arm64.efi", "http:boot.ipxe"), _HTTP,
    ),
    BootPath(11, "arm-grub", _ARM, UEFI_ARM, _GRUB, _grub("tftp", "arm-efi"), _TFTP),
    BootPath(12, "arm64-uboot", _ARM64, UBOOT_ARM64, Loader.UBOOT, _UBOOT, _TFTP),
    BootPath(12, "arm-uboot", _ARM, UBOOT_ARM, Loader.UBOOT, _UBOOT, _TFTP),
    BootPath(13, "proxy-bios-ipxe", _AMD64, BIOS, _IPXE, _UNDIONLY, _HTTP, _PROXY),
    BootPath(13, "proxy-bios-pxelinux", _AMD64, BIOS, _LINUX, _PXELINUX, _TFTP, _PROXY),
    BootPath(13, "proxy-x64-ipxe", _AMD64, UEFI_X64, _IPXE, _SNPONLY, _HTTP, _PROXY),
    BootPath(
        13, "proxy-bios-grub", _AMD64, BIOS, _GRUB, _grub("tftp", "i386-pc", "core.0"), _TFTP,
        _PROXY, closed=_GRUB_AND_PROXY,
    ),
    BootPath(
        13, "proxy-x64-grub", _AMD64, UEFI_X64, _GRUB, _grub("tftp", "x86_64-efi"), _TFTP, _PROXY,
        closed=_GRUB_AND_PROXY,
    ),
    BootPath(14, "x64-http-uki", _AMD64, UEFI_X64, Loader.UKI, _uki("http"), _HTTP),
    BootPath(14, "x64-uki", _AMD64, UEFI_X64, Loader.UKI, _uki("tftp"), _TFTP),
    BootPath(14, "arm64-http-uki", _ARM64, UEFI_ARM64, Loader.UKI, _uki("http"), _HTTP),
)  # fmt: skip


def for_tree(paths: Iterable[BootPath], program: BootProgram | None) -> tuple[BootPath, ...]:
    """Return the paths with the tree's own unified kernel image, if it has one."""
    return tuple(
        replace(path, chain=(Step(path.chain[0].scheme, program.path),))
        if program and path.loader is Loader.UKI
        else path
        for path in paths
    )


def choose_paths(
    paths: Iterable[BootPath],
    *,
    arch: str | None = None,
    firmware: Sequence[str] = (),
    loaders: Sequence[Loader] = (),
) -> tuple[BootPath, ...]:
    """Return the paths that fit all that is given; `firmware` holds words of `FIRMWARE`."""
    machines = {name for word in firmware for name in FIRMWARE[word]}
    return tuple(
        path
        for path in paths
        if (arch is None or arch in path.arches)
        and (not firmware or path.machine.name in machines)
        and (not loaders or path.loader in loaders)
    )


def parse_firmware(text: str) -> tuple[str, ...]:
    """Take a list such as "bios,uefi-x64" apart. Raises `PxebootError` naming what is valid."""
    return _parse_words("--firmware", text, tuple(FIRMWARE))


def parse_loaders(text: str) -> tuple[Loader, ...]:
    """Take a list such as "ipxe,grub" apart. Raises `PxebootError` naming what is valid."""
    return tuple(Loader(word) for word in _parse_words("--loader", text, tuple(Loader)))


def _parse_words(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in known:
            raise PxebootError(
                f"{option}: {word!r} is none of {', '.join(known)}{nearest(word, known)}",
                hint="give one or more of them, with commas between",
            )
    return tuple(dict.fromkeys(words))

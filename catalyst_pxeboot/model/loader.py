"""The boot loaders, what starts them, and what each can take."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from catalyst_pxeboot.formats.kernel import KernelImage


class Loader(StrEnum):
    """A family of boot loaders that one configuration serves."""

    IPXE = "ipxe"
    PXELINUX = "pxelinux"
    GRUB = "grub"
    UBOOT = "uboot"


class Firmware(StrEnum):
    """What starts the loader."""

    BIOS = "bios"
    EFI = "efi"


#: The loaders that can start memtest86+ from each kind of firmware.
MEMTEST_LOADERS = {
    Firmware.BIOS: frozenset({Loader.IPXE, Loader.PXELINUX, Loader.GRUB}),
    Firmware.EFI: frozenset({Loader.IPXE, Loader.GRUB}),
}


#: What iPXE shows of an entry on a screen of 80; GRUB and PXELINUX show a little more.
MENU_COLUMNS = 74


#: Kernels that a loader cannot start, and why. It is given the plain Image within. PXELINUX runs
#: on x86, where there are none of these.
UNPACKED_FOR = {
    KernelImage.GZIP: {
        Loader.IPXE: "UEFI starts PE programs only, and iPXE unpacks none before 2021",
        Loader.UBOOT: "it unpacks none unless its kernel_comp_addr_r and kernel_comp_size are set",
    },
    KernelImage.ZBOOT: {
        Loader.GRUB: "before 2.12 it asks for the plain Image's header, unless patched",
        Loader.UBOOT: "it starts EFI programs by bootefi, not by pxe boot",
    },
}


#: Loaders that know, while they run, which server they came from.
KNOW_SERVER = frozenset({Loader.IPXE, Loader.GRUB})


#: Loaders as people write them.
LOADER_NAMES = {
    Loader.IPXE: "iPXE",
    Loader.PXELINUX: "PXELINUX",
    Loader.GRUB: "GRUB",
    Loader.UBOOT: "U-Boot",
}


#: What a loader reads: the path in the tree. The template has the same name with `.j2`.
CONFIGS: Mapping[Loader, tuple[str, ...]] = {
    Loader.IPXE: ("boot.ipxe",),
    Loader.PXELINUX: ("pxelinux.cfg/default",),
    # The second and third lead a GRUB that was not made for the tree to the first.
    Loader.GRUB: ("boot/grub/grub.cfg", "grub.cfg", "grub/grub.cfg"),
    # U-Boot calls itself arm on arm64, too.
    Loader.UBOOT: ("pxelinux.cfg/default-arm",),
}


#: The configuration inside GRUB's own network images; no file of the tree.
GRUB_EARLY = "boot/grub/early.cfg"

"""The boot loaders and the firmware that starts them, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Loader(StrEnum):
    """A family of boot loaders that one configuration serves."""

    IPXE = "ipxe"
    PXELINUX = "pxelinux"
    GRUB = "grub"
    UBOOT = "uboot"
    UKI = "uki"


class Firmware(StrEnum):
    """What starts the loader."""

    BIOS = "bios"
    EFI = "efi"


@dataclass(frozen=True, slots=True)
class BootProgram:
    """An EFI program of the tree, a path, that firmware starts in place of a loader.

    `first` says whether DHCP names it before all loaders, or after them.
    """

    path: str
    first: bool


#: What iPXE shows of an entry on a screen of 80; GRUB and PXELINUX show a little more.
MENU_COLUMNS = 74

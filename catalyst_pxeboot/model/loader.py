"""The boot loaders and the firmware that starts them, by name."""

from __future__ import annotations

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


#: What iPXE shows of an entry on a screen of 80; GRUB and PXELINUX show a little more.
MENU_COLUMNS = 74

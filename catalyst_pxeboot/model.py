"""What is planned: the nouns that plan, render, tree and manifest share.

Paths within a tree are relative, with forward slashes, as every loader and URL writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.formats.kernel import Kernel

#: Name of the squashfs inside the initramfs. It ends in `.img` because dracut's live: scheme
#: asks for that, and lies at the root because genkernel looks nowhere else.
ROOT_MEMBER = "image.squashfs.img"


class Loader(StrEnum):
    """A family of boot loaders that one configuration serves."""

    IPXE = "ipxe"
    PXELINUX = "pxelinux"
    GRUB = "grub"
    UBOOT = "uboot"


class RootMode(StrEnum):
    """How the live root, a squashfs, gets to the running system."""

    EMBEDDED = "embedded"  # the loader puts it into the initramfs
    HTTP = "http"  # the initramfs fetches it into memory
    NFS = "nfs"  # the initramfs mounts the folder it lies in; it stays on the server


class Firmware(StrEnum):
    """What starts the loader."""

    BIOS = "bios"
    EFI = "efi"


#: The loaders that can start memtest86+ from each kind of firmware.
MEMTEST_LOADERS = {
    Firmware.BIOS: frozenset({Loader.IPXE, Loader.PXELINUX, Loader.GRUB}),
    Firmware.EFI: frozenset({Loader.IPXE, Loader.GRUB}),
}


class LinkMode(StrEnum):
    """How a payload file gets from the stage2 tree into the netboot tree."""

    AUTO = "auto"
    HARDLINK = "hardlink"
    REFLINK = "reflink"
    COPY = "copy"


class Role(StrEnum):
    """What a file of the tree is for; stands in the manifest."""

    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    SQUASHFS = "squashfs"
    ROOT_HEADER = "root-header"
    PADDING = "padding"
    MEMTEST = "memtest"
    DEVICE_TREE = "device-tree"
    LOADER = "loader"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Serial:
    """A serial console: `device` as the kernel names it, `speed` in baud."""

    device: str
    speed: int

    @property
    def unit(self) -> int:
        """The port's number, as loaders count them (ttyS0 and ttyAMA0 are both port 0)."""
        return int("".join(c for c in self.device if c.isdigit()) or "0")


@dataclass(frozen=True, slots=True)
class Server:
    """The machine that serves the tree, as its clients see it.

    The defaults are placeholders: addresses that RFC 5737 keeps for documentation. `interface`
    None serves every interface that is on the network. `tftp_root` is the folder that TFTP
    clients see. `tftp_prefix` and `http_prefix` are the tree's folder below the TFTP root and
    below the web server's root, empty where the root is the tree; no slash at either end.
    """

    address: str = "192.0.2.1"
    netmask: str = "255.255.255.0"
    range_first: str = "192.0.2.100"
    range_last: str = "192.0.2.199"
    interface: str | None = None
    http_port: int = 80
    http_prefix: str = ""
    tftp_prefix: str = ""
    tftp_root: str = "/srv/pxeboot"


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """A menu entry that boots the live image.

    `arguments` is the whole kernel command line but for what only the loader knows while it
    runs (initrd=, BOOTIF=, the caller's own words). The initrds are, in this order:
    `initramfs`, `padding` where there is one, then either `root_header` and `squashfs` (loaders
    that join files byte by byte) or the squashfs as a member named `ROOT_MEMBER` (iPXE). U-Boot
    takes one file only, `joined`, which is all of them.
    """

    name: str  # unique in the menu; letters, digits and hyphens, so it is a label for any loader
    title: str
    kernel: str
    initramfs: str
    padding: str | None
    root_header: str
    squashfs: str
    arguments: tuple[str, ...]
    generator: Generator
    unpacked: str | None = None  # the kernel for those loaders that cannot take it as it is
    unpacked_for: tuple[Loader, ...] = ()
    joined: str | None = None  # U-Boot's initrd
    device_trees: str | None = None  # a folder, for U-Boot

    def kernel_for(self, loader: Loader) -> str:
        """Return the kernel's path in the form that `loader` takes."""
        return self.unpacked if self.unpacked and loader in self.unpacked_for else self.kernel

    def initrds_for(self, loader: Loader) -> tuple[str, ...]:
        """Return the files that `loader` loads behind the kernel, in order."""
        if loader is Loader.UBOOT and self.joined:
            return (self.joined,)
        first = (self.initramfs, *((self.padding,) if self.padding else ()))
        # iPXE makes the member's header itself; only under an old UEFI iPXE it takes ours.
        if loader is Loader.IPXE:
            return (*first, self.squashfs)
        return (*first, self.root_header, self.squashfs)


@dataclass(frozen=True, slots=True)
class MemtestEntry:
    """A menu entry that starts memtest86+, on one kind of firmware only."""

    name: str
    title: str
    path: str
    firmware: Firmware
    bits: int  # 32 or 64; a 64-bit one needs a 64-bit processor and, on EFI, 64-bit firmware


@dataclass(frozen=True, slots=True)
class Menu:
    """What every loader shows. Boot from disk, shell, reboot and power off are the template's."""

    title: str
    timeout: int | None  # seconds; 0 boots at once, None waits for ever
    default: str  # the name of a live entry
    live: tuple[LiveEntry, ...]
    memtests: tuple[MemtestEntry, ...]
    serial: Serial | None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the tree that exists elsewhere already and is linked, cloned or copied."""

    path: str
    origin: Path
    role: Role
    bytes: int


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file of the tree that is the plain Image within a kernel of the live image."""

    path: str
    origin: Kernel
    role: Role


@dataclass(frozen=True, slots=True)
class JoinedFile:
    """A file of the tree that is other files of the tree, one behind the other."""

    path: str
    parts: tuple[str, ...]
    role: Role
    bytes: int


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file of the tree whose content this program makes."""

    path: str
    content: bytes
    role: Role
    origin: str = ""  # what it was made from: a template's name, a loader's package and version

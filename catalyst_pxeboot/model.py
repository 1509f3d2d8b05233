"""What is planned: the nouns that plan, render, tree and manifest share.

Paths within a tree are relative, with forward slashes, as every loader and URL writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.formats.kernel import Kernel
from catalyst_pxeboot.util.files import FileStamp
from catalyst_pxeboot.util.text import mebibytes

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


#: How a menu calls the ways to the root that are not the usual one.
ROOT_TITLES = {RootMode.HTTP: "root over HTTP", RootMode.NFS: "root over NFS"}
#: What iPXE shows of an entry on a screen of 80; GRUB and PXELINUX show a little more.
MENU_COLUMNS = 74


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
    ROOT_CHECK = "root-check"
    PADDING = "padding"
    MEMTEST = "memtest"
    DEVICE_TREE = "device-tree"
    LOADER = "loader"
    CONFIG = "config"
    SIGNATURE = "signature"
    TEXT = "text"
    PAGE = "page"  # for a browser
    SCRIPT = "script"  # for a running Linux


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
class NfsRoot:
    """The folder of an NFS server in which the squashfs lies.

    `server` None is the boot server, whose address only the loader knows; `options` are mount's,
    with commas between, or empty.
    """

    server: str | None
    path: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A release's name in flat file names; it ends in `stamp`, which the mirrors go by."""

    name: str
    stamp: str


@dataclass(frozen=True, slots=True)
class Signing:
    """What the spec says of signatures; the files are the user's own and named nowhere else."""

    gpg_key: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    passphrase_file: Path | None = None
    always: bool = False  # iPXE checks whoever calls; otherwise if the caller asks for it


@dataclass(frozen=True, slots=True)
class Limits:
    """What a live entry asks of a client that boots it by one loader.

    `wire` is in bytes: all that the loader fetches and what the initramfs fetches after it (over
    NFS the live root is read as it is needed, and not counted). `memory` is in bytes by firmware:
    the least with which the live root is reached; a running system needs more. `warnings` say
    what depends on the client or the server, each in a sentence.
    """

    wire: int
    memory: Mapping[Firmware, int]
    warnings: tuple[str, ...] = ()

    @property
    def least_memory(self) -> int:
        """The memory that is enough under any firmware, in bytes."""
        return max(self.memory.values())


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """A menu entry that boots the live image.

    `arguments` is the whole kernel command line but for what only the loader knows: initrd=,
    BOOTIF=, the caller's own words, and where the live root is if it comes over the network.
    The initrds are, in this order: `initramfs`, `padding` where there is one; then, for a root in
    the initramfs, either `root_header` and `squashfs` (loaders that join files byte by byte) or
    the squashfs as a member named `ROOT_MEMBER` (iPXE); for a root over the network the
    `root_check`, if it is checked. U-Boot takes one file only, `joined`, which is all of them.
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
    root: RootMode = RootMode.EMBEDDED
    root_check: str | None = None
    offered: tuple[Loader, ...] = tuple(Loader)  # loaders that can lead it to its root
    limits: Mapping[Loader, Limits] = field(default_factory=dict)
    unpacked: str | None = None  # the kernel for those loaders that cannot take it as it is
    unpacked_for: tuple[Loader, ...] = ()
    joined: str | None = None  # U-Boot's initrd
    device_trees: str | None = None  # a folder, for U-Boot

    def kernel_for(self, loader: Loader) -> str:
        """Return the kernel's path in the form that `loader` takes."""
        return self.unpacked if self.unpacked and loader in self.unpacked_for else self.kernel

    @property
    def parts(self) -> tuple[str, ...]:
        """The files that make the whole initrd, joined byte by byte."""
        first = (self.initramfs, *((self.padding,) if self.padding else ()))
        if self.root is RootMode.EMBEDDED:
            return (*first, self.root_header, self.squashfs)
        return (*first, *((self.root_check,) if self.root_check else ()))

    def initrds_for(self, loader: Loader) -> tuple[str, ...]:
        """Return the files that `loader` loads behind the kernel, in order."""
        if loader is Loader.UBOOT and self.joined:
            return (self.joined,)
        if loader is Loader.IPXE:
            # It makes the member's header itself; only under an old UEFI iPXE it takes ours.
            return tuple(part for part in self.parts if part != self.root_header)
        return self.parts

    def title_for(self, loader: Loader) -> str:
        """Return the title with what the entry needs in `loader`."""
        needs = [ROOT_TITLES[self.root]] if self.root in ROOT_TITLES else []
        if loader in self.limits:
            needs.append(f"{mebibytes(self.limits[loader].least_memory)} MiB of memory")
        title = ", ".join([self.title, *needs])
        return title if len(title) <= MENU_COLUMNS else title.removesuffix(" of memory")


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
    live: tuple[LiveEntry, ...]  # the default first
    memtests: tuple[MemtestEntry, ...]
    serial: Serial | None
    base_url: str | None = None  # the tree on its web server, without a slash at the end
    nfs: NfsRoot | None = None
    ipxe_signed: bool = False  # each file has a CMS signature beside it
    ipxe_always: bool = False  # iPXE checks it whoever calls

    def offers(self, loader: Loader) -> bool:
        """Say whether `loader` has a live entry to show; without one it gets no menu."""
        return any(loader in entry.offered for entry in self.live)

    def live_for(self, loader: Loader) -> tuple[LiveEntry, ...]:
        """Return the live entries that `loader` offers, its default first."""
        return tuple(entry for entry in self.live if loader in entry.offered)


@dataclass(frozen=True, slots=True)
class Within:
    """Where a file lies in an ISO, in bytes, with the mode and time (seconds) that it is given.

    `iso` is the ISO as it was when its directories were read.
    """

    offset: int
    mode: int
    time: int
    iso: FileStamp


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the tree that exists elsewhere already and is linked, cloned or copied.

    `origin` is that file, or the ISO that it lies in.
    """

    path: str
    origin: Path
    role: Role
    bytes: int
    within: Within | None = None


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
class RootCheckFile:
    """An initrd of the tree that refuses any live root but the tree's own file `root`.

    `hooks` are the folders of dracut's hooks in the initramfs images that load it.
    """

    path: str
    root: str
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file of the tree whose content this program makes."""

    path: str
    content: bytes
    role: Role
    origin: str = ""  # what it was made from: a template's name, a loader's package and version

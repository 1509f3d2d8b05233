"""What a menu shows: live entries, memory tests, and what each needs of a client.

Paths within a tree are relative, with forward slashes, as every loader and URL writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import MAC, NfsRoot, RootMode, Serial

#: Name of the squashfs inside the initramfs. It ends in `.img` because dracut's live: scheme
#: asks for that, and lies at the root because genkernel looks nowhere else.
ROOT_MEMBER = "image.squashfs.img"


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
    `addon`: what compares the root with its digest, or what gets it; at the end `personal`, the
    user's own files. U-Boot takes one file only, `joined`, which is all of them.
    """

    name: str  # unique in the menu; letters, digits and hyphens, so it is a label for any loader
    title: str
    kernel: str
    initramfs: str
    padding: str | None
    root_header: str | None
    squashfs: str
    arguments: tuple[str, ...]
    generator: Generator
    root: RootMode = RootMode.EMBEDDED
    addon: str | None = None
    personal: str | None = None
    streamed: bool = False  # the add-on, not the initramfs itself, gets the root from a server
    hash_tree: str | None = None  # of a streamed root; None: beside it, with the usual ending
    offered: tuple[Loader, ...] = tuple(Loader)  # loaders that can lead it to its root
    limits: Mapping[Loader, Limits] = field(default_factory=dict)
    unpacked: str | None = None  # the kernel for those loaders that cannot take it as it is
    unpacked_for: tuple[Loader, ...] = ()
    joined: str | None = None  # U-Boot's initrd
    device_trees: str | None = None  # a folder, for U-Boot

    @property
    def parts(self) -> tuple[str, ...]:
        """The files that make the whole initrd, joined byte by byte."""
        root = (self.root_header, self.squashfs) if self.root_header else (self.addon,)
        parts = (self.initramfs, self.padding, *root, self.personal)
        return tuple(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class MemtestEntry:
    """A menu entry that starts memtest86+, on one kind of firmware only."""

    name: str
    title: str
    path: str
    firmware: Firmware
    bits: int  # 32 or 64; a 64-bit one needs a 64-bit processor and, on EFI, 64-bit firmware


@dataclass(frozen=True, slots=True)
class HostEntry:
    """What the menu does for one machine alone.

    `name` is its MAC address or SMBIOS UUID, with hyphens; `where` the user's file that says the
    rest. `archive` is an initrd more, `arguments` are kernel arguments more, `entry`
    is what boots at once; each may be empty.
    """

    name: str
    where: str
    archive: str | None
    arguments: tuple[str, ...]
    entry: str

    @property
    def mac(self) -> str:
        """Its MAC address with colons; empty for a UUID."""
        return self.name.replace("-", ":") if MAC.fullmatch(self.name) else ""


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
    hosts: tuple[HostEntry, ...] = ()
    ipxe_signed: bool = False  # each file has a CMS signature beside it
    ipxe_always: bool = False  # iPXE checks it, asked or not

    def offers(self, loader: Loader) -> bool:
        """Say whether `loader` has a live entry to show; without one it gets no menu."""
        return any(loader in entry.offered for entry in self.live)

    def live_for(self, loader: Loader) -> tuple[LiveEntry, ...]:
        """Return the live entries that `loader` offers, its default first."""
        return tuple(entry for entry in self.live if loader in entry.offered)

"""What manifest.json says of a tree; tree/manifest.schema.json describes each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import BootProgram, Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode, Server
from catalyst_pxeboot.util.sums import DIGESTS, SHA256SUMS

MANIFEST = "manifest.json"

#: What a signature's name ends in. GRUB looks for the first one by itself.
GRUB_ENDING = ".sig"
IPXE_ENDING = ".p7s"  # RFC 8551: a detached CMS signature
CLEARSIGNED = ".asc"

#: Signature files of a tree's sums files, and which of these each signs.
OPENPGP_PROOFS = {f"{name}{CLEARSIGNED}": name for name in (DIGESTS, SHA256SUMS)}
CMS_PROOFS = {f"{SHA256SUMS}{IPXE_ENDING}": SHA256SUMS}

GENERATOR = "catalyst-pxeboot"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The program that wrote the manifest."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ReleaseInfo:
    """The release that the tree boots; `time` is UTC, as 2026-11-22T17:00:00Z."""

    arch: str
    subarch: str
    rel_type: str
    version_stamp: str
    title: str
    time: str


@dataclass(frozen=True, slots=True)
class InitramfsInfo:
    """An initramfs and what made it."""

    path: str
    generator: str
    version: str
    compression: str
    unpacked_bytes: int
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A kernel; `machine` is the architecture in its header, as the kernel calls it."""

    name: str
    path: str
    machine: str
    image: str
    version: str | None
    efi_stub: bool
    initramfs: InitramfsInfo


@dataclass(frozen=True, slots=True)
class SquashfsInfo:
    """The live root; `member` is its name inside the initramfs."""

    path: str
    bytes: int
    compression: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class LimitsInfo:
    """What a live entry needs of a client that boots it by one loader, in bytes."""

    wire_bytes: int
    memory_bytes: Mapping[Firmware, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInfo:
    """A menu entry. A live one has a root mode, a memory test the firmware that starts it.

    `url_argument` is the start of the kernel argument that names the squashfs on a web server.
    `kernels`, `initrds` and `limits` are by the loaders that offer the entry. `uki` is the unified
    kernel image that boots it.
    """

    name: str
    title: str
    kernel: str
    kernels: Mapping[Loader, str]
    arguments: str
    root: RootMode | None = None
    checked: bool | None = None
    url_argument: str | None = None
    uki: str | None = None
    firmware: Firmware | None = None
    initrds: Mapping[Loader, tuple[str, ...]]
    limits: Mapping[Loader, LimitsInfo] | None = None


@dataclass(frozen=True, slots=True)
class MenuInfo:
    """The menu; `timeout` is in seconds, None waits for ever."""

    default: str
    timeout: int | None
    entries: tuple[EntryInfo, ...]

    @property
    def live(self) -> tuple[EntryInfo, ...]:
        """The entries that boot the live image."""
        return tuple(entry for entry in self.entries if entry.firmware is None)


@dataclass(frozen=True, slots=True)
class LoaderInfo:
    """What the build host lacked of a loader's binaries."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file of the tree: digests in hexadecimal by algorithm, and what it was made from."""

    path: str
    bytes: int
    role: Role
    origin: str = ""
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FlatInfo:
    """The flat release files: by name the tree's file that each is, None for one of its own."""

    release: str
    files: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that manifest.json says.

    `hosts` are the machines with something of their own, by MAC address or SMBIOS UUID in lower
    case with hyphens. `first` is what dhcp/ names first to UEFI clients, None: as the
    architecture has it. `server` is the machine that the tree was rendered for, None if the spec
    names none. `grub_server` is the address that GRUB's network images fetch from, where they have
    one.
    `sums` are the tree's digest files, each with its algorithms. `clearsigned` is for people:
    what must be signed is the verifier's policy.
    """

    format: int
    generator: MadeBy
    release: ReleaseInfo
    kernels: tuple[KernelInfo, ...]
    squashfs: SquashfsInfo
    menu: MenuInfo
    loaders: Mapping[Loader, LoaderInfo]
    hosts: tuple[str, ...] | None = None
    first: Loader | None = None
    server: Server | None = None
    grub_server: str | None = None
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    files: tuple[FileInfo, ...]
    sums: Mapping[str, tuple[str, ...]]
    clearsigned: tuple[str, ...] | None = None
    flat: FlatInfo | None = None

    @property
    def by_path(self) -> Mapping[str, FileInfo]:
        """The files by their paths."""
        return {file.path: file for file in self.files}

    @property
    def program(self) -> BootProgram | None:
        """The unified kernel image of the first kernel, if it has one."""
        path = next((entry.uki for entry in self.menu.live if self._is_first(entry)), None)
        return BootProgram(path, self.first is Loader.UKI) if path else None

    def _is_first(self, entry: EntryInfo) -> bool:
        return entry.uki == f"{self.kernels[0].path}.efi"

    @property
    def own_files(self) -> frozenset[str]:
        """The names that files of the tree can have, but the manifest's."""
        return frozenset({*self.by_path, *self.sums, *OPENPGP_PROOFS, *CMS_PROOFS})

"""The files of a tree: planned, made and staged.

Paths within a tree are relative, with forward slashes, as every loader and URL writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.util.files import FileStamp

if TYPE_CHECKING:
    from catalyst_pxeboot.formats.initramfs import Generator
    from catalyst_pxeboot.formats.kernel import Kernel


class Role(StrEnum):
    """What a file of the tree is for; as the manifest names it."""

    KERNEL = "kernel"
    INITRAMFS = "initramfs"
    SQUASHFS = "squashfs"
    ROOT_HEADER = "root-header"
    ROOT_CHECK = "root-check"
    STREAM = "stream"  # an initrd with what reads the live root from a web server
    HASH_TREE = "hash-tree"  # by which each block of a streamed root is checked
    PERSONAL = "personal"  # an initrd with the user's keys, files and script
    PADDING = "padding"
    MEMTEST = "memtest"
    DEVICE_TREE = "device-tree"
    UKI = "uki"  # an EFI program with a kernel and its initrds inside
    LOADER = "loader"
    CONFIG = "config"
    SIGNATURE = "signature"
    TEXT = "text"
    PAGE = "page"  # for a browser
    SCRIPT = "script"  # for a running Linux


@dataclass(frozen=True, slots=True)
class IsoExtent:
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
    extent: IsoExtent | None = None


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file of the tree that is the plain Image within a kernel of the live image."""

    path: str
    packed: str  # the kernel's own path in the tree
    kernel: Kernel
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


#: The ending of a hash tree's name; what is before it is the name of its squashfs.
HASH_TREE_ENDING = ".verity"


def hash_tree_path(squashfs: str) -> str:
    """Name the hash tree of a squashfs of the tree, as the client looks for it."""
    return f"{squashfs}{HASH_TREE_ENDING}"


#: Where the initrd that streams a root puts all its files, and those that verify looks at.
STREAM_FOLDER = "pxeboot"
ROOT_HASH = f"{STREAM_FOLDER}/root.hash"
DRIVERS = f"{STREAM_FOLDER}/drivers.squashfs"
CERTIFICATES = f"{STREAM_FOLDER}/ca.pem"


@dataclass(frozen=True, slots=True)
class AddonFile:
    """An initrd of the tree by which one kernel's initramfs gets a root from a web server.

    `modules` is the folder of the kernel's drivers in the live root; `hooks` the folder of
    dracut's hooks in the initramfs, empty for genkernel's.
    """

    path: str
    modules: str
    generator: Generator
    hooks: str
    compression: str  # of the squashfs images in it


@dataclass(frozen=True, slots=True)
class UkiFile:
    """A file of the tree that starts one menu entry by itself: a unified kernel image.

    `initrds` are files of the tree that make the initrd in it, `bytes` an estimate of its size;
    `release` is the kernel's version, empty if not known.
    """

    path: str
    entry: str
    title: str
    kernel: str
    initrds: tuple[str, ...]
    arguments: str
    release: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file of the tree whose content this program makes."""

    path: str
    content: bytes
    role: Role
    origin: str = ""  # what it was made from: a template's name, a loader's package and version


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A finished file of the tree: size in bytes, digests in hexadecimal, how it got there."""

    path: str
    bytes: int
    role: Role
    digests: Mapping[str, str]
    origin: str
    written: int  # bytes of it that were written; 0 for a link or clone
    linked: int = 0  # for a link: the time of the source's file, in nanoseconds

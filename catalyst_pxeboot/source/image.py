"""Looks at a live image and says what is in it. Reads only; believes no name.

What it says of a file it read from that file: the kernel's header, the initramfs's members,
the squashfs's superblock, the ISO's grub.cfg, the kernel's config.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from catalyst_pxeboot.formats.grubcfg import parse_grub_cfg
from catalyst_pxeboot.formats.initramfs import Initramfs, read_initramfs
from catalyst_pxeboot.formats.kconfig import read_kconfig
from catalyst_pxeboot.formats.kernel import Kernel, read_kernel
from catalyst_pxeboot.formats.squashfs import Squashfs, read_squashfs
from catalyst_pxeboot.model.files import Within
from catalyst_pxeboot.source.menu import IsoEntry, IsoKernel, IsoMemtest, IsoMenu, read_iso_menu
from catalyst_pxeboot.util.errors import FormatError, SourceError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.text import nearest

SQUASHFS = "image.squashfs"


GRUB_CFG = "boot/grub/grub.cfg"


MAX_GRUB_CFG = 512 * 1024  # bytes; a real one has 2 KiB


DEFAULT_TIMEOUT = 10  # seconds, as catalyst's ISO script writes it


RERUN = "build livecd-stage2 again"


_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True, slots=True)
class DeviceTrees:
    """A folder of device trees and its files, relative to the image's root, with their bytes."""

    folder: str
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SourceKernel:
    """A kernel with its initramfs, and its .config where the tree has it."""

    iso: IsoKernel
    kernel: Kernel
    initramfs: Initramfs
    config: Mapping[str, str] | None
    device_trees: DeviceTrees | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A live image: everything that a network boot needs to know of it.

    `root` is its folder, or the ISO that it lies in; `within` then says where each file does.
    """

    root: Path
    kernels: tuple[SourceKernel, ...]  # the default first
    squashfs: Squashfs
    memtests: tuple[tuple[IsoMemtest, int], ...]  # each with its file's bytes
    timeout: int | None  # seconds; None waits for ever
    time: int  # seconds since the epoch: when the live root was made
    left_out: tuple[str, ...]
    within: Mapping[str, Within] = field(default_factory=dict)

    def file(self, path: str) -> Path:
        """Return the file that the image's `path` is, or that holds it: the ISO."""
        return self.root if path in self.within else self.root / path


def read_source(root: Path, *, names: Sequence[str] = ()) -> Source:
    """Read the livecd-stage2 tree at `root`.

    `names` are kernels to take in place of the ISO menu's. Raises `SourceError` if it is no
    live image, `FormatError` if a file of it is damaged.
    """
    _check_root(root)
    path = _regular(root, SQUASHFS, "the live root")
    with reading(path):
        squashfs = read_squashfs(path)
        time = int(path.stat().st_mtime)
    return read_tree(root, squashfs, time=time, names=names)


def read_tree(root: Path, squashfs: Squashfs, *, time: int, names: Sequence[str] = ()) -> Source:
    """Read all of the live image at `root` but its squashfs, which was read and is of `time`."""
    menu = _read_menu(root)
    kernels = tuple(_read_kernel(root, iso) for iso in _choose_kernels(root, menu, names))
    memtests = tuple(
        (memtest, _regular(root, memtest.path, "a memtest image").stat().st_size)
        for memtest in menu.memtests
        if (root / memtest.path).exists() or (root / memtest.path).is_symlink()
    )
    found = {memtest.path for memtest, _ in memtests}
    lost = [memtest.title for memtest in menu.memtests if memtest.path not in found]
    return Source(
        root=root,
        kernels=kernels,
        squashfs=squashfs,
        memtests=memtests,
        timeout=menu.timeout,
        time=time,
        left_out=(
            *(f"{title}: neither a live kernel nor memtest" for title in menu.left_out),
            *(f"{title}: its file is not in the image" for title in lost),
        ),
    )


def _check_root(root: Path) -> None:
    try:
        names = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else None
    except OSError as error:
        raise SourceError(
            f"{root}: the source cannot be read: {error.strerror}", hint="check its permissions"
        ) from error
    if names is not None:
        if not names:
            raise SourceError(f"{root}: the source is an empty folder", hint=RERUN)
        if SQUASHFS not in names and "boot" not in names:
            raise SourceError(
                f"{root}: not a livecd-stage2 tree (neither {SQUASHFS} nor boot/ in it)",
                hint="give the folder livecd-stage2-<subarch>-<version_stamp> itself",
            )
        return
    if root.is_symlink() and not root.exists():
        raise SourceError(
            f"{root}: the source is a dangling symlink", hint="point it at the build or remove it"
        )
    if root.exists():
        folder = Path(re.sub(r"\.(tar(\.\w+)?|t[bgx]z)$", "", str(root)))
        hint = (
            f"give the folder {folder} beside it"
            if folder.is_dir()
            else "give the livecd-stage2 folder or an ISO made of it"
        )
        raise SourceError(f"{root}: the source is neither a folder nor an ISO", hint=hint)
    raise SourceError(f"{root}: no such livecd-stage2 build", hint=_hint_of_missing(root))


def _hint_of_missing(root: Path) -> str:
    """Name the newest build that there is, as a wrong time stamp is the usual reason."""
    try:
        builds = [p for p in root.parent.iterdir() if p.name.startswith("livecd-stage2-")]
        builds = [path for path in builds if path.is_dir()]
        newest = max(builds, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    except OSError:
        newest = None
    if newest is None:
        return "check the path, or run catalyst on the livecd-stage2 spec first"
    return f"the newest build there is {newest.name}; correct source_subpath or build it"


def _regular(root: Path, name: str, what: str) -> Path:
    """Return the path of a file of the tree that is a readable, regular file inside it."""
    path = root / name
    if not _PATH.fullmatch(name) or ".." in name:
        raise SourceError(
            f"{root}: {name!r} cannot be served under that name",
            hint="boot loaders need letters, digits and . _ + - / only, and no ..",
        )
    try:
        info = path.stat()
        inside = path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
    except FileNotFoundError:
        if path.is_symlink():
            raise SourceError(f"{path}: {what} is a dangling symlink", hint=RERUN) from None
        raise SourceError(f"{path}: {what} is missing", hint=RERUN) from None
    except OSError as error:
        raise SourceError(
            f"{path}: {what} cannot be read: {error.strerror}", hint="check the permissions"
        ) from error
    if not inside:
        raise SourceError(
            f"{path}: {what} is a symlink that leads out of the tree",
            hint="put the file itself there",
        )
    if not stat.S_ISREG(info.st_mode):
        raise SourceError(f"{path}: {what} is not a regular file", hint=RERUN)
    if info.st_size == 0:
        raise SourceError(f"{path}: {what} is an empty file", hint=RERUN)
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: {what} may not be read", hint="run as root, as catalyst does")
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file in what the disk says while it is read, as a `SourceError`."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path}: it cannot be read to its end: {error.strerror}",
            hint="check the disk it lies on",
        ) from error


def _read_menu(root: Path) -> IsoMenu:
    path = root / GRUB_CFG
    if not path.exists() and not path.is_symlink():
        return IsoMenu((), (), None, DEFAULT_TIMEOUT, ())  # catalyst writes none on arm
    path = _regular(root, GRUB_CFG, "the ISO's menu")
    if path.stat().st_size > MAX_GRUB_CFG:
        raise FormatError(
            f"{path}: {path.stat().st_size} bytes are no GRUB menu", hint="restore the file"
        )
    with reading(path):
        text = read_regular(path, limit=MAX_GRUB_CFG).decode(errors="replace")
    menu = read_iso_menu(parse_grub_cfg(text, where=str(path)))
    if not menu.kernels:
        raise SourceError(
            f"{path}: no entry in it boots a kernel with an initramfs",
            hint="is this the grub.cfg of a live image? " + RERUN,
        )
    return menu


def _choose_kernels(root: Path, menu: IsoMenu, names: Sequence[str]) -> list[IsoKernel]:
    """Return the kernels to offer, the default first: the spec's, the menu's, or those there."""
    if not names and menu.kernels:
        return sorted(menu.kernels, key=lambda kernel: kernel.name != menu.default)
    there = sorted(
        path.stem for path in (root / "boot").glob("*.igz") if path.with_suffix("").exists()
    )
    chosen = []
    for name in names or there:
        kernel = menu.find(name)
        if kernel is None and not (root / "boot" / name).exists() and there:
            raise SourceError(
                f"{root / 'boot' / name}: no such kernel{nearest(name, there)}",
                hint="name in boot/kernel one of " + ", ".join(there),
            )
        chosen.append(kernel or _unlisted_kernel(menu, name))
    if not chosen:
        raise SourceError(
            f"{root / 'boot'}: no kernel with an initramfs (<name> and <name>.igz)", hint=RERUN
        )
    return chosen


def _unlisted_kernel(menu: IsoMenu, name: str) -> IsoKernel:
    """Return a kernel that the menu does not have, with the entries catalyst would give it."""
    title = f"Boot LiveCD (kernel: {name})"
    return IsoKernel(
        name=name,
        path=f"boot/{name}",
        initramfs=f"boot/{name}.igz",
        arguments=menu.kernels[0].arguments if menu.kernels else (),
        entries=(IsoEntry(title, ()), IsoEntry(f"{title} (accessibility)", ("dospeakup",))),
    )


def _read_kernel(root: Path, iso: IsoKernel) -> SourceKernel:
    path = _regular(root, iso.path, "the kernel")
    with reading(path):
        kernel = read_kernel(path)
    path = _regular(root, iso.initramfs, "the initramfs")
    with reading(path):
        initramfs = read_initramfs(path)
    config_name = f"{iso.path}-config"
    config = None
    if (root / config_name).exists() or (root / config_name).is_symlink():
        path = _regular(root, config_name, "the kernel's config")
        with reading(path):
            config = read_kconfig(path)
    return SourceKernel(
        iso=iso,
        kernel=kernel,
        initramfs=initramfs,
        config=config,
        device_trees=_find_device_trees(root, iso, kernel),
    )


def _find_device_trees(root: Path, iso: IsoKernel, kernel: Kernel) -> DeviceTrees | None:
    """Find a kernel's device trees where `make dtbs_install` and kernel-install put them.

    catalyst itself leaves none: an overlay of the stage2 spec can.
    """
    folders = [f"boot/{word}-{iso.name}" for word in ("dtbs", "dtb")]
    if kernel.version:
        folders += [f"boot/{word}/{kernel.version}" for word in ("dtbs", "dtb")]
    for folder in (*folders, "boot/dtbs", "boot/dtb"):
        names = sorted(str(path.relative_to(root)) for path in (root / folder).rglob("*.dtb"))
        if names:
            files = ((name, _regular(root, name, "a device tree")) for name in names)
            return DeviceTrees(folder, tuple((name, path.stat().st_size) for name, path in files))
    return None

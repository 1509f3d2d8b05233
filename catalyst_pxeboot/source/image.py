"""Read a live image: its kernels, its live root, its menu.

What is said of a file was read from that file: the kernel's header, the initramfs's members, the
squashfs's superblock, the ISO's grub.cfg, the kernel's config. No name is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from catalyst_pxeboot.formats.grubcfg import parse_grub_cfg
from catalyst_pxeboot.formats.initramfs import Initramfs, read_initramfs
from catalyst_pxeboot.formats.kconfig import read_kconfig
from catalyst_pxeboot.formats.kernel import Kernel, read_kernel
from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.source.live import (
    GRUB_CFG,
    LiveImage,
    read_live_root,
    root_file,
    root_time,
)
from catalyst_pxeboot.source.menu import IsoEntry, IsoKernel, IsoMemtest, IsoMenu, read_iso_menu
from catalyst_pxeboot.source.network import LiveNetwork, read_contents
from catalyst_pxeboot.source.open import open_image
from catalyst_pxeboot.util.errors import FormatError, SourceError
from catalyst_pxeboot.util.files import FileStamp
from catalyst_pxeboot.util.text import nearest

DEFAULT_TIMEOUT = 10  # seconds, as catalyst's ISO script writes it

_MAX_GRUB_CFG = 512 * 1024  # bytes; a real one has 2 KiB
_INITRAMFS = ".igz"


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
    modules: str | None = None  # the folder of its modules in the live root


@dataclass(frozen=True, slots=True)
class Source:
    """A live image: everything that a network boot needs to know of it."""

    image: LiveImage
    kernels: tuple[SourceKernel, ...]  # the default first
    squashfs: Squashfs
    memtests: tuple[tuple[IsoMemtest, int], ...]  # each with its file's bytes
    timeout: int | None  # seconds; None waits for ever
    time: int  # seconds since the epoch: when the live root was made
    left_out: tuple[str, ...]
    network: LiveNetwork

    @property
    def root(self) -> Path:
        """The image's folder, or the ISO."""
        return self.image.root


def read_source(
    path: Path, *, names: Sequence[str] = (), checked: FileStamp | None = None
) -> Source:
    """Read the live image at `path`, a livecd-stage2 folder or an ISO.

    `names` are kernels to take in place of the menu's. `checked` is the ISO that was checked: no
    other is read. Raises `SourceError` if it is not a live image, `FormatError` if a file of it is
    damaged.
    """
    with open_image(path, checked=checked) as image:
        return read_image(image, read_live_root(image), names=names)


def read_machine(path: Path) -> str:
    """Return the machine of the default kernel of a live image; raises as `read_source`."""
    with open_image(path) as image:
        read_live_root(image)  # raises for an ISO or folder of another kind
        iso = _choose_kernels(image, _read_menu(image), ())[0]
        with image.open(iso.path, "the kernel") as file:
            return read_kernel(file).machine


def read_image(image: LiveImage, squashfs: Squashfs, *, names: Sequence[str] = ()) -> Source:
    """Read all else of an open image whose live root is `squashfs`, as `read_source`."""
    menu = _read_menu(image)
    chosen = _choose_kernels(image, menu, names)
    root = root_file(image, squashfs)
    with ThreadPoolExecutor(max_workers=1) as beside:
        offset = root.extent.offset if root.extent else 0
        contents = beside.submit(read_contents, root.origin, offset=offset)
        read = [_read_kernel(image, iso) for iso in chosen]
    modules = contents.result().modules
    memtests = tuple(
        (memtest, image.size(memtest.path, "a memtest image"))
        for memtest in menu.memtests
        if image.has(memtest.path)
    )
    found = {memtest.path for memtest, _ in memtests}
    lost = [memtest.title for memtest in menu.memtests if memtest.path not in found]
    return Source(
        image=image,
        kernels=tuple(
            replace(kernel, modules=modules.get(kernel.kernel.version or "")) for kernel in read
        ),
        squashfs=squashfs,
        memtests=memtests,
        timeout=menu.timeout,
        time=root_time(image, squashfs),
        network=contents.result().network,
        left_out=(
            *(f"{title}: neither a live kernel nor memtest" for title in menu.left_out),
            *(f"{title}: its file is not in the image" for title in lost),
        ),
    )


def _read_menu(image: LiveImage) -> IsoMenu:
    if not image.has(GRUB_CFG):
        return IsoMenu((), (), None, DEFAULT_TIMEOUT, ())  # catalyst writes none on arm
    path = image.root / GRUB_CFG
    with image.open(GRUB_CFG, "the ISO's menu") as file:
        if file.bytes > _MAX_GRUB_CFG:
            raise FormatError(
                f"{path}: {file.bytes} bytes are too many for a GRUB menu", hint=image.remedy
            )
        text = file.stream.read(_MAX_GRUB_CFG).decode(errors="replace")
    menu = read_iso_menu(parse_grub_cfg(text, where=str(path)))
    if not menu.kernels:
        raise SourceError(
            f"{path}: no entry in it boots a kernel with an initramfs",
            hint=f"is this the grub.cfg of a live image? {image.remedy}",
        )
    return menu


def _choose_kernels(image: LiveImage, menu: IsoMenu, names: Sequence[str]) -> list[IsoKernel]:
    """Return the kernels to offer, the default first: the spec's, the menu's, or those there."""
    if not names and menu.kernels:
        return sorted(menu.kernels, key=lambda kernel: kernel.name != menu.default)
    files = {name for name in image.names("boot") if name.count("/") == 1}
    there = sorted(
        name.removeprefix("boot/").removesuffix(_INITRAMFS)
        for name in files
        if name.endswith(_INITRAMFS) and image.has(name.removesuffix(_INITRAMFS))
    )
    chosen = []
    for name in names or there:
        kernel = menu.find(name)
        if kernel is None and not image.has(f"boot/{name}") and there:
            raise SourceError(
                f"{image.root / 'boot' / name}: no such kernel{nearest(name, there)}",
                hint="name in boot/kernel one of " + ", ".join(there),
            )
        chosen.append(kernel or _unlisted_kernel(menu, name))
    if not chosen:
        raise SourceError(
            f"{image.root / 'boot'}: no kernel with an initramfs (<name> and <name>.igz)",
            hint=image.remedy,
        )
    return chosen


def _unlisted_kernel(menu: IsoMenu, name: str) -> IsoKernel:
    """Return a kernel that the menu does not have, with the entries catalyst would give it."""
    title = f"Boot LiveCD (kernel: {name})"
    return IsoKernel(
        name=name,
        path=f"boot/{name}",
        initramfs=f"boot/{name}{_INITRAMFS}",
        arguments=menu.kernels[0].arguments if menu.kernels else (),
        entries=(IsoEntry(title, ()), IsoEntry(f"{title} (accessibility)", ("dospeakup",))),
    )


def _read_kernel(image: LiveImage, iso: IsoKernel) -> SourceKernel:
    with image.open(iso.path, "the kernel") as file:
        kernel = read_kernel(file)
    with image.open(iso.initramfs, "the initramfs") as file:
        initramfs = read_initramfs(file)
    config = None
    if image.has(f"{iso.path}-config"):
        with image.open(f"{iso.path}-config", "the kernel's config") as file:
            config = read_kconfig(file)
    return SourceKernel(
        iso=iso,
        kernel=kernel,
        initramfs=initramfs,
        config=config,
        device_trees=_find_device_trees(image, iso, kernel),
    )


def _find_device_trees(image: LiveImage, iso: IsoKernel, kernel: Kernel) -> DeviceTrees | None:
    """Find a kernel's device trees where `make dtbs_install` and kernel-install put them.

    catalyst itself leaves none: an overlay of the stage2 spec can.
    """
    folders = [f"boot/{word}-{iso.name}" for word in ("dtbs", "dtb")]
    if kernel.version:
        folders += [f"boot/{word}/{kernel.version}" for word in ("dtbs", "dtb")]
    for folder in (*folders, "boot/dtbs", "boot/dtb"):
        names = sorted(name for name in image.names(folder) if name.endswith(".dtb"))
        if names:
            files = tuple((name, image.size(name, "a device tree")) for name in names)
            return DeviceTrees(folder, files)
    return None

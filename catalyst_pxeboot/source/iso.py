"""A live image in an ISO is read as the folder that the ISO was made from.

The small files, which are read to tell what they are, are unpacked into a private folder and
gone when that has been done. No payload is taken from there: each file of the tree comes from its
own place in the ISO.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from catalyst_pxeboot.formats.grubcfg import parse_grub_cfg
from catalyst_pxeboot.formats.iso import AGAIN, Iso, IsoFile, is_iso, read_iso
from catalyst_pxeboot.formats.squashfs import SUPERBLOCK, Squashfs, parse_squashfs
from catalyst_pxeboot.model.files import Within
from catalyst_pxeboot.source.image import (
    GRUB_CFG,
    MAX_GRUB_CFG,
    RERUN,
    SQUASHFS,
    Source,
    read_source,
    read_tree,
    reading,
)
from catalyst_pxeboot.source.menu import IsoMenu, read_iso_menu
from catalyst_pxeboot.util.checksum import BLOCK, write_all
from catalyst_pxeboot.util.errors import FormatError, PxebootError, SourceError, SpecError
from catalyst_pxeboot.util.files import FileStamp, open_regular
from catalyst_pxeboot.util.tempdir import scratch_folder

_INITRAMFS = ".igz"


_DEVICE_TREE = ".dtb"


_MAX_UNPACKED = 4 * 1024**3  # bytes of kernels, initramfs images and so on


_CHANGED = "wait until the ISO is complete, then build again"


@contextmanager
def open_source(
    path: Path, *, names: Sequence[str] = (), checked: FileStamp | None = None
) -> Iterator[Source]:
    """Read the live image at `path`, a livecd-stage2 folder or an ISO, for the context's length.

    `names` are kernels to take in place of the menu's. `checked` is the ISO that was checked: no
    other will do. Raises as `read_source` and `read_iso` do.
    """
    if not is_iso(path):
        yield read_source(path, names=names)
        return
    iso = _read_iso(path)
    if checked is not None and iso.stamp != checked:
        raise SourceError(f"{path}: it changed since it was checked", hint=_CHANGED)
    with scratch_folder() as folder, _named_as(path, folder), open_iso(path) as stream:
        yield _read_image(iso, stream, folder, names)


def kernel_machine(path: Path) -> str:
    """Return the machine that the live image's default kernel is for, as its header says."""
    with open_source(path) as source:
        return source.kernels[0].kernel.machine


def open_iso(path: Path) -> BinaryIO:
    """Open the ISO at `path`, or raise `SourceError`."""
    try:
        return open_regular(path)
    except FileNotFoundError as error:
        what = "a dangling symlink" if path.is_symlink() else "no such ISO"
        raise SourceError(f"{path}: {what}", hint="check the path") from error
    except OSError as error:
        raise SourceError(
            f"{path}: the ISO cannot be read: {error.strerror}", hint="check the path and its mode"
        ) from error


def _read_iso(path: Path) -> Iso:
    with open_iso(path):
        pass  # says what is wrong with the path
    with reading(path):
        iso = read_iso(path, wanted=SQUASHFS)
    lacks = [name for name in (SQUASHFS, GRUB_CFG) if iso.find(name) is None]
    if lacks == [GRUB_CFG] and any(_is_initramfs(name) for name in iso.files):
        return iso  # catalyst writes no menu on some architectures
    if lacks:
        raise SourceError(
            f"{path}: not a catalyst live image: no {' and no '.join(lacks)} in it, and its volume"
            f" is named {iso.volume!r}",
            hint="give the ISO of a livecd-stage2 build, such as install-amd64-minimal-….iso",
        )
    return iso


def _read_image(iso: Iso, stream: BinaryIO, folder: Path, names: Sequence[str]) -> Source:
    if FileStamp.of(os.fstat(stream.fileno())) != iso.stamp:
        raise SourceError(f"{iso.path}: it changed while it was read", hint=_CHANGED)
    files: dict[str, IsoFile] = {}

    def unpack(paths: Iterable[str]) -> None:
        found = {name: file for name in paths if (file := iso.find(name)) is not None}
        files.update(found)
        if sum(file.bytes for file in files.values()) > _MAX_UNPACKED:
            raise SourceError(
                f"{iso.path}: its kernels and initramfs images have more than"
                f" {_MAX_UNPACKED} bytes",
                hint="is this the ISO of a live image?",
            )
        for name, file in found.items():
            _unpack(stream, file, folder / name)

    # In the order in which a reader of the folder would look.
    squashfs, file = _read_squashfs(iso, stream)
    (folder / "boot").mkdir()
    menu_file = iso.find(GRUB_CFG)
    if menu_file is not None and menu_file.bytes > MAX_GRUB_CFG:
        raise FormatError(
            f"{iso.path / GRUB_CFG}: {menu_file.bytes} bytes are no GRUB menu", hint=AGAIN
        )
    unpack([GRUB_CFG])
    unpack(set(_wanted(iso, _menu(folder))) - files.keys())
    time = file.time or squashfs.created
    source = read_tree(folder, squashfs, time=time, names=names)
    files[SQUASHFS] = file
    return replace(
        source,
        root=iso.path,
        within={name: _within(found, iso.stamp, time) for name, found in files.items()},
    )


def _within(file: IsoFile, stamp: FileStamp, time: int) -> Within:
    """Return where a file lies, with the mode that it most likely had in the folder.

    ISOs are read-only, and grub-mkrescue takes every w of a mode away and gives every r.
    """
    mode = 0o755 if file.mode & 0o111 else 0o644
    return Within(file.offset, mode, file.time or time, stamp)


def _read_squashfs(iso: Iso, stream: BinaryIO) -> tuple[Squashfs, IsoFile]:
    file = iso.find(SQUASHFS)
    path = iso.path / SQUASHFS
    if file is None or not file.bytes:
        raise SourceError(f"{path}: the live root is an empty file", hint=AGAIN)
    with reading(path):
        stream.seek(file.offset)
        head = stream.read(min(SUPERBLOCK, file.bytes))
    return parse_squashfs(head, path=path, size=file.bytes), file


def _menu(folder: Path) -> IsoMenu | None:
    path = folder / GRUB_CFG
    if not path.exists():
        return None
    text = path.read_bytes().decode(errors="replace")
    return read_iso_menu(parse_grub_cfg(text, where=str(path)))


def _wanted(iso: Iso, menu: IsoMenu | None) -> Iterator[str]:
    """Name every file that a reader of the folder may look into."""
    if menu is not None:
        for kernel in menu.kernels:
            yield from (kernel.path, kernel.initramfs, f"{kernel.path}-config")
        yield from (memtest.path for memtest in menu.memtests)
    for name in iso.files:
        if _is_initramfs(name):
            kernel_path = name.removesuffix(_INITRAMFS)
            yield from (kernel_path, name, f"{kernel_path}-config")
        elif name.startswith("boot/dtb") and name.endswith(_DEVICE_TREE):
            yield name


def _is_initramfs(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return folder == "boot" and file.endswith(_INITRAMFS) and file != _INITRAMFS


def _unpack(stream: BinaryIO, file: IsoFile, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _cannot_unpack(target, error) from error
    try:
        stream.seek(file.offset)
        left = file.bytes
        while left:
            with reading(target):
                block = stream.read(min(BLOCK, left))
            if not block:
                raise SourceError(f"{target}: the ISO ends within it", hint=_CHANGED)
            _write(fd, block, target)
            left -= len(block)
        os.utime(fd, (file.time, file.time))
    finally:
        os.close(fd)


def _write(fd: int, block: bytes, target: Path) -> None:
    try:
        write_all(fd, memoryview(block))
    except OSError as error:
        raise _cannot_unpack(target, error) from error


def _cannot_unpack(target: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{target}: it cannot be unpacked to be looked at: {error.strerror}",
        hint="set TMPDIR to a folder with room for the kernel and initramfs",
    )


@contextmanager
def _named_as(path: Path, folder: Path) -> Iterator[None]:
    """Let errors name the ISO's files as `X.iso/boot/gentoo`, not as what was unpacked."""
    try:
        yield
    except PxebootError as error:
        for problem in error.problems if isinstance(error, SpecError) else (error,):
            problem.message = problem.message.replace(str(folder), str(path))
            problem.hint = problem.hint.replace(str(folder), str(path)).replace(RERUN, AGAIN)
        if isinstance(error, SpecError):
            error.message = " | ".join(str(problem) for problem in error.problems)
        raise

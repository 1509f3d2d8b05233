"""A live image in an ISO: the same as from the folder, and a clear message where it is not one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from catalyst_pxeboot.build.pipeline import make_plan, parse_image
from catalyst_pxeboot.formats.initramfs import Initramfs, read_initramfs
from catalyst_pxeboot.formats.iso import read_iso
from catalyst_pxeboot.source import image
from catalyst_pxeboot.source import iso as isosource
from catalyst_pxeboot.source.image import Source, read_source
from catalyst_pxeboot.source.live import LiveImage
from catalyst_pxeboot.util.errors import PxebootError, SourceError
from catalyst_pxeboot.util.files import InputFile
from tests.golden.test_golden import MEMTEST
from tests.support import builders
from tests.support.iso import VOLUME, find_record, plain_iso, rescue_iso, set_extent
from tests.support.stage2 import INITRAMFS, STAMP, TIME, write_stage2

NAME = f"install-amd64-minimal-{STAMP}.iso"
AGAIN = "fetch or make the ISO again"
NO_LIVE = "give the ISO of a livecd-stage2 build, such as install-amd64-minimal-….iso"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Check that reading leaves no temporary file."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def iso_of(tmp_path: Path, **parts: object) -> Path:
    tree = write_stage2(tmp_path / "tree", **parts)  # type: ignore[arg-type]
    return plain_iso(tree, tmp_path / NAME)


IMAGE = cast(LiveImage, object())


def plain(source: Source) -> Source:
    """Return a source without its places."""
    here = Path("/")
    kernels = (
        replace(
            kernel,
            kernel=replace(kernel.kernel, path=here),
            initramfs=replace(kernel.initramfs, path=here),
        )
        for kernel in source.kernels
    )
    squashfs = replace(source.squashfs, path=here)
    return replace(source, image=IMAGE, kernels=tuple(kernels), squashfs=squashfs)


def refused(path: Path, kind: type[PxebootError] = PxebootError) -> str:
    with pytest.raises(kind) as raised:
        read_source(path)
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("make", [rescue_iso, plain_iso])
def test_the_same_as_from_the_folder(make: object, tmp_path: Path) -> None:
    tree = write_stage2(
        tmp_path / "tree",
        extra={**MEMTEST, "boot/dtbs/a/board.dtb": b"\xd0\x0d\xfe\xed"},
    )
    path = make(tree, tmp_path / NAME)  # type: ignore[operator]
    source = read_source(path)
    assert plain(source) == plain(read_source(tree))
    assert source.root == path
    assert source.squashfs.path == path / "image.squashfs"
    content = path.read_bytes()
    for name in ("boot/gentoo", "boot/gentoo.igz", "image.squashfs", "boot/dtbs/a/board.dtb"):
        file = tree / name
        extent = source.image.extent(name, time=0)
        assert extent
        there = content[extent.offset : extent.offset + file.stat().st_size]
        assert there == file.read_bytes(), name
        assert (extent.mode, extent.time) == (0o644, TIME), name
        assert read_source(tree).image.extent(name, time=0) is None
    assert source.image.extent("boot/other", time=0) is None


def test_kernels_by_name_and_without_a_menu(tmp_path: Path) -> None:
    initramfs = (INITRAMFS / "dracut-059.xz").read_bytes()
    path = iso_of(
        tmp_path, grub_cfg=None,
        extra={"boot/other": builders.bzimage(), "boot/other.igz": initramfs},
    )  # fmt: skip
    assert [kernel.iso.name for kernel in read_source(path).kernels] == ["gentoo", "other"]
    assert [kernel.iso.name for kernel in read_source(path, names=["other"]).kernels] == ["other"]
    with pytest.raises(SourceError) as raised:
        read_source(path, names=["othr"])
    assert str(raised.value) == (
        f"{path}/boot/othr: no such kernel (did you mean 'other'?);"
        " name in boot/kernel one of gentoo, other"
    )


def test_a_symlink_within_the_image(tmp_path: Path) -> None:
    tree = write_stage2(tmp_path / "tree")
    (tree / "boot/gentoo").rename(tree / "boot/vmlinuz-6.1")
    (tree / "boot/gentoo").symlink_to("vmlinuz-6.1")
    (tree / "live").mkdir()
    (tree / "image.squashfs").rename(tree / "live/root")
    (tree / "image.squashfs").symlink_to("live/root")
    source = read_source(plain_iso(tree, tmp_path / NAME))
    assert source.kernels[0].kernel.bytes == (tree / "boot/gentoo").stat().st_size
    assert source.squashfs.bytes == (tree / "live/root").stat().st_size


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../etc/hostname", "gentoo"])
def test_a_symlink_out_of_the_image_is_followed_nowhere(tmp_path: Path, target: str) -> None:
    tree = write_stage2(tmp_path / "tree")
    (tree / "boot/gentoo").unlink()
    (tree / "boot/gentoo").symlink_to(target)
    path = plain_iso(tree, tmp_path / NAME)
    assert refused(path) == f"{path}/boot/gentoo: the kernel is missing; {AGAIN}"


def test_no_initramfs_is_read_for_the_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_loaders: None
) -> None:
    path = iso_of(tmp_path, kernel=builders.arm64_image(), grub_cfg="arm64-dracut.cfg")
    path = path.rename(tmp_path / "live.iso")
    reads = []
    real = read_initramfs

    def counted(file: InputFile) -> Initramfs:
        reads.append(file)
        return real(file)

    monkeypatch.setattr(image, "read_initramfs", counted)
    spec = parse_image(path, tmp_path / "out", {})
    assert spec.arch.name == "arm64" and not reads
    make_plan(spec)
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (["image.squashfs"], "no image.squashfs"),
        (["image.squashfs", "boot/grub/grub.cfg"], "no image.squashfs and no boot/grub/grub.cfg"),
        (["boot/gentoo.igz", "boot/grub/grub.cfg"], "no boot/grub/grub.cfg"),
    ],
)
def test_other_vendors(tmp_path: Path, lost: list[str], told: str) -> None:
    tree = write_stage2(tmp_path / "tree")
    for name in lost:
        (tree / name).unlink()
    path = plain_iso(tree, tmp_path / "debian.iso")
    assert refused(path, SourceError) == (
        f"{path}: not a catalyst live image: {told} in it, and its volume is named {VOLUME!r};"
        f" {NO_LIVE}"
    )


def test_faults_of_files_name_the_iso(tmp_path: Path) -> None:
    path = iso_of(tmp_path, kernel=b"\x7fnot a kernel" * 500)
    assert refused(path).startswith(f"{path}/boot/gentoo: ")
    (tmp_path / "2").mkdir()
    path = iso_of(tmp_path / "2", squashfs=b"no squashfs")
    assert refused(path).startswith(f"{path}/image.squashfs: expected a squashfs image")
    (tmp_path / "3").mkdir()
    path = iso_of(tmp_path / "3", squashfs=b"")
    assert refused(path) == f"{path}/image.squashfs: the live root is an empty file; {AGAIN}"
    (tmp_path / "4").mkdir()
    path = iso_of(tmp_path / "4", grub_cfg=None, extra={"boot/grub/grub.cfg": b"#" * 600_000})
    assert refused(path) == (
        f"{path}/boot/grub/grub.cfg: 600000 bytes are too many for a GRUB menu; {AGAIN}"
    )
    (tmp_path / "5").mkdir()
    path = iso_of(tmp_path / "5", grub_cfg="menuentry 'x' {\n")
    assert refused(path).startswith(f"{path}/boot/grub/grub.cfg")


def test_paths_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / NAME
    assert refused(path, SourceError) == f"{path}: no such ISO; check the path"
    path.symlink_to("gone")
    assert refused(path, SourceError) == f"{path}: a dangling symlink; check the path"
    path.unlink()
    os.mkfifo(path)
    assert refused(path, SourceError) == (
        f"{path}: the ISO cannot be read: Not a regular file; check the path and its mode"
    )
    path.unlink()
    path.mkdir()
    assert refused(path, SourceError) == (
        f"{path}: the source is an empty folder; build livecd-stage2 again"
    )
    path = tmp_path / ("x" * 300)
    assert refused(path, SourceError) == (
        f"{path}: the source cannot be read: File name too long; check its permissions"
    )


def test_an_iso_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = iso_of(tmp_path)
    wait = "wait until the ISO is complete, then build again"
    stamp = read_source(path).image.stamp
    os.utime(path, (TIME, TIME))
    with pytest.raises(SourceError) as raised:
        read_source(path, checked=stamp)
    assert str(raised.value) == f"{path}: it changed since it was checked; {wait}"
    real = read_iso

    def change(*args: object, **more: object) -> object:
        found = real(*args, **more)  # type: ignore[arg-type]
        os.utime(path, (TIME + 1, TIME + 1))
        return found

    monkeypatch.setattr(isosource, "read_iso", change)
    assert refused(path, SourceError) == f"{path}: it changed while it was read; {wait}"


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = iso_of(tmp_path)

    def fail(*_args: object, **_more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(isosource, "read_iso", fail)
    assert refused(path, SourceError) == (
        f"{path}: it cannot be read to its end: Input/output error; check the disk that it is on"
    )


@pytest.mark.parametrize("name", ["image.squashfs", "boot/gentoo.igz"])
def test_a_disk_that_fails_within_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = iso_of(tmp_path)
    bad = read_iso(path, wanted=name).files[name].offset
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert refused(path, SourceError) == (
        f"{path}/{name}: it cannot be read to its end: Input/output error;"
        " check the disk that it is on"
    )


def test_files_over_one_another(tmp_path: Path) -> None:
    """Two names for one place do no harm: the kernel is read for what it is."""
    path = iso_of(tmp_path)
    content = bytearray(path.read_bytes())
    kernel = find_record(content, b"GENTOO.;1")
    set_extent(content, kernel, int.from_bytes(content[kernel + 2 : kernel + 6], "little") + 8)
    path.write_bytes(content)
    assert refused(path).startswith(f"{path}/boot/gentoo: ")

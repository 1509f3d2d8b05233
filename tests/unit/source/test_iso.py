"""A live image in an ISO: the same as from the folder, and clear words where it is none."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.iso import read_iso
from catalyst_pxeboot.source import iso as isosource
from catalyst_pxeboot.source.image import Source, read_source
from catalyst_pxeboot.source.iso import kernel_machine, open_source
from catalyst_pxeboot.util.errors import PxebootError, SourceError
from tests.golden.test_golden import MEMTEST
from tests.support import builders
from tests.support.iso import VOLUME, find_record, plain_iso, rescue_iso, set_extent
from tests.support.stage2 import INITRAMFS, STAMP, TIME, write_stage2

NAME = f"install-amd64-minimal-{STAMP}.iso"
AGAIN = "fetch or make the ISO again"
NO_LIVE = "give the ISO of a livecd-stage2 build, such as install-amd64-minimal-….iso"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let temporary folders be made in one of the test's, which must be empty at its end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def iso_of(tmp_path: Path, **parts: object) -> Path:
    tree = write_stage2(tmp_path / "tree", **parts)  # type: ignore[arg-type]
    return plain_iso(tree, tmp_path / NAME)


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
    return replace(source, root=here, kernels=tuple(kernels), squashfs=squashfs, within={})


def refused(path: Path, kind: type[PxebootError] = PxebootError) -> str:
    with pytest.raises(kind) as raised, open_source(path):
        pass
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
    with open_source(path) as source, open_source(tree) as folder:
        assert plain(source) == plain(folder)
        assert source.root == path
        assert source.squashfs.path == path / "image.squashfs"
        assert folder == read_source(tree)
        content = path.read_bytes()
        for name, within in source.within.items():
            file = tree / name
            there = content[within.offset : within.offset + file.stat().st_size]
            assert there == file.read_bytes(), name
            assert (within.mode, within.time) == (0o644, TIME), name
            assert source.file(name) == path
        assert {"boot/gentoo", "boot/gentoo.igz", "image.squashfs"} <= source.within.keys()


def test_kernels_by_name_and_without_a_menu(tmp_path: Path) -> None:
    initramfs = (INITRAMFS / "dracut-059.xz").read_bytes()
    path = iso_of(
        tmp_path, grub_cfg=None,
        extra={"boot/other": builders.bzimage(), "boot/other.igz": initramfs},
    )  # fmt: skip
    with open_source(path) as source:
        assert [kernel.iso.name for kernel in source.kernels] == ["gentoo", "other"]
    with open_source(path, names=["other"]) as source:
        assert [kernel.iso.name for kernel in source.kernels] == ["other"]
    with pytest.raises(SourceError) as raised, open_source(path, names=["othr"]):
        pass
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
    with open_source(plain_iso(tree, tmp_path / NAME)) as source:
        assert source.kernels[0].kernel.bytes == (tree / "boot/gentoo").stat().st_size
        assert source.squashfs.bytes == (tree / "live/root").stat().st_size


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../etc/hostname", "gentoo"])
def test_a_symlink_out_of_the_image_is_followed_nowhere(tmp_path: Path, target: str) -> None:
    tree = write_stage2(tmp_path / "tree")
    (tree / "boot/gentoo").unlink()
    (tree / "boot/gentoo").symlink_to(target)
    path = plain_iso(tree, tmp_path / NAME)
    assert refused(path) == f"{path}/boot/gentoo: the kernel is missing; {AGAIN}"


def test_machine_of_the_kernel(tmp_path: Path) -> None:
    path = iso_of(tmp_path, kernel=builders.arm64_image(), grub_cfg="arm64-dracut.cfg")
    assert kernel_machine(path) == "arm64"


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
    assert refused(path) == (f"{path}/boot/grub/grub.cfg: 600000 bytes are no GRUB menu; {AGAIN}")
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
    with open_source(path) as source:
        stamp = source.within["image.squashfs"].iso
    os.utime(path, (TIME, TIME))
    with pytest.raises(SourceError) as raised, open_source(path, checked=stamp):
        pass
    assert str(raised.value) == f"{path}: it changed since it was checked; {wait}"
    real = read_iso

    def change(*args: object, **more: object) -> object:
        found = real(*args, **more)  # type: ignore[arg-type]
        os.utime(path, (TIME + 1, TIME + 1))
        return found

    monkeypatch.setattr(isosource, "read_iso", change)
    assert refused(path, SourceError) == f"{path}: it changed while it was read; {wait}"


def test_no_room_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = iso_of(tmp_path)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(isosource, "write_all", full)
    assert refused(path, SourceError) == (
        f"{path}/boot/grub/grub.cfg: it cannot be unpacked to be looked at: No space left on"
        " device; set TMPDIR to a folder with room for the kernel and initramfs"
    )


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = iso_of(tmp_path)

    def fail(*_args: object, **_more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(isosource, "read_iso", fail)
    assert refused(path, SourceError) == (
        f"{path}: it cannot be read to its end: Input/output error; check the disk it lies on"
    )


@pytest.mark.parametrize("name", ["image.squashfs", "boot/gentoo.igz"])
def test_a_disk_that_fails_within_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = iso_of(tmp_path)
    bad = read_iso(path, wanted=name).files[name].offset

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    unpack, squashfs = isosource._unpack, isosource._read_squashfs
    content = Failing(path.read_bytes())
    monkeypatch.setattr(isosource, "_unpack", lambda _stream, *args: unpack(content, *args))
    monkeypatch.setattr(isosource, "_read_squashfs", lambda iso, _stream: squashfs(iso, content))
    assert refused(path, SourceError) == (
        f"{path}/{name}: it cannot be read to its end: Input/output error;"
        " check the disk it lies on"
    )


def test_more_than_fits_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = iso_of(tmp_path)
    monkeypatch.setattr(isosource, "_MAX_UNPACKED", 5000)
    assert refused(path, SourceError) == (
        f"{path}: its kernels and initramfs images have more than 5000 bytes;"
        " is this the ISO of a live image?"
    )


def test_files_over_one_another(tmp_path: Path) -> None:
    """Two names for one place do no harm: the kernel is read for what it is."""
    path = iso_of(tmp_path)
    content = bytearray(path.read_bytes())
    kernel = find_record(content, b"GENTOO.;1")
    set_extent(content, kernel, int.from_bytes(content[kernel + 2 : kernel + 6], "little") + 8)
    path.write_bytes(content)
    assert refused(path).startswith(f"{path}/boot/gentoo: ")


def test_scratch_is_gone_after_ctrl_c(tmp_path: Path, scratch: Path) -> None:
    path = iso_of(tmp_path)
    with pytest.raises(KeyboardInterrupt), open_source(path):
        assert list(scratch.rglob("gentoo.igz"))
        raise KeyboardInterrupt

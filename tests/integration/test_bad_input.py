"""Everything a user can get wrong: one line that names it and the way out, and nothing left.

Each case bends a good livecd-stage2 tree or a good spec in one way. The whole text of the error
is compared; `{source}`, `{output}` and `{tmp}` stand for the paths of the run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.spec.parse import parse_folders, parse_settings
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import builders
from tests.support.stage2 import STAMP, release_settings, storedir_stage2, write_stage2

AGAIN = "build livecd-stage2 again"


@dataclass(frozen=True)
class Case:
    """`bend` damages the tree; `keys` change the spec; `message` is the whole error."""

    name: str
    message: str
    bend: Callable[[Path], object] = field(default=lambda _source: None)
    keys: dict[str, object] = field(default_factory=dict)


def remove(name: str) -> Callable[[Path], object]:
    return lambda source: (source / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes(content)


def link(name: str, target: str) -> Callable[[Path], object]:
    def bend(source: Path) -> None:
        (source / name).unlink()
        (source / name).symlink_to(target)

    return bend


def cfg(text: str) -> Callable[[Path], object]:
    return put("boot/grub/grub.cfg", text.encode())


def config(text: str) -> Callable[[Path], object]:
    return put("boot/gentoo-config", text.encode())


def vanish(source: Path) -> None:
    source.rename(source.parent / "elsewhere")


def empty(source: Path) -> None:
    vanish(source)
    source.mkdir()


def dangle(source: Path) -> None:
    vanish(source)
    source.symlink_to("gone")


def other_folder(source: Path) -> None:
    empty(source)
    (source / "etc").mkdir()


def folder_for_squashfs(source: Path) -> None:
    (source / "image.squashfs").unlink()
    (source / "image.squashfs").mkdir()


def tarball(source: Path) -> None:
    vanish(source)
    source.with_name(source.name + ".tar.xz").write_bytes(b"x")


def other_stamp(source: Path) -> None:
    source.rename(source.with_name("livecd-stage2-amd64-20261101T170000Z"))


def grown(source: Path) -> None:
    with (source / "image.squashfs").open("r+b") as stream:
        stream.truncate(1 << 32)


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda source: os.truncate(source / name, size)


def fifo(source: Path) -> None:
    (source / "boot/gentoo.igz").unlink()
    os.mkfifo(source / "boot/gentoo.igz")


def occupied(name: str, content: bytes) -> Callable[[Path], object]:
    def bend(source: Path) -> None:
        output = source.with_name(f"pxeboot-amd64-{STAMP}")
        output.mkdir()
        (output / name).write_bytes(content)

    return bend


def file_in_the_way(source: Path) -> None:
    source.with_name(f"pxeboot-amd64-{STAMP}").write_bytes(b"mine")


def menu(
    kernel: str = "/boot/gentoo", arguments: str = "cdroot", initrd: str = "/boot/gentoo.igz"
) -> str:
    return f"menuentry 'Boot' {{\n linux {kernel} {arguments}\n initrd {initrd}\n}}\n"


NO_ZSTD = """CONFIG_BLK_DEV_INITRD=y
CONFIG_RD_GZIP=y
CONFIG_BLK_DEV_LOOP=y
CONFIG_OVERLAY_FS=y
CONFIG_SQUASHFS=y
CONFIG_SQUASHFS_XZ=y
"""
GOOD_CONFIG = NO_ZSTD + "CONFIG_RD_XZ=y\nCONFIG_RD_ZSTD=y\n"
ON = "turn it on in the kernel's config of the livecd-stage2 spec"
SAFE = "boot loaders need letters, digits and . _ + - / only, and no .."

CASES = [
    # the source folder
    Case("source missing", "{source}: no such livecd-stage2 build; check the path, or run catalyst on the livecd-stage2 spec first", vanish),
    Case("source of another stamp", "{source}: no such livecd-stage2 build; the newest build there is livecd-stage2-amd64-20261101T170000Z; correct source_subpath or build it", other_stamp),
    Case("source empty", f"{{source}}: the source is an empty folder; {AGAIN}", empty),
    Case("source a tarball", "{source}.tar.xz: the source is neither a folder nor an ISO; give the livecd-stage2 folder or an ISO made of it", tarball, {"source_subpath": f"23.0-default/livecd-stage2-amd64-{STAMP}.tar.xz"}),
    Case("source a dangling symlink", "{source}: the source is a dangling symlink; point it at the build or remove it", dangle),
    Case("not a stage2 tree", "{source}: not a livecd-stage2 tree (neither image.squashfs nor boot/ in it); give the folder livecd-stage2-<subarch>-<version_stamp> itself", other_folder),
    # its files
    Case("no squashfs", f"{{source}}/image.squashfs: the live root is missing; {AGAIN}", remove("image.squashfs")),
    Case("no kernel", f"{{source}}/boot/gentoo: the kernel is missing; {AGAIN}", remove("boot/gentoo")),
    Case("no initramfs", f"{{source}}/boot/gentoo.igz: the initramfs is missing; {AGAIN}", remove("boot/gentoo.igz")),
    Case("no kernel and no menu", f"{{source}}/boot: no kernel with an initramfs (<name> and <name>.igz); {AGAIN}", lambda s: (remove("boot/gentoo")(s), remove("boot/grub/grub.cfg")(s))),
    Case("empty squashfs", f"{{source}}/image.squashfs: the live root is an empty file; {AGAIN}", put("image.squashfs", b"")),
    Case("empty kernel", f"{{source}}/boot/gentoo: the kernel is an empty file; {AGAIN}", put("boot/gentoo", b"")),
    Case("empty initramfs", f"{{source}}/boot/gentoo.igz: the initramfs is an empty file; {AGAIN}", put("boot/gentoo.igz", b"")),
    Case("dangling kernel", f"{{source}}/boot/gentoo: the kernel is a dangling symlink; {AGAIN}", link("boot/gentoo", "gone")),
    Case("squashfs leads out", "{source}/image.squashfs: the live root is a symlink that leads out of the tree; put the file itself there", link("image.squashfs", "/etc/passwd")),
    Case("initramfs is a FIFO", f"{{source}}/boot/gentoo.igz: the initramfs is not a regular file; {AGAIN}", fifo),
    Case("squashfs is a folder", f"{{source}}/image.squashfs: the live root is not a regular file; {AGAIN}", folder_for_squashfs),
    # the ISO's menu
    Case("a menu without kernels", f"{{source}}/boot/grub/grub.cfg: no entry in it boots a kernel with an initramfs; is this the grub.cfg of a live image? {AGAIN}", cfg("set timeout=10\n")),
    Case("a kernel name with ..", f"{{source}}: 'boot/../boot/gentoo' cannot be served under that name; {SAFE}", cfg(menu("/boot/../boot/gentoo"))),
    Case("a kernel name with a space", f"{{source}}: 'boot/my kernel' cannot be served under that name; {SAFE}", cfg(menu("'/boot/my kernel'"))),
    # contradictions
    Case("an arm64 kernel for amd64", "{source}/boot/gentoo: the kernel is for arm64, but subarch amd64 boots x86_64; correct subarch or source_subpath", put("boot/gentoo", builders.arm64_image())),
    Case("a 32-bit kernel for amd64", "{source}/boot/gentoo: the kernel is for i386, but subarch amd64 boots x86_64; correct subarch or source_subpath", put("boot/gentoo", builders.bzimage(bits=32))),
    Case("dracut without dmsquash-live", "{source}/boot/gentoo.igz: dracut 059 made it without dmsquash-live, which mounts the live root; add `-a dmsquash-live` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec", put("boot/gentoo.igz", builders.initramfs(builders.dracut_members(modules=("base",)), "gzip"))),
    Case("an old genkernel", "{source}/boot/gentoo.igz: genkernel 3.5.3 cannot boot a live root that lies in the initramfs; build livecd-stage2 with genkernel 4.0 or later, or with boot/kernel/gentoo/distkernel: yes", put("boot/gentoo.igz", builders.initramfs(builders.genkernel_members("3.5.3", loop_wo_mount=False), "gzip"))),
    Case("no CONFIG_RD_XZ", f"{{source}}/boot/gentoo-config: CONFIG_RD_XZ is off, but gentoo.igz is compressed with xz; {ON}", config(NO_ZSTD)),
    Case("no CONFIG_RD_ZSTD", f"{{source}}/boot/gentoo-config: CONFIG_RD_ZSTD is off, but gentoo.igz is compressed with zstd; {ON}", lambda s: (config(NO_ZSTD)(s), put("boot/gentoo.igz", builders.initramfs(builders.dracut_members(), "zstd"))(s))),
    Case("no CONFIG_SQUASHFS_XZ", f"{{source}}/boot/gentoo-config: CONFIG_SQUASHFS_XZ is off, but image.squashfs is compressed with xz; {ON}", config(GOOD_CONFIG.replace("CONFIG_SQUASHFS_XZ=y\n", ""))),
    Case("no CONFIG_SQUASHFS", f"{{source}}/boot/gentoo-config: CONFIG_SQUASHFS is off, but image.squashfs is the live root; {ON}", config(GOOD_CONFIG.replace("CONFIG_SQUASHFS=y\n", ""))),
    Case("no CONFIG_BLK_DEV_LOOP", f"{{source}}/boot/gentoo-config: CONFIG_BLK_DEV_LOOP is off, but image.squashfs is mounted by a loop device; {ON}", config(GOOD_CONFIG.replace("CONFIG_BLK_DEV_LOOP=y\n", ""))),
    Case("no CONFIG_OVERLAY_FS", f"{{source}}/boot/gentoo-config: CONFIG_OVERLAY_FS is off, but dracut makes the live root writable by it; {ON}", config(GOOD_CONFIG.replace("CONFIG_OVERLAY_FS=y\n", ""))),
    Case("no CONFIG_BLK_DEV_INITRD", f"{{source}}/boot/gentoo-config: CONFIG_BLK_DEV_INITRD is off, but a live image boots by its initramfs; {ON}", config(GOOD_CONFIG.replace("CONFIG_BLK_DEV_INITRD=y\n", ""))),
    Case("overlay a module that is not there", "{source}/boot/gentoo.igz: overlay.ko is not in it though CONFIG_OVERLAY_FS is a module, but dracut makes the live root writable by it; add `--add-drivers overlay` to boot/kernel/gentoo/dracut_args", config(GOOD_CONFIG.replace("CONFIG_OVERLAY_FS=y", "CONFIG_OVERLAY_FS=m"))),
    Case("an lzma squashfs", "{source}/image.squashfs: no Linux kernel reads a squashfs compressed with lzma; make it with xz or zstd (livecd/fsops)", lambda s: (config(GOOD_CONFIG)(s), put("image.squashfs", builders.squashfs_image(compression="lzma"))(s))),
    Case("a squashfs of 4 GiB", "{source}/image.squashfs: 4.0 GiB cannot be embedded in an initramfs, whose members end at 4 GiB; make the live root smaller or compress it harder (livecd/fsops), or let the initramfs fetch it (pxeboot/root: http)", grown),
    # the spec
    Case("an unknown subarch", "subarch: 'amd46' has no network boot here (did you mean 'amd64'?); use a subarch of " + ", ".join(arch.name for arch in all_arches()), keys={"subarch": "amd46"}),
    Case("no version_stamp", "version_stamp: this spec key is missing or empty; add it, see the README", keys={"version_stamp": None}),
    Case("a stamp with ..", "version_stamp: '../../etc' leads out of <storedir>/builds; give a path below it", keys={"version_stamp": "../../etc"}),
    Case("an absolute source", "source_subpath: '/etc' leads out of <storedir>/builds; give a path below it", keys={"source_subpath": "/etc"}),
    Case("a stamp of two words", "version_stamp: 'a b' is more than one word; give one word", keys={"version_stamp": ["a", "b"]}),
    Case("a kernel name with a slash", "boot/kernel: '../gentoo' is not a kernel name; use letters, digits and . _ + - only, as in boot/<name> of the stage2 tree", keys={"boot/kernel": "../gentoo"}),
    Case("a kernel that is not there", "{source}/boot/gentop: no such kernel (did you mean 'gentoo'?); name in boot/kernel one of gentoo", keys={"boot/kernel": "gentop"}),
    Case("an unknown loader", "pxeboot/loaders: 'pxlinux' is unknown (did you mean 'pxelinux'?); use ipxe, pxelinux, grub, uboot, uki", keys={"pxeboot/loaders": "pxlinux"}),
    Case("a loader of other machines", "pxeboot/loaders: uboot starts no amd64 machines; use ipxe, pxelinux, grub, uki", keys={"pxeboot/loaders": "uboot"}),
    Case("an unknown link mode", "pxeboot/link: 'hardlnk' is unknown (did you mean 'hardlink'?); use auto, hardlink, reflink, copy", keys={"pxeboot/link": "hardlnk"}),
    Case("a timeout of words", "pxeboot/timeout: 'soon' is not a whole number from -1 to 86400; correct it", keys={"pxeboot/timeout": "soon"}),
    Case("a serial console without speed", "pxeboot/serial: 'ttyS0' is not a device and a speed; write it as the kernel does, ttyS0,115200", keys={"pxeboot/serial": "ttyS0"}),
    Case("templates that are not there", "pxeboot/templates: '/nonexistent' is not a folder; correct or create it", keys={"pxeboot/templates": "/nonexistent"}),
    Case("a relative loader path", "pxeboot/loader_path: 'loaders' is not an absolute path; write it from the root, /", keys={"pxeboot/loader_path": "loaders"}),
    Case("an unknown digest", "digests: 'blake3' is not a digest this Python has (did you mean 'blake2s'?); use blake2b and sha512", keys={"digests": {"blake3"}}),
    Case("a digest without length", "digests: 'shake_128' has no length of its own; use blake2b and sha512", keys={"digests": {"shake_128"}}),
    Case("a line break in an argument", "pxeboot/bootargs: 'a\\nb' holds a control character; remove it", keys={"pxeboot/bootargs": ["a\nb"]}),
    Case("too long a command line", "boot/gentoo: its kernel command line has 2081 bytes, but the kernel reads 2047 and loaders add up to 256; shorten livecd/bootargs or pxeboot/bootargs", keys={"pxeboot/bootargs": ["x" * 2000]}),
    # the target
    Case("the target is not ours", "{output}: is not a tree that catalyst-pxeboot made, so it is not replaced; move it away or give another folder", occupied("thesis.txt", b"mine")),
    Case("the target's manifest is another's", "{output}: is not a tree that catalyst-pxeboot made, so it is not replaced; move it away or give another folder", occupied("manifest.json", b'{"generator": {"name": "mkosi"}}')),
    Case("the target is a file", "{output}: is in the way and not a folder; move it away or give another folder", file_in_the_way),
]  # fmt: skip


def snapshot(folder: Path, *, folder_times: bool = True) -> dict[str, str]:
    """Return every name below `folder` with its kind, mode, time, and digest or target.

    Without `folder_times` a folder in which something was made and removed again is as before.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file() and info.st_size < 1 << 30:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        time = info.st_mtime_ns if folder_times or not path.is_dir() else 0
        found[str(path.relative_to(folder))] = f"{info.st_mode:o} {time} {content}"
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line_and_nothing_left(case: Case, tmp_path: Path) -> None:
    store = tmp_path / "store"
    source = write_stage2(storedir_stage2(store))
    case.bend(source)
    before = snapshot(tmp_path, folder_times=False)

    with pytest.raises(PxebootError) as raised:
        build(parse_settings(release_settings(store) | case.keys), report=lambda _line: None)

    expected = case.message.format(
        source=source, output=source.with_name(f"pxeboot-amd64-{STAMP}"), tmp=tmp_path
    )
    assert str(raised.value) == expected
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path, folder_times=False) == before


DAMAGED = {
    "kernel of noise": ("boot/gentoo", b"\x7fnot a kernel" * 500),
    "initramfs of noise": ("boot/gentoo.igz", bytes(range(256)) * 64),
    "initramfs that ends early": (
        "boot/gentoo.igz",
        builders.initramfs(builders.dracut_members(), "gzip")[:-30],
    ),
    "initramfs of neither generator": (
        "boot/gentoo.igz",
        builders.initramfs({"init": b"#!/bin/sh\n"}, "gzip"),
    ),
    "truncated squashfs": ("image.squashfs", builders.squashfs_image(used=1 << 20)),
    "squashfs of noise": ("image.squashfs", b"hsqt" + bytes(5000)),
    "menu with an open brace": ("boot/grub/grub.cfg", b"menuentry 'Boot' {\n linux /boot/gentoo\n"),
    "menu with an open quote": ("boot/grub/grub.cfg", b"menuentry 'Boot {\n"),
    "config of noise": ("boot/gentoo-config", bytes(range(256)) * 10),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_file_is_named(name: str, storedir: Path) -> None:
    """The rooms of the formats test their texts; here: the path is named, with a way out."""
    path, content = DAMAGED[name]
    source = storedir_stage2(storedir)
    (source / path).write_bytes(content)
    before = snapshot(storedir, folder_times=False)

    with pytest.raises(PxebootError) as raised:
        build(parse_settings(release_settings(storedir)), report=lambda _line: None)

    assert str(source / path) in raised.value.message
    assert raised.value.hint
    assert "\n" not in str(raised.value)
    assert snapshot(storedir, folder_times=False) == before


REFUSED_ARGUMENTS = {
    "${net0/mac}": "ipxe",
    "||": "ipxe",
    "&&": "ipxe",
    'dyndbg="file': "grub",
    "a'b": "grub",
    "a\\b": "grub",
}


@pytest.mark.parametrize("argument", REFUSED_ARGUMENTS)
def test_argument_refused_where_its_loader_cannot(argument: str, storedir: Path) -> None:
    loader = REFUSED_ARGUMENTS[argument]
    before = snapshot(storedir, folder_times=False)

    with pytest.raises(PxebootError) as raised:
        build(
            parse_settings(release_settings(storedir, pxeboot__bootargs=[argument])),
            report=lambda _line: None,
        )
    assert argument in raised.value.message
    assert raised.value.hint
    assert snapshot(storedir, folder_times=False) == before

    # The loaders that can take it get it.
    others = [name for name in ("ipxe", "pxelinux", "grub") if name != loader]
    settings = release_settings(storedir, pxeboot__bootargs=[argument], pxeboot__loaders=others)
    built = build(parse_settings(settings), report=lambda _line: None)
    assert argument in (built.output / "pxelinux.cfg/default").read_text()


@pytest.mark.parametrize("argument", ["a;b", "{x}", "$y", "a|b", "a&b", "a>b", "a#b", "*", "a||b"])
def test_argument_quoted_where_the_loader_can(argument: str, storedir: Path) -> None:
    settings = release_settings(storedir, pxeboot__bootargs=[argument])

    output = build(parse_settings(settings), report=lambda _line: None).output

    assert f" {argument}" in (output / "boot.ipxe").read_text()
    assert f" {argument}" in (output / "pxelinux.cfg/default").read_text()
    assert f" '{argument}'" in (output / "boot/grub/grub.cfg").read_text()


@pytest.fixture
def open_storedir(no_loaders: None) -> Iterator[Path]:
    """Return a storedir that any user may read and only its owner may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        source = write_stage2(storedir_stage2(Path(name)))
        (source / "boot/gentoo.igz").chmod(0o644)
        (Path(name) / "builds/23.0-default").chmod(0o555)
        yield Path(name)
        (Path(name) / "builds/23.0-default").chmod(0o755)


def test_no_permission_to_write(open_storedir: Path) -> None:
    output = open_storedir / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"
    before = snapshot(open_storedir, folder_times=False)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(PxebootError) as raised:
            build(parse_settings(release_settings(open_storedir)), report=lambda _line: None)
    finally:
        os.seteuid(user)
    assert str(raised.value) == (
        f"{output}: not published: Permission denied ({output.parent}/.{output.name}.lock);"
        " run as root, as catalyst does, or give a folder that you may write"
    )
    assert snapshot(open_storedir, folder_times=False) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", [1 << 20, 220 << 10])
def test_disk_full(tmp_path: Path, small_disk: Path, no_loaders: None, size: int) -> None:
    """Full while the payload is copied, or by the small files behind it."""
    source = write_stage2(tmp_path / "stage2", squashfs=builders.squashfs_image(size=size))
    before = snapshot(source)
    spec = parse_folders(source, small_disk / "made/tree", {"subarch": "amd64"})
    with pytest.raises(PxebootError) as raised:
        build(spec, report=lambda _line: None)
    assert str(raised.value).startswith(f"{spec.output}: not published: No space left on device")
    assert str(raised.value).endswith("; free space there, or point storedir at a larger disk")
    assert snapshot(source) == before
    assert list(small_disk.iterdir()) == []


def test_several_faults_of_a_spec_are_told_together(storedir: Path) -> None:
    settings = release_settings(storedir, pxeboot__timeout="x", pxeboot__link="y", subarch="z")
    with pytest.raises(PxebootError) as raised:
        parse_settings(settings)
    assert [problem.message.partition(":")[0] for problem in raised.value.problems] == [  # type: ignore[attr-defined]
        "subarch",
        "pxeboot/link",
        "pxeboot/timeout",
    ]

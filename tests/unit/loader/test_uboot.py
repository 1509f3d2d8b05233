"""Kernels in the form that each loader takes, and U-Boot's share of a tree."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build, make_plan
from catalyst_pxeboot.build.report import plan_lines, source_lines
from catalyst_pxeboot.formats import kernel as kernels
from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.cpio import member_header
from catalyst_pxeboot.formats.kernel import KernelImage, open_unpacked
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.uboot import UBOOT
from catalyst_pxeboot.model.files import JoinedFile, Role
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import Server
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.spec.parse import Spec, parse_settings
from catalyst_pxeboot.tree import stage as tree
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import FormatError, PxebootError, SourceError, SpecError
from tests.support import builders
from tests.support.readers import read_kernel
from tests.support.stage2 import INITRAMFS, STAMP, release_settings, storedir_stage2, write_stage2

IMAGE = builders.arm64_image()
GZIP = builders.compress(IMAGE, "gzip")
ZBOOT = builders.zboot_image(version="6.1.0-test")
DTB = b"\xd0\x0d\xfe\xed"
TIME = 1_795_366_800


def spec_of(
    store: Path, kernel: bytes, *, subarch: str = "arm64", loaders: str = "ipxe grub uboot",
    initramfs: str = "dracut-059.xz", extra: Mapping[str, bytes] | None = None,
) -> Spec:  # fmt: skip
    """Write a stage2 tree and return a spec of it."""
    write_stage2(
        storedir_stage2(store, subarch=subarch),
        grub_cfg="arm64-dracut.cfg",
        kernel=kernel,
        initramfs=(INITRAMFS / initramfs).read_bytes(),
        extra=extra,
    )
    settings = release_settings(
        store,
        subarch=subarch,
        source_subpath=f"23.0-default/livecd-stage2-{subarch}-{STAMP}",
        pxeboot__loaders=loaders,
    )
    return parse_settings(settings)


def plan_of(store: Path, kernel: bytes, **words: str) -> Plan:
    return make_plan(spec_of(store, kernel, **words))  # type: ignore[arg-type]


# --- reading --------------------------------------------------------------------------------------


def unpack(path: Path, *, block: int = 1000) -> bytes:
    """Unpack the kernel at `path` in blocks of `block` bytes."""
    with path.open("rb") as file, open_unpacked(file, read_kernel(path)) as stream:
        parts = []
        while part := stream.read(block):
            assert len(part) <= block
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("block", [1, 1000, 1 << 20])
@pytest.mark.parametrize("packed", [GZIP, ZBOOT, ZBOOT + bytes(512)], ids=["gzip", "zboot", "tail"])
def test_the_image_comes_out_whole(tmp_path: Path, packed: bytes, block: int) -> None:
    path = tmp_path / "gentoo"
    path.write_bytes(packed)
    assert unpack(path, block=block) == IMAGE


def test_a_large_image_comes_out_whole(tmp_path: Path) -> None:
    image = builders.arm64_image(size=3 << 20)
    path = tmp_path / "gentoo"
    path.write_bytes(gzip.compress(image, mtime=0))
    assert unpack(path, block=1 << 20) == image


def test_a_zboot_kernel_ends_where_its_header_says(tmp_path: Path) -> None:
    """What lies behind, a second gzip member by its look, is no part of it."""
    path = tmp_path / "gentoo"
    path.write_bytes(ZBOOT + gzip.compress(b"more", mtime=0))
    assert unpack(path) == IMAGE


def test_a_kernel_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gentoo"
    path.write_bytes(gzip.compress(builders.arm64_image(size=1 << 20), mtime=0))
    monkeypatch.setattr(kernels, "MAX_UNPACKED", 1 << 19)
    with pytest.raises(FormatError) as caught:
        unpack(path)
    assert str(caught.value) == (
        f"{path}: unpacks to more than 524288 bytes;"
        " the file is damaged or made to exhaust memory; build it again"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ZBOOT[:-30], "ends early, in the middle of its gzip data; the file is truncated; copy or"
         " build it again"),
        (builders.zboot_image("riscv64"), "expected a Linux kernel for riscv64 within its EFI zboot"
         " (bzImage, zImage, Image, Image.gz, EFI zboot or vmlinux), found a file that begins with"
         " 4d 5a 00 00 00 00 00 00; check the names in boot/kernel of the stage2 spec"),
    ],
)  # fmt: skip
def test_damaged_kernels(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "gentoo"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        unpack(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_plain_image_has_nothing_to_unpack(tmp_path: Path) -> None:
    path = tmp_path / "gentoo"
    path.write_bytes(IMAGE)
    assert read_kernel(path).packed is None
    with pytest.raises(FormatError, match="the kernel in this Image cannot be unpacked here"):
        unpack(path)


# --- planning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "loaders", "takes"),
    [
        (IMAGE, "ipxe grub uboot", {"ipxe": "", "grub": "", "uboot": ""}),
        (GZIP, "ipxe grub uboot", {"ipxe": ".Image", "grub": "", "uboot": ".Image"}),
        (GZIP, "grub", {"grub": ""}),
        (ZBOOT, "ipxe grub uboot", {"ipxe": "", "grub": ".Image", "uboot": ".Image"}),
        (ZBOOT, "ipxe", {"ipxe": ""}),
    ],
)
def test_each_loader_gets_the_form_it_takes(
    tmp_path: Path, no_loaders: None, kernel: bytes, loaders: str, takes: Mapping[str, str]
) -> None:
    plan = plan_of(tmp_path, kernel, loaders=loaders)
    for entry in plan.menu.live:
        found = {str(loader): LOADERS[loader].kernel(entry) for loader in plan.spec.loaders}
        assert found == {loader: f"boot/gentoo{end}" for loader, end in takes.items()}
    wanted = ["boot/gentoo.Image"] if ".Image" in takes.values() else []
    assert [file.path for file in plan.unpacked] == wanted


def test_the_plan_says_why(tmp_path: Path, no_loaders: None) -> None:
    plan = plan_of(tmp_path, ZBOOT)
    notes = (
        "boot/gentoo.Image for grub: boot/gentoo is an EFI zboot; before 2.12 it asks for the plain"
        " Image's header, unless patched",
        "boot/gentoo.Image for uboot: boot/gentoo is an EFI zboot; it starts EFI programs by"
        " bootefi, not by pxe boot",
        "boot/gentoo.initrd for uboot: it loads one initrd only, here 64.4 KiB",
        "no root streamed over HTTP: boot/gentoo.igz: it has no folder of dracut's hooks that is"
        " known here; build livecd-stage2 with dracut 050 or later",
        "no root over HTTP: boot/gentoo.igz: dracut 059 made it without livenet, which gets the"
        " live root from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the"
        " livecd-stage2 spec",
    )
    assert plan.notes == notes
    lines = list(plan_lines(plan))
    assert [line.removeprefix("note     ") for line in lines if line.startswith("note")] == [*notes]
    assert "file     boot/gentoo.Image  kernel, unpacked from gentoo" in lines
    assert (
        "file     boot/gentoo.initrd  initramfs, 64.4 KiB,"
        " boot/gentoo.igz + boot/root.cpio-header + image.squashfs" in lines
    )


def test_a_kernel_that_cannot_be_unpacked(tmp_path: Path, no_loaders: None) -> None:
    zboot = ZBOOT.replace(b"gzip", b"lz4\0", 1)
    with pytest.raises(PxebootError) as caught:
        plan_of(tmp_path, zboot)
    assert str(caught.value) == (
        "boot/gentoo: grub and uboot cannot start this EFI zboot, and its compression cannot be"
        " undone here; build the kernel with CONFIG_KERNEL_GZIP or CONFIG_KERNEL_ZSTD, or say"
        " pxeboot/loaders: ipxe"
    )


def test_a_kernel_with_the_name_of_an_unpacked_one(tmp_path: Path, no_loaders: None) -> None:
    initramfs = (INITRAMFS / "dracut-059.xz").read_bytes()
    spec = spec_of(
        tmp_path, GZIP, extra={"boot/gentoo.Image": IMAGE, "boot/gentoo.Image.igz": initramfs}
    )
    with pytest.raises(PxebootError) as caught:
        make_plan(replace(spec, kernels=("gentoo", "gentoo.Image")))
    assert str(caught.value) == (
        "boot/gentoo.Image: a file of the live image has this name, which another file would get;"
        " name its kernel otherwise in boot/kernel of the livecd-stage2 spec"
    )


def test_uboot_is_for_arm_and_on_request_for_arm64(tmp_path: Path, no_loaders: None) -> None:
    settings = release_settings(tmp_path, subarch="armv7a")
    assert Loader.UBOOT in parse_settings(settings).loaders
    settings["subarch"] = "arm64"
    assert Loader.UBOOT not in parse_settings(settings).loaders
    settings["pxeboot/loaders"] = "uboot"
    assert parse_settings(settings).loaders == (Loader.UBOOT,)
    settings["subarch"] = "rv64_lp64d"
    with pytest.raises(SpecError, match="pxeboot/loaders: uboot starts no riscv64 machines"):
        parse_settings(settings)


@pytest.mark.parametrize(
    "folder", ["dtbs-gentoo", "dtb-gentoo", "dtbs/6.1.0-test", "dtb/6.1.0-test", "dtbs", "dtb"]
)
def test_device_trees_of_the_kernel(tmp_path: Path, no_loaders: None, folder: str) -> None:
    extra = {f"boot/{folder}/a.dtb": DTB, f"boot/{folder}/vendor/b.dtb": DTB, "boot/dtbs/c": DTB}
    spec = spec_of(tmp_path, IMAGE, extra=extra)
    plan = make_plan(spec)
    assert {entry.device_trees for entry in plan.menu.live} == {f"boot/{folder}"}
    staged = [file for file in plan.files if file.role is Role.DEVICE_TREE]
    assert [(file.path, file.bytes) for file in staged] == [
        (f"boot/{folder}/a.dtb", 4),
        (f"boot/{folder}/vendor/b.dtb", 4),
    ]
    assert "files    2 device-trees, 8 B, auto" in list(plan_lines(plan))
    assert f"  trees      boot/{folder}: 2 files" in list(source_lines(plan.source, plan.tools))
    without = make_plan(replace(spec, loaders=(Loader.GRUB,)))
    assert without.menu.live[0].device_trees is None
    assert all(file.role is not Role.DEVICE_TREE for file in without.files)


def test_a_device_tree_that_is_a_link_out_of_the_tree(tmp_path: Path, no_loaders: None) -> None:
    spec = spec_of(tmp_path, IMAGE, extra={"boot/dtbs/a.dtb": DTB})
    link = spec.source / "boot/dtbs/b.dtb"
    link.symlink_to("/etc/passwd")
    with pytest.raises(SourceError) as caught:
        make_plan(spec)
    assert str(caught.value) == (
        f"{link}: a device tree is a symlink that leads out of the tree; put the file itself there"
    )


def test_a_long_command_line_is_told(tmp_path: Path, no_loaders: None) -> None:
    spec = spec_of(tmp_path, IMAGE)
    assert make_plan(spec).warnings == ()
    long = replace(spec, extra_bootargs=("x" * 450,))
    (warning,) = make_plan(long).warnings
    assert warning == (
        "the kernel command line is longer than the 512 bytes that U-Boot reads on many boards"
        " (CONFIG_SYS_CBSIZE); shorten pxeboot/bootargs"
    )


# --- staging --------------------------------------------------------------------------------------


@pytest.mark.parametrize("initramfs", ["dracut-059.xz", "dracut-059.lz4", "genkernel-4.3.17.gz"])
def test_the_joined_initrd_is_one_archive(tmp_path: Path, no_loaders: None, initramfs: str) -> None:
    """The squashfs's header lies on a multiple of 4 behind the initramfs, and lz4 is ended."""
    built = build(spec_of(tmp_path, GZIP, initramfs=initramfs), report=lambda _line: None)
    joined = (built.output / "boot/gentoo.initrd").read_bytes()
    first = (INITRAMFS / initramfs).read_bytes()
    squashfs = (built.output / "image.squashfs").read_bytes()
    rest = member_header("image.squashfs.img", len(squashfs)) + squashfs
    assert joined.startswith(first)
    assert joined.endswith(rest)
    zeros = joined[len(first) : -len(rest)]
    assert not any(zeros)
    assert (len(joined) - len(rest)) % 4 == 0
    assert (4 <= len(zeros) < 8) if initramfs.endswith("lz4") else len(zeros) < 4
    assert (built.output / "boot/gentoo.Image").read_bytes() == IMAGE
    assert verify_tree(built.output).faults == ()
    files = {file.path: file for file in built.files}
    for name in ("boot/gentoo.initrd", "boot/gentoo.Image"):
        data = (built.output / name).read_bytes()
        assert files[name].bytes == files[name].written == len(data)
        assert files[name].digests["blake2b"] == hashlib.blake2b(data).hexdigest()
        assert (built.output / name).stat().st_mode & 0o777 == 0o644
    assert files["boot/gentoo.Image"].origin == "gentoo (Image.gz), unpacked"
    assert files["boot/gentoo.initrd"].origin.endswith("boot/root.cpio-header + image.squashfs")


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is never held whole: it goes through in blocks, and those leave no trace."""
    monkeypatch.setattr(tree, "BLOCK", 100)
    (tmp_path / "a").write_bytes(bytes(range(256)))
    (tmp_path / "b").write_bytes(b"b" * 1001)
    file = JoinedFile("sub/c", ("a", "b", "a"), Role.INITRAMFS, 256 * 2 + 1001)
    (staged,) = tree.stage_joined_files([file], tmp_path, algorithms=("sha256",), time=TIME)
    data = bytes(range(256)) + b"b" * 1001 + bytes(range(256))
    assert (tmp_path / "sub/c").read_bytes() == data
    assert staged.digests == {"sha256": hashlib.sha256(data).hexdigest()}
    assert (tmp_path / "sub/c").stat().st_mtime == TIME


def test_a_part_of_another_size_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    file = JoinedFile("c", ("a",), Role.INITRAMFS, 5)
    with pytest.raises(SourceError, match="c: it changed since it was looked at"):
        tree.stage_joined_files([file], tmp_path, algorithms=(), time=TIME)


def test_nothing_is_left_of_a_kernel_that_is_damaged(tmp_path: Path, no_loaders: None) -> None:
    """Its header and its first bytes are sound, so only unpacking it tells."""
    image = builders.arm64_image(size=1 << 20)
    packed = bytearray(gzip.compress(image, mtime=0))
    zboot = bytearray(builders.zboot_image(version="6.1.0-test")[:1024])
    zboot[12:16] = len(packed).to_bytes(4, "little")
    packed[-8:-4] = b"\0\0\0\0"  # gzip's check sum
    spec = spec_of(tmp_path, bytes(zboot + packed))
    with pytest.raises(FormatError, match="its gzip data is damaged"):
        build(spec, report=lambda _line: None)
    assert not spec.output.exists()
    assert [path.name for path in spec.output.parent.iterdir()] == [spec.source.name]


def test_packed_is_told_for_what_holds_a_kernel_only(tmp_path: Path) -> None:
    found = {}
    for name, data in (("plain", IMAGE), ("gz", GZIP), ("zboot", ZBOOT)):
        (tmp_path / name).write_bytes(data)
        kernel = read_kernel(tmp_path / name)
        found[kernel.image] = kernel.packed
    assert found == {
        KernelImage.IMAGE: None,
        KernelImage.GZIP: Compression.GZIP,
        KernelImage.ZBOOT: Compression.GZIP,
    }


# --- U-Boot's grammar -----------------------------------------------------------------------------

CONFIG = """\
# A comment
MENU TITLE Gentoo
TIMEOUT 100
DEFAULT one

LABEL one
  MENU LABEL One
  KERNEL boot/gentoo
  INITRD boot/gentoo.initrd
  FDTDIR boot/dtbs
  APPEND quiet cdroot
  IPAPPEND 2

label two
  linux boot/other
  fdt boot/dtbs/a.dtb

LABEL three
  LOCALBOOT 1
"""


def test_a_sound_configuration() -> None:
    files = ("boot/dtbs/a.dtb", "boot/gentoo", "boot/gentoo.initrd", "boot/other")
    assert UBOOT.check(CONFIG) == Config(files, (), files)


@pytest.mark.parametrize(
    ("old", "new"),
    [("DEFAULT one", "SAY hello"), ("IPAPPEND 2", "FDTOVERLAYS /boot/a.dtbo"),
     ("MENU TITLE Gentoo", "MENU BACKGROUND x.bmp")],
)  # fmt: skip
def test_a_directive_of_another_uboot_is_accepted(old: str, new: str) -> None:
    assert UBOOT.check(CONFIG.replace(old, new, 1)).problems == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("DEFAULT one", "DEFAULT ony", 'line 4: unknown label "ony"'),
        ("MENU TITLE Gentoo", "MENU TITLE", "line 2: MENU TITLE wants a text"),
        ("Gentoo", "#1", "line 2: MENU TITLE: its text begins with #, a comment"),
        ("TIMEOUT 100", "TIMEOUT soon", 'line 3: TIMEOUT wants a number, not "soon"'),
        ("TIMEOUT 100", "TIMEOUT", "line 3: TIMEOUT wants a value"),
        ("INITRD boot/gentoo.initrd", "INITRD boot/gentoo.igz,image.squashfs",
         "line 9: INITRD takes one file; U-Boot splits no list at commas"),
        ("INITRD boot/gentoo.initrd", "INITRD a b", "line 9: INITRD wants one file"),
        ("KERNEL boot/gentoo\n", "KERNEL /boot/gentoo\n",
         'line 8: "/boot/gentoo" leads out of the tree'),
        ("FDTDIR boot/dtbs", "FDTDIR /boot", 'line 10: "/boot" leads out of the tree'),
        ("FDTDIR boot/dtbs", "KERNEL boot/other",
         'line 10: KERNEL is already on line 8 of "one"'),
        ("APPEND quiet", "APPEND ${quiet}",
         "line 11: APPEND holds $, a quote or a backslash, which U-Boot expands"),
        ("APPEND quiet", "APPEND #quiet", "line 11: APPEND wants a value"),
        ("label two", "label one", 'line 14: label "one" is already on line 6'),
        ("label two", "label two three", "line 14: LABEL wants one word"),
        ("  linux boot/other\n", "", 'line 14: the entry "two" starts nothing'),
        ("linux boot/other", "com32 boot/other",
         'line 14: the entry "two" starts nothing'),
    ],
)  # fmt: skip
def test_problems(old: str, new: str, problem: str) -> None:
    assert old in CONFIG
    assert problem in UBOOT.check(CONFIG.replace(old, new, 1)).problems


def test_dhcp_tells_uboot_the_folder(tmp_path: Path, no_loaders: None) -> None:
    """In a folder below the TFTP root U-Boot finds the tree by its boot file's folder only."""
    spec = spec_of(tmp_path, IMAGE)
    spec = replace(spec, server=Server(tftp_prefix="live"))
    for loaders, expected in (
        ((Loader.UBOOT,), ["dhcp-boot=tag:uboot-arm64,live/manifest.json"]),
        ((Loader.GRUB,), []),
    ):
        output = build(replace(spec, loaders=loaders), report=lambda _line: None).output
        lines = (output / "dhcp/dnsmasq.conf").read_text().splitlines()
        assert [line for line in lines if "manifest.json" in line] == expected


def test_verify_reads_it(tmp_path: Path, no_loaders: None) -> None:
    output = build(spec_of(tmp_path, GZIP), report=lambda _line: None).output
    config = output / "pxelinux.cfg/default-arm"
    config.write_text(config.read_text().replace("boot/gentoo.initrd", "boot/gone", 1))
    faults = [fault.message for fault in verify_tree(output).faults]
    assert "pxelinux.cfg/default-arm: loads boot/gone, which is not in the tree" in faults

"""Whole output, compared byte for byte: what every loader gets, and the tree's listing.

After a change to a template, `UPDATE_GOLDEN=1 pytest tests/golden` writes the files
anew; the difference is what a reviewer reads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.loader import loader_of
from catalyst_pxeboot.render.dhcp import DHCP_CONFIGS
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.files import list_files
from tests.support import builders
from tests.support.efi import efi_program
from tests.support.paths import GOLDEN
from tests.support.stage2 import INITRAMFS, STAMP, release_settings, storedir_stage2, write_stage2

LISTING = "listing.txt"
PERSONAL = INITRAMFS.parent / "personal"


@dataclass(frozen=True)
class Case:
    """A tree: catalyst's subarch, what differs in the stage2 tree, what in the spec."""

    subarch: str
    stage2: Mapping[str, object] = field(default_factory=dict)
    keys: Mapping[str, object] = field(default_factory=dict)


NETWORK = builders.dracut_members(
    modules=("base", "dmsquash-live", "livenet", "network-legacy", "nfs", "url-lib"),
    drivers=("nfsv3",),
    curl=True,
) | {
    "usr/bin/sha256sum": (builders.FILE | 0o755, b"\x7fELF"),
    "usr/lib/dracut/hooks/cmdline": (builders.FOLDER | 0o755, b""),
}
STOCK = builders.dracut_members() | {
    "usr/lib/dracut/hooks/cmdline": (builders.FOLDER | 0o755, b""),
}
MEMTEST = {"memtest64.bios": b"memtest\n" * 64, "memtest.efi64": b"memtest\n" * 64}
CASES = {
    "amd64-dracut": Case("amd64", {"extra": MEMTEST}),
    "x86-dracut": Case(
        "i486",
        {
            "grub_cfg": "x86-dracut.cfg",
            "kernel": builders.bzimage(bits=32),
            "extra": {"memtest32.bios": b"memtest\n" * 64},
        },
    ),
    "arm64-dracut": Case(
        "arm64", {"grub_cfg": "arm64-dracut.cfg", "kernel": builders.arm64_image()}
    ),
    # every loader and an Image.gz, as catalyst's distkernels are on arm64: unpacked for two of them
    "arm64-all-loaders": Case(
        "arm64",
        {
            "grub_cfg": "arm64-dracut.cfg",
            "kernel": builders.compress(builders.arm64_image(), "gzip"),
            "initramfs": (INITRAMFS / "dracut-059.lz4").read_bytes(),
            "extra": {
                "boot/dtbs/board.dtb": b"\xd0\x0d\xfe\xed",
                "boot/dtbs/vendor/other.dtb": b"\xd0\x0d\xfe\xed",
            },
        },
        {"pxeboot/loaders": ["ipxe", "grub", "uboot"], "pxeboot/timeout": "0"},
    ),
    # a zboot kernel: UEFI and iPXE take it as it is
    "arm64-zboot": Case(
        "arm64", {"grub_cfg": "arm64-dracut.cfg", "kernel": builders.zboot_image()}
    ),
    "riscv64-dracut": Case(
        "rv64_lp64d",
        {
            "grub_cfg": "arm64-dracut.cfg",
            "kernel": builders.compress(builders.riscv_image(), "gzip"),
        },
    ),
    # catalyst writes no grub.cfg on arm: the kernels are those that lie there
    "arm-no-menu": Case(
        "armv7a_hardfp",
        {"grub_cfg": None, "kernel": builders.arm_zimage(efi_stub=True)},
        {"livecd/bootargs": "dokeymap"},
    ),
    # gzip, so that padding is needed; its menu has a submenu of consoles
    "amd64-genkernel-consoles": Case(
        "amd64",
        {
            "grub_cfg": "ppc-genkernel.cfg",
            "initramfs": (INITRAMFS / "genkernel-4.3.17.gz").read_bytes(),
        },
    ),
    # every key that changes what is shown; an lz4 initramfs
    "amd64-all-keys": Case(
        "amd64",
        {
            "initramfs": (INITRAMFS / "dracut-059.lz4").read_bytes(),
            "extra": {
                "boot/rescue": builders.bzimage(),
                "boot/rescue.igz": (INITRAMFS / "dracut-103.zst").read_bytes(),
            },
        },
        {
            "boot/kernel": ["rescue", "gentoo"],
            "boot/kernel/rescue/console": ["ttyS1,9600", "hvc0"],
            "livecd/bootargs": ["nodhcp", "secureconsole"],
            "pxeboot/bootargs": ["quiet", "a;b", "{c}"],
            "pxeboot/title": ["Rescue", "of", "the", "lab"],
            "pxeboot/timeout": "-1",
            "pxeboot/serial": "ttyS1,9600",
            "pxeboot/server": ["192.168.7.1/24", "interface=lan0", "http_prefix=gentoo"],
        },
    ),
    # every way to the root, the servers named; the root over HTTP is checked
    "amd64-all-roots": Case(
        "amd64",
        {"initramfs": builders.initramfs(NETWORK)},
        {
            "pxeboot/base_url": "http://192.168.7.1:8080/gentoo",
            "pxeboot/nfs_root": "192.168.7.2:/srv/gentoo,vers=3",
        },
    ),
    # the boot server is the NFS server too, so only the loaders that know it offer that; for
    # U-Boot initramfs and root check are joined
    "arm64-http-first": Case(
        "arm64",
        {
            "grub_cfg": "arm64-dracut.cfg",
            "kernel": builders.arm64_image(),
            "initramfs": builders.initramfs(NETWORK),
        },
        {
            "pxeboot/loaders": ["ipxe", "grub", "uboot"],
            "pxeboot/root": ["http", "nfs", "embedded"],
            "pxeboot/nfs_root": ":/srv/gentoo",
            "pxeboot/base_url": "http://192.168.7.1/gentoo",
        },
    ),
    # a stock image: an add-on streams the root, or fetches it; U-Boot cannot load that
    "amd64-stream": Case(
        "amd64",
        {"initramfs": builders.initramfs(STOCK), "squashfs": builders.squashfs_image(size=1 << 20)},
        {"pxeboot/base_url": "http://192.168.7.1/gentoo"},
    ),
    # one file for each kernel, and one more for an entry; DHCP names the first
    "amd64-uki": Case(
        "amd64",
        {"initramfs": builders.initramfs(STOCK), "squashfs": builders.squashfs_image(size=1 << 20)},
        {
            "pxeboot/base_url": "http://192.168.7.1/gentoo",
            "pxeboot/loaders": ["uki", "ipxe"],
            "pxeboot/uki_entries": ["gentoo-stream-accessibility"],
            "pxeboot/first": "uki",
        },
    ),
    # what the user adds comes last in every entry, by every loader
    "amd64-personal": Case(
        "amd64",
        {"initramfs": (INITRAMFS / "dracut-059.lz4").read_bytes()},
        {
            "pxeboot/ssh_keys": str(PERSONAL / "authorized_keys"),
            "pxeboot/script": str(PERSONAL / "script"),
            "pxeboot/hostname": "rescue",
            "pxeboot/keymap": "de",
        },
    ),
    # single machines: iPXE and GRUB have them in the menu, PXELINUX in menus of their own
    "amd64-hosts": Case(
        "amd64",
        {"initramfs": (INITRAMFS / "dracut-059.lz4").read_bytes()},
        {"pxeboot/hostname": "any", "pxeboot/hosts": str(INITRAMFS.parent / "hosts")},
    ),
    "amd64-genkernel-nfs": Case(
        "amd64",
        {
            "grub_cfg": "ppc-genkernel.cfg",
            "initramfs": builders.initramfs(builders.genkernel_members(drivers=("nfsv3",))),
        },
        {"pxeboot/root": "nfs", "pxeboot/nfs_root": "192.168.7.2:/srv/gentoo"},
    ),
}  # fmt: skip


@pytest.fixture
def case(name: str, request: pytest.FixtureRequest) -> Case:
    if name in ("amd64-stream", "amd64-uki"):
        request.getfixturevalue("streaming")
    return CASES[name]


def make(case: Case, store: Path) -> Path:
    write_stage2(storedir_stage2(store, subarch=case.subarch), **case.stage2)  # type: ignore[arg-type]
    settings = release_settings(store, subarch=case.subarch) | dict(case.keys)
    if "uki" in str(settings.get("pxeboot/loaders")):
        (store / "stubs").mkdir()
        (store / "stubs/linuxx64.efi.stub").write_bytes(efi_program())
        settings["pxeboot/loader_path"] = str(store / "stubs")
    settings["source_subpath"] = f"23.0-default/livecd-stage2-{case.subarch}-{STAMP}"
    return build(parse_settings(settings), report=lambda _line: None).output


def listing(tree: Path) -> str:
    """Return a line for each name: mode, links, bytes, time, name."""
    lines = []
    for path in sorted(tree.rglob("*")):
        info = path.lstat()
        count = f"{info.st_size:9}" if path.is_file() else " " * 8 + "-"
        linked = "linked" if path.is_file() and info.st_nlink > 1 else "      "
        name = str(path.relative_to(tree))
        lines.append(
            f"{stat.filemode(info.st_mode)} {linked} {count} {int(info.st_mtime)} {name}\n"
        )
    return "".join(lines)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, case: Case, tmp_path: Path, no_loaders: None) -> None:
    tree = make(case, tmp_path)
    shown = {path for path in list_files(tree) if loader_of(path) or path in DHCP_CONFIGS}
    shown |= {"manifest.json", "DIGESTS", "SHA256SUMS", "README.txt", "index.html", "kexec.sh"}
    shown |= {"boot/root.cpio-header"} & set(list_files(tree))
    found = {path: (tree / path).read_bytes() for path in shown}
    found[LISTING] = listing(tree).encode()
    golden = GOLDEN / name
    if "UPDATE_GOLDEN" in os.environ:
        for path, content in found.items():
            (golden / path).parent.mkdir(parents=True, exist_ok=True)
            (golden / path).write_bytes(content)
    for path in sorted(found):
        assert found[path].decode() == (golden / path).read_text(), path
    assert set(list_files(golden)) == found.keys()


@pytest.mark.parametrize("name", CASES)
def test_golden_configurations_are_sound(name: str) -> None:
    """Each parses in its loader's grammar and names only files of its tree."""
    golden = GOLDEN / name
    there = {line.split()[-1] for line in (golden / LISTING).read_text().splitlines()}
    there |= {"menu.c32", "reboot.c32", "poweroff.c32"}  # of the build host
    for path in list_files(golden):
        if loader := loader_of(path):
            config = loader.check((golden / path).read_text())
            assert config.problems == (), path
            assert config.files, path
            assert set(config.files) <= there, path


@pytest.mark.parametrize("name", CASES)
def test_golden_trees_verify(case: Case, tmp_path: Path, no_loaders: None) -> None:
    assert verify_tree(make(case, tmp_path)).faults == ()

"""What is read of a live image, and what the plan makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats.grubcfg import parse_grub_cfg
from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.loader.binaries import Loaders
from catalyst_pxeboot.model.loader import Firmware
from catalyst_pxeboot.plan.tree import plan_tree
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.source.menu import read_iso_menu
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import builders
from tests.support.paths import DATA
from tests.support.stage2 import INITRAMFS, TIME, release_settings, storedir_stage2, write_stage2

SAMPLES = DATA / "grub-cfg"


def menu_of(text: str) -> object:
    return read_iso_menu(parse_grub_cfg(text, where="grub.cfg"))


def test_amd64_menu() -> None:
    menu = read_iso_menu(parse_grub_cfg((SAMPLES / "amd64-dracut.cfg").read_text(), where="x"))
    (kernel,) = menu.kernels
    assert (kernel.name, kernel.path, kernel.initramfs) == (
        "gentoo",
        "boot/gentoo",
        "boot/gentoo.igz",
    )
    assert kernel.arguments == ("dokeymap", "nodhcp")
    assert [(entry.title, entry.extra) for entry in kernel.entries] == [
        ("Boot LiveCD (kernel: gentoo)", ()),
        ("Boot LiveCD (kernel: gentoo) (accessibility)", ("dospeakup",)),
    ]
    assert [(m.path, m.firmware, m.bits) for m in menu.memtests] == [
        ("memtest64.bios", Firmware.BIOS, 64),
        ("memtest.efi64", Firmware.EFI, 64),
    ]
    assert (menu.default, menu.timeout, menu.left_out) == ("gentoo", 10, ())


def test_console_entries_take_the_main_entrys_arguments() -> None:
    """catalyst's ISO script writes genkernel's words there even for dracut's kernels."""
    text = (SAMPLES / "amd64-dracut.cfg").read_text() + (
        "submenu 'Special console options (kernel: gentoo)' {\n"
        "menuentry 'Boot LiveCD (kernel: gentoo console=ttyS0)' {\n"
        "linux /boot/gentoo dokeymap nodhcp looptype=squashfs loop=/image.squashfs cdroot"
        " console=ttyS0\ninitrd /boot/gentoo.igz\n}\n}\n"
    )
    menu = read_iso_menu(parse_grub_cfg(text, where="x"))
    assert menu.kernels[0].entries[-1].extra == ("console=ttyS0",)


def entry(kernel: str, title: str = "", arguments: str = "") -> str:
    title = title or f"Boot {kernel}"
    return (
        f"menuentry '{title}' {{\nlinux /boot/{kernel} {arguments}\ninitrd /boot/{kernel}.igz\n}}\n"
    )


@pytest.mark.parametrize(
    ("default", "expected"),
    [("0", "a"), ("1", "b"), ("2", "c"), ("'Boot c'", "c"), ("7", "a"), ("nonsense", "a")],
)
def test_default_is_the_isos(tmp_path: Path, default: str, expected: str) -> None:
    text = f"set default={default}\n" + entry("a") + entry("b") + entry("c")
    files = {f"boot/{name}": builders.bzimage() for name in "abc"}
    igz = (INITRAMFS / "dracut-059.xz").read_bytes()
    files |= {f"boot/{name}.igz": igz for name in "abc"}
    source = read_source(write_stage2(tmp_path / "tree", grub_cfg=text, extra=files))
    assert source.kernels[0].iso.name == expected
    assert len(source.kernels) == 3


def test_a_submenu_counts_as_one_entry() -> None:
    text = (
        "set default=1\nsubmenu 'More' {\n"
        + entry("a", "A1")
        + entry("b", "A2")
        + "}\n"
        + entry("c")
    )
    assert read_iso_menu(parse_grub_cfg(text, where="x")).default == "c"


def test_what_is_neither_kernel_nor_memtest_is_named() -> None:
    text = entry("a") + "menuentry 'UEFI Firmware Settings' {\nfwsetup\n}\n"
    assert read_iso_menu(parse_grub_cfg(text, where="x")).left_out == ("UEFI Firmware Settings",)


def test_without_a_menu_the_kernels_that_lie_there(tmp_path: Path) -> None:
    extra = {"boot/rescue": builders.bzimage(), "boot/orphan": b"no initramfs",
             "boot/rescue.igz": (INITRAMFS / "genkernel-4.3.17.gz").read_bytes()}  # fmt: skip
    source = read_source(write_stage2(tmp_path / "tree", grub_cfg=None, extra=extra))
    assert [kernel.iso.name for kernel in source.kernels] == ["gentoo", "rescue"]
    assert [kernel.initramfs.generator for kernel in source.kernels] == [
        Generator.DRACUT,
        Generator.GENKERNEL,
    ]
    assert source.timeout == 10
    assert source.time == TIME


def test_symlinks_within_the_tree_are_followed(tmp_path: Path) -> None:
    tree = write_stage2(tmp_path / "tree")
    (tree / "boot/gentoo").rename(tree / "boot/vmlinuz-6.1")
    (tree / "boot/gentoo").symlink_to("vmlinuz-6.1")
    assert read_source(tree).kernels[0].kernel.version == "6.1.0-test"


def plan_arguments(storedir: Path, **keys: object) -> dict[str, str]:
    spec = parse_settings(release_settings(storedir, **keys))
    plan = plan_tree(spec, read_source(spec.source, names=spec.kernels), Loaders((), ()))
    return {live.name: " ".join(live.arguments) for live in plan.menu.live}


ROOT = "root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot"


def test_arguments(storedir: Path) -> None:
    assert plan_arguments(storedir) == {
        "gentoo": f"{ROOT} dokeymap nodhcp",
        "gentoo-accessibility": f"{ROOT} dokeymap nodhcp dospeakup",
    }
    assert plan_arguments(
        storedir, livecd__bootargs="secureconsole", pxeboot__bootargs="quiet"
    ) == {
        "gentoo": f"{ROOT} secureconsole quiet",
        "gentoo-accessibility": f"{ROOT} secureconsole quiet dospeakup",
    }
    # What leads to the ISO's root would lead astray here.
    words = ["a", "root=live:CDLABEL=X", "rd.live.ram=1", "docache", "cdroot", "loop=/x"]
    assert plan_arguments(storedir, livecd__bootargs=words)["gentoo"] == f"{ROOT} a"


def test_consoles_and_serial(storedir: Path) -> None:
    arguments = plan_arguments(
        storedir,
        boot__kernel="gentoo",
        boot__kernel__gentoo__console=["tty0", "ttyS1,9600"],
        pxeboot__serial="ttyS0,115200",
    )
    serial = "console=tty0 console=ttyS0,115200"
    assert arguments == {
        "gentoo": f"{ROOT} dokeymap nodhcp {serial}",
        "gentoo-accessibility": f"{ROOT} dokeymap nodhcp {serial} dospeakup",
        "gentoo-console-tty0": f"{ROOT} dokeymap nodhcp {serial} console=tty0",
        "gentoo-console-ttys1-9600": f"{ROOT} dokeymap nodhcp {serial} console=ttyS1,9600",
    }


def test_genkernel_arguments(storedir: Path) -> None:
    tree = storedir_stage2(storedir)
    (tree / "boot/gentoo.igz").write_bytes((INITRAMFS / "genkernel-4.3.17.gz").read_bytes())
    assert plan_arguments(storedir)["gentoo"] == (
        "root=/dev/ram0 init=/linuxrc looptype=squashfs loop=/image.squashfs.img cdroot"
        " dokeymap nodhcp"
    )


def test_no_efi_stub_is_a_warning(storedir: Path) -> None:
    (storedir_stage2(storedir) / "boot/gentoo").write_bytes(builders.bzimage(efi_stub=False))
    spec = parse_settings(release_settings(storedir))
    plan = plan_tree(spec, read_source(spec.source), Loaders((), ()))
    assert plan.warnings == (
        "boot/gentoo: no EFI stub (CONFIG_EFI_STUB), so UEFI clients cannot start it by iPXE",
    )


@given(st.text(alphabet="menuentry {}'\"\\$;\nlinux/bo#=if []!then fi", max_size=300))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_menu_is_read_or_refused(text: str) -> None:
    try:
        menu_of(text)
    except PxebootError as error:
        assert "\n" not in str(error)

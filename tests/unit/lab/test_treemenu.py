"""A tree without a serial console, and what its menu means."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import boottest
from catalyst_pxeboot.lab.boot import user_link
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.machine import UserLink
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.lab.treemenu import TreeMenu, read_menu, view_tree, why_mute
from catalyst_pxeboot.model.loader import Firmware, Loader
from tests.support.lab import MUTE, ROW_1


def test_a_trees_menu(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MUTE)
    menu = read_menu(tmp_path)
    assert (menu.has_serial_console, menu.waits) == (False, True)
    assert menu.arguments == "console=tty0 console=ttyS0,115200"
    assert menu.memory_for(Loader.IPXE, Firmware.BIOS, 1024) == 1280
    assert menu.memory_for(Loader.IPXE, Firmware.EFI, 1024) == 2304
    assert menu.memory_for(Loader.GRUB, None, 1024) == 1024
    (tmp_path / "manifest.json").write_text(MUTE.replace("console=tty0", "console=ttyS1"))
    assert read_menu(tmp_path).has_serial_console
    (tmp_path / "manifest.json").write_text(
        MUTE.replace('"amd64"', '"arm64"').replace('"timeout": null', '"timeout": 0')
    )
    menu = read_menu(tmp_path)
    assert menu.arguments == "console=tty0 console=ttyAMA0,115200"
    assert not menu.waits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        MUTE.replace('"default": "gentoo"', '"default": "other"'),
        MUTE.replace('"limits":', '"limits": [], "x":'),
        MUTE.replace("943718400", '"much"'),
    ],
)
def test_a_manifest_that_says_nothing_of_the_menu(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert read_menu(tmp_path) == TreeMenu()


def test_a_view_of_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot/gentoo").write_text("kernel")
    (tree / "boot.ipxe").write_text("old")
    before = os.umask(0o077)
    try:
        view = view_tree(tree, tmp_path / "view", {"boot.ipxe": b"new"})
    finally:
        os.umask(before)
    assert (view / "boot.ipxe").stat().st_mode & 0o777 == 0o644
    assert (view / "boot.ipxe").read_text() == "new"
    assert (view / "boot/gentoo").read_text() == "kernel"
    assert (view / "boot/gentoo").is_symlink()
    assert (tree / "boot.ipxe").read_text() == "old"


def test_what_the_user_network_serves(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boot.ipxe").write_text("#!ipxe\n")
    loader, entry = Loader.IPXE, "boot.ipxe"
    plain = user_link(tree, loader, entry, 8123, arguments="", scratch=tmp_path)
    assert plain == UserLink(tree, "http://10.0.2.2:8123/boot.ipxe")
    link = user_link(tree, loader, entry, 8123, arguments="a=b", scratch=tmp_path)
    assert link == UserLink(tmp_path / "view", "boot.ipxe")
    assert (tmp_path / "view/boot.ipxe").read_text() == (
        "#!ipxe\nset base-url http://10.0.2.2:8123\n#!ipxe\nset cmdline a=b ${cmdline}\n#!ipxe\n"
    )


def test_a_signed_grub_stays_mute(row_tree: Path) -> None:
    assert why_mute(row_tree, Loader.GRUB) == ""
    (row_tree / "boot/grub").mkdir(parents=True)
    (row_tree / "boot/grub/grub.cfg.sig").touch()
    assert why_mute(row_tree, Loader.GRUB) == (
        "GRUB takes only signed configurations, so no console could be added"
    )
    assert why_mute(row_tree, Loader.IPXE) == ""


def test_a_mute_tree_gets_a_console_and_enter(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Callable[[str], None]
) -> None:
    (row_tree / "manifest.json").write_text(MUTE)
    (row_tree / "boot.ipxe").write_text("#!ipxe\n")
    stand_in("printf 'Power off'; read a; echo; echo reached; sleep 60")
    # The stand-in's shell reads a line, and Enter is a carriage return on a serial line.
    monkeypatch.setattr(boottest, "_ENTER", "\n")
    result = run_path(row_tree, ROW_1, until=re.compile("^reached"), timeout=10, obstacle="no root")
    assert (result.outcome, result.cause, result.note) == (
        Outcome.PASSED,
        "",
        "only by QEMU's user network: no root; console=tty0 console=ttyS0,115200 was added to the "
        "kernel's arguments, so that it be heard",
    )


def test_a_failed_boot_has_a_cause(
    row_tree: Path, stand_in: Callable[[str], None], tmp_path: Path
) -> None:
    stand_in("echo 'System is deadlocked on memory'; exit 1")
    result = run_path(
        row_tree, ROW_1, timeout=10, memory_mib=300, obstacle="no root",
        screenshot=tmp_path / "shot.png",
    )  # fmt: skip
    assert result.outcome is Outcome.FAILED
    assert result.cause == (
        "the client has too little memory (300 MiB): give more with --memory; "
        "`catalyst-pxeboot inspect` tells what each root needs"
    )
    assert result.note == (
        "only by QEMU's user network: no root; no picture of the screen: the client had stopped"
    )
    assert result.screenshot is None
    assert result.data()["cause"] == result.cause

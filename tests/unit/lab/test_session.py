"""A tree in QEMU for somebody in front of it: what is started, and the terminal it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.lab import boot, session
from catalyst_pxeboot.lab.machine import BIOS, UEFI_ARM64, Accel, Flash
from catalyst_pxeboot.lab.paths import PATHS
from catalyst_pxeboot.lab.session import (
    Display,
    Session,
    choose_display,
    plan_session,
    session_script,
)
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from tests.support.release_trees import make_manifest

MANIFEST = json.dumps(make_manifest(memory_mib=None))
QEMU = """\
#!/bin/sh
[ "$2" != help ] || printf 'Available display backend types:\\nnone\\ngtk\\ncurses\\n'
[ "$2" != help ] || exit 0
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree for every client of amd64, and a `qemu` beside it that a test adds lines to."""
    folder = tmp_path / "tree"
    for path in PATHS:
        for step in path.chain:
            if "amd64" in path.arches:
                (folder / step.file).parent.mkdir(parents=True, exist_ok=True)
                (folder / step.file).write_text("#!ipxe\n")
    (folder / "manifest.json").write_text(MANIFEST)
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU)
    qemu.chmod(0o755)
    (tmp_path / "code.fd").write_bytes(b"code")
    (tmp_path / "vars.fd").write_bytes(b"vars")
    monkeypatch.setattr(session, "find_qemu", lambda _machine: qemu)
    monkeypatch.setattr(session, "choose_accel", lambda *_: Accel.TCG)
    monkeypatch.setattr(boot, "find_ipxe_efi", lambda: Path("/usr/lib/ipxe/ipxe.efi"))
    flash = Flash(tmp_path / "code.fd", tmp_path / "vars.fd")
    monkeypatch.setattr(session, "find_flash", lambda machine: None if machine is BIOS else flash)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def script(planned: Session) -> list[str]:
    """Write the commands with the test's folder left out."""
    return [line.replace(f"{planned.tree.parent}/", "") for line in session_script(planned)]


def test_the_first_client_is_ipxe_on_bios(tree: Path) -> None:
    planned = plan_session(tree, more=["-snapshot"])
    assert (planned.machine.name, planned.loader, planned.entry) == ("bios", "ipxe", "boot.ipxe")
    assert planned.lines == (
        "bios, ipxe, 1024 MiB of memory",
        "This terminal is the client's serial console; Ctrl-A X ends it.",
        "console=tty0 console=ttyS0,115200 is added to the kernel's arguments, so that it is seen.",
    )
    assert script(planned) == [
        "qemu -nodefaults -no-user-config -machine q35,graphics=off -accel tcg,thread=multi "
        "-cpu max -m 1024 -display none -vga std -monitor none -serial mon:stdio "
        "-netdev user,id=net0,ipv6=off,tftp=tree,bootfile=boot.ipxe "
        "-device virtio-net-pci,netdev=net0,bootindex=0 -device virtio-rng-pci -snapshot"
    ]


def test_ipxe_on_uefi_starts_from_a_disk(tree: Path) -> None:
    planned = plan_session(tree, firmware=("uefi",), memory_mib=2000, display=Display.GTK)
    assert planned.arguments == ""  # the window shows the screen
    assert script(planned) == [
        "cp vars.fd pxeboot-variables.fd",
        "install -D /usr/lib/ipxe/ipxe.efi pxeboot-esp/EFI/BOOT/BOOTX64.EFI",
        "qemu -nodefaults -no-user-config -machine q35,graphics=off -accel tcg,thread=multi "
        "-cpu max -m 2000 -display gtk -vga std -monitor none -serial vc "
        "-drive if=pflash,format=raw,readonly=on,file=code.fd "
        "-drive if=pflash,format=raw,file=pxeboot-variables.fd "
        "-drive if=none,id=esp,format=raw,readonly=on,file=fat:pxeboot-esp "
        "-device virtio-blk-pci,drive=esp,bootindex=0 "
        "-netdev user,id=net0,ipv6=off,tftp=tree,bootfile=boot.ipxe "
        "-device virtio-net-pci,netdev=net0,romfile= -device virtio-rng-pci",
    ]


def test_a_unified_kernel_image_starts_from_a_disk(tree: Path) -> None:
    """Its initramfs learns the address from the network that names the image."""
    planned = plan_session(tree, loaders=(Loader.UKI,), display=Display.GTK)
    assert script(planned)[1] == (
        "install -D tree/boot/gentoo.efi pxeboot-esp/EFI/BOOT/BOOTX64.EFI"
    )
    link = boot.user_link(tree, planned.loader, planned.entry, 8, arguments="", scratch=tree)
    assert link.boot_file == "http://10.0.2.2:8/boot/gentoo.efi"


@pytest.mark.parametrize(
    ("firmware", "loader", "machine", "entry"),
    [
        ("bios", Loader.PXELINUX, "bios", "pxelinux.0"),
        ("bios", Loader.GRUB, "bios", "boot/grub/i386-pc/core.0"),
        ("uefi-x64", Loader.GRUB, "uefi-x64", "boot/grub/x86_64-efi/core.efi"),
        ("uefi-ia32", Loader.GRUB, "uefi-ia32", "boot/grub/i386-efi/core.efi"),
    ],
)
def test_each_loader(tree: Path, firmware: str, loader: Loader, machine: str, entry: str) -> None:
    planned = plan_session(tree, firmware=(firmware,), loaders=(loader,))
    assert (planned.machine.name, planned.entry) == (machine, entry)


def test_what_cannot_be_started(tree: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        plan_session(tree, firmware=("uefi-arm64",))
    assert str(caught.value) == (
        f"{tree}: QEMU's own network starts no client for amd64 of this --firmware and --loader; "
        "there are ipxe on bios, pxelinux on bios, grub on bios, ipxe on uefi-x64, "
        "grub on uefi-x64, grub on uefi-ia32, uki on uefi-x64"
    )
    (tree / "pxelinux.0").unlink()
    with pytest.raises(PxebootError) as caught:
        plan_session(tree, loaders=(Loader.PXELINUX,))
    assert str(caught.value) == f"{tree}: has none of pxelinux.0; choose another --loader"


def test_a_desktop_has_a_window(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = tree.parent / "qemu"
    assert choose_display(Display.AUTO, qemu, BIOS) is Display.SERIAL
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert choose_display(Display.AUTO, qemu, BIOS) is Display.GTK
    assert choose_display(Display.CURSES, qemu, BIOS) is Display.CURSES
    assert choose_display(Display.AUTO, qemu, UEFI_ARM64) is Display.SERIAL
    with pytest.raises(PxebootError) as caught:
        choose_display(Display.SDL, qemu, BIOS)
    assert str(caught.value) == (
        "--display: this QEMU was built without sdl; it has gtk, curses, serial"
    )


def test_the_command_prints_what_to_copy(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["qemu", "--loader", "pxelinux", "--dry-run", "--json", str(tree), "--", "-snapshot"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["firmware"], told["loader"], told["memory_mib"], told["display"]) == (
        "bios", "pxelinux", 1024, "serial",
    )  # fmt: skip
    assert len(told["script"]) == 1
    assert told["script"][0].endswith(" -device virtio-rng-pci -snapshot")


def test_a_qemu_that_fails(tree: Path) -> None:
    with (tree.parent / "qemu").open("a") as file:
        file.write("exit 3\n")
    with pytest.raises(CommandError) as caught:
        session.run_session(plan_session(tree))
    assert str(caught.value) == "QEMU ended with exit code 3; its own message is above"

"""The machines: QEMU's command lines."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import machine
from catalyst_pxeboot.lab import servers as services
from catalyst_pxeboot.lab.boot import user_link
from catalyst_pxeboot.lab.machine import (
    BIOS,
    UBOOT_ARM,
    UEFI_ARM64,
    UEFI_IA32,
    UEFI_X64,
    Accel,
    Flash,
    StreamLink,
    TapLink,
    choose_accel,
    kvm_runs,
    qemu_argv,
)
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.errors import CommandError
from tests.support.boot import Client
from tests.support.lab import write_script

COMMON = """
-nodefaults -no-user-config -machine q35,graphics=off -accel tcg,thread=multi -cpu max -m 1024
-display none -vga std -monitor none -serial stdio -no-reboot
"""
PFLASH = """
-drive if=pflash,format=raw,readonly=on,file=/fw/code.fd
-drive if=pflash,format=raw,file=/run/vars.fd
"""
FLASH = Flash(Path("/fw/code.fd"), Path("/run/vars.fd"))
RNG = ["-device", "virtio-rng-pci"]


def argv(
    client: Client,
    *,
    tree: str = "/srv/tree",
    accel: Accel = Accel.TCG,
    flash: Flash | None = None,
    disk: Path | None = None,
) -> list[str]:
    """Write the command line for `client` on the user network, with the tests' paths."""
    return list(
        qemu_argv(
            client.machine,
            user_link(
                Path(tree), client.loader, client.entry, 8123, arguments="", scratch=Path("/run")
            ),
            qemu=Path("/bin/qemu"),
            accel=accel,
            memory_mib=client.memory_mib,
            flash=flash,
            disk=disk,
        )
    )


@pytest.mark.parametrize(
    ("loader", "boot_file"),
    [
        (Loader.IPXE, "http://10.0.2.2:8123/boot.ipxe"),
        (Loader.PXELINUX, "pxelinux.0"),
        (Loader.GRUB, "boot/grub/i386-pc/core.0"),
    ],
)
def test_argv_bios(loader: Loader, boot_file: str) -> None:
    assert argv(Client("a", loader, Firmware.BIOS)) == [
        "/bin/qemu",
        *COMMON.split(),
        "-netdev",
        f"user,id=net0,ipv6=off,tftp=/srv/tree,bootfile={boot_file}",
        "-device",
        "virtio-net-pci,netdev=net0,bootindex=0",
        *RNG,
    ]


def test_argv_grub_on_efi() -> None:
    assert argv(Client("a", Loader.GRUB, Firmware.EFI), flash=FLASH) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        "-netdev",
        "user,id=net0,ipv6=off,tftp=/srv/tree,bootfile=boot/grub/x86_64-efi/core.efi",
        "-device",
        "virtio-net-pci,netdev=net0,romfile=,bootindex=0",
        *RNG,
    ]


def test_argv_ipxe_on_efi_starts_from_its_disk() -> None:
    client = Client("a", Loader.IPXE, Firmware.EFI)
    assert argv(client, flash=FLASH, disk=Path("/run/esp")) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        "-drive",
        "if=none,id=esp,format=raw,readonly=on,file=fat:/run/esp",
        "-device",
        "virtio-blk-pci,drive=esp,bootindex=0",
        "-netdev",
        "user,id=net0,ipv6=off,tftp=/srv/tree,bootfile=http://10.0.2.2:8123/boot.ipxe",
        "-device",
        "virtio-net-pci,netdev=net0,romfile=",
        *RNG,
    ]


def test_argv_of_another_machine() -> None:
    client = Client("a", Loader.PXELINUX, Firmware.BIOS, memory_mib=2048, boot_file="sub/x.0")
    words = argv(client, accel=Accel.KVM, tree="/srv/a,b")
    assert words[6:12] == ["kvm", "-cpu", "host", "-m", "2048", "-display"]
    assert "user,id=net0,ipv6=off,tftp=/srv/a,,b,bootfile=sub/x.0" in words


def test_argv_on_a_stream() -> None:
    """A BIOS client behind the disguise: as on the user network, but for -netdev."""
    words = qemu_argv(BIOS, StreamLink(7), qemu=Path("/bin/qemu"), accel=Accel.TCG)
    assert list(words) == [
        "/bin/qemu",
        *COMMON.split(),
        *["-netdev", "socket,id=net0,fd=7", "-device", "virtio-net-pci,netdev=net0,bootindex=0"],
        *RNG,
    ]


def test_argv_http_boot_on_a_tap() -> None:
    words = qemu_argv(
        UEFI_X64, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH,
        http_boot=True,
    )  # fmt: skip
    assert list(words) == [
        "/bin/qemu",
        *COMMON.split(),
        *PFLASH.split(),
        *["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"],
        *["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"],
        *["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"],
        *["-device", "virtio-net-pci,netdev=net0,romfile=,bootindex=0"],
        *RNG,
    ]


def test_argv_secure_firmware() -> None:
    words = qemu_argv(
        UEFI_IA32, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH
    )
    assert list(words) == [
        "/bin/qemu",
        *COMMON.replace("graphics=off", "graphics=off,smm=on").split(),
        *["-global", "driver=cfi.pflash01,property=secure,value=on"],
        *["-global", "ICH9-LPC.disable_s3=1"],
        *PFLASH.split(),
        *["-netdev", "tap,id=net0,ifname=tap0,script=no,downscript=no"],
        *["-device", "virtio-net-pci,netdev=net0,romfile=,bootindex=0"],
        *RNG,
    ]


def test_argv_arm64() -> None:
    words = qemu_argv(
        UEFI_ARM64, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, flash=FLASH
    )
    assert words[:13] == (
        "/bin/qemu", "-nodefaults", "-no-user-config", "-machine", "virt", "-accel",
        "tcg,thread=multi", "-cpu", "cortex-a57", "-m", "1024", "-display", "none",
    )  # fmt: skip
    assert "-vga" not in words


def test_argv_u_boot() -> None:
    words = qemu_argv(
        UBOOT_ARM, TapLink("tap0"), qemu=Path("/bin/qemu"), accel=Accel.TCG, image=Path("/u-boot")
    )
    assert " ".join(words) == (
        "/bin/qemu -nodefaults -no-user-config -machine virt,highmem=off -accel tcg,thread=multi "
        "-cpu cortex-a15 -m 1024 -display none -monitor none -serial stdio -no-reboot "
        "-bios /u-boot -netdev tap,id=net0,ifname=tap0,script=no,downscript=no "
        "-device virtio-net-pci,netdev=net0,romfile=,bootindex=0 -device virtio-rng-pci"
    )


def test_missing_programs_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    monkeypatch.setattr(services, "find_program", lambda name: None)
    monkeypatch.setattr(machine, "_IPXE_EFI", ())
    bare = replace(UEFI_X64, flash=())
    for find, text in (
        (
            lambda: machine.find_qemu(UEFI_ARM64),
            "qemu-system-aarch64 is missing; install qemu-system-arm and qemu-efi-aarch64 (Debian) "
            "or app-emulation/qemu with QEMU_SOFTMMU_TARGETS=aarch64 and sys-firmware/edk2-bin "
            "(Gentoo)",
        ),
        (
            lambda: machine.find_flash(bare),
            "UEFI firmware for uefi-x64 is missing; install qemu-system-x86 and ovmf (Debian) or "
            "app-emulation/qemu with QEMU_SOFTMMU_TARGETS=x86_64 and sys-firmware/edk2-bin "
            "(Gentoo)",
        ),
        (
            machine.find_ipxe_efi,
            "iPXE for UEFI, ipxe.efi, is missing; install ipxe (Debian) or sys-firmware/ipxe with "
            "USE=uefi64 (Gentoo)",
        ),
        (
            services.find_dnsmasq,
            "dnsmasq is missing; install dnsmasq-base (Debian) or net-dns/dnsmasq (Gentoo)",
        ),
    ):
        with pytest.raises(CommandError) as caught:
            find()
        assert str(caught.value) == text


def test_a_bios_machine_needs_no_flash() -> None:
    assert machine.find_flash(BIOS) is None


@pytest.mark.parametrize(("code", "expected"), [(33, Accel.KVM), (0, Accel.TCG), (134, Accel.TCG)])
def test_kvm_counts_only_when_it_runs_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: Accel
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm")
    qemu = write_script(tmp_path / "qemu", f"exit {code}")
    kvm_runs.cache_clear()
    assert choose_accel(Accel.AUTO, qemu) is expected
    assert choose_accel(Accel.TCG, qemu) is Accel.TCG
    assert choose_accel(Accel.AUTO, qemu, UEFI_ARM64) is Accel.TCG

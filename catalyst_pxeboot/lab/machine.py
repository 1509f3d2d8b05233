"""A client machine: what it boots, and QEMU's command line for it."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.errors import CommandError, PxebootError
from catalyst_pxeboot.model import Firmware, Loader
from catalyst_pxeboot.run import find_program

_QEMU = "qemu-system-x86_64"

# Firmware and its empty variable store: Debian's ovmf, Gentoo's edk2 or edk2-bin under its present
# and its former path.
_OVMF = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/OvmfX64/OVMF_CODE.fd", "/usr/share/edk2/OvmfX64/OVMF_VARS.fd"),
    ("/usr/share/edk2-ovmf/OVMF_CODE.fd", "/usr/share/edk2-ovmf/OVMF_VARS.fd"),
)

# Where a distribution puts iPXE as a UEFI program with network drivers of its own.
_IPXE_EFI = (
    "/usr/lib/ipxe/ipxe.efi",
    "/usr/share/ipxe/ipxe-x86_64.efi",
    "/usr/share/ipxe/ipxe.efi",
)

#: What the network hands to a client as its boot file: a path in the tree.
_BOOT_FILES = {
    (Loader.IPXE, Firmware.BIOS): "boot.ipxe",
    (Loader.IPXE, Firmware.EFI): "boot.ipxe",
    (Loader.PXELINUX, Firmware.BIOS): "pxelinux.0",
    (Loader.GRUB, Firmware.BIOS): "boot/grub/i386-pc/core.0",
    (Loader.GRUB, Firmware.EFI): "boot/grub/x86_64-efi/core.efi",
}


class Accel(StrEnum):
    """What runs the client's instructions."""

    AUTO = "auto"  # KVM where it runs a guest, otherwise emulation
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Client:
    """An x86-64 machine that boots from the network.

    iPXE is the network card's ROM on BIOS and a program on a disk of its own on UEFI, and takes
    its script by HTTP. PXELINUX and GRUB come by TFTP. `boot_file` is a path within the tree;
    left empty it is the one that the loader's files have there.
    """

    name: str
    loader: Loader
    firmware: Firmware
    memory_mib: int = 1024
    processors: int = 1
    boot_file: str = ""

    def __post_init__(self) -> None:
        if (self.loader, self.firmware) not in _BOOT_FILES:
            raise PxebootError(
                f"client {self.name}: {self.loader} does not start from {self.firmware} firmware",
                hint="use one of " + ", ".join(f"{ldr} on {fw}" for ldr, fw in _BOOT_FILES),
            )

    @property
    def entry(self) -> str:
        """The path in the tree that the network hands out."""
        return self.boot_file or _BOOT_FILES[self.loader, self.firmware]


#: One client for each way into the tree.
CLIENTS = tuple(
    Client(f"{loader}-{firmware}", loader, firmware) for loader, firmware in _BOOT_FILES
)


@dataclass(frozen=True, slots=True)
class Flash:
    """UEFI firmware: the code, shared and read-only, and a variable store to be written to."""

    code: Path
    variables: Path


def qemu_argv(
    client: Client,
    *,
    qemu: Path,
    tree: Path,
    port: int,
    accel: Accel,
    flash: Flash | None = None,
    disk: Path | None = None,
) -> tuple[str, ...]:
    """Write QEMU's command line for `client`; the serial port is its standard output.

    `tree` is served by TFTP, `port` is the web server's on the host. `accel` is KVM or TCG;
    `flash` is needed on UEFI; `disk` is a folder that the client sees as an EFI system partition.
    """
    over_http = client.loader is Loader.IPXE
    boot_file = f"http://10.0.2.2:{port}/{client.entry}" if over_http else client.entry
    # The ROM is an iPXE. UEFI has a driver of its own, and what is tested there is not that ROM.
    rom = ",romfile=" if client.firmware is Firmware.EFI else ""
    # A client that has its loader on a disk starts there, not from the network.
    order = "" if disk else ",bootindex=0"
    argv = [str(qemu), "-nodefaults", "-no-user-config"]
    # graphics=off makes SeaBIOS copy its screen, and so the loader's, to the serial port.
    argv += ["-machine", "q35,graphics=off"]
    argv += (
        ["-accel", "kvm", "-cpu", "host"]
        if accel is Accel.KVM
        else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    )
    argv += ["-m", str(client.memory_mib), "-smp", str(client.processors)]
    argv += ["-display", "none", "-vga", "std", "-monitor", "none", "-serial", "stdio"]
    argv += ["-no-reboot"]  # so that a kernel that gives up and restarts ends the boot
    if flash:
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={_value(flash.code)}"]
        argv += ["-drive", f"if=pflash,format=raw,file={_value(flash.variables)}"]
    if disk:
        argv += ["-drive", f"if=none,id=esp,format=raw,readonly=on,file=fat:{_value(disk)}"]
        argv += ["-device", "virtio-blk-pci,drive=esp,bootindex=0"]
    argv += [
        "-netdev",
        f"user,id=net0,ipv6=off,tftp={_value(tree)},bootfile={_value(boot_file)}",
        "-device",
        f"virtio-net-pci,netdev=net0{rom}{order}",
        "-device",
        "virtio-rng-pci",  # newer UEFI does no network boot without it
    ]
    return tuple(argv)


def find_qemu() -> Path:
    """Find QEMU for x86-64. Raises `CommandError` naming the packages."""
    found = find_program(_QEMU)
    if found is None:
        raise CommandError(
            f"{_QEMU} is missing",
            hint="install qemu-system-x86 and ipxe-qemu (Debian) or app-emulation/qemu with "
            "QEMU_SOFTMMU_TARGETS=x86_64 (Gentoo)",
        )
    return found


def find_flash() -> Flash:
    """Find UEFI firmware and its empty variable store. Raises `CommandError`."""
    for code, variables in _OVMF:
        if Path(code).is_file() and Path(variables).is_file():
            return Flash(Path(code), Path(variables))
    raise CommandError(
        "UEFI firmware OVMF is missing",
        hint="install ovmf (Debian) or sys-firmware/edk2-bin (Gentoo)",
    )


def find_ipxe_efi() -> Path:
    """Find iPXE as a UEFI program. Raises `CommandError`."""
    for name in _IPXE_EFI:
        if Path(name).is_file():
            return Path(name)
    raise CommandError(
        "iPXE for UEFI, ipxe.efi, is missing",
        hint="install ipxe (Debian) or sys-firmware/ipxe with USE=uefi64 (Gentoo)",
    )


def choose_accel(asked: Accel, qemu: Path) -> Accel:
    """Turn AUTO into KVM or TCG; anything else stays."""
    if asked is not Accel.AUTO:
        return asked
    return Accel.KVM if kvm_runs(qemu) else Accel.TCG


@functools.cache
def kvm_runs(qemu: Path) -> bool:
    """Tell whether KVM really runs a guest: /dev/kvm may open and the guest never start.

    The guest is a firmware of five bytes at the reset vector that ends QEMU with exit code 33.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    start = b"\xb0\x10\xe6\xf4\xf4"  # mov al,0x10; out 0xf4,al; hlt
    with tempfile.TemporaryDirectory(prefix="pxeboot-lab-") as scratch:
        bios = Path(scratch, "probe.bin")
        bios.write_bytes(bytes(0xFFF0) + start.ljust(16, b"\xf4"))
        argv = [str(qemu), "-nodefaults", "-no-user-config", "-machine", "q35", "-m", "16"]
        argv += ["-accel", "kvm", "-cpu", "host", "-display", "none", "-bios", str(bios)]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            done = subprocess.run(argv, timeout=3, check=False, capture_output=True)
        except (subprocess.TimeoutExpired, OSError):
            return False
    return done.returncode == 0x10 << 1 | 1


def _value(text: str | Path) -> str:
    """Quote a value for a QEMU option, where a comma ends a value and two are one."""
    return str(text).replace(",", ",,")

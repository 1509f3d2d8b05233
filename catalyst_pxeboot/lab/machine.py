"""Client machines: what QEMU emulates for each kind, and its command line."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program
from catalyst_pxeboot.util.records import decode
from catalyst_pxeboot.util.resources import read_table

# Where a distribution puts iPXE as a UEFI program with network drivers of its own.
_IPXE_EFI = (
    "/usr/lib/ipxe/ipxe.efi",
    "/usr/share/ipxe/ipxe-x86_64.efi",
    "/usr/share/ipxe/ipxe.efi",
)


class Accel(StrEnum):
    """What runs the client's instructions."""

    AUTO = "auto"  # KVM where it runs a guest, otherwise emulation
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Flash:
    """UEFI firmware: the code, shared and read-only, and a variable store to be written to."""

    code: Path
    variables: Path


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of client: processor, board, firmware; machines.toml says what each field means."""

    name: str
    qemu: str
    board: str
    cpu: str
    debian: str
    gentoo: str
    firmware: Firmware | None = None
    flash: tuple[tuple[str, str], ...] = ()
    image: tuple[str, ...] = ()
    typed: tuple[tuple[str, str], ...] = ()
    secure: bool = False
    screen: bool = True
    kvm: bool = False


#: Every kind of client, by its name.
MACHINES: Mapping[str, Machine] = {
    name: decode(Machine, {"name": name, **row})
    for name, row in read_table("lab/machines.toml").items()
}

BIOS = MACHINES["bios"]
UEFI_X64 = MACHINES["uefi-x64"]
UEFI_X64_SECURE = MACHINES["uefi-x64-secure"]
UEFI_IA32 = MACHINES["uefi-ia32"]
UEFI_ARM64 = MACHINES["uefi-arm64"]
UEFI_ARM = MACHINES["uefi-arm"]
UBOOT_ARM64 = MACHINES["uboot-arm64"]
UBOOT_ARM = MACHINES["uboot-arm"]


def starts_from_disk(machine: Machine, loader: Loader) -> bool:
    """Say whether a client starts an EFI program from a disk, and the rest from the network.

    QEMU's DHCP server names one boot file to every asker: iPXE would be handed itself and not its
    script, and the initramfs of a unified kernel image would not learn where its tree is.
    """
    return machine.firmware is Firmware.EFI and loader in (Loader.IPXE, Loader.UKI)


class Link(Protocol):
    """What the client's network card is plugged into."""

    @property
    def netdev(self) -> str:
        """The value of QEMU's -netdev for the network `net0`."""


@dataclass(frozen=True, slots=True)
class UserLink:
    """QEMU's own network: it serves `tree` by TFTP and names `boot_file` to every asker.

    `ssh_port` of this machine leads to the client's sshd; 0 leads nowhere.
    """

    tree: Path
    boot_file: str
    ssh_port: int = 0

    @property
    def netdev(self) -> str:
        ssh = f",hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22" if self.ssh_port else ""
        served = f"tftp={_value(self.tree)},bootfile={_value(self.boot_file)}"
        return f"user,id=net0,ipv6=off,{served}{ssh}"


@dataclass(frozen=True, slots=True)
class TapLink:
    """A tap that exists already, in the network namespace where QEMU runs."""

    name: str

    @property
    def netdev(self) -> str:
        return f"tap,id=net0,ifname={self.name},script=no,downscript=no"


@dataclass(frozen=True, slots=True)
class StreamLink:
    """An open stream socket that QEMU inherits; each frame goes after its length."""

    descriptor: int

    @property
    def netdev(self) -> str:
        return f"socket,id=net0,fd={self.descriptor}"


@dataclass(frozen=True, slots=True)
class Front:
    """Where a client's screen and serial port go, as QEMU's -display and -serial name it.

    `control` is a socket for QMP, QEMU's machine protocol, that QEMU opens. `restarts` lets a
    client that restarts do so; otherwise that ends it.
    """

    display: str = "none"
    serial: str = "stdio"
    control: Path | None = None
    restarts: bool = False


def qemu_argv(
    machine: Machine,
    link: Link,
    *,
    qemu: Path,
    accel: Accel,
    memory_mib: int = 1024,
    flash: Flash | None = None,
    image: Path | None = None,
    disk: Path | None = None,
    http_boot: bool = False,
    front: Front | None = None,
) -> tuple[str, ...]:
    """Write QEMU's command line for a client; the serial port is its standard output.

    `front` puts the screen and the serial port elsewhere.

    `accel` is KVM or TCG; `flash` or `image` is the firmware, where it is not QEMU's own; `disk`
    is a folder that the client sees as an EFI system partition and starts from. `http_boot` turns
    UEFI's PXE off, which it would try first.
    """
    # The ROM is an iPXE. UEFI has drivers of its own, and what is tested there is not that ROM.
    rom = "" if machine.firmware is Firmware.BIOS else ",romfile="
    # A client that has its loader on a disk starts there, not from the network.
    order = "" if disk else ",bootindex=0"
    argv = [str(qemu), "-nodefaults", "-no-user-config"]
    argv += ["-machine", machine.board]
    argv += (
        ["-accel", "kvm", "-cpu", "host"]
        if accel is Accel.KVM
        else ["-accel", "tcg,thread=multi", "-cpu", machine.cpu]
    )
    argv += ["-m", str(memory_mib)]
    front = front or Front()
    argv += ["-display", front.display]
    if machine.screen:
        argv += ["-vga", "std"]
    argv += ["-monitor", "none", "-serial", front.serial]
    if front.control:
        argv += ["-qmp", f"unix:{_value(front.control)},server=on,wait=off"]
    if not front.restarts:
        argv += ["-no-reboot"]  # so that a kernel that gives up and restarts ends the boot
    if machine.secure:
        argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        argv += ["-global", "ICH9-LPC.disable_s3=1"]
    if flash:
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={_value(flash.code)}"]
        argv += ["-drive", f"if=pflash,format=raw,file={_value(flash.variables)}"]
    if image:
        argv += ["-bios", str(image)]
    if http_boot:
        for version in ("IPv4", "IPv6"):
            argv += ["-fw_cfg", f"name=opt/org.tianocore/{version}PXESupport,string=n"]
    if disk:
        argv += ["-drive", f"if=none,id=esp,format=raw,readonly=on,file=fat:{_value(disk)}"]
        argv += ["-device", "virtio-blk-pci,drive=esp,bootindex=0"]
    argv += ["-netdev", link.netdev]
    argv += ["-device", f"virtio-net-pci,netdev=net0{rom}{order}"]
    argv += ["-device", "virtio-rng-pci"]  # newer UEFI does no network boot without it
    return tuple(argv)


def find_qemu(machine: Machine = BIOS) -> Path:
    """Find QEMU for `machine`. Raises `CommandError` naming the packages."""
    found = find_program(machine.qemu)
    if found is None:
        raise CommandError(
            f"{machine.qemu} is missing",
            hint=f"install {machine.debian} (Debian) or {machine.gentoo} (Gentoo)",
        )
    return found


def find_flash(machine: Machine = UEFI_X64) -> Flash | None:
    """Find a machine's UEFI firmware and its empty variable store; others have none.

    Raises `CommandError` naming the packages.
    """
    if machine.firmware is not Firmware.EFI:
        return None
    for code, variables in machine.flash:
        if Path(code).is_file() and Path(variables).is_file():
            return Flash(Path(code), Path(variables))
    raise CommandError(
        f"UEFI firmware for {machine.name} is missing",
        hint=f"install {machine.debian} (Debian) or {machine.gentoo} (Gentoo)",
    )


def find_image(machine: Machine) -> Path | None:
    """Find a machine's firmware of one file, if it has such. Raises `CommandError`."""
    if not machine.image:
        return None
    for name in machine.image:
        if Path(name).is_file():
            return Path(name)
    raise CommandError(
        f"the firmware for {machine.name} is missing",
        hint=f"install {machine.debian} (Debian) or {machine.gentoo} (Gentoo)",
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


def choose_accel(asked: Accel, qemu: Path, machine: Machine = BIOS) -> Accel:
    """Turn AUTO into KVM or TCG; anything else stays."""
    if asked is not Accel.AUTO:
        return asked
    return Accel.KVM if machine.kvm and kvm_runs(qemu) else Accel.TCG


@functools.cache
def kvm_runs(qemu: Path) -> bool:
    """Return whether KVM runs a guest at speed.

    Where KVM is itself emulated, /dev/kvm opens, but the guest never starts, or the host steps
    through it one instruction at a time. The guest is a firmware of 15 bytes at the reset vector
    that counts down from 2^26 (a tenth of a second on any processor) and ends QEMU with exit code
    33.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    # mov ecx,0x4000000; dec ecx; jnz -4; mov al,0x10; out 0xf4,al; hlt
    start = b"\x66\xb9\x00\x00\x00\x04\x66\x49\x75\xfc\xb0\x10\xe6\xf4\xf4"
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

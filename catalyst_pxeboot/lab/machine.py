"""Client machines: what QEMU emulates for each kind, and its command line."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.process import find_program

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
    """A kind of client: processor, board, firmware.

    `flash` lists firmware code and its empty variable store at each place where a distribution
    puts them, `image` the places of a firmware that is one file and keeps nothing. `secure`
    firmware keeps its variables behind system management mode. `typed` is what a user at the
    console would type: each text once its pattern is the last thing that the console shows.
    """

    name: str
    firmware: Firmware | None  # None: it starts kernels by itself
    qemu: str
    board: str
    cpu: str
    debian: str  # the packages that bring QEMU and the firmware
    gentoo: str
    flash: tuple[tuple[str, str], ...] = ()
    image: tuple[str, ...] = ()
    typed: tuple[tuple[str, str], ...] = ()
    secure: bool = False
    screen: bool = True  # has a VGA card
    kvm: bool = False  # an x86-64 host can run it without emulation


_OVMF = "/usr/share/OVMF"
_AAVMF = "/usr/share/AAVMF"
_X86_DEBIAN = "qemu-system-x86 and ipxe-qemu"
_X86_GENTOO = "app-emulation/qemu with QEMU_SOFTMMU_TARGETS=x86_64"

BIOS = Machine(
    name="bios",
    firmware=Firmware.BIOS,
    qemu="qemu-system-x86_64",
    # graphics=off makes SeaBIOS copy its screen, and so the loader's, to the serial port.
    board="q35,graphics=off",
    cpu="max",
    debian=_X86_DEBIAN,
    gentoo=_X86_GENTOO,
    kvm=True,
)
UEFI_X64 = Machine(
    name="uefi-x64",
    firmware=Firmware.EFI,
    qemu="qemu-system-x86_64",
    board="q35,graphics=off",
    cpu="max",
    debian="qemu-system-x86 and ovmf",
    gentoo=f"{_X86_GENTOO} and sys-firmware/edk2-bin",
    # Debian's ovmf, Gentoo's edk2 or edk2-bin under its present and its former path.
    flash=(
        (f"{_OVMF}/OVMF_CODE_4M.fd", f"{_OVMF}/OVMF_VARS_4M.fd"),
        (f"{_OVMF}/OVMF_CODE.fd", f"{_OVMF}/OVMF_VARS.fd"),
        ("/usr/share/edk2/OvmfX64/OVMF_CODE.fd", "/usr/share/edk2/OvmfX64/OVMF_VARS.fd"),
        ("/usr/share/edk2-ovmf/OVMF_CODE.fd", "/usr/share/edk2-ovmf/OVMF_VARS.fd"),
    ),
    kvm=True,
)
UEFI_X64_SECURE = Machine(
    name="uefi-x64-secure",
    firmware=Firmware.EFI,
    qemu="qemu-system-x86_64",
    board="q35,graphics=off,smm=on",
    cpu="max",
    debian="qemu-system-x86 and ovmf",
    gentoo=f"{_X86_GENTOO} and sys-firmware/edk2-bin",
    # Stores in which Microsoft's keys are enrolled and Secure Boot is on.
    flash=(
        (f"{_OVMF}/OVMF_CODE_4M.ms.fd", f"{_OVMF}/OVMF_VARS_4M.ms.fd"),
        (f"{_OVMF}/OVMF_CODE.ms.fd", f"{_OVMF}/OVMF_VARS.ms.fd"),
        (
            "/usr/share/edk2/OvmfX64/OVMF_CODE.secboot.fd",
            "/usr/share/edk2/OvmfX64/OVMF_VARS.secboot.fd",
        ),
    ),
    secure=True,
    kvm=True,
)
UEFI_IA32 = Machine(
    name="uefi-ia32",
    firmware=Firmware.EFI,
    qemu="qemu-system-x86_64",
    board="q35,graphics=off,smm=on",
    cpu="max",  # a 64-bit processor under 32-bit firmware, as in early Atom tablets
    debian="qemu-system-x86 and ovmf-ia32",
    gentoo=f"{_X86_GENTOO} and sys-firmware/edk2 built for Ia32",
    flash=(
        (f"{_OVMF}/OVMF32_CODE_4M.secboot.fd", f"{_OVMF}/OVMF32_VARS_4M.fd"),
        ("/usr/share/edk2/OvmfIa32/OVMF_CODE.fd", "/usr/share/edk2/OvmfIa32/OVMF_VARS.fd"),
    ),
    secure=True,
    kvm=True,
)
UEFI_ARM64 = Machine(
    name="uefi-arm64",
    firmware=Firmware.EFI,
    qemu="qemu-system-aarch64",
    board="virt",
    cpu="cortex-a57",
    debian="qemu-system-arm and qemu-efi-aarch64",
    gentoo="app-emulation/qemu with QEMU_SOFTMMU_TARGETS=aarch64 and sys-firmware/edk2-bin",
    flash=(
        (f"{_AAVMF}/AAVMF_CODE.fd", f"{_AAVMF}/AAVMF_VARS.fd"),
        (
            "/usr/share/edk2/ArmVirtQemu-AARCH64/QEMU_EFI.fd",
            "/usr/share/edk2/ArmVirtQemu-AARCH64/QEMU_VARS.fd",
        ),
    ),
    screen=False,
)
UEFI_ARM = Machine(
    name="uefi-arm",
    firmware=Firmware.EFI,
    qemu="qemu-system-arm",
    board="virt,highmem=off",
    cpu="cortex-a15",
    debian="qemu-system-arm and qemu-efi-arm",
    gentoo="app-emulation/qemu with QEMU_SOFTMMU_TARGETS=arm and sys-firmware/edk2-bin",
    flash=((f"{_AAVMF}/AAVMF32_CODE.fd", f"{_AAVMF}/AAVMF32_VARS.fd"),),
    screen=False,
)

# U-Boot's own boot order on this board knows no PXE, so it is asked for by hand.
_UBOOT_TYPED = (
    (r"Hit any key to stop autoboot", "\n"),
    (r"^=> $", "setenv autoload no; dhcp; pxe get; pxe boot\n"),
)
UBOOT_ARM64 = Machine(
    name="uboot-arm64",
    firmware=None,
    qemu="qemu-system-aarch64",
    board="virt",
    cpu="cortex-a57",
    debian="qemu-system-arm and u-boot-qemu",
    gentoo="app-emulation/qemu with QEMU_SOFTMMU_TARGETS=aarch64 and a U-Boot for qemu_arm64",
    image=("/usr/lib/u-boot/qemu_arm64/u-boot.bin",),
    typed=_UBOOT_TYPED,
    screen=False,
)
UBOOT_ARM = Machine(
    name="uboot-arm",
    firmware=None,
    qemu="qemu-system-arm",
    board="virt,highmem=off",
    cpu="cortex-a15",
    debian="qemu-system-arm and u-boot-qemu",
    gentoo="app-emulation/qemu with QEMU_SOFTMMU_TARGETS=arm and a U-Boot for qemu_arm",
    image=("/usr/lib/u-boot/qemu_arm/u-boot.bin",),
    typed=_UBOOT_TYPED,
    screen=False,
)

#: Every kind of client.
MACHINES = (
    BIOS,
    UEFI_X64,
    UEFI_X64_SECURE,
    UEFI_IA32,
    UEFI_ARM64,
    UEFI_ARM,
    UBOOT_ARM64,
    UBOOT_ARM,
)


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

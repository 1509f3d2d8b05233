"""Linux kernel images: what kind, for which machine, and what their headers promise.

Source of the formats: the kernel's Documentation/arch/x86/boot.rst (bzImage),
Documentation/arch/arm64/booting.rst and Documentation/arch/riscv/boot-image-header.rst (Image),
arch/arm/boot/compressed/head.S (zImage), arch/loongarch/kernel/head.S,
drivers/firmware/efi/libstub/zboot-header.S (EFI zboot); the ELF and PE specifications.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from catalyst_pxeboot.formats.compression import (
    Compression,
    Decompressed,
    detect_compression,
    open_decompressed,
)
from catalyst_pxeboot.formats.cpio import Readable
from catalyst_pxeboot.util.errors import FormatError
from catalyst_pxeboot.util.files import InputFile

#: The most bytes of a kernel that are searched for its version, once unpacked.
MAX_SEARCHED: Final = 256 << 20

#: The most bytes that a kernel may have once unpacked; real ones stay below 100 MiB.
MAX_UNPACKED: Final = MAX_SEARCHED

_HEAD: Final = 64 << 10  # bytes of a file that hold every header looked at
_BLOCK: Final = 1 << 20
_MAX_BANNER: Final = 256
_BANNER: Final = re.compile(rb"Linux version (\d[!-~]{0,127}) \(")
_VERSION: Final = re.compile(rb"\d[!-~]*")
_LINUX_PE: Final = b"\xcd\x23\x82\x81"

_PE_MACHINES: Final = {
    0x014C: "i386",
    0x8664: "x86_64",
    0xAA64: "arm64",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6232: "loongarch32",
    0x6264: "loongarch64",
}

#: By ELF machine: the name of 32-bit and of 64-bit kernels.
_ELF_MACHINES: Final = {
    2: ("sparc", "sparc"),
    3: ("i386", "i386"),
    8: ("mips", "mips64"),
    15: ("parisc", "parisc64"),
    20: ("ppc", "ppc"),
    21: ("ppc64", "ppc64"),
    22: ("s390", "s390x"),
    40: ("arm", "arm"),
    43: ("sparc64", "sparc64"),
    50: ("ia64", "ia64"),
    62: ("x86_64", "x86_64"),
    183: ("arm64", "arm64"),
    243: ("riscv32", "riscv64"),
    258: ("loongarch32", "loongarch64"),
    0x9026: ("alpha", "alpha"),
}


class KernelImage(StrEnum):
    """A kind of kernel file; which loaders take it differs."""

    BZIMAGE = "bzImage"
    ZIMAGE = "zImage"
    IMAGE = "Image"
    GZIP = "Image.gz"
    ZBOOT = "EFI zboot"
    VMLINUX = "vmlinux"


#: What an Image.gz or an EFI zboot program may hold.
_PLAIN: Final = (KernelImage.IMAGE, KernelImage.VMLINUX)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel file. Sizes are in bytes; what only x86 states is None elsewhere."""

    path: Path
    bytes: int
    machine: str  # as the kernel names it: x86_64, i386, arm64, arm, riscv64, loongarch64, …
    image: KernelImage
    version: str | None  # as `uname -r` prints it; None where the file does not say it in clear
    efi_stub: bool  # UEFI firmware can start it; with Image.gz once a loader unpacked it
    init_size: int | None = None  # x86: memory the kernel needs while it unpacks itself
    command_line_size: int | None = None  # x86: longest command line
    initrd_addr_max: int | None = None  # x86: highest address that an initrd may have
    packed: Compression | None = None  # of an Image.gz or EFI zboot, where it can be unpacked here


def read_kernel(source: InputFile) -> Kernel:
    """Read the headers of a kernel, and its version where it is not compressed.

    At most `MAX_SEARCHED` bytes are read or unpacked. Raises `FormatError` where the file is
    no Linux kernel of a known kind; `OSError` where it cannot be read.
    """
    file, path = source.stream, source.path
    head = file.read(_HEAD)
    file.seek(0)
    if detect_compression(head) is Compression.GZIP:
        return _read_gzip(file, path, source.bytes)
    kernel = _read_head(head, path, source.bytes)
    if kernel is None:
        raise _no_kernel(path, head)
    if kernel.image in (KernelImage.IMAGE, KernelImage.VMLINUX):
        return replace(kernel, version=_find_version(file))
    if kernel.image is KernelImage.BZIMAGE and kernel.version is None:
        return replace(kernel, version=_bzimage_version(file, head))
    if kernel.image is KernelImage.ZBOOT:
        packed = _zboot_compression(file, head)
        return replace(kernel, version=_zboot_version(file, head, path, packed), packed=packed)
    return kernel


@contextmanager
def open_unpacked(file: BinaryIO, kernel: Kernel) -> Iterator[Readable]:
    """Open the plain Image within an Image.gz or an EFI zboot program; `file` is open on it.

    At most `MAX_UNPACKED` bytes come out. Raises `FormatError`, also while it is read, where the
    file is damaged, holds too much, or holds something else than a kernel for its machine.
    """
    file.seek(0)
    packed: Readable = file
    if kernel.image is KernelImage.ZBOOT:
        offset, size = struct.unpack_from("<II", file.read(16), 8)
        file.seek(offset)
        packed = _Part(file, size)
    if kernel.packed is None:
        raise FormatError(
            f"{kernel.path}: the kernel in this {kernel.image} cannot be unpacked here",
            hint="build the kernel with gzip or zstd (CONFIG_KERNEL_GZIP, CONFIG_KERNEL_ZSTD)",
        )
    with open_decompressed(
        packed, kernel.packed, where=str(kernel.path), max_bytes=MAX_UNPACKED
    ) as unpacked:
        head = unpacked.read(_HEAD)
        inner = _read_head(head, kernel.path, 0)
        if inner is None or inner.machine != kernel.machine or inner.image not in _PLAIN:
            raise _no_kernel(kernel.path, head, f"for {kernel.machine} within its {kernel.image} ")
        yield _Rejoined(head, unpacked)


class _Part:
    """The next bytes of a file, up to a limit."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Rejoined:
    """A stream with what was read of it put back before it."""

    def __init__(self, head: bytes, rest: Decompressed) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._rest.read(size)


def _read_head(head: bytes, path: Path, size: int) -> Kernel | None:
    """Tell the kernel by its first bytes, without its version; None where it is none."""
    pe_machine = _pe_machine(head)
    base = Kernel(
        path=path,
        bytes=size,
        machine="",
        image=KernelImage.IMAGE,
        version=None,
        efi_stub=pe_machine is not None,
    )
    if head[0x202:0x206] == b"HdrS" and head[0x1FE:0x200] == b"\x55\xaa":
        return _read_bzimage(head, base)
    if head[:4] == b"\x7fELF":
        return _read_elf(head, base)
    if head[0x24:0x28] == b"\x18\x28\x6f\x01":
        return replace(base, machine="arm", image=KernelImage.ZIMAGE)
    if head[:2] == b"MZ" and head[4:8] == b"zimg" and pe_machine in _PE_MACHINES:
        return replace(base, machine=_PE_MACHINES[pe_machine], image=KernelImage.ZBOOT)
    magic = head[56:60]
    if magic == b"ARM\x64":
        return replace(base, machine="arm64")
    if magic == b"RSC\x05":
        return replace(base, machine=_PE_MACHINES.get(pe_machine or 0, "riscv64"))
    # Only this mark distinguishes it from other EFI programs, GRUB for example.
    if magic == _LINUX_PE and pe_machine in _PE_MACHINES:
        return replace(base, machine=_PE_MACHINES[pe_machine])
    return None


def _read_bzimage(head: bytes, base: Kernel) -> Kernel | None:
    """Read the setup header. Which fields there are depends on the boot protocol."""
    if len(head) < 0x264:
        return None
    (protocol,) = struct.unpack_from("<H", head, 0x206)
    xloadflags, command_line_size = struct.unpack_from("<HI", head, 0x236)
    (init_size,) = struct.unpack_from("<I", head, 0x260)
    (initrd_addr_max,) = struct.unpack_from("<I", head, 0x22C)
    loaded_high = bool(head[0x211] & 1)
    is_64_bit = protocol >= 0x020C and bool(xloadflags & 1)
    return replace(
        base,
        machine="x86_64" if is_64_bit else "i386",
        image=KernelImage.BZIMAGE if loaded_high else KernelImage.ZIMAGE,
        init_size=init_size if protocol >= 0x020A else None,
        command_line_size=command_line_size if protocol >= 0x0206 else None,
        initrd_addr_max=initrd_addr_max if protocol >= 0x0203 else None,
    )


def _bzimage_version(file: BinaryIO, head: bytes) -> str | None:
    (pointer,) = struct.unpack_from("<H", head, 0x20E)
    if not pointer:
        return None
    file.seek(0x200 + pointer)
    match = _VERSION.match(file.read(_MAX_BANNER).split(b"\0", 1)[0])
    return match[0].decode("ascii") if match else None


def _read_elf(head: bytes, base: Kernel) -> Kernel | None:
    """Read an ELF header. Programs have one, too; they ask for a dynamic loader."""
    if len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    names = _ELF_MACHINES.get(machine)
    if names is None or kind not in (2, 3) or _has_interpreter(head, order):
        return None
    name = names[head[4] - 1]
    if name == "ppc64" and order == "<":
        name = "ppc64le"
    return replace(base, machine=name, image=KernelImage.VMLINUX, efi_stub=False)


def _has_interpreter(head: bytes, order: str) -> bool:
    """Tell whether the ELF file asks for a dynamic loader, which no kernel does."""
    if head[4] == 1:
        (start,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    else:
        (start,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    places = (start + number * size for number in range(count))
    return any(
        struct.unpack_from(order + "I", head, place)[0] == 3
        for place in places
        if place + 4 <= len(head)
    )


def _pe_machine(head: bytes) -> int | None:
    """Return the machine code of a PE header; None where there is none."""
    if head[:2] != b"MZ" or len(head) < 64:
        return None
    (place,) = struct.unpack_from("<I", head, 0x3C)
    if head[place : place + 4] != b"PE\0\0" or place + 24 > len(head):
        return None
    machine: int = struct.unpack_from("<H", head, place + 4)[0]
    return machine


def _read_gzip(file: BinaryIO, path: Path, size: int) -> Kernel:
    with open_decompressed(
        file, Compression.GZIP, where=str(path), max_bytes=MAX_SEARCHED
    ) as unpacked:
        head = unpacked.read(_HEAD)
        kernel = _read_head(head, path, size)
        if kernel is None or kernel.image not in _PLAIN:
            raise _no_kernel(path, head, "within its gzip compression ")
        version = _find_version(unpacked, head)
    return replace(kernel, image=KernelImage.GZIP, version=version, packed=Compression.GZIP)


def _zboot_compression(file: BinaryIO, head: bytes) -> Compression | None:
    """Tell how the kernel within the EFI program is packed; None where it cannot be unpacked."""
    (offset,) = struct.unpack_from("<I", head, 8)
    name = head[24:56].split(b"\0", 1)[0].decode("ascii", errors="replace")
    # lzo and lz4 carry no container there that a program could read.
    if name not in (Compression.GZIP, Compression.XZ, Compression.LZMA, Compression.ZSTD, "xzkern"):
        return None
    file.seek(offset)
    return detect_compression(file.read(16))


def _zboot_version(
    file: BinaryIO, head: bytes, path: Path, packed: Compression | None
) -> str | None:
    """Look for the version in the kernel that the EFI program carries, if it can be unpacked."""
    if packed is None:
        return None
    (offset,) = struct.unpack_from("<I", head, 8)
    file.seek(offset)
    try:
        with open_decompressed(file, packed, where=str(path), max_bytes=MAX_SEARCHED) as unpacked:
            return _find_version(unpacked)
    except FormatError:
        # The firmware unpacks it, not we; a version is all that is missed.
        return None


def _find_version(stream: Readable, head: bytes = b"") -> str | None:
    """Find the version that the kernel prints first, in blocks that overlap by a banner."""
    searched = len(head)
    window = head
    while True:
        if match := _BANNER.search(window):
            return match[1].decode("ascii")
        block = stream.read(_BLOCK)
        searched += len(block)
        if not block or searched > MAX_SEARCHED:
            return None
        window = window[-_MAX_BANNER:] + block


def _no_kernel(path: Path, head: bytes, where: str = "") -> FormatError:
    if not head:
        return FormatError(
            f"{path}: is empty, expected a Linux kernel",
            hint="let catalyst build the live image again",
        )
    return FormatError(
        f"{path}: expected a Linux kernel {where}(bzImage, zImage, Image, Image.gz, EFI zboot or "
        f"vmlinux), found a file that begins with {head[:8].hex(' ')}",
        hint="check the names in boot/kernel of the stage2 spec",
    )

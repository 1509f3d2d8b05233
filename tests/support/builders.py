"""Small files in real formats, made by hand: archives, kernels, squashfs images.

Nothing here boots; each builder writes just what a reader may rely on. All take and return
bytes, so that a test can cut and bend them before it writes them to a file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping

import lz4.block
import pytest
import zstandard

#: File types of a newc mode field.
FILE, LINK, FOLDER = 0o100000, 0o120000, 0o040000

#: PE machine codes, by the kernel's name of the machine.
PE_MACHINES = {
    "x86_64": 0x8664,
    "i386": 0x014C,
    "arm64": 0xAA64,
    "arm": 0x01C2,
    "riscv64": 0x5064,
    "loongarch64": 0x6264,
}

#: ELF machine codes and classes (32 or 64 bits).
ELF_MACHINES = {
    "x86_64": (62, 64),
    "i386": (3, 32),
    "arm64": (183, 64),
    "arm": (40, 32),
    "riscv64": (243, 64),
    "loongarch64": (258, 64),
    "ppc64": (21, 64),
    "ppc": (20, 32),
    "sparc64": (43, 64),
}

Content = bytes | tuple[int, bytes]


def newc_member(name: str, content: Content = b"", *, magic: bytes = b"070701") -> bytes:
    """Return one member: `content` is a file's bytes, or a pair of mode and bytes."""
    mode, data = content if isinstance(content, tuple) else (FILE | 0o644, content)
    raw = name.encode() + b"\0"
    fields = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = magic + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def newc(members: Mapping[str, Content], *, trailer: bool = True, block: int = 512) -> bytes:
    """Return a newc archive of `members`, padded with zeros to a multiple of `block` bytes."""
    data = b"".join(newc_member(name, content) for name, content in members.items())
    if trailer:
        data += newc_member("TRAILER!!!", (0, b""))
    return data + bytes(-len(data) % block)


def microcode_archive() -> bytes:
    """Return the uncompressed archive that carries microcode before an initramfs."""
    return newc(
        {
            "kernel": (FOLDER | 0o755, b""),
            "kernel/x86": (FOLDER | 0o755, b""),
            "kernel/x86/microcode": (FOLDER | 0o755, b""),
            "kernel/x86/microcode/GenuineIntel.bin": b"\x01\0\0\0" * 512,
        }
    )


def _driver_members(drivers: Iterable[str], version: str, root: str) -> dict[str, Content]:
    """Return a member for each of `drivers`: names such as `nfsv3`, or with `.ko.xz` and so on."""
    names = [name if ".ko" in name else f"{name}.ko" for name in drivers]
    return {f"{root}lib/modules/{version}/kernel/drivers/{name}": b"\x7fELF" for name in names}


def dracut_members(
    version: str = "059",
    modules: Iterable[str] = ("base", "dmsquash-live"),
    drivers: Iterable[str] = (),
    *,
    kernel: str = "6.1.0-test",
    curl: bool = False,
    sha256sum: bool = False,
    hooks: str | None = None,
    usr_merge: bool = True,
) -> dict[str, Content]:
    """Return the members by which dracut's images are told, and what is asked of them.

    `hooks` is the folder of its hooks, by default that of dracut before 102.
    """
    root = "usr/" if usr_merge else ""
    hooks = hooks or f"{root}lib/dracut/hooks"
    release = f'NAME="Gentoo"\nVERSION="dracut-{version}"\nID=gentoo\n'
    members: dict[str, Content] = {
        ".": (FOLDER | 0o755, b""),
        "etc": (FOLDER | 0o755, b""),
        "etc/initrd-release": (LINK | 0o777, b"/usr/lib/initrd-release"),
        "init": (LINK | 0o777, b"usr/lib/systemd/systemd"),
        f"{root}lib": (FOLDER | 0o755, b""),
        f"{root}lib/dracut": (FOLDER | 0o755, b""),
        f"{root}lib/dracut/dracut-{version}": b"",
        f"{hooks}/cmdline": (FOLDER | 0o755, b""),
        f"{root}lib/dracut/modules.txt": "".join(f"{name}\n" for name in modules).encode(),
        "usr/lib/initrd-release": release.encode(),
    }
    if curl:
        members["usr/bin/curl"] = (FILE | 0o755, b"\x7fELF")
    if sha256sum:
        members["usr/bin/sha256sum"] = (FILE | 0o755, b"\x7fELF")
    return members | _driver_members(drivers, kernel, root)


def genkernel_members(
    version: str = "4.3.17",
    loop_wo_mount: bool = True,
    drivers: Iterable[str] = (),
    *,
    kernel: str = "6.1.0-test",
) -> dict[str, Content]:
    """Return the members by which genkernel's images are told, `lib/dracut` among them."""
    init = b"#!/bin/sh\n. /etc/initrd.scripts\n[ -e /etc/initrd.splash ] && . /etc/initrd.splash\n"
    if loop_wo_mount:
        init += b"got_loop_wo_mount=1\n"
    init += b"cache_cd_contents || run_emergency_shell\ncdupdate\n"
    release = f'NAME="genkernel"\nID=genkernel\nVERSION_ID={version}\n'
    members: dict[str, Content] = {
        ".": (FOLDER | 0o755, b""),
        "etc": (FOLDER | 0o755, b""),
        "etc/build_id": f"Genkernel {version}\n".encode(),
        "etc/initrd-release": release.encode(),
        "etc/initrd.scripts": b"#!/bin/sh\n",
        "init": (FILE | 0o755, init),
        "lib/dracut": (FOLDER | 0o755, b""),
        "lib/dracut/hooks": (FOLDER | 0o755, b""),
        "linuxrc": (LINK | 0o777, b"init"),
    }
    return members | _driver_members(drivers, kernel, "")


def initramfs(
    members: Mapping[str, Content], compression: str = "none", *, early: int = 0
) -> bytes:
    """Return an initramfs of `members`, behind as many microcode archives as `early` says."""
    return microcode_archive() * early + compress(newc(members), compression)


def lz4_legacy(data: bytes, *, block: int = 8 << 20) -> bytes:
    """Return `data` as `lz4 -l` writes it, in blocks of `block` bytes."""
    out = b"\x02\x21\x4c\x18"
    for start in range(0, len(data), block):
        packed = lz4.block.compress(data[start : start + block], store_size=False)
        out += struct.pack("<I", len(packed)) + packed
    return out


def lzop(data: bytes) -> bytes:
    """Return `data` as lzop writes it; skips the test where that program is missing."""
    program = shutil.which("lzop")
    if program is None:
        pytest.skip("lzop is not installed")
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


def compress(data: bytes, compression: str) -> bytes:
    """Return `data` in `compression`: none, gzip, bzip2, lzma, xz, lzo, lz4 or zstd."""
    match str(compression):
        case "none":
            return data
        case "gzip":
            return gzip.compress(data, mtime=0)
        case "bzip2":
            return bz2.compress(data)
        case "lzma":
            return lzma.compress(data, format=lzma.FORMAT_ALONE)
        case "xz":
            return lzma.compress(data, check=lzma.CHECK_CRC32)
        case "lzo":
            return lzop(data)
        case "lz4":
            return lz4_legacy(data)
        case "zstd":
            return zstandard.ZstdCompressor().compress(data)
    raise ValueError(f"no such compression: {compression}")


def pe_header(machine: str, sections: Iterable[str] = (".text",)) -> bytes:
    """Return a PE header for `machine`, without an optional header, with empty sections."""
    names = tuple(sections)
    head = struct.pack("<4sHHIIIHH", b"PE\0\0", PE_MACHINES[machine], len(names), 0, 0, 0, 0, 0)
    return head + b"".join(name.encode().ljust(40, b"\0") for name in names)


def bzimage(
    version: str = "6.1.0-test",
    bits: int = 64,
    efi_stub: bool = True,
    *,
    protocol: int = 0x020F,
    init_size: int = 0x0300_0000,
    command_line_size: int = 2047,
    initrd_addr_max: int = 0x7FFF_FFFF,
    size: int = 16384,
) -> bytes:
    """Return the head of an x86 bzImage: its setup header and, with `efi_stub`, a PE header."""
    image = bytearray(size)
    xloadflags = (1 if bits == 64 else 0) | 2  # may lie above 4 GiB
    if efi_stub:
        image[0:2] = b"MZ"
        struct.pack_into("<I", image, 0x3C, 0x80)
        header = pe_header("x86_64" if bits == 64 else "i386")
        image[0x80 : 0x80 + len(header)] = header
        xloadflags |= 0x8 if bits == 64 else 0x4
    image[0x1F1] = 1  # setup sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x6a"  # the jump over the setup header
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, protocol)
    struct.pack_into("<H", image, 0x20E, 0x300)  # counted from 0x200
    image[0x211] = 1  # loaded high
    struct.pack_into("<I", image, 0x22C, initrd_addr_max)
    image[0x234] = 1  # relocatable
    struct.pack_into("<HI", image, 0x236, xloadflags, command_line_size)
    struct.pack_into("<I", image, 0x260, init_size)
    text = f"{version} (root@builder) #1 SMP Sun Nov 22 2026\0".encode()
    image[0x500 : 0x500 + len(text)] = text
    return bytes(image)


def banner(version: str) -> bytes:
    """Return the text by which a kernel names itself."""
    return f"Linux version {version} (root@builder) (gcc 14) #1 SMP\n\0".encode()


def arm64_image(version: str = "6.1.0-test", efi_stub: bool = True, *, size: int = 8192) -> bytes:
    """Return the head of an arm64 `Image` and the kernel's banner."""
    return _flat_image("arm64", b"ARM\x64", version, efi_stub=efi_stub, size=size)


def riscv_image(version: str = "6.1.0-test", efi_stub: bool = True, *, size: int = 8192) -> bytes:
    """Return the head of a riscv `Image` and the kernel's banner."""
    return _flat_image("riscv64", b"RSC\x05", version, efi_stub=efi_stub, size=size)


def loongarch_image(version: str = "6.6.0-test", *, size: int = 8192) -> bytes:
    """Return the head of a loongarch `vmlinux.efi` and the kernel's banner."""
    return _flat_image("loongarch64", b"\xcd\x23\x82\x81", version, efi_stub=True, size=size)


def _flat_image(machine: str, magic: bytes, version: str, *, efi_stub: bool, size: int) -> bytes:
    image = bytearray(size)
    if efi_stub:
        image[0:2] = b"MZ"
        struct.pack_into("<I", image, 60, 64)
        header = pe_header(machine)
        image[64 : 64 + len(header)] = header
    struct.pack_into("<Q", image, 16, size)
    image[56:60] = magic
    text = banner(version)
    image[4096 : 4096 + len(text)] = text
    return bytes(image)


def arm_zimage(efi_stub: bool = False, *, size: int = 8192) -> bytes:
    """Return the head of a 32-bit arm `zImage`."""
    image = bytearray(size)
    if efi_stub:
        image[0:2] = b"MZ"
        struct.pack_into("<I", image, 0x3C, 0x80)
        header = pe_header("arm")
        image[0x80 : 0x80 + len(header)] = header
    struct.pack_into("<III", image, 0x24, 0x016F2818, 0, size)
    return bytes(image)


def zboot_image(machine: str = "arm64", version: str = "6.6.0-test") -> bytes:
    """Return an EFI zboot image: a PE program that carries a gzip-compressed kernel."""
    payload = compress(arm64_image(version), "gzip")
    offset = 1024
    image = bytearray(offset)
    image[0:2] = b"MZ"
    struct.pack_into("<4sII", image, 4, b"zimg", offset, len(payload))
    image[24:28] = b"gzip"
    image[56:60] = b"\xcd\x23\x82\x81"
    struct.pack_into("<I", image, 60, 64)
    header = pe_header(machine)
    image[64 : 64 + len(header)] = header
    return bytes(image) + payload


def vmlinux(machine: str = "x86_64", version: str = "6.1.0-test", *, big: bool = False) -> bytes:
    """Return the head of an ELF kernel for `machine`, big-endian with `big`, and its banner."""
    code, bits = ELF_MACHINES[machine]
    order = ">" if big else "<"
    head = b"\x7fELF" + bytes((2 if bits == 64 else 1, 2 if big else 1, 1)) + bytes(9)
    head += struct.pack(order + "HHI", 2, code, 1)
    return head.ljust(512, b"\0") + banner(version)


def squashfs_image(
    size: int = 4096 * 16,
    compression: str = "xz",
    *,
    block_size: int = 1 << 20,
    created: int = 1_795_000_000,
    used: int | None = None,
    version: tuple[int, int] = (4, 0),
) -> bytes:
    """Return a file of `size` bytes with a squashfs superblock; what follows is a fixed pattern.

    `used` is the length the superblock claims, by default all but the padding to 4 KiB.
    """
    code = ("gzip", "lzma", "lzo", "xz", "lz4", "zstd").index(compression) + 1
    block_log = block_size.bit_length() - 1
    head = struct.pack(
        "<4sIIIIHHHHHHQQ",
        b"hsqs",
        7,
        created,
        block_size,
        1,
        code,
        block_log,
        0xC0,
        1,
        *version,
        0,
        size - 100 if used is None else used,
    )
    head += struct.pack("<6Q", *(0xFFFF_FFFF_FFFF_FFFF,) * 6)
    pattern = bytes(range(256)) * (size // 256 + 1)
    return (head + pattern)[:size]

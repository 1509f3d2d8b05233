"""Kernel images of every kind, by headers made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalyst_pxeboot.formats import kernel as module
from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.kernel import Kernel, KernelImage
from catalyst_pxeboot.util.errors import FormatError
from tests.support.builders import (
    arm64_image,
    arm_zimage,
    banner,
    bzimage,
    compress,
    loongarch_image,
    pe_header,
    riscv_image,
    vmlinux,
    zboot_image,
)
from tests.support.readers import read_kernel

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(data: bytes) -> Path:
        path = tmp_path / "gentoo"
        path.write_bytes(data)
        return path

    return put


def test_bzimage(write: Write) -> None:
    path = write(bzimage("6.12.58-gentoo-dist"))
    assert read_kernel(path) == Kernel(
        path=path,
        bytes=16384,
        machine="x86_64",
        image=KernelImage.BZIMAGE,
        version="6.12.58-gentoo-dist",
        efi_stub=True,
        init_size=0x0300_0000,
        command_line_size=2047,
        initrd_addr_max=0x7FFF_FFFF,
    )


def test_bzimage_of_32_bits(write: Write) -> None:
    found = read_kernel(write(bzimage(bits=32)))
    assert (found.machine, found.efi_stub) == ("i386", True)
    assert not read_kernel(write(bzimage(bits=32, efi_stub=False))).efi_stub


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (0x020F, ("x86_64", 0x0300_0000, 2047, 0x37FF_FFFF)),
        (0x020B, ("i386", 0x0300_0000, 2047, 0x37FF_FFFF)),
        (0x0209, ("i386", None, 2047, 0x37FF_FFFF)),
        (0x0204, ("i386", None, None, 0x37FF_FFFF)),
        (0x0202, ("i386", None, None, None)),
    ],
)
def test_bzimage_fields_by_protocol(
    write: Write, protocol: int, expected: tuple[object, ...]
) -> None:
    found = read_kernel(write(bzimage(protocol=protocol, initrd_addr_max=0x37FF_FFFF)))
    assert expected == (
        found.machine,
        found.init_size,
        found.command_line_size,
        found.initrd_addr_max,
    )


def test_bzimage_without_a_version(write: Write) -> None:
    for pointer in (0, 0xFFFF, 0x700):
        image = bytearray(bzimage())
        struct.pack_into("<H", image, 0x20E, pointer)
        assert read_kernel(write(bytes(image))).version is None


def test_zimage_of_x86(write: Write) -> None:
    image = bytearray(bzimage())
    image[0x211] = 0
    assert read_kernel(write(bytes(image))).image is KernelImage.ZIMAGE


@pytest.mark.parametrize(
    ("data", "machine", "image", "version", "stub"),
    [
        (arm64_image("6.6.1"), "arm64", "Image", "6.6.1", True),
        (arm64_image(efi_stub=False), "arm64", "Image", "6.1.0-test", False),
        (riscv_image(), "riscv64", "Image", "6.1.0-test", True),
        (riscv_image(efi_stub=False), "riscv64", "Image", "6.1.0-test", False),
        (loongarch_image(), "loongarch64", "Image", "6.6.0-test", True),
        (arm_zimage(), "arm", "zImage", None, False),
        (arm_zimage(efi_stub=True), "arm", "zImage", None, True),
        (compress(arm64_image(), "gzip"), "arm64", "Image.gz", "6.1.0-test", True),
        (compress(arm64_image(efi_stub=False), "gzip"), "arm64", "Image.gz", "6.1.0-test", False),
        (
            compress(vmlinux("sparc64", big=True), "gzip"),
            "sparc64",
            "Image.gz",
            "6.1.0-test",
            False,
        ),
        (zboot_image(), "arm64", "EFI zboot", "6.6.0-test", True),
        (zboot_image("loongarch64"), "loongarch64", "EFI zboot", "6.6.0-test", True),
        (zboot_image()[:-30], "arm64", "EFI zboot", None, True),
        (vmlinux("x86_64"), "x86_64", "vmlinux", "6.1.0-test", False),
        (vmlinux("i386"), "i386", "vmlinux", "6.1.0-test", False),
        (vmlinux("ppc64", big=True), "ppc64", "vmlinux", "6.1.0-test", False),
        (vmlinux("ppc64"), "ppc64le", "vmlinux", "6.1.0-test", False),
        (vmlinux("ppc", big=True), "ppc", "vmlinux", "6.1.0-test", False),
    ],
)
def test_other_machines(
    write: Write, data: bytes, machine: str, image: str, version: str | None, stub: bool
) -> None:
    path = write(data)
    assert read_kernel(path) == Kernel(
        path=path,
        bytes=len(data),
        machine=machine,
        image=KernelImage(image),
        version=version,
        efi_stub=stub,
        packed=Compression.GZIP if image in ("Image.gz", "EFI zboot") else None,
    )


def test_finds_a_version_across_blocks(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    image = bytearray(arm64_image(size=(2 << 20) + 4096))
    text = banner("6.9.9")
    image[4096:8192] = bytes(4096)
    place = (1 << 20) - 20
    image[place : place + len(text)] = text
    path = write(bytes(image))
    assert read_kernel(path).version == "6.9.9"
    monkeypatch.setattr(module, "MAX_SEARCHED", 1 << 19)
    assert read_kernel(path).version is None


def test_takes_no_format_string_for_a_version(write: Write) -> None:
    image = arm64_image().replace(banner("6.1.0-test"), b"Linux version %s (%s) ".ljust(1))
    assert read_kernel(write(image.ljust(8192, b"\0"))).version is None


KINDS = "bzImage, zImage, Image, Image.gz, EFI zboot or vmlinux"
GRUB = b"MZ".ljust(60, b"\0") + b"\x40\0\0\0" + pe_header("x86_64")
PROGRAM = (
    b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    + struct.pack("<HHIQQQIHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 1)
).ljust(64, b"\0") + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty, expected a Linux kernel"),
        (
            b"#!/bin/sh\n",
            f"expected a Linux kernel ({KINDS}), "
            "found a file that begins with 23 21 2f 62 69 6e 2f 73",
        ),
        (
            GRUB,
            f"expected a Linux kernel ({KINDS}), "
            "found a file that begins with 4d 5a 00 00 00 00 00 00",
        ),
        (
            PROGRAM,
            f"expected a Linux kernel ({KINDS}), "
            "found a file that begins with 7f 45 4c 46 02 01 01 00",
        ),
        (
            bzimage()[:0x263],
            f"expected a Linux kernel ({KINDS}), "
            "found a file that begins with 4d 5a 00 00 00 00 00 00",
        ),
        (
            compress(b"some text", "gzip"),
            f"expected a Linux kernel within its gzip compression ({KINDS}), "
            "found a file that begins with 73 6f 6d 65 20 74 65 78",
        ),
        (
            compress(arm64_image(), "gzip")[:-9],
            "ends early, in the middle of its gzip data",
        ),
    ],
)
def test_no_kernel(write: Write, data: bytes, message: str) -> None:
    path = write(data)
    with pytest.raises(FormatError) as caught:
        read_kernel(path)
    assert caught.value.message == f"{path}: {message}"
    assert caught.value.hint


VALID = [
    bzimage(size=1500),
    arm64_image(size=4400),
    arm_zimage(True, size=300),
    zboot_image(),
    vmlinux(),
    compress(arm64_image(), "gzip"),
    PROGRAM,
]


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(VALID),
    st.one_of(st.integers(0, 100), st.integers(0x1F0, 0x270)),
    st.binary(max_size=12),
    st.integers(0, 1500),
)
def test_only_format_errors(write: Write, valid: bytes, place: int, junk: bytes, end: int) -> None:
    bent = valid[:place] + junk + valid[place + len(junk) :]
    for data in (junk, bent, bent[:end]):
        path = write(data)
        try:
            found = read_kernel(path)
        except FormatError as error:
            assert error.message.startswith(f"{path}: ")
        else:
            assert found.machine

"""Loader binaries are found where systems keep them; GRUB's images are made the same each time."""

from __future__ import annotations

import copy
import os
import shutil
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.pe import is_signed
from catalyst_pxeboot.loader import binaries as loaders
from catalyst_pxeboot.loader import grub_image
from catalyst_pxeboot.loader.binaries import FoundLoader, MissingLoader, find_loaders, read_version
from catalyst_pxeboot.loader.grub_image import GrubImage, grub_argv, grub_modules, make_grub_image
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.render.menu import render_grub_early
from catalyst_pxeboot.util.errors import CommandError
from catalyst_pxeboot.util.resources import read_table

PC = {"i386-pc": "core.0"}
NEEDED = ("configfile", "echo", "http", "linux", "net", "normal", "regexp", "test", "tftp")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the tables name one empty folder, and grub-mkimage be a program that is there."""
    folder = tmp_path / "system"
    folder.mkdir()
    table = copy.deepcopy(read_table("loader/binaries.toml"))
    for name, loader in table.items():
        loader["folders"] = [[str(folder)]] if name == "shim" else [str(folder)]
    monkeypatch.setattr(loaders, "read_table", lambda _name: table)
    monkeypatch.setattr(grub_image, "find_program", lambda name: Path("/usr/bin") / name)
    monkeypatch.setattr(loaders, "run", lambda _argv: b"grub-mkimage (GRUB) 2.06-13+deb12u2\n")
    return folder


def put(folder: Path, *names: str, content: bytes = b"") -> None:
    """Put files into `folder`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def program(*, signature: int = 8, bits: int = 64, content: bytes = b"") -> bytes:
    """Make a UEFI program's headers, `content` and a signature of so many bytes."""
    directories = 112 if bits == 64 else 96
    header = bytearray(64 + 24 + directories + 16 * 8)
    header[:2] = b"MZ"
    struct.pack_into("<I", header, 60, 64)
    header[64:68] = b"PE\0\0"
    struct.pack_into("<H", header, 64 + 24, 0x20B if bits == 64 else 0x10B)
    if signature:
        place = len(header) + len(content)
        struct.pack_into("<II", header, 64 + 24 + directories + 4 * 8, place, signature)
    return bytes(header) + content + bytes(signature)


def find(
    platforms: dict[str, str], *wanted: Loader, search: Sequence[Path] = ()
) -> loaders.Loaders:
    return find_loaders(platforms, loaders=wanted, search=search)


def test_ipxe_by_platform(system: Path) -> None:
    put(system, "undionly.kpxe", "ipxe.efi", "snponly.efi", "ipxe-arm64.efi")
    put(system, "i386/ipxe.efi")
    found = find({"i386-pc": "core.0", "x86_64-efi": "core.efi"}, Loader.IPXE)
    assert [(file.path, file.origin) for file in found.found] == [
        ("ipxe.efi", system / "ipxe.efi"),
        ("snponly.efi", system / "snponly.efi"),
        ("undionly.kpxe", system / "undionly.kpxe"),
    ]
    assert found.missing == ()

    arm = find({"arm64-efi": "core.efi"}, Loader.IPXE)
    assert [file.path for file in arm.found] == ["ipxe-arm64.efi"]
    assert arm.missing == (
        MissingLoader("snponly-arm64.efi", Loader.IPXE, "sys-boot/ipxe", "ipxe"),
    )
    ia32 = find({"i386-efi": "core.efi"}, Loader.IPXE)
    assert [file.path for file in ia32.found] == ["ipxe-i386.efi"]
    assert ia32.missing == ()


def test_the_users_folders_come_first(system: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    put(system, "undionly.kpxe", content=b"system")
    put(own, "undionly.kpxe", content=b"own")
    (found,) = find(PC, Loader.IPXE, search=[tmp_path / "absent", own]).found
    assert found.origin == own / "undionly.kpxe"


def test_pxelinux_and_what_it_lacks(system: Path) -> None:
    put(system, "pxelinux.0", content=b"\0\r\nPXELINUX 6.04 PXE 20200816 \0")
    put(system, "ldlinux.c32", "menu.c32", "libutil.c32", "libcom32.c32", "reboot.c32")
    found = find(PC, Loader.PXELINUX)
    assert [(file.path, file.version) for file in found.found] == [
        ("ldlinux.c32", None),
        ("libcom32.c32", None),
        ("libutil.c32", None),
        ("menu.c32", None),
        ("pxelinux.0", "6.04"),
        ("reboot.c32", None),
    ]
    assert [(file.path, file.gentoo, file.debian) for file in found.missing] == [
        ("poweroff.c32", "sys-boot/syslinux", "pxelinux syslinux-common")
    ]
    assert find({"arm64-efi": "core.efi"}, Loader.PXELINUX) == loaders.Loaders((), ())


def test_grub_is_found_as_an_image_to_make(system: Path) -> None:
    put(system / "i386-pc", "moddep.lst")
    put(system / "x86_64-efi", "normal.mod")  # without its list of modules: not whole
    found = find({"i386-pc": "core.0", "x86_64-efi": "core.efi"}, Loader.GRUB)
    assert found.found == (
        FoundLoader(
            "boot/grub/i386-pc/core.0",
            Loader.GRUB,
            GrubImage("i386-pc", system / "i386-pc"),
            "2.06-13+deb12u2",
        ),
    )
    assert [(file.path, file.gentoo, file.debian) for file in found.missing] == [
        ("boot/grub/x86_64-efi/core.efi", "sys-boot/grub", "grub-efi-amd64-bin")
    ]


def test_grub_without_its_tool_is_missing(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(system / "i386-pc", "moddep.lst")
    monkeypatch.setattr(grub_image, "find_program", lambda _name: None)
    found = find(PC, Loader.GRUB)
    assert found.found == ()
    assert [file.path for file in found.missing] == ["boot/grub/i386-pc/core.0"]


def test_only_what_was_asked_for(system: Path) -> None:
    put(system, "undionly.kpxe", "pxelinux.0")
    put(system / "i386-pc", "moddep.lst")
    assert find(PC) == loaders.Loaders((), ())
    assert {file.loader for file in find(PC, Loader.GRUB).found} == {Loader.GRUB}


SBAT = b"""sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md
shim,4,UEFI shim,shim,1,https://github.com/rhboot/shim
shim.debian,1,Debian,shim,16.1,https://tracker.debian.org/pkg/shim
"""


def test_a_signed_shim_and_its_grub(system: Path) -> None:
    put(system, "shimx64.efi.signed", content=program(content=SBAT))
    put(system, "grubnetx64.efi.signed", content=program())
    put(system, "grubx64.efi.signed", content=program())  # the one for disks
    put(system, "shimx64.efi", "shimaa64.efi", "grubnetaa64.efi.signed", content=program())
    found = find({"x86_64-efi": "core.efi"}, Loader.GRUB).found
    assert found == (
        FoundLoader("grubx64.efi", Loader.GRUB, system / "grubnetx64.efi.signed", None),
        FoundLoader("shimx64.efi", Loader.GRUB, system / "shimx64.efi.signed", "16.1"),
    )
    put(system, "mmaa64.efi", content=program())
    found = find({"arm64-efi": "core.efi"}, Loader.GRUB).found
    assert [file.path for file in found] == ["grubaa64.efi", "mmaa64.efi", "shimaa64.efi"]
    assert find({"x86_64-efi": "core.efi"}, Loader.IPXE).found == ()
    assert find(PC, Loader.GRUB).found == ()


@pytest.mark.parametrize("damage", ["no grub", "no shim", "unsigned grub", "unsigned shim"])
def test_shim_and_grub_only_together_and_signed(system: Path, damage: str) -> None:
    what, name = damage.split()
    names = {"shim": "BOOTIA32.EFI", "grub": "grubia32.efi"}
    put(system, *names.values(), "mmia32.efi", content=program(bits=32))
    assert len(find({"i386-efi": "core.efi"}, Loader.GRUB).found) == 3
    (system / names[name]).unlink()
    if what == "unsigned":
        put(system, names[name], content=program(signature=0, bits=32))
    found = find({"i386-efi": "core.efi"}, Loader.GRUB)
    assert found.found == ()
    # Nobody needs them but for Secure Boot, so their absence is not told.
    assert [file.path for file in found.missing] == ["boot/grub/i386-efi/core.efi"]


def test_shim_and_grub_are_of_one_vendor(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, own = (tmp_path / name for name in ("one", "other", "own"))
    table = copy.deepcopy(read_table("loader/binaries.toml"))
    table["grub"]["folders"] = []
    table["shim"]["folders"] = [[str(one)], [str(other)]]
    monkeypatch.setattr(loaders, "read_table", lambda _name: table)
    put(one, "shimx64.efi.signed", "mmx64.efi.signed", content=program())
    put(other, "grubx64.efi", content=program())
    assert find({"x86_64-efi": "core.efi"}, Loader.GRUB).found == ()
    put(other, "shimx64.efi", content=program())
    found = find({"x86_64-efi": "core.efi"}, Loader.GRUB).found
    assert [file.origin for file in found] == [other / "grubx64.efi", other / "shimx64.efi"]
    # GRUB with the owner's own signature, and the shim of the build host
    put(own, "grubx64.efi", content=program())
    found = find({"x86_64-efi": "core.efi"}, Loader.GRUB, search=[own]).found
    assert [file.origin for file in found] == [
        own / "grubx64.efi", one / "mmx64.efi.signed", one / "shimx64.efi.signed",
    ]  # fmt: skip


def test_a_system_partition_that_may_not_be_read(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(system, "shimx64.efi", "grubx64.efi", content=program())
    assert len(find({"x86_64-efi": "core.efi"}, Loader.GRUB).found) == 2
    readable = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "shim" not in str(path) and readable(path, mode)
    )
    assert find({"x86_64-efi": "core.efi"}, Loader.GRUB).found == ()


@pytest.mark.parametrize(
    ("content", "signed"),
    [
        (program(), True),
        (program(bits=32), True),
        (program(signature=0), False),
        (program()[:-1], False),  # its end is missing
        (program()[:100], False),
        (b"MZ" + bytes(58) + b"\xff\xff\xff\xff" + bytes(200), False),
        (b"\x7fELF", False),
        (b"", False),
    ],
)
def test_signatures(tmp_path: Path, content: bytes, signed: bool) -> None:
    file = tmp_path / "program.efi"
    file.write_bytes(content)
    assert is_signed(file) is signed


def test_grub_mkimage_command_line() -> None:
    argv = grub_argv(
        Path("/usr/bin/grub-mkimage"),
        "i386-pc",
        Path("/usr/lib/grub/i386-pc"),
        Path("/x/early.cfg"),
        Path("/x/image"),
        ["boot", "linux"],
    )
    assert argv == [
        "/usr/bin/grub-mkimage",
        "--directory=/usr/lib/grub/i386-pc",
        "--format=i386-pc-pxe",
        "--prefix=/boot/grub",
        "--config=/x/early.cfg",
        "--output=/x/image",
        "boot",
        "linux",
    ]
    efi = grub_argv(Path("g"), "arm64-efi", Path("m"), Path("c"), Path("o"), [])
    assert efi[2] == "--format=arm64-efi"


def test_grub_modules_are_those_that_are_there() -> None:
    present = {*NEEDED, "pxe", "biosdisk", "efinet", "cpuid", "gfxterm", "boot", "fdt"}
    assert grub_modules("i386-pc", present) == tuple(
        sorted({*NEEDED, "pxe", "biosdisk", "cpuid", "boot", "fdt"})
    )
    assert grub_modules("arm64-efi", present) == tuple(sorted({*NEEDED, "efinet", "boot", "fdt"}))


def test_grub_without_a_needed_module_is_an_error() -> None:
    with pytest.raises(CommandError) as caught:
        grub_modules("i386-pc", set(NEEDED) - {"http", "regexp"})
    assert str(caught.value) == (
        "GRUB for i386-pc lacks the modules http regexp;"
        " install all of its package, or leave grub out of pxeboot/loaders"
    )


def test_making_an_image_without_the_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub_image, "find_program", lambda _name: None)
    with pytest.raises(CommandError) as caught:
        make_grub_image("i386-pc", tmp_path, "")
    assert str(caught.value) == (
        "grub-mkimage is missing; install sys-boot/grub (Debian: grub-common)"
    )


@pytest.mark.parametrize(
    ("loader", "content", "version"),
    [
        (Loader.PXELINUX, b"..PXELINUX 6.03 lwIP 20171017\0", "6.03"),
        (Loader.PXELINUX, b"\x7fELF..", None),
        (Loader.IPXE, b"\0iPXE/1.21.1+ (g988d2)\0", "1.21.1+ (g988d2)"),
        (Loader.IPXE, b"\0iPXE/%s\0x\x002.0.0+ (g0ab2)\0", "2.0.0+ (g0ab2)"),
        (Loader.IPXE, "\0snponly.efi\x001.0.0+git-20190125.36a4c85-5.1\0".encode("utf-16-le"),
         "1.0.0+git-20190125.36a4c85-5.1"),
        (Loader.IPXE, b"compressed", None),
        (Loader.GRUB, b"\0GRUB version 2.12\0", "2.12"),
        (Loader.GRUB, b"sbat,1,SBAT Version,sbat,1,u\ngrub,4,FSF,grub,2.06,u\n"
         b"grub.debian,5,Debian,grub2,2.06-13+deb12u2,u\n\0", "2.06-13+deb12u2"),
    ],
)  # fmt: skip
def test_versions(tmp_path: Path, loader: Loader, content: bytes, version: str | None) -> None:
    file = tmp_path / "binary"
    file.write_bytes(content)
    assert read_version(loader, file) == version


def test_grub_images_are_the_same_each_time() -> None:
    root = Path("/usr/lib/grub")
    platforms = [
        platform
        for platform in ("i386-pc", "x86_64-efi")
        if (root / platform / "moddep.lst").is_file()
    ]
    if not platforms or shutil.which("grub-mkimage") is None:
        pytest.skip(f"needs grub-mkimage and GRUB's modules in {root}")
    early = render_grub_early(None)

    def make() -> list[bytes]:
        return [make_grub_image(platform, root / platform, early) for platform in platforms]

    first = make()
    time.sleep(1.1)  # a time stamp would show
    assert make() == first
    for platform, image in zip(platforms, first, strict=True):
        # BIOS images are compressed, so only an EFI one shows what it holds.
        assert platform == "i386-pc" or early.encode() in image

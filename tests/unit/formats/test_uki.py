"""Unified kernel images: sections in, the same sections out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pefile
import pytest

from catalyst_pxeboot.formats.uki import make_uki, read_sections
from catalyst_pxeboot.util.errors import FormatError
from tests.support.efi import efi_program

SECTIONS = {".cmdline": b"a=b", ".initrd": b"i" * 5000, ".linux": b"MZ" + b"k" * 70_000}
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


def test_what_goes_in_comes_out() -> None:
    stub = efi_program()
    made = make_uki(stub, SECTIONS, where="stub")
    assert (
        read_sections(made, where="x")
        == {".text": read_sections(stub, where="x")[".text"]} | SECTIONS
    )
    assert make_uki(stub, SECTIONS, where="stub") == made


@pytest.mark.parametrize("tail", [b"", b"symbols", b"s" * 5000])
def test_sections_lie_apart_in_memory_and_without_a_gap_in_the_file(tail: bytes) -> None:
    """Firmware hashes nothing between two sections: there a signed image could be changed."""
    image = pefile.PE(data=make_uki(efi_program() + tail, SECTIONS, where="stub"))
    end, address = image.OPTIONAL_HEADER.SizeOfHeaders, 0
    for section in image.sections:
        assert section.PointerToRawData == end and section.VirtualAddress >= address
        end = section.PointerToRawData + section.SizeOfRawData
        address = section.VirtualAddress + section.Misc_VirtualSize
    assert end == len(image.__data__)
    assert image.OPTIONAL_HEADER.SizeOfImage >= address
    assert [section.VirtualAddress % 0x10000 for section in image.sections[1:]] == [0, 0, 0]


def test_a_stub_that_was_cut_short_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^stub: it ends before its last section"):
        make_uki(efi_program()[:-1], SECTIONS, where="stub")


@pytest.mark.parametrize("stub", [b"", b"MZ", bytes(4096), efi_program()[:100]])
def test_what_is_no_program_is_refused(stub: bytes) -> None:
    with pytest.raises(FormatError, match=r"^stub: not a UEFI program"):
        make_uki(stub, SECTIONS, where="stub")
    with pytest.raises(FormatError, match=r"^stub: not a UEFI program"):
        read_sections(stub, where="stub")


def test_a_header_without_room_is_refused() -> None:
    with pytest.raises(FormatError, match="no room for 3 sections more"):
        make_uki(efi_program(room=0), SECTIONS, where="stub")


@pytest.mark.skipif(not STUB.exists(), reason="systemd's stub is missing (systemd-boot-efi)")
def test_other_programs_read_it_alike(tmp_path: Path) -> None:
    made = tmp_path / "made.efi"
    made.write_bytes(make_uki(STUB.read_bytes(), SECTIONS, where="stub"))
    if shutil.which("objcopy") is None:
        pytest.skip("objcopy is missing (binutils)")
    for name, content in SECTIONS.items():
        out = tmp_path / "out"
        subprocess.run(
            ["objcopy", "--dump-section", f"{name}={out}", made, tmp_path / "copy"], check=True
        )
        assert out.read_bytes() == content

"""The table's runner."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalyst_pxeboot.lab.paths import PATHS, BootPath
from tests.boot import table as boottable
from tests.support.boot_paths import find_paths


def test_rows_of_a_new_ipxe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert boottable.choose_rows(["1", "6"], None) == find_paths(["1", "6"])
    (tmp_path / "undionly.kpxe").touch()
    monkeypatch.setattr(boottable, "NEW_IPXE", str(tmp_path))
    names = [path.name for path in boottable.choose_rows(["1", "6"], None)]
    assert names == ["bios-ipxe", "x64-http-grub", "x64-http-ipxe", "bios-ipxe-new"]
    assert [path.name for path in boottable.choose_rows(["1", "6"], 4)] == ["x64-http-grub"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_path_has_a_fault(path: BootPath, tmp_path: Path) -> None:
    fault = boottable.fault_of(path)
    good = tmp_path / "good"
    (good / fault.file).parent.mkdir(parents=True)
    (good / fault.file).write_bytes(bytes(200))
    for _ in range(2):
        broken = boottable.break_tree(good, fault, tmp_path / "broken")
    assert (good / fault.file).read_bytes() == bytes(200)
    if fault.removed:
        assert not (broken / fault.file).exists()
    else:
        expected = bytearray(200)
        expected[fault.at] = 0xFF
        assert (broken / fault.file).read_bytes() == expected


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("bios-ipxe", "This did not work: gentoo. The reason is above."),
        ("bios-pxelinux", "Loading boot/gentoo.igz..Loading boot/gentoo.igz....failed:failed:  No"),
        ("x64-grub", "This did not work; the reason is above. Files are fetched from (tftp,"),
        ("x64-secure-grub", "error: ../../grub-core/kern/efi/sb.c:182:bad shim signature."),
        ("arm64-uboot", "TFTP error: 'file /run/tree/boot/gentoo.initrd not found' (1)"),
    ],
)
def test_complaints(row: str, line: str) -> None:
    (path,) = find_paths([row])
    assert boottable.fault_of(path).complaint.search(line)

"""The table of paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catalyst_pxeboot.lab.machine import MACHINES
from catalyst_pxeboot.lab.network import Subnet
from catalyst_pxeboot.lab.paths import PATHS, BootPath, choose_paths, parse_firmware, parse_loaders
from catalyst_pxeboot.lab.servers import Site, choose_loader
from catalyst_pxeboot.model.arch import all_arches
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import PxebootError
from tests.support.boot_paths import find_paths, rotate_paths
from tests.support.lab import LPXELINUX, ROW_1, ROW_6


def test_paths_cover_the_clients() -> None:
    assert [path.number for path in PATHS] == sorted(path.number for path in PATHS)
    assert {path.number for path in PATHS} == set(range(1, 15))
    assert len({path.name for path in PATHS}) == len(PATHS)
    assert {path.machine.name for path in PATHS} == MACHINES.keys()


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path.named_by_dhcp], ids=lambda path: path.name
)
def test_every_path_begins_with_a_loader_that_dhcp_may_name(path: BootPath) -> None:
    if path.loader is Loader.UKI:
        return  # named after a kernel of the tree
    for name in path.arches:
        (arch,) = (arch for arch in all_arches() if arch.name == name)
        for client in arch.dhcp:
            names = client.http_loaders if path.http_boot else client.loaders
            if path.boot_file in names:
                break
        else:
            pytest.fail(f"arch.toml, {name}: no client is offered {path.boot_file}")


def test_a_path_says_what_it_is() -> None:
    assert (ROW_1.boot_file, ROW_1.script) == ("undionly.kpxe", "boot.ipxe")
    assert (ROW_1.http_boot, ROW_1.http_prefix, ROW_1.disguised) == (False, False, True)
    assert (ROW_6.http_boot, ROW_6.http_prefix, ROW_6.disguised) == (True, False, False)
    assert (LPXELINUX.script, LPXELINUX.http_prefix) == ("", True)


def test_u_boot_is_told_nothing_by_dhcp() -> None:
    (path,) = find_paths(["arm64-uboot"])
    whole = Site("dhcp-boot=tag:arm64,snponly-arm64.efi\n", Subnet())
    assert choose_loader(whole, path) == whole


def test_find_paths_by_number_and_name() -> None:
    assert [path.name for path in find_paths(["x64-grub", "2"])] == [
        "bios-pxelinux",
        "bios-lpxelinux",
        "x64-grub",
    ]
    with pytest.raises(PxebootError) as caught:
        find_paths(["x64-grubb"])
    assert caught.value.message == "no path of the table is 'x64-grubb' (did you mean 'x64-grub'?)"


def test_where_the_user_network_can_stand_in() -> None:
    """Its server names one file to every asker, by TFTP; iPXE on UEFI starts from a disk."""
    assert [(path.name, path.entry) for path in PATHS if path.is_simple] == [
        ("bios-ipxe", "boot.ipxe"),
        ("bios-pxelinux", "pxelinux.0"),
        ("bios-grub", "boot/grub/i386-pc/core.0"),
        ("x64-ipxe", "boot.ipxe"),
        ("x64-grub", "boot/grub/x86_64-efi/core.efi"),
        ("ia32-grub", "boot/grub/i386-efi/core.efi"),
        ("x86-bios-ipxe", "boot.ipxe"),
        ("x86-bios-pxelinux", "pxelinux.0"),
        ("x86-bios-grub", "boot/grub/i386-pc/core.0"),
        ("arm64-grub", "boot/grub/arm64-efi/core.efi"),
        ("arm-grub", "boot/grub/arm-efi/core.efi"),
        ("x64-uki", "boot/gentoo.efi"),
    ]


def test_choose_paths() -> None:
    def names(arch: str, firmware: str = "", loaders: str = "") -> list[str]:
        chosen = choose_paths(
            PATHS,
            arch=arch,
            firmware=parse_firmware(firmware) if firmware else (),
            loaders=parse_loaders(loaders) if loaders else (),
        )
        return [path.name for path in chosen]

    assert names("amd64", loaders="pxelinux") == [
        "bios-pxelinux", "bios-lpxelinux", "proxy-bios-pxelinux",
    ]  # fmt: skip
    assert names("x86", "uefi") == names("x86", "efi") == ["ia32-grub"]
    assert names("amd64", "uefi-ia32, uefi-x64", "grub") == [
        "x64-grub", "x64-http-grub", "x64-secure-grub", "ia32-grub", "proxy-x64-grub",
    ]  # fmt: skip
    assert names("arm64", "uefi-arm64", "ipxe,uboot") == ["arm64-ipxe"]
    assert names("arm", "uefi-arm") == ["arm-grub"]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (
            parse_firmware,
            "bios,uefi-x86",
            "--firmware: 'uefi-x86' is none of bios, uefi, efi, uefi-x64, uefi-ia32, uefi-arm64, "
            "uefi-arm (did you mean 'uefi-x64'?); give one or more of them, with commas between",
        ),
        (
            parse_firmware,
            "bios,",
            "--firmware: '' is none of bios, uefi, efi, uefi-x64, uefi-ia32, uefi-arm64, uefi-arm; "
            "give one or more of them, with commas between",
        ),
        (
            parse_loaders,
            "lilo",
            "--loader: 'lilo' is none of ipxe, pxelinux, grub, uboot, uki; give one or more of"
            " them, with commas between",
        ),
    ],
)
def test_words_that_choose_no_path(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(PxebootError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_three_runs_cover_every_path() -> None:
    parts = [rotate_paths(PATHS, run) for run in (3, 4, 5)]
    assert sorted(path.name for part in parts for path in part) == sorted(
        path.name for path in PATHS
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert rotate_paths(PATHS, 0) == parts[0]

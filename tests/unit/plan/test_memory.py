"""What an entry asks of a client: estimates beside measurements, room below 2 GiB, TFTP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.initramfs import Generator, Initramfs
from catalyst_pxeboot.formats.kernel import Kernel
from catalyst_pxeboot.loader.binaries import Loaders
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan.entries import plan_live
from catalyst_pxeboot.plan.memory import least_memory
from catalyst_pxeboot.plan.summary import menu_entries
from catalyst_pxeboot.plan.transport import (
    BIOS_INITRD_END,
    TFTP_BLOCK,
    TFTP_BLOCKS,
    TFTP_PLAIN_BLOCK,
    find_warnings,
    fits_bios,
    tftp_blocks,
)
from catalyst_pxeboot.plan.tree import plan_tree
from catalyst_pxeboot.render.limits import limit_lines, limit_warnings
from catalyst_pxeboot.source.image import read_source
from catalyst_pxeboot.spec.parse import parse_settings
from tests.support import builders
from tests.support.readers import read_kernel
from tests.support.stage2 import release_settings, storedir_stage2, write_stage2

MIB = 1 << 20
BIOS, EFI = Firmware.BIOS, Firmware.EFI
EMBEDDED, HTTP, NFS = RootMode.EMBEDDED, RootMode.HTTP, RootMode.NFS


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """Return a kernel as Debian's 6.1 for cloud machines, which was measured."""
    path = tmp_path / "gentoo"
    path.write_bytes(builders.bzimage(init_size=53_968_896, size=14_186_432))
    return read_kernel(path)


def initramfs(packed: float, unpacked: float) -> Initramfs:
    return Initramfs(
        path=Path("gentoo.igz"),
        bytes=int(packed * MIB),
        generator=Generator.DRACUT,
        version="059",
        modules=(),
        drivers=frozenset(),
        compression=Compression.ZSTD,
        unpacked_bytes=int(unpacked * MIB),
        loop_wo_mount=False,
        fetcher=False,
        hasher=False,
        hooks=None,
        splash=False,
    )


DRACUT = initramfs(10.19, 27.76)
GENKERNEL = initramfs(1.16, 2.54)

#: The least -m of QEMU at which the live root printed its token, found to 4 MiB.
MEASURED = [
    (DRACUT, EMBEDDED, Loader.IPXE, BIOS, 33, 176),
    (DRACUT, EMBEDDED, Loader.IPXE, BIOS, 129, 372),
    (DRACUT, EMBEDDED, Loader.IPXE, BIOS, 321, 764),
    (DRACUT, EMBEDDED, Loader.PXELINUX, BIOS, 129, 372),
    (DRACUT, EMBEDDED, Loader.GRUB, BIOS, 129, 372),
    (DRACUT, EMBEDDED, Loader.GRUB, EFI, 33, 248),
    (DRACUT, EMBEDDED, Loader.GRUB, EFI, 129, 432),
    (DRACUT, EMBEDDED, Loader.GRUB, EFI, 321, 776),
    # Here chance decides (limits.py): it booted with 452 once, and failed with 559 in 1 of 8.
    (DRACUT, EMBEDDED, Loader.IPXE, EFI, 129, 560),
    (GENKERNEL, EMBEDDED, Loader.IPXE, BIOS, 33, 140),
    (GENKERNEL, EMBEDDED, Loader.IPXE, BIOS, 129, 336),
    (GENKERNEL, EMBEDDED, Loader.IPXE, BIOS, 321, 732),
    # Over the network it was found to 30 MiB (HTTP) and 16 MiB (NFS) only: what passed.
    (initramfs(19.47, 57.41), HTTP, Loader.IPXE, BIOS, 33, 200),
    (initramfs(19.47, 57.41), HTTP, Loader.IPXE, BIOS, 129, 300),
    (initramfs(19.47, 57.41), HTTP, Loader.IPXE, BIOS, 321, 490),
    (initramfs(2.0, 6.31), NFS, Loader.IPXE, BIOS, 129, 88),
]


@pytest.mark.parametrize(("image", "mode", "loader", "firmware", "squashfs", "least"), MEASURED)
def test_the_estimate_is_enough_and_not_much_more(
    kernel: Kernel,
    image: Initramfs,
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    squashfs: int,
    least: int,
) -> None:
    found = least_memory(
        mode, loader, firmware, kernel=kernel, initramfs=image, squashfs=squashfs * MIB
    )
    assert found % MIB == 0
    assert least <= found // MIB <= least + max(48, least * 0.15)


#: A streamed root, with an initramfs of the release specs' arguments: MiB of squashfs, least -m,
#: found to 16 MiB.
STREAMED = [(154, 256), (1046, 256)]


@pytest.mark.parametrize(("squashfs", "least"), STREAMED)
def test_the_estimate_for_a_streamed_root(kernel: Kernel, squashfs: int, least: int) -> None:
    found = least_memory(
        RootMode.STREAM, Loader.IPXE, BIOS, kernel=kernel, initramfs=initramfs(30.14, 86.2),
        squashfs=squashfs * MIB, addon=int(11.05 * MIB),
    )  # fmt: skip
    assert least <= found // MIB <= least + max(48, least * 0.15)


def test_the_estimate_for_a_unified_kernel_image(kernel: Kernel) -> None:
    """By UEFI HTTP Boot from OVMF; with 240 MiB the stub had no room for the initrds."""
    least = 248
    found = least_memory(
        RootMode.STREAM, Loader.UKI, EFI, kernel=kernel, initramfs=initramfs(30.14, 86.2),
        squashfs=33 * MIB, addon=int(11.14 * MIB),
    )  # fmt: skip
    assert least <= found // MIB <= least + max(48, least * 0.15)


def test_a_root_over_the_network_needs_less(kernel: Kernel) -> None:
    def need(mode: RootMode, squashfs: int) -> int:
        return least_memory(
            mode, Loader.IPXE, BIOS, kernel=kernel, initramfs=DRACUT, squashfs=squashfs * MIB
        )

    assert need(EMBEDDED, 700) > need(HTTP, 700) > need(NFS, 700)
    assert need(NFS, 700) == need(NFS, 7000)


@pytest.mark.parametrize(("over", "fits"), [(0, True), (1, False)])
def test_room_on_a_bios(kernel: Kernel, over: int, fits: bool) -> None:
    room = BIOS_INITRD_END - (16 * MIB + (kernel.init_size or 0))
    assert fits_bios(kernel, room + over) is fits


@pytest.mark.parametrize(
    ("count", "blocks"), [(0, 1), (511, 1), (512, 2), (65_535 * 512 - 1, 65_535)]
)
def test_tftp_blocks(count: int, blocks: int) -> None:
    """The last block is short, so that the client knows it (RFC 1350, 6)."""
    assert tftp_blocks(count, 512) == blocks


def test_warnings_tell_what_depends(kernel: Kernel) -> None:
    def warn(loader: Loader, firmware: tuple[Firmware, ...], count: int) -> list[str]:
        return list(find_warnings(loader, firmware, kernel=kernel, initrds=count, largest=count))

    plain, usual = TFTP_BLOCKS * TFTP_PLAIN_BLOCK, TFTP_BLOCKS * TFTP_BLOCK
    assert warn(Loader.GRUB, (EFI,), plain - 1) == []
    assert warn(Loader.GRUB, (EFI,), plain) == [
        "by TFTP the largest file, 32.0 MiB, needs blocks of more than 512 bytes (blksize), or a"
        " server that goes on at block 0 after 65535"
    ]
    assert warn(Loader.GRUB, (EFI,), usual) == [
        "by TFTP the largest file, 91.7 MiB, needs a server that goes on at block 0 after 65535"
        " (91.7 MiB in blocks of 1468 bytes); by HTTP there is no limit"
    ]
    assert warn(Loader.GRUB, (BIOS, EFI), 2048 * MIB)[0] == (
        "on a BIOS 2.0 GiB of initrds do not fit below 2 GiB, where loaders put them"
    )
    assert len(warn(Loader.GRUB, (EFI,), 2048 * MIB)) == 1


def test_pxelinux_is_left_out_where_nothing_fits_below_2_gib(tmp_path: Path) -> None:
    stage2 = storedir_stage2(tmp_path)
    write_stage2(stage2)
    with (stage2 / "image.squashfs").open("r+b") as stream:
        stream.truncate(2048 * MIB)
    planned = plan_live(parse_settings(release_settings(tmp_path)), read_source(stage2))
    assert planned.entries[0].offered == (Loader.IPXE, Loader.GRUB)
    assert planned.left_out == (
        "gentoo, by pxelinux: it runs on a BIOS, where 2.0 GiB of initrds do not fit below 2 GiB",
    )


def test_table_has_a_line_for_each_way_not_for_each_entry(tmp_path: Path) -> None:
    stage2 = storedir_stage2(tmp_path)
    write_stage2(stage2)
    plan = plan_tree(
        parse_settings(release_settings(tmp_path)), read_source(stage2), Loaders((), ())
    )
    entries = menu_entries(plan)
    assert len(entries) == 2
    lines = limit_lines(entries)
    assert lines[0] == "kernel  root      loader    memory, BIOS  memory, UEFI  over the wire"
    assert [line.split()[:3] for line in lines[1:]] == [
        ["gentoo", "embedded", loader] for loader in ("ipxe", "pxelinux", "grub")
    ]
    assert list(limit_warnings(entries)) == []
    one, other = (dict(entry.limits or {}) for entry in entries)
    one[Loader.GRUB] = replace(one[Loader.GRUB], warnings=("x",))
    other[Loader.IPXE] = replace(other[Loader.IPXE], warnings=("x",))
    entries = (replace(entries[0], limits=one), replace(entries[1], limits=other))
    assert list(limit_warnings(entries)) == ["grub, ipxe: x"]

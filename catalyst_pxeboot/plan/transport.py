"""Whether an entry's files get to a client: room below 2 GiB, TFTP's block numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from catalyst_pxeboot.formats.kernel import Kernel
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.util.text import size

#: The highest address at which loaders on a BIOS put an initrd where the kernel's header does not
#: tell (initrd_addr_max, Documentation/arch/x86/boot.rst): every kernel since 2002 says this.
BIOS_INITRD_END: Final = 0x7FFF_FFFF

#: Where the kernel itself lies (pref_address), below which no loader puts an initrd.
_KERNEL_START: Final = 16 << 20
_INIT_SIZE: Final = 64 << 20  # bytes of a kernel whose header does not tell

#: TFTP numbers its blocks with 16 bits (RFC 1350). At Ethernet's usual block size a file of more
#: than this wraps the number. iPXE, PXELINUX and GRUB since 2.06 go on at 0; so do dnsmasq and
#: tftp-hpa, but not every server.
TFTP_BLOCKS: Final = 65_535
TFTP_BLOCK: Final = 1_468  # bytes: 1500 of Ethernet without the headers of IP, UDP and TFTP
TFTP_PLAIN_BLOCK: Final = 512  # bytes, where client or server knows no blksize (RFC 2348)


def fits_bios(kernel: Kernel, initrds: int) -> bool:
    """Say whether a loader on a BIOS finds room for `initrds` bytes beside the kernel."""
    start = _KERNEL_START + (kernel.init_size or _INIT_SIZE)
    return start + initrds <= (kernel.initrd_addr_max or BIOS_INITRD_END)


def tftp_blocks(count: int, block: int) -> int:
    """Return how many TFTP blocks of `block` bytes a file of `count` bytes takes (RFC 1350)."""
    return count // block + 1  # the last one is short, or empty


def find_warnings(
    loader: Loader, firmware: tuple[Firmware, ...], *, kernel: Kernel, initrds: int, largest: int
) -> Iterator[str]:
    """Yield what depends on the client or the server, each in a sentence.

    `initrds` are the bytes that the loader hands to the kernel, `largest` those of its largest
    file.
    """
    if (
        Firmware.BIOS in firmware
        and LOADERS[loader].initrds_below_2_gib
        and not fits_bios(kernel, initrds)
    ):
        yield (
            f"on a BIOS {size(initrds)} of initrds do not fit below 2 GiB, where loaders put them"
        )
    if tftp_blocks(largest, TFTP_BLOCK) > TFTP_BLOCKS:
        yield (
            f"by TFTP the largest file, {size(largest)}, needs a server that goes on at block 0"
            f" after {TFTP_BLOCKS} ({size(TFTP_BLOCKS * TFTP_BLOCK)} in blocks of {TFTP_BLOCK}"
            " bytes); by HTTP there is no limit"
        )
    elif tftp_blocks(largest, TFTP_PLAIN_BLOCK) > TFTP_BLOCKS:
        yield (
            f"by TFTP the largest file, {size(largest)}, needs blocks of more than"
            f" {TFTP_PLAIN_BLOCK} bytes (blksize), or a server that goes on at block 0 after"
            f" {TFTP_BLOCKS}"
        )

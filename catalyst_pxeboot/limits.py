"""What an entry asks of a client: memory, room below 4 GiB, TFTP. Pure.

The memory is an estimate from the parts, with constants that were measured: the least `-m` of QEMU
at which the live root's first process still runs (tests/bench/memory.py prints both). What then
runs in the live system needs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from catalyst_pxeboot.formats.initramfs import Initramfs
from catalyst_pxeboot.formats.kernel import Kernel
from catalyst_pxeboot.model import Firmware, Loader, RootMode
from catalyst_pxeboot.words import size

MIB: Final = 1 << 20

#: Bytes that the running kernel needs beside what it unpacks: itself (init_size of its header,
#: which is text, data and bss with room to move), and its first allocations. Measured with Linux
#: 6.1 (init_size 51.5 MiB): 69 to 73 MiB in all.
_KERNEL_MORE = 24 * MIB
_INIT_SIZE = 64 * MIB  # of an image whose header does not tell

#: What a page costs beside its content: 64 bytes of struct page to 4 KiB, and page tables.
#: Measured as the slope over the size of the squashfs: 1.021.
_PER_PAGE = 1.021

#: What UEFI firmware (OVMF) keeps for itself and its tables until the kernel runs, and what is
#: lost to it while the kernel unpacks. Measured: 72 MiB at 32 MiB of squashfs, less for more.
_FIRMWARE_KEEPS = 76 * MIB
#: What is taken while a loader still runs under UEFI: firmware, drivers, the loader's own.
_FIRMWARE_LOADS = 128 * MIB

#: More modules, daemons and buffers of an initramfs that brings the network up and fetches.
_NETWORK = 32 * MIB

#: The highest address at which loaders on a BIOS put an initrd: initrd_addr_max of the x86 boot
#: protocol (Documentation/arch/x86/boot.rst), 2 GiB - 1 since protocol 2.03.
BIOS_INITRD_END = 0x7FFF_FFFF
#: Where the kernel itself lies (pref_address), below which no loader puts an initrd.
_KERNEL_START = 16 * MIB

#: TFTP numbers its blocks with 16 bits (RFC 1350). At Ethernet's usual block size a file of more
#: than this wraps the number. iPXE, PXELINUX and GRUB since 2.06 go on at 0; so do dnsmasq and
#: tftp-hpa, but not every server, nor U-Boot before 2021.
TFTP_BLOCKS = 65_535
TFTP_BLOCK = 1_468  # bytes: 1500 of Ethernet without the headers of IP, UDP and TFTP
TFTP_PLAIN_BLOCK = 512  # bytes, where client or server knows no blksize (RFC 2348)


def least_memory(
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    *,
    kernel: Kernel,
    initramfs: Initramfs,
    squashfs: int,
) -> int:
    """Estimate the bytes of memory with which a client reaches the live root.

    `squashfs` is its size in bytes. The answer is of whole MiB.
    """
    init_size = kernel.init_size or _INIT_SIZE
    embedded = squashfs if mode is RootMode.EMBEDDED else 0
    blob = initramfs.bytes + embedded  # as the loader hands it over, freed when all is unpacked
    unpacked = initramfs.unpacked_bytes + embedded
    content = blob + unpacked
    if mode is RootMode.HTTP:
        # The blob is gone by the time the squashfs arrives.
        content = max(content, initramfs.unpacked_bytes + squashfs)
    running = init_size + _KERNEL_MORE + int(content * _PER_PAGE)
    if mode is not RootMode.EMBEDDED:
        running += _NETWORK
    if firmware is Firmware.EFI:
        running += _FIRMWARE_KEEPS
        copies = 2 if loader is Loader.IPXE else 1  # iPXE's own, and the kernel's EFI stub's
        loading = _FIRMWARE_LOADS + kernel.bytes + init_size + copies * blob
        running = max(running, loading)
    return -(-running // MIB) * MIB


def fits_bios(kernel: Kernel, initrds: int) -> bool:
    """Say whether a loader on a BIOS finds room for `initrds` bytes beside the kernel."""
    start = _KERNEL_START + (kernel.init_size or _INIT_SIZE)
    return start + initrds <= BIOS_INITRD_END


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
    if Firmware.BIOS in firmware and loader is not Loader.UBOOT and not fits_bios(kernel, initrds):
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

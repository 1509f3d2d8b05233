"""The least memory of a client: an estimate from the parts. Pure.

Figures said to be measured come from clients in QEMU 7.2 (SeaBIOS or OVMF, one processor), a Linux
6.1 and squashfs images of 32 to 320 MiB: the least `-m` at which the live root was reached.
tests/bench/memory.py measures again and compares; tests/test_needs.py keeps the figures.
"""

from __future__ import annotations

from typing import Final

from catalyst_pxeboot.formats.initramfs import Initramfs
from catalyst_pxeboot.formats.kernel import Kernel, KernelImage
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan.roots import ROOTS

_MIB: Final = 1 << 20


#: The kernel keeps 64 bytes (struct page) for each page of 4096: 64 / 63 of what is used.
_PAGE_TABLE: Final = (64, 63)


#: What runs before the live root's first process, beside the kernel and the files: slabs, page
#: tables, the initramfs's own processes. Measured: 20 to 30 MiB.
_SYSTEM: Final = 32 * _MIB


#: What UEFI's tables and runtime services keep of that (OVMF).
_EFI_SYSTEM: Final = 12 * _MIB


#: What OVMF and iPXE hold while the kernel's EFI stub runs, and memory below 21 MiB, which OVMF
#: keeps: 35 and 21 MiB by the kernel's own list of that moment (`efi=debug`), and what lies in the
#: midst of the free memory. With 32 MiB less, 1 boot of 8 failed.
_EFI_IPXE: Final = 91 * _MIB


def least_memory(
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    *,
    kernel: Kernel,
    initramfs: Initramfs,
    squashfs: int,
) -> int:
    """Return the bytes of memory, whole MiB, with which a client reaches its live root.

    `squashfs` is its size in bytes. The running system needs more. The estimate is the larger of
    two moments: the loader holds all that it fetched; the kernel unpacks it, or the initramfs
    fetches the root.
    """
    root = ROOTS[mode]
    embedded = squashfs if root.in_initrd else 0
    loaded = initramfs.bytes + embedded  # freed by the kernel when all of it is unpacked
    unpacked = initramfs.unpacked_bytes + embedded
    running = initramfs.unpacked_bytes + (squashfs if root.in_memory else 0)
    system = _kernel_memory(kernel) + _SYSTEM
    if firmware is Firmware.EFI:
        system += _EFI_SYSTEM
    system += root.network_memory
    most = max(loaded + unpacked, running)
    most += most // 100 + system  # a hundredth: the last page of each file, radix trees, folders
    numerator, denominator = _PAGE_TABLE
    needed = max(
        most * numerator // denominator,
        _loader_memory(
            loader, firmware, kernel, loaded, before=loaded - squashfs if embedded else 0
        ),
    )
    return -(-needed // _MIB) * _MIB


def _loader_memory(
    loader: Loader, firmware: Firmware, kernel: Kernel, loaded: int, *, before: int
) -> int:
    """Return what is taken when the loader is done, its firmware included.

    `before` are the bytes of the initrds before the last one.
    """
    resident = _kernel_memory(kernel)
    if firmware is not Firmware.EFI:
        return loaded + kernel.bytes + resident + 16 * _MIB
    if loader is Loader.GRUB:
        # OVMF keeps 108 MiB or so; GRUB's own pool is a quarter of what is free, so that small
        # machines fail below a fixed size.
        return max(2 * loaded + resident + 108 * _MIB, resident + 202 * _MIB)
    # iPXE keeps what it has fetched while the kernel's EFI stub makes a copy, in one piece; one of
    # what came before the last file is there as well then. Since 6.6 (and 6.1.84) the stub first
    # unpacks the kernel to a random address (KASLR), which cuts the free memory in two; it is sure
    # to suffice only where each half would hold the copy. Measured with 129 MiB: by luck from 452
    # on, with 514 in 8 boots of 10, with 559 in 7 of 8; with nokaslr from 2 * loaded.
    files = 3 * loaded + before + 2 * kernel.bytes  # the file, and what the firmware loaded it to
    return files + resident + _EFI_IPXE


def _kernel_memory(kernel: Kernel) -> int:
    """Return what the kernel itself takes: init_size of its header, or a guess from its file."""
    if kernel.init_size is not None:
        return kernel.init_size
    packed = kernel.image not in (KernelImage.IMAGE, KernelImage.VMLINUX)
    return kernel.bytes * (4 if packed else 1)

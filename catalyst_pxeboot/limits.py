"""How much memory a way to boot asks of a client.

Nothing here reads a file. Figures said to be measured come from clients in QEMU 7.2 (SeaBIOS or
OVMF, one processor), a Linux 6.1 and squashfs images of 32 to 320 MiB: the least `-m` at which the
live root was reached. tests/bench/memory.py measures again and compares.
"""

from __future__ import annotations

from typing import Final

from catalyst_pxeboot.formats.initramfs import Initramfs
from catalyst_pxeboot.formats.kernel import Kernel, KernelImage
from catalyst_pxeboot.model import Firmware, Loader, RootMode

_MIB: Final = 1 << 20

# The kernel keeps 64 bytes (struct page) for each page of 4096.
_PAGE_TABLE: Final = (64, 63)
_SYSTEM: Final = 32 * _MIB
_EFI_SYSTEM: Final = 12 * _MIB


def least_memory(
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    *,
    kernel: Kernel,
    initramfs: Initramfs,
    squashfs: int,
) -> int:
    """Return the bytes of memory, whole MiB, with which a client reaches its live root."""
    loaded = initramfs.bytes + (squashfs if mode is RootMode.EMBEDDED else 0)
    unpacked = initramfs.unpacked_bytes + (squashfs if mode is RootMode.EMBEDDED else 0)
    running = initramfs.unpacked_bytes + (squashfs if mode is not RootMode.NFS else 0)
    system = _kernel_memory(kernel) + _SYSTEM
    if firmware is Firmware.EFI:
        system += _EFI_SYSTEM
    most = max(loaded + unpacked, running)
    most += most // 100 + system
    numerator, denominator = _PAGE_TABLE
    needed = max(most * numerator // denominator, _loader_memory(loader, firmware, kernel, loaded))
    return -(-needed // _MIB) * _MIB


def _loader_memory(loader: Loader, firmware: Firmware, kernel: Kernel, loaded: int) -> int:
    resident = _kernel_memory(kernel)
    if firmware is not Firmware.EFI:
        return loaded + kernel.bytes + resident + 16 * _MIB
    if loader is Loader.GRUB:
        return max(2 * loaded + resident + 108 * _MIB, resident + 202 * _MIB)
    return loaded * 257 // 100 + kernel.bytes + 2 * resident + 36 * _MIB


def _kernel_memory(kernel: Kernel) -> int:
    if kernel.init_size is not None:
        return kernel.init_size
    packed = kernel.image not in (KernelImage.IMAGE, KernelImage.VMLINUX)
    return kernel.bytes * (4 if packed else 1)

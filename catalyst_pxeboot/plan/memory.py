"""The least memory of a client: an estimate from the parts. Pure.

Figures said to be measured come from clients in QEMU 7.2 (SeaBIOS or OVMF, one processor), a Linux
6.1 and squashfs images of 32 to 320 MiB: the least `-m` at which the live root was reached.
tests/tools/bench/memory.py measures again and compares; tests/unit/plan/test_memory.py keeps the
figures.
"""

from __future__ import annotations

from typing import Final

from catalyst_pxeboot.formats.initramfs import Initramfs
from catalyst_pxeboot.formats.kernel import Kernel, KernelImage
from catalyst_pxeboot.loader import LOADERS
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


def least_memory(
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    *,
    kernel: Kernel,
    initramfs: Initramfs,
    squashfs: int,
    addon: int = 0,
) -> int:
    """Return the bytes of memory, whole MiB, with which a client reaches its live root.

    `squashfs` is its size in bytes, `addon` that of the initrd behind the initramfs. The running
    system needs more. The estimate is the larger of two moments: the loader holds all that it
    fetched; the kernel unpacks it, or the initramfs fetches the root.
    """
    root = ROOTS[mode]
    embedded = squashfs if root.in_initrd else 0
    loaded = initramfs.bytes + addon + embedded  # freed by the kernel when all is unpacked
    unpacked = initramfs.unpacked_bytes + addon + embedded
    running = initramfs.unpacked_bytes + addon + (squashfs if root.in_memory else 0)
    system = _kernel_memory(kernel) + _SYSTEM
    if firmware is Firmware.EFI:
        system += _EFI_SYSTEM
    system += root.network_memory
    most = max(loaded + unpacked, running)
    most += most // 100 + system  # a hundredth: the last page of each file, radix trees, folders
    numerator, denominator = _PAGE_TABLE
    needed = max(
        most * numerator // denominator,
        LOADERS[loader].memory(
            firmware,
            kernel=kernel.bytes,
            resident=_kernel_memory(kernel),
            loaded=loaded,
            before=loaded - squashfs if embedded else 0,
        ),
    )
    return -(-needed // _MIB) * _MIB


def _kernel_memory(kernel: Kernel) -> int:
    """Return what the kernel itself takes: init_size of its header, or a guess from its file."""
    if kernel.init_size is not None:
        return kernel.init_size
    packed = kernel.image not in (KernelImage.IMAGE, KernelImage.VMLINUX)
    return kernel.bytes * (4 if packed else 1)

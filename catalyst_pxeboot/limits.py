"""What an entry asks of a client. A first version, until the measured one takes its place."""

from __future__ import annotations

from catalyst_pxeboot.formats.initramfs import Initramfs
from catalyst_pxeboot.formats.kernel import Kernel
from catalyst_pxeboot.model import Firmware, Loader, RootMode

MIB = 1 << 20


def least_memory(
    mode: RootMode,
    loader: Loader,
    firmware: Firmware,
    *,
    kernel: Kernel,
    initramfs: Initramfs,
    squashfs: int,
) -> int:
    """Return bytes."""
    copies = {RootMode.EMBEDDED: 2, RootMode.HTTP: 1, RootMode.NFS: 0}[mode]
    base = 128 * MIB + (64 * MIB if firmware is Firmware.EFI else 0)
    return base + kernel.bytes + initramfs.bytes + initramfs.unpacked_bytes + copies * squashfs

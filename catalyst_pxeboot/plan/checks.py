"""Contradictions between what was asked for and what the live image can do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from catalyst_pxeboot.formats.compression import Compression
from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.model.arch import Arch
from catalyst_pxeboot.source.image import Source, SourceKernel
from catalyst_pxeboot.util.errors import SourceError

#: The kernel option that reads an initramfs of each compression (usr/Kconfig).
RD_OPTIONS = {
    Compression.GZIP: "CONFIG_RD_GZIP",
    Compression.BZIP2: "CONFIG_RD_BZIP2",
    Compression.LZMA: "CONFIG_RD_LZMA",
    Compression.XZ: "CONFIG_RD_XZ",
    Compression.LZO: "CONFIG_RD_LZO",
    Compression.LZ4: "CONFIG_RD_LZ4",
    Compression.ZSTD: "CONFIG_RD_ZSTD",
}

#: The kernel option that reads a squashfs of each compression (fs/squashfs/Kconfig). The
#: kernel has never read lzma ones.
SQUASHFS_OPTIONS = {
    "gzip": "CONFIG_SQUASHFS_ZLIB",
    "lzo": "CONFIG_SQUASHFS_LZO",
    "xz": "CONFIG_SQUASHFS_XZ",
    "lz4": "CONFIG_SQUASHFS_LZ4",
    "zstd": "CONFIG_SQUASHFS_ZSTD",
}


def find_contradictions(source: Source, arch: Arch, subarch: str) -> list[SourceError]:
    """Return every reason for which this image cannot boot from the network, with its remedy."""
    problems: list[SourceError] = []
    for kernel in source.kernels:
        problems += _kernel_problems(kernel, source, arch, subarch)
    return problems


def _kernel_problems(
    kernel: SourceKernel, source: Source, arch: Arch, subarch: str
) -> Iterator[SourceError]:
    image = kernel.kernel
    if image.machine not in arch.kernels:
        yield SourceError(
            f"{image.path}: the kernel is for {image.machine}, but subarch {subarch} boots "
            + " or ".join(arch.kernels),
            hint="correct subarch or source_subpath",
        )
    if kernel.config is not None:
        yield from _config_problems(kernel, source, f"{image.path}-config")


def _config_problems(kernel: SourceKernel, source: Source, where: str) -> Iterator[SourceError]:
    config, initramfs = kernel.config or {}, kernel.initramfs
    remedy = "turn it on in the kernel's config of the livecd-stage2 spec"
    if not config:
        return

    def missing(option: str, why: str) -> SourceError:
        return SourceError(f"{where}: {option} is off, but {why}", hint=remedy)

    if config.get("CONFIG_BLK_DEV_INITRD") != "y":
        yield missing("CONFIG_BLK_DEV_INITRD", "a live image boots by its initramfs")
        return
    rd_option = RD_OPTIONS.get(initramfs.compression)
    if rd_option and config.get(rd_option) != "y":
        yield missing(
            rd_option, f"{initramfs.path.name} is compressed with {initramfs.compression}"
        )
    name = source.squashfs.path.name
    squashfs_option = SQUASHFS_OPTIONS.get(source.squashfs.compression)
    if squashfs_option is None:
        yield SourceError(
            f"{source.squashfs.path}: no Linux kernel reads a squashfs compressed with "
            + source.squashfs.compression,
            hint="make it with xz or zstd (livecd/fsops)",
        )
    elif config.get("CONFIG_SQUASHFS") in ("y", "m") and config.get(squashfs_option) != "y":
        yield missing(squashfs_option, f"{name} is compressed with {source.squashfs.compression}")
    wanted = [
        ("CONFIG_SQUASHFS", "squashfs", f"{name} is the live root"),
        ("CONFIG_BLK_DEV_LOOP", "loop", f"{name} is mounted by a loop device"),
    ]
    if initramfs.generator is Generator.DRACUT:
        wanted.append(("CONFIG_OVERLAY_FS", "overlay", "dracut makes the live root writable by it"))
    for option, driver, why in wanted:
        value = config.get(option)
        if value not in ("y", "m"):
            yield missing(option, why)
        elif value == "m" and driver not in initramfs.drivers:
            yield SourceError(
                f"{initramfs.path}: {driver}.ko is not in it though {option} is a module,"
                f" but {why}",
                hint=f"add `--add-drivers {driver}` to boot/kernel/{kernel.iso.name}/dracut_args"
                if initramfs.generator is Generator.DRACUT
                else f"add {driver} to the modules that genkernel puts into the initramfs",
            )

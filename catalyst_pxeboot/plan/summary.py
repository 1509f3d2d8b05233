"""A plan as the manifest says it: the menu's entries, the kernels, the release."""

from __future__ import annotations

from collections.abc import Sequence

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.manifest import EntryInfo, InitramfsInfo, KernelInfo, LimitsInfo
from catalyst_pxeboot.model.menu import Limits, LiveEntry, MemtestEntry
from catalyst_pxeboot.plan.roots import url_argument
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.source.image import SourceKernel


def menu_entries(plan: Plan) -> tuple[EntryInfo, ...]:
    """Return the manifest's menu entries."""
    loaders = plan.spec.loaders
    ukis = {uki.entry: uki.path for uki in plan.ukis}
    return (
        *(_live(entry, loaders, ukis.get(entry.name)) for entry in plan.menu.live),
        *(_memtest(entry, loaders) for entry in plan.menu.memtests),
    )


def kernel_info(kernel: SourceKernel) -> KernelInfo:
    """Return what the manifest says of a kernel."""
    image, initramfs = kernel.kernel, kernel.initramfs
    return KernelInfo(
        name=kernel.iso.name,
        path=kernel.iso.path,
        machine=image.machine,
        image=str(image.image),
        version=image.version,
        efi_stub=image.efi_stub,
        initramfs=InitramfsInfo(
            path=kernel.iso.initramfs,
            generator=str(initramfs.generator),
            version=initramfs.version,
            compression=str(initramfs.compression),
            unpacked_bytes=initramfs.unpacked_bytes,
            modules=initramfs.modules,
        ),
    )


def _live(entry: LiveEntry, loaders: Sequence[Loader], uki: str | None) -> EntryInfo:
    able = [loader for loader in loaders if loader in entry.offered]
    return EntryInfo(
        name=entry.name,
        title=entry.title,
        kernel=entry.kernel,
        kernels={loader: LOADERS[loader].kernel(entry) for loader in able},
        arguments=" ".join(entry.arguments),
        root=entry.root,
        checked=entry.addon is not None,
        url_argument=url_argument(entry),
        uki=uki,
        initrds={loader: LOADERS[loader].initrds(entry) for loader in able},
        limits={loader: _limits(entry.limits[loader]) for loader in able},
    )


def _limits(limits: Limits) -> LimitsInfo:
    return LimitsInfo(limits.wire, dict(limits.memory), limits.warnings)


def _memtest(entry: MemtestEntry, loaders: Sequence[Loader]) -> EntryInfo:
    able = [loader for loader in loaders if entry.firmware in LOADERS[loader].memtest_firmware]
    return EntryInfo(
        name=entry.name,
        title=entry.title,
        kernel=entry.path,
        kernels=dict.fromkeys(able, entry.path),
        arguments="",
        firmware=entry.firmware,
        initrds=dict.fromkeys(able, ()),
    )

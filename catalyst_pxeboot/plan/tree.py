"""Spec and source become a plan. Pure: no disk, no clock, no environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from catalyst_pxeboot.formats.cpio import member_header
from catalyst_pxeboot.formats.initramfs import alignment_padding
from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.binaries import Loaders
from catalyst_pxeboot.model.files import (
    AddonFile,
    JoinedFile,
    MadeFile,
    Role,
    RootCheckFile,
    SourceFile,
    UkiFile,
    UnpackedFile,
)
from catalyst_pxeboot.model.menu import ROOT_MEMBER, HostEntry, LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.personal.model import NO_PERSONAL, Host, Personal
from catalyst_pxeboot.plan.checks import find_contradictions
from catalyst_pxeboot.plan.entries import (
    PERSONAL,
    ROOT_HEADER,
    host_path,
    padding_path,
    part_sizes,
    plan_live,
    stream_path,
    unpacked_for,
    unpacked_path,
)
from catalyst_pxeboot.plan.roots import ROOT_CHECK
from catalyst_pxeboot.plan.uki import plan_ukis
from catalyst_pxeboot.source.image import Source, SourceKernel
from catalyst_pxeboot.source.live import root_file, source_file
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.stream.tools import NOT_SOUGHT, NoTools, Tools
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from catalyst_pxeboot.util.text import nearest, size

_BOOTIF = " BOOTIF=01-00-00-00-00-00-00"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which file goes where, what each loader shows, and what was left out and why."""

    spec: Spec
    source: Source
    menu: Menu
    files: tuple[SourceFile, ...]
    made: tuple[MadeFile, ...]
    unpacked: tuple[UnpackedFile, ...]
    joined: tuple[JoinedFile, ...]
    check: RootCheckFile | None
    streams: tuple[AddonFile, ...]
    ukis: tuple[UkiFile, ...]
    tools: Tools | NoTools
    personal: Personal
    hosts: tuple[Host, ...]
    loaders: Loaders
    notes: tuple[str, ...]  # what is in the tree in another form than in the source, and why
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_tree(
    spec: Spec,
    source: Source,
    loaders: Loaders,
    tools: Tools | NoTools = NOT_SOUGHT,
    personal: Personal = NO_PERSONAL,
    hosts: Sequence[Host] = (),
) -> Plan:
    """Plan the netboot tree of `source`, or raise with every reason why it cannot be.

    `loaders` are the binaries that the build host has for the spec's loaders, `tools` its programs
    that stream a root, `personal` what the spec gives every machine beside the stock image,
    and `hosts` single ones.
    """
    problems = find_contradictions(source, spec.arch, spec.subarch)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise SpecError(problems)
    planned = plan_live(spec, source, tools, personal)
    live = planned.entries
    memtests = tuple(_plan_memtests(source))
    menu = Menu(
        title=spec.title,
        timeout=_timeout(spec, source),
        live=live,
        memtests=memtests,
        serial=spec.serial,
        base_url=spec.base_url,
        nfs=spec.nfs,
        hosts=tuple(_plan_hosts(hosts, live)),
        ipxe_signed=spec.signing.certificate is not None,
        ipxe_always=spec.signing.always,
    )
    files = _plan_files(spec, source)
    made = _plan_made(live, source)
    check = _plan_check(live, source)
    streams = tuple(_plan_streams(live, source))
    unpacked = tuple(_plan_unpacked(spec, source))
    joined = tuple(_plan_joined(live, source, personal))
    ukis = tuple(plan_ukis(spec, source, menu, personal))
    if loaders.stub is None:
        ukis = ()  # reported as missing
    _check_paths(
        *(file.path for file in files),
        *(file.path for file in made),
        *(file.path for file in unpacked),
        *(file.path for file in joined),
        *((check.path,) if check else ()),
        *(file.path for file in streams),
        *(file.path for file in ukis),
        *((PERSONAL,) if personal else ()),
    )
    return Plan(
        spec=spec,
        source=source,
        menu=menu,
        files=files,
        made=made,
        unpacked=unpacked,
        joined=joined,
        check=check,
        streams=streams,
        ukis=ukis,
        tools=tools,
        personal=personal,
        hosts=tuple(hosts),
        loaders=loaders,
        notes=(*_notes(spec, source, joined, personal, hosts), *planned.notes),
        left_out=(*source.left_out, *planned.left_out, *_hosts_left_out(spec, menu)),
        warnings=tuple(_warnings(spec, source, live)),
    )


def _plan_hosts(hosts: Iterable[Host], live: Sequence[LiveEntry]) -> Iterator[HostEntry]:
    names = [entry.name for entry in live]
    problems = [
        PxebootError(
            f"pxeboot/hosts: {host.where}: entry: the menu has no {host.entry!r}"
            + nearest(host.entry, names),
            hint="it has " + ", ".join(names),
        )
        for host in hosts
        if host.entry and host.entry not in names
    ]
    if problems:
        raise SpecError(problems)
    for host in hosts:
        own = host.personal
        yield HostEntry(
            name=host.name,
            where=host.where,
            archive=host_path(host.name) if own else None,
            arguments=(*own.arguments, *host.arguments),
            entry=host.entry,
        )


def _hosts_left_out(spec: Spec, menu: Menu) -> Iterator[str]:
    """Say what single machines do not get by some loader."""
    for kind in spec.loaders if menu.hosts else ():
        if LOADERS[kind].joins_initrds or LOADERS[kind].self_contained:
            yield f"what single machines get (pxeboot/hosts), by {kind}: it loads one file only"
            continue
        offered = {entry.name for entry in menu.live_for(kind)}
        for entry in sorted({host.entry for host in menu.hosts if host.entry} - offered):
            yield f"{entry} for machines of pxeboot/hosts, by {kind}: its menu does not have it"


def _check_paths(*paths: str) -> None:
    taken = set()
    for path in paths:
        if path in taken:
            raise PxebootError(
                f"{path}: a file of the live image has this name, which another file would get",
                hint="name its kernel otherwise in boot/kernel of the livecd-stage2 spec",
            )
        taken.add(path)


def _timeout(spec: Spec, source: Source) -> int | None:
    if spec.timeout is None:
        return source.timeout
    return None if spec.timeout < 0 else spec.timeout


def _plan_unpacked(spec: Spec, source: Source) -> Iterator[UnpackedFile]:
    for kernel in source.kernels:
        path = unpacked_path(spec, kernel)
        if path is None:
            continue
        unable = unpacked_for(spec, kernel)
        if kernel.kernel.packed is None:
            able = [loader for loader in spec.loaders if loader not in unable]
            raise PxebootError(
                f"{kernel.iso.path}: {' and '.join(unable)} cannot start this"
                f" {kernel.kernel.image}, and its compression cannot be undone here",
                hint="build the kernel with CONFIG_KERNEL_GZIP or CONFIG_KERNEL_ZSTD"
                + (f", or say pxeboot/loaders: {' '.join(able)}" if able else ""),
            )
        yield UnpackedFile(
            path=path, packed=kernel.iso.path, kernel=kernel.kernel, role=Role.KERNEL
        )


def _plan_joined(
    live: Sequence[LiveEntry], source: Source, personal: Personal
) -> Iterator[JoinedFile]:
    """Plan U-Boot's initrds; several entries may share one."""
    joined = {}
    for entry in live:
        if entry.joined is None:
            continue
        kernel = next(kernel for kernel in source.kernels if kernel.iso.path == entry.kernel)
        sizes = part_sizes(kernel, source, personal)
        count = sum(sizes[part] for part in entry.parts)
        joined[entry.joined] = JoinedFile(entry.joined, entry.parts, Role.INITRAMFS, count)
    yield from joined.values()


def _notes(
    spec: Spec,
    source: Source,
    joined: Sequence[JoinedFile],
    personal: Personal,
    hosts: Sequence[Host],
) -> Iterator[str]:
    if personal:
        yield f"{PERSONAL}: {personal}; whoever can fetch it can read it"
    if hosts:
        yield f"{len(hosts)} machines have something of their own; whoever can fetch it can read it"
    for kernel in source.kernels:
        for loader in unpacked_for(spec, kernel):
            yield (
                f"{unpacked_path(spec, kernel)} for {loader}: {kernel.iso.path} is an"
                f" {kernel.kernel.image};"
                f" {LOADERS[loader].cannot_start[kernel.kernel.image]}"
            )
    if source.network.is_missing:
        yield f"network of the live system: {source.network}"
    for file in joined:
        yield f"{file.path} for uboot: it loads one initrd only, here {size(file.bytes)}"


def _plan_memtests(source: Source) -> Iterator[MemtestEntry]:
    for memtest, _ in source.memtests:
        yield MemtestEntry(
            name=f"memtest-{memtest.firmware}-{memtest.bits}",
            title=memtest.title,
            path=memtest.path,
            firmware=memtest.firmware,
            bits=memtest.bits,
        )


def _plan_files(spec: Spec, source: Source) -> tuple[SourceFile, ...]:
    files: dict[str, SourceFile] = {}

    def add(path: str, role: Role, count: int) -> None:
        files.setdefault(path, source_file(source.image, path, role, count, time=source.time))

    for kernel in source.kernels:
        add(kernel.iso.path, Role.KERNEL, kernel.kernel.bytes)
        add(kernel.iso.initramfs, Role.INITRAMFS, kernel.initramfs.bytes)
        if kernel.device_trees and any(LOADERS[kind].loads_device_trees for kind in spec.loaders):
            for path, count in kernel.device_trees.files:
                add(path, Role.DEVICE_TREE, count)
    for memtest, count in source.memtests:
        add(memtest.path, Role.MEMTEST, count)
    root = root_file(source.image, source.squashfs)
    files.setdefault(root.path, root)
    return tuple(files[path] for path in sorted(files))


def _plan_made(live: Sequence[LiveEntry], source: Source) -> tuple[MadeFile, ...]:
    parts = {part for entry in live for part in entry.parts}
    made = {}
    if ROOT_HEADER in parts:
        header = member_header(ROOT_MEMBER, source.squashfs.bytes)
        made[ROOT_HEADER] = MadeFile(ROOT_HEADER, header, Role.ROOT_HEADER)
    for kernel in source.kernels:
        path = padding_path(kernel)
        if path in parts and path is not None:
            image = kernel.initramfs
            zeros = bytes(alignment_padding(image.bytes, image.compression))
            made[path] = MadeFile(path, zeros, Role.PADDING)
    return tuple(made[path] for path in sorted(made))


def _plan_check(live: Sequence[LiveEntry], source: Source) -> RootCheckFile | None:
    checked = {entry.initramfs for entry in live if entry.addon == ROOT_CHECK}
    if not checked:
        return None
    hooks = {
        kernel.initramfs.hooks
        for kernel in source.kernels
        if kernel.iso.initramfs in checked and kernel.initramfs.hooks
    }
    return RootCheckFile(ROOT_CHECK, source.squashfs.path.name, tuple(sorted(hooks)))


def _plan_streams(live: Sequence[LiveEntry], source: Source) -> Iterator[AddonFile]:
    needed = {entry.addon for entry in live if entry.streamed}
    for kernel in source.kernels:
        if stream_path(kernel) in needed and kernel.modules:
            yield AddonFile(
                path=stream_path(kernel),
                modules=kernel.modules,
                generator=kernel.initramfs.generator,
                hooks=kernel.initramfs.hooks or "",
                compression=_stream_compression(kernel, source.squashfs),
            )


def _stream_compression(kernel: SourceKernel, squashfs: Squashfs) -> str:
    """Choose zstd or gzip, which are made in a tenth of the time of xz, if the kernel has them."""
    config = kernel.config or {}
    if squashfs.compression == "zstd" or config.get("CONFIG_SQUASHFS_ZSTD") == "y":
        return "zstd"
    return "gzip" if config.get("CONFIG_SQUASHFS_ZLIB") == "y" else squashfs.compression


def _warnings(spec: Spec, source: Source, live: Sequence[LiveEntry]) -> Iterator[str]:
    loaders = [LOADERS[kind] for kind in spec.loaders]
    for kernel in source.kernels:
        if not kernel.kernel.efi_stub:
            for loader in loaders:
                if loader.needs_efi_stub:
                    yield (
                        f"{kernel.iso.path}: no EFI stub (CONFIG_EFI_STUB), so UEFI clients cannot"
                        f" start it by {loader.name}"
                    )
    for loader in loaders:
        for memtest, _ in source.memtests:
            if loader.memtest_firmware and memtest.firmware not in loader.memtest_firmware:
                yield f"{memtest.title}: not in {loader.name}'s menu, which runs on a BIOS only"
        if loader.line_bytes and any(
            len(" ".join(entry.arguments)) + len(_BOOTIF) >= loader.line_bytes for entry in live
        ):
            yield (
                f"the kernel command line is longer than the {loader.line_bytes} bytes that"
                f" {loader.name} reads on many boards (CONFIG_SYS_CBSIZE); shorten pxeboot/bootargs"
            )

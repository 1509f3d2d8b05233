"""Spec and source become a plan. Pure: no disk, no clock, no environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from catalyst_pxeboot.checks import find_contradictions
from catalyst_pxeboot.errors import PxebootError, SpecError
from catalyst_pxeboot.formats.cpio import member_header
from catalyst_pxeboot.formats.initramfs import Generator, alignment_padding
from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.isomenu import IsoEntry, without_root
from catalyst_pxeboot.loaders import Loaders
from catalyst_pxeboot.model import (
    ROOT_MEMBER,
    Firmware,
    JoinedFile,
    LiveEntry,
    Loader,
    MadeFile,
    MemtestEntry,
    Menu,
    Role,
    SourceFile,
    UnpackedFile,
)
from catalyst_pxeboot.source import Source, SourceKernel
from catalyst_pxeboot.spec import Spec
from catalyst_pxeboot.words import size

ROOT_HEADER = "boot/root.cpio-header"

#: What leads each generator's initramfs to the live root in its own file system.
ROOT_ARGUMENTS = {
    Generator.DRACUT: (f"root=live:/{ROOT_MEMBER}", "rd.live.overlay.overlayfs=1", "cdroot"),
    # Without root=/dev/ram0 the kernel unpacks into a tmpfs that ends at half the memory.
    Generator.GENKERNEL: (
        "root=/dev/ram0",
        "init=/linuxrc",
        "looptype=squashfs",
        f"loop=/{ROOT_MEMBER}",
        "cdroot",
    ),
}

#: Kernels that a loader cannot start, and why. It is given the plain Image within. PXELINUX runs
#: on x86, where there are none of these.
UNPACKED_FOR = {
    KernelImage.GZIP: {
        Loader.IPXE: "UEFI starts PE programs only, and iPXE unpacks none before 2021",
        Loader.UBOOT: "it unpacks none unless its kernel_comp_addr_r and kernel_comp_size are set",
    },
    KernelImage.ZBOOT: {
        Loader.GRUB: "before 2.12 it asks for the plain Image's header, unless patched",
        Loader.UBOOT: "it starts EFI programs by bootefi, not by pxe boot",
    },
}

#: Bytes of a line that a U-Boot takes on any usual board (CONFIG_SYS_CBSIZE).
_UBOOT_LINE = 512
_BOOTIF = " BOOTIF=01-00-00-00-00-00-00"

#: Bytes that loaders add to a command line by themselves: BOOT_IMAGE=, initrd=, BOOTIF=.
_LOADER_WORDS = 256


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
    loaders: Loaders
    notes: tuple[str, ...]  # what is in the tree in another form than in the source, and why
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_tree(spec: Spec, source: Source, loaders: Loaders) -> Plan:
    """Plan the netboot tree of `source`, or raise with every reason why it cannot be.

    `loaders` are the binaries that the build host has for the spec's loaders.
    """
    problems = find_contradictions(source, spec.arch, spec.subarch)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise SpecError(problems)
    live = tuple(_plan_live(spec, source))
    memtests = tuple(_plan_memtests(source))
    menu = Menu(
        title=spec.title,
        timeout=_timeout(spec, source),
        default=live[0].name,
        live=live,
        memtests=memtests,
        serial=spec.serial,
    )
    files = _plan_files(spec, source)
    made = _plan_made(source)
    unpacked = tuple(_plan_unpacked(spec, source))
    joined = tuple(_plan_joined(spec, source))
    _check_paths(
        *(file.path for file in files),
        *(file.path for file in made),
        *(file.path for file in unpacked),
        *(file.path for file in joined),
    )
    return Plan(
        spec=spec,
        source=source,
        menu=menu,
        files=files,
        made=made,
        unpacked=unpacked,
        joined=joined,
        loaders=loaders,
        notes=tuple(_notes(spec, source)),
        left_out=source.left_out,
        warnings=tuple(_warnings(spec, source, live)),
    )


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


def _plan_live(spec: Spec, source: Source) -> Iterator[LiveEntry]:
    taken: set[str] = set()
    for kernel in source.kernels:
        entries = list(kernel.iso.entries)
        for console in spec.consoles.get(kernel.iso.name, ()):
            extra = (f"console={console}",)
            if all(entry.extra != extra for entry in entries):
                entries.append(
                    IsoEntry(f"Boot LiveCD (kernel: {kernel.iso.name} {extra[0]})", extra)
                )
        for entry in entries:
            yield _plan_entry(spec, kernel, entry, source, taken)


def _plan_entry(
    spec: Spec, kernel: SourceKernel, entry: IsoEntry, source: Source, taken: set[str]
) -> LiveEntry:
    generator = kernel.initramfs.generator
    user = kernel.iso.arguments if spec.bootargs is None else without_root(spec.bootargs)
    arguments = (
        *ROOT_ARGUMENTS[generator],
        *user,
        *spec.extra_bootargs,
        *_serial_arguments(spec),
        *(word for word in entry.extra if word not in user),
    )
    _check_arguments(arguments, spec, kernel)
    return LiveEntry(
        name=_label(kernel.iso.name, entry.extra, taken),
        title=entry.title,
        kernel=kernel.iso.path,
        initramfs=kernel.iso.initramfs,
        padding=_padding_path(kernel),
        root_header=ROOT_HEADER,
        squashfs=source.squashfs.path.name,
        arguments=arguments,
        generator=generator,
        unpacked=_unpacked_path(spec, kernel),
        unpacked_for=_unpacked_for(spec, kernel),
        joined=_joined_path(kernel) if Loader.UBOOT in spec.loaders else None,
        device_trees=kernel.device_trees.folder
        if kernel.device_trees and Loader.UBOOT in spec.loaders
        else None,
    )


def _serial_arguments(spec: Spec) -> tuple[str, ...]:
    # The last console= is /dev/console, where the initramfs and the login speak.
    if spec.serial is None:
        return ()
    return ("console=tty0", f"console={spec.serial.device},{spec.serial.speed}")


def _check_arguments(arguments: Sequence[str], spec: Spec, kernel: SourceKernel) -> None:
    length = len(" ".join(arguments).encode())
    limit = min(spec.arch.command_line, kernel.kernel.command_line_size or spec.arch.command_line)
    if length + _LOADER_WORDS > limit:
        raise PxebootError(
            f"boot/{kernel.iso.name}: its kernel command line has {length} bytes, but the kernel"
            f" reads {limit} and loaders add up to {_LOADER_WORDS}",
            hint="shorten livecd/bootargs or pxeboot/bootargs",
        )


def _label(kernel: str, extra: Sequence[str], taken: set[str]) -> str:
    words = "accessibility" if tuple(extra) == ("dospeakup",) else "-".join(extra)
    label = re.sub(r"[^A-Za-z0-9]+", "-", f"{kernel}-{words}").strip("-").lower()
    number, unique = 2, label
    while unique in taken:
        unique, number = f"{label}-{number}", number + 1
    taken.add(unique)
    return unique


def _padding_path(kernel: SourceKernel) -> str | None:
    image = kernel.initramfs
    padding = alignment_padding(image.bytes, image.compression)
    return f"{kernel.iso.initramfs}.pad" if padding else None


def _unpacked_for(spec: Spec, kernel: SourceKernel) -> tuple[Loader, ...]:
    reasons = UNPACKED_FOR.get(kernel.kernel.image, {})
    return tuple(loader for loader in spec.loaders if loader in reasons)


def _unpacked_path(spec: Spec, kernel: SourceKernel) -> str | None:
    return f"{kernel.iso.path}.Image" if _unpacked_for(spec, kernel) else None


def _joined_path(kernel: SourceKernel) -> str:
    return f"{kernel.iso.path}.initrd"


def _plan_unpacked(spec: Spec, source: Source) -> Iterator[UnpackedFile]:
    for kernel in source.kernels:
        path = _unpacked_path(spec, kernel)
        if path is None:
            continue
        if kernel.kernel.packed is None:
            able = [loader for loader in spec.loaders if loader not in _unpacked_for(spec, kernel)]
            raise PxebootError(
                f"{kernel.iso.path}: {' and '.join(_unpacked_for(spec, kernel))} cannot start this"
                f" {kernel.kernel.image}, and its compression cannot be undone here",
                hint="build the kernel with CONFIG_KERNEL_GZIP or CONFIG_KERNEL_ZSTD"
                + (f", or say pxeboot/loaders: {' '.join(able)}" if able else ""),
            )
        yield UnpackedFile(path, kernel.kernel, Role.KERNEL)


def _plan_joined(spec: Spec, source: Source) -> Iterator[JoinedFile]:
    if Loader.UBOOT not in spec.loaders:
        return
    header = len(member_header(ROOT_MEMBER, source.squashfs.bytes))
    for kernel in source.kernels:
        image = kernel.initramfs
        padding = _padding_path(kernel)
        yield JoinedFile(
            path=_joined_path(kernel),
            parts=(
                kernel.iso.initramfs,
                *((padding,) if padding else ()),
                ROOT_HEADER,
                source.squashfs.path.name,
            ),
            role=Role.INITRAMFS,
            bytes=image.bytes
            + alignment_padding(image.bytes, image.compression)
            + header
            + source.squashfs.bytes,
        )


def _notes(spec: Spec, source: Source) -> Iterator[str]:
    for kernel in source.kernels:
        reasons = UNPACKED_FOR.get(kernel.kernel.image, {})
        for loader in _unpacked_for(spec, kernel):
            yield (
                f"{_unpacked_path(spec, kernel)} for {loader}: {kernel.iso.path} is an"
                f" {kernel.kernel.image}; {reasons[loader]}"
            )
    for file in _plan_joined(spec, source):
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
        files.setdefault(path, SourceFile(path, source.file(path), role, count))

    for kernel in source.kernels:
        add(kernel.iso.path, Role.KERNEL, kernel.kernel.bytes)
        add(kernel.iso.initramfs, Role.INITRAMFS, kernel.initramfs.bytes)
        if kernel.device_trees and Loader.UBOOT in spec.loaders:
            for path, count in kernel.device_trees.files:
                add(path, Role.DEVICE_TREE, count)
    for memtest, count in source.memtests:
        add(memtest.path, Role.MEMTEST, count)
    add(source.squashfs.path.name, Role.SQUASHFS, source.squashfs.bytes)
    return tuple(files[path] for path in sorted(files))


def _plan_made(source: Source) -> tuple[MadeFile, ...]:
    header = member_header(ROOT_MEMBER, source.squashfs.bytes)
    made = {ROOT_HEADER: MadeFile(ROOT_HEADER, header, Role.ROOT_HEADER)}
    for kernel in source.kernels:
        path = _padding_path(kernel)
        if path:
            image = kernel.initramfs
            zeros = bytes(alignment_padding(image.bytes, image.compression))
            made[path] = MadeFile(path, zeros, Role.PADDING)
    return tuple(made[path] for path in sorted(made))


def _warnings(spec: Spec, source: Source, live: Sequence[LiveEntry]) -> Iterator[str]:
    for kernel in source.kernels:
        if not kernel.kernel.efi_stub and Loader.IPXE in spec.loaders:
            yield (
                f"{kernel.iso.path}: no EFI stub (CONFIG_EFI_STUB), so UEFI clients cannot start"
                " it by iPXE"
            )
    if Loader.PXELINUX in spec.loaders:
        for memtest, _ in source.memtests:
            if memtest.firmware is Firmware.EFI:
                yield f"{memtest.title}: not in PXELINUX's menu, which runs on a BIOS only"
    if Loader.UBOOT in spec.loaders and any(
        len(" ".join(entry.arguments)) + len(_BOOTIF) >= _UBOOT_LINE for entry in live
    ):
        yield (
            f"the kernel command line is longer than the {_UBOOT_LINE} bytes that U-Boot reads on"
            " many boards (CONFIG_SYS_CBSIZE); shorten pxeboot/bootargs"
        )

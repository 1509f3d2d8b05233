"""Spec and source become a plan. Pure: no disk, no clock, no environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from catalyst_pxeboot.checks import find_contradictions
from catalyst_pxeboot.errors import PxebootError, SpecError
from catalyst_pxeboot.formats.cpio import member_header
from catalyst_pxeboot.formats.initramfs import alignment_padding
from catalyst_pxeboot.isomenu import IsoEntry, without_root
from catalyst_pxeboot.loaders import Loaders
from catalyst_pxeboot.model import (
    ROOT_MEMBER,
    Firmware,
    Generator,
    LiveEntry,
    Loader,
    MadeFile,
    MemtestEntry,
    Menu,
    Role,
    SourceFile,
)
from catalyst_pxeboot.source import Source, SourceKernel
from catalyst_pxeboot.spec import Spec

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
    loaders: Loaders
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
    files = _plan_files(source)
    return Plan(
        spec=spec,
        source=source,
        menu=menu,
        files=files,
        made=_plan_made(source),
        loaders=loaders,
        left_out=source.left_out,
        warnings=tuple(_warnings(spec, source)),
    )


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


def _plan_memtests(source: Source) -> Iterator[MemtestEntry]:
    for memtest, _ in source.memtests:
        yield MemtestEntry(
            name=f"memtest-{memtest.firmware}-{memtest.bits}",
            title=memtest.title,
            path=memtest.path,
            firmware=memtest.firmware,
            bits=memtest.bits,
        )


def _plan_files(source: Source) -> tuple[SourceFile, ...]:
    files: dict[str, SourceFile] = {}

    def add(path: str, role: Role, count: int) -> None:
        files.setdefault(path, SourceFile(path, source.file(path), role, count))

    for kernel in source.kernels:
        add(kernel.iso.path, Role.KERNEL, kernel.kernel.bytes)
        add(kernel.iso.initramfs, Role.INITRAMFS, kernel.initramfs.bytes)
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


def _warnings(spec: Spec, source: Source) -> Iterator[str]:
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

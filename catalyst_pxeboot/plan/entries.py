"""The live entries of the menu: each kernel by each root mode. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from catalyst_pxeboot.formats.cpio import member_header
from catalyst_pxeboot.formats.initramfs import alignment_padding
from catalyst_pxeboot.formats.verity import tree_bytes
from catalyst_pxeboot.loader import LOADERS, BootLoader
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.menu import ROOT_MEMBER, Limits, LiveEntry
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.personal.model import NO_PERSONAL, Personal
from catalyst_pxeboot.plan.memory import least_memory
from catalyst_pxeboot.plan.roots import (
    ROOT_CHECK,
    ROOT_CHECK_BYTES,
    ROOTS,
    STREAM_BYTES,
    Root,
    Way,
    find_check_obstacle,
)
from catalyst_pxeboot.plan.transport import find_warnings, fits_bios
from catalyst_pxeboot.source.image import Source, SourceKernel
from catalyst_pxeboot.source.menu import IsoEntry, without_root
from catalyst_pxeboot.source.network import OFF, ON
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.stream.tools import NOT_SOUGHT, NoTools, Tools
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from catalyst_pxeboot.util.text import size

ROOT_HEADER = "boot/root.cpio-header"
PERSONAL = "boot/personal.cpio"
_HOSTS = "hosts"

#: Bytes that loaders add to a command line by themselves: BOOT_IMAGE=, initrd=, BOOTIF=, and the
#: address of a root in the network.
_LOADER_WORDS = 256


@dataclass(frozen=True, slots=True)
class LivePlan:
    """The live entries, the default first, and why there are not more of them."""

    entries: tuple[LiveEntry, ...]
    notes: tuple[str, ...]  # root modes that an initramfs could have, and how
    left_out: tuple[str, ...]  # what is asked for and not possible


def plan_live(
    spec: Spec,
    source: Source,
    tools: Tools | NoTools = NOT_SOUGHT,
    personal: Personal = NO_PERSONAL,
) -> LivePlan:
    """Plan each kernel's entries by each root mode that the spec and its initramfs allow.

    `tools` are the build host's programs that stream a root, `personal` what the user adds.
    Raises `SpecError` with each reason if a kernel cannot do what is asked for, or nothing.
    """
    notes: list[str] = []
    chosen = _choose_roots(spec, source, tools, notes)
    planner = _Planner(spec, source, personal, notes)
    entries = [
        entry
        for mode in spec.roots or tuple(RootMode)
        for kernel in source.kernels
        if (way := chosen[kernel.iso.name].get(mode))
        for entry in planner.entries(kernel, ROOTS[mode], way)
    ]
    for loader in spec.loaders:
        if not any(
            loader in _loaders_for(ROOTS[entry.root], spec, streamed=entry.streamed)
            for entry in entries
        ):
            raise PxebootError(
                f"pxeboot/root: {loader} cannot learn the server address, so no root mode is"
                " available",
                hint="set pxeboot/base_url or pxeboot/nfs_root, add embedded, or leave"
                f" {loader} out of pxeboot/loaders",
            )
    return LivePlan(tuple(entries), tuple(notes), tuple(planner.left_out))


def _is_bios_only(loader: BootLoader) -> bool:
    return loader.initrds_below_2_gib and not loader.on_efi


def _choose_roots(
    spec: Spec, source: Source, tools: Tools | NoTools, notes: list[str]
) -> Mapping[str, Mapping[RootMode, Way]]:
    """Return each kernel's root modes and how it reaches them, by its name."""
    problems: list[PxebootError] = []
    chosen = {}
    for kernel in source.kernels:
        ways = {mode: root.find_way(kernel, source.squashfs, tools) for mode, root in ROOTS.items()}
        obstacles = {mode: way.obstacle for mode, way in ways.items()}
        if spec.roots:
            problems += [
                found.as_error(source.root) for mode in spec.roots if (found := obstacles[mode])
            ]
            chosen[kernel.iso.name] = {mode: ways[mode] for mode in spec.roots}
            continue
        able = [mode for mode in RootMode if obstacles[mode] is None]
        if not able and (first := obstacles[RootMode.EMBEDDED]):
            problems.append(first.as_error(source.root))
        for mode in (RootMode.EMBEDDED, RootMode.STREAM, RootMode.HTTP):
            if able and (obstacle := obstacles[mode]):
                notes.append(f"no {ROOTS[mode].title or f'root {mode}'}: {obstacle}")
        if RootMode.NFS in able and spec.nfs is None:
            able.remove(RootMode.NFS)
            notes.append(f"no root over NFS: {kernel.iso.initramfs} can; set pxeboot/nfs_root")
        chosen[kernel.iso.name] = {mode: ways[mode] for mode in able}
    if problems:
        raise problems[0] if len(problems) == 1 else SpecError(problems)
    return chosen


def _loaders_for(root: Root, spec: Spec, *, streamed: bool) -> tuple[Loader, ...]:
    """Return the spec's loaders that can say where the root is."""
    known = root.knows_server(spec)
    return tuple(
        kind
        for kind in spec.loaders
        if known or LOADERS[kind].root_variables or (streamed and LOADERS[kind].finds_tree)
    )


def _plan_check(root: Root, kernel: SourceKernel, spec: Spec, notes: list[str]) -> bool:
    """Say whether the initramfs compares the root with its digest."""
    # A root on NFS can change after any check, so it is checked only if the spec asks for it: then
    # it is copied into memory first.
    wanted = root.check_by_default if spec.verify_root is None else spec.verify_root
    if not root.needs_server or not wanted:
        return False
    obstacle = find_check_obstacle(kernel)
    if obstacle is None:
        return True
    if spec.verify_root:
        raise PxebootError(
            f"pxeboot/verify_root: {kernel.initramfs.path} cannot check a digest:"
            f" {obstacle.reason}",
            hint=obstacle.hint,
        )
    notes.append(f"the {root.title} is not checked: {obstacle}")
    return False


def _check_nfs(mode: RootMode, kernel: SourceKernel, spec: Spec) -> None:
    # With systemd, dracut makes a mount unit that does not know its syntax for options.
    systemd = {"systemd", "systemd-initrd"} & set(kernel.initramfs.modules)
    if mode is RootMode.NFS and systemd and spec.nfs and spec.nfs.options:
        raise PxebootError(
            f"pxeboot/nfs_root: {kernel.initramfs.path} is made by dracut with systemd and takes no"
            " options for NFS",
            hint=f"leave {spec.nfs.options!r} out",
        )


def _iso_entries(spec: Spec, kernel: SourceKernel) -> Iterator[IsoEntry]:
    yield from kernel.iso.entries
    for console in spec.consoles.get(kernel.iso.name, ()):
        extra = (f"console={console}",)
        if all(entry.extra != extra for entry in kernel.iso.entries):
            yield IsoEntry(f"Boot LiveCD (kernel: {kernel.iso.name} {extra[0]})", extra)


class _Planner:
    """Plans the entries of each kernel and root mode, and collects the reasons for missing ones."""

    def __init__(self, spec: Spec, source: Source, personal: Personal, notes: list[str]) -> None:
        self.left_out: list[str] = []
        self._spec = spec
        self._source = source
        self._personal = personal
        self._notes = notes
        self._labels: set[str] = set()

    def entries(self, kernel: SourceKernel, root: Root, way: Way) -> Iterator[LiveEntry]:
        """Yield the entries of a kernel by a root mode; none if no loader can lead to it."""
        offered = self._find_loaders(kernel, root, way)
        if not offered:
            return
        check = not way.streamed and _plan_check(root, kernel, self._spec, self._notes)
        _check_nfs(root.mode, kernel, self._spec)
        addon = stream_path(kernel) if way.streamed else ROOT_CHECK if check else None
        for entry in _iso_entries(self._spec, kernel):
            planned = self._plan_entry(kernel, entry, root, way, addon)
            limits = {loader: self._find_limits(planned, loader, kernel) for loader in offered}
            yield replace(planned, offered=offered, limits=limits)

    def _find_loaders(self, kernel: SourceKernel, root: Root, way: Way) -> tuple[Loader, ...]:
        """Return the loaders that can lead a kernel to its root, and note why others cannot."""
        spec, squashfs = self._spec, self._source.squashfs
        offered = knowing = _loaders_for(root, spec, streamed=way.streamed)
        if way.streamed:
            joining = [kind for kind in offered if LOADERS[kind].joins_initrds]
            offered = tuple(kind for kind in offered if kind not in joining)
            self.left_out += [
                f"{kernel.iso.name}, {root.title}, by {kind}: it loads one initrd only"
                for kind in joining
            ]
        initrds = kernel.initramfs.bytes + (squashfs.bytes if root.in_initrd else 0)
        initrds += STREAM_BYTES if way.streamed else 0
        if not fits_bios(kernel.kernel, initrds):
            unable = [kind for kind in offered if _is_bios_only(LOADERS[kind])]
            offered = tuple(kind for kind in offered if kind not in unable)
            self.left_out += [
                f"{kernel.iso.name}, by {kind}: it runs on a BIOS, where"
                f" {size(initrds)} of initrds do not fit below 2 GiB"
                for kind in unable
            ]
        self.left_out += [
            f"{kernel.iso.name}, {root.title}, by {loader}: it cannot learn the server"
            f" address; set pxeboot/{root.server_key}"
            for loader in spec.loaders
            if loader not in knowing
        ]
        return offered

    def _plan_entry(
        self, kernel: SourceKernel, entry: IsoEntry, root: Root, way: Way, addon: str | None
    ) -> LiveEntry:
        spec, personal = self._spec, self._personal
        generator = kernel.initramfs.generator
        plain = not (root.in_initrd or addon or personal)  # the initramfs is the only initrd
        loaders = [LOADERS[kind] for kind in spec.loaders]
        joined = any(loader.joins_initrds for loader in loaders) and not plain and not way.streamed
        loads_trees = any(loader.loads_device_trees for loader in loaders)
        trees = kernel.device_trees if loads_trees else None
        modes = () if root.in_initrd else (root.mode,)
        return LiveEntry(
            name=_label(kernel.iso.name, modes, entry.extra, self._labels),
            title=entry.title,
            kernel=kernel.iso.path,
            initramfs=kernel.iso.initramfs,
            padding=None if plain else padding_path(kernel),
            root_header=ROOT_HEADER if root.in_initrd else None,
            squashfs=self._source.squashfs.path.name,
            arguments=self._arguments(kernel, entry, root, way),
            generator=generator,
            root=root.mode,
            addon=addon,
            personal=PERSONAL if personal else None,
            streamed=way.streamed,
            unpacked=unpacked_path(spec, kernel),
            unpacked_for=unpacked_for(spec, kernel),
            joined=joined_path(kernel, root) if joined else None,
            device_trees=trees.folder if trees else None,
        )

    def _arguments(
        self, kernel: SourceKernel, entry: IsoEntry, root: Root, way: Way
    ) -> tuple[str, ...]:
        spec = self._spec
        user = kernel.iso.arguments if spec.bootargs is None else without_root(spec.bootargs)
        if self._source.network.is_missing and root.in_memory:  # else it must stay as it is
            user = tuple(ON if word == OFF else word for word in user)
        own = (*user, *spec.extra_bootargs)
        arguments = (
            *root.arguments_for(kernel.initramfs.generator, streamed=way.streamed),
            *own,
            *(word for word in self._personal.arguments if word not in own),
            *_serial_arguments(spec),
            *(word for word in entry.extra if word not in user),
        )
        _check_arguments(arguments, spec, kernel)
        return arguments

    def _find_limits(self, entry: LiveEntry, loader: Loader, kernel: SourceKernel) -> Limits:
        """Estimate what `entry` needs of a client that boots it by `loader`."""
        sizes = part_sizes(kernel, self._source, self._personal)
        loaded = sum(sizes[part] for part in entry.parts)
        root, squashfs = ROOTS[entry.root], self._source.squashfs.bytes
        fetched = squashfs if root.in_memory and not root.in_initrd else 0
        if fetched and entry.streamed:
            fetched += tree_bytes(squashfs)
        firmwares = LOADERS[loader].firmwares(bios=self._spec.arch.has_bios)
        memory = {
            firmware: least_memory(
                entry.root,
                loader,
                firmware,
                kernel=kernel.kernel,
                initramfs=kernel.initramfs,
                squashfs=squashfs,
                addon=sum(sizes[part] for part in (entry.addon, entry.personal) if part),
            )
            for firmware in firmwares
        }
        parts = [sizes[part] for part in entry.parts]
        largest = max(kernel.kernel.bytes, *([loaded] if LOADERS[loader].joins_initrds else parts))
        warnings = find_warnings(
            loader, firmwares, kernel=kernel.kernel, initrds=loaded, largest=largest
        )
        return Limits(kernel.kernel.bytes + loaded + fetched, memory, tuple(warnings))


def _serial_arguments(spec: Spec) -> tuple[str, ...]:
    # The last console= is /dev/console, which the initramfs and the login use.
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


def _label(kernel: str, modes: Sequence[str], extra: Sequence[str], taken: set[str]) -> str:
    words = ("accessibility",) if tuple(extra) == ("dospeakup",) else tuple(extra)
    joined = "-".join((kernel, *modes, *words))
    label = re.sub(r"[^A-Za-z0-9]+", "-", joined).strip("-").lower()
    number, unique = 2, label
    while unique in taken:
        unique, number = f"{label}-{number}", number + 1
    taken.add(unique)
    return unique


def padding_path(kernel: SourceKernel) -> str | None:
    """Name the zeros between a kernel's initramfs and the next archive, if it needs any."""
    image = kernel.initramfs
    padding = alignment_padding(image.bytes, image.compression)
    return f"{kernel.iso.initramfs}.pad" if padding else None


def unpacked_for(spec: Spec, kernel: SourceKernel) -> tuple[Loader, ...]:
    """Return the spec's loaders that cannot start this kernel as it is."""
    image = kernel.kernel.image
    return tuple(loader for loader in spec.loaders if image in LOADERS[loader].cannot_start)


def unpacked_path(spec: Spec, kernel: SourceKernel) -> str | None:
    """Name the kernel's plain Image, if a loader needs it."""
    return f"{kernel.iso.path}.Image" if unpacked_for(spec, kernel) else None


def stream_path(kernel: SourceKernel) -> str:
    """Name the initrd that streams a root to a kernel."""
    return f"{kernel.iso.path}.net.cpio"


def joined_path(kernel: SourceKernel, root: Root) -> str:
    """Name U-Boot's only initrd for a kernel and a root mode."""
    return f"{kernel.iso.path}.{'initrd' if root.in_initrd else 'check'}"


def host_path(name: str) -> str:
    """Name the initrd of one machine alone; `name` is its MAC address or UUID."""
    return f"{_HOSTS}/{name}.cpio"


def part_sizes(
    kernel: SourceKernel, source: Source, personal: Personal = NO_PERSONAL
) -> Mapping[str, int]:
    """Return the bytes of each file that an initrd of this kernel is made of, by its path."""
    image = kernel.initramfs
    sizes = {
        kernel.iso.initramfs: image.bytes,
        ROOT_HEADER: len(member_header(ROOT_MEMBER, source.squashfs.bytes)),
        source.squashfs.path.name: source.squashfs.bytes,
        ROOT_CHECK: ROOT_CHECK_BYTES,
        stream_path(kernel): STREAM_BYTES,
        PERSONAL: personal.bytes,
    }
    if padding := padding_path(kernel):
        sizes[padding] = alignment_padding(image.bytes, image.compression)
    return sizes

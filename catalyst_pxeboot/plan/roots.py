"""The ways to the live root: what each needs of an initramfs, and its kernel arguments. Pure.

Source of the arguments: dracut.cmdline(7), dracut's modules dmsquash-live, livenet and nfs;
genkernel(8) and its linuxrc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.formats.cpio import MAX_MEMBER
from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.model.menu import ROOT_MEMBER
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.source.image import SourceKernel
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.text import size

#: What leads each generator's initramfs to the live root, but for where it lies in a network.
ROOT_ARGUMENTS: Mapping[tuple[Generator, RootMode], tuple[str, ...]] = {
    (Generator.DRACUT, RootMode.EMBEDDED): (
        f"root=live:/{ROOT_MEMBER}",
        "rd.live.overlay.overlayfs=1",
        "cdroot",
    ),
    (Generator.DRACUT, RootMode.HTTP): ("rd.live.overlay.overlayfs=1", "cdroot", "rd.neednet=1"),
    (Generator.DRACUT, RootMode.NFS): ("rd.live.overlay.overlayfs=1", "cdroot", "rd.neednet=1"),
    # Without root=/dev/ram0 the kernel unpacks into a tmpfs that ends at half the memory.
    (Generator.GENKERNEL, RootMode.EMBEDDED): (
        "root=/dev/ram0",
        "init=/linuxrc",
        "looptype=squashfs",
        f"loop=/{ROOT_MEMBER}",
        "cdroot",
    ),
    (Generator.GENKERNEL, RootMode.NFS): (
        "root=/dev/ram0",
        "init=/linuxrc",
        "real_root=/dev/nfs",
        "looptype=squashfs",
        "cdroot",
    ),
}


#: The path in the tree of the initrd that compares a root from the network with its digest, and
#: its bytes: always the same, so that a plan knows them before the digest is known.
ROOT_CHECK = "boot/root-check.cpio"


ROOT_CHECK_BYTES = 16 << 10


#: dracut's modules that bring the network up.
_NETWORK_MODULES = frozenset(
    {"network-legacy", "network-manager", "systemd-networkd", "connman", "network-wicked"}
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a file of the live image stands in the way of a root, and what to do about it."""

    file: str  # relative to the image's root, so that it can be told to anybody
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}; {self.hint}"

    def as_error(self, root: Path) -> SourceError:
        """Return the error that ends a build from the live image at `root`."""
        return SourceError(f"{root / self.file}: {self.reason}", hint=self.hint)


def find_obstacle(mode: RootMode, kernel: SourceKernel, squashfs: Squashfs) -> Obstacle | None:
    """Return why this kernel's initramfs cannot reach the root by `mode`, with the remedy."""
    obstacles: dict[RootMode, Callable[[SourceKernel, Squashfs], Iterator[Obstacle]]] = {
        RootMode.EMBEDDED: _embedded,
        RootMode.HTTP: _http,
        RootMode.NFS: _nfs,
    }
    return next(obstacles[mode](kernel, squashfs), None)


def find_check_obstacle(kernel: SourceKernel) -> Obstacle | None:
    """Return why this kernel's initramfs cannot check a root as it is, with the remedy."""
    initramfs, reason, hint = kernel.initramfs, None, "leave pxeboot/verify_root out"
    if initramfs.generator is Generator.GENKERNEL:
        if not initramfs.splash:
            reason = (
                f"genkernel {initramfs.version} made it with a splash, whose place the check would"
                " take, or is older than 4.1"
            )
    elif "dmsquash-live" not in initramfs.modules:
        reason = "it has no dmsquash-live, in whose place the check runs"
    elif initramfs.hooks is None:
        reason = "it has no folder of dracut's hooks that is known here"
    elif not initramfs.hasher:
        reason = "it has no sha256sum"
        hint = f"add `-I sha256sum` to {_key(kernel)}/dracut_args of the livecd-stage2 spec"
    return Obstacle(kernel.iso.initramfs, reason, hint) if reason else None


def _embedded(kernel: SourceKernel, squashfs: Squashfs) -> Iterator[Obstacle]:
    initramfs = kernel.initramfs
    if squashfs.bytes > MAX_MEMBER:
        yield Obstacle(
            squashfs.path.name,
            f"{size(squashfs.bytes)} cannot be embedded in an initramfs, whose"
            " members end at 4 GiB",
            "make the live root smaller or compress it harder (livecd/fsops), or let the"
            " initramfs fetch it (pxeboot/root: http)",
        )
    if initramfs.generator is Generator.DRACUT and "dmsquash-live" not in initramfs.modules:
        yield _lacks(kernel, "dmsquash-live", "which mounts the live root")
    if initramfs.generator is Generator.GENKERNEL and not initramfs.loop_wo_mount:
        yield Obstacle(
            kernel.iso.initramfs,
            f"genkernel {initramfs.version} cannot boot a live root that lies in the initramfs",
            "build livecd-stage2 with genkernel 4.0 or later, or with"
            f" {_key(kernel)}/distkernel: yes",
        )


def _http(kernel: SourceKernel, _squashfs: Squashfs) -> Iterator[Obstacle]:
    initramfs = kernel.initramfs
    if initramfs.generator is Generator.GENKERNEL:
        yield Obstacle(
            kernel.iso.initramfs,
            f"genkernel {initramfs.version} cannot fetch a root over HTTP",
            f"build livecd-stage2 with {_key(kernel)}/distkernel: yes and"
            f" {_key(kernel)}/dracut_args: -a livenet",
        )
        return
    yield from _dracut_network(kernel)
    if "url-lib" not in initramfs.modules or not initramfs.fetcher:
        yield Obstacle(
            kernel.iso.initramfs,
            f"dracut {initramfs.version} made it without curl, which fetches the live root",
            "install net-misc/curl in the livecd-stage2 build and add `-a livenet` to"
            f" {_key(kernel)}/dracut_args",
        )


def _nfs(kernel: SourceKernel, _squashfs: Squashfs) -> Iterator[Obstacle]:
    initramfs = kernel.initramfs
    config = kernel.config or {}
    dracut = initramfs.generator is Generator.DRACUT
    if dracut:
        yield from _dracut_network(kernel)
        if "nfs" not in initramfs.modules:
            yield _lacks(kernel, "nfs", "which mounts what is on an NFS server")
    drivers = ("nfsv3", "nfsv4") if dracut else ("nfsv3",)
    options = {"nfsv3": "CONFIG_NFS_V3", "nfsv4": "CONFIG_NFS_V4"}
    able = any(d in initramfs.drivers or config.get(options[d]) == "y" for d in drivers)
    if not able:
        yield Obstacle(
            kernel.iso.initramfs,
            f"{' or '.join(drivers)} is neither in it nor in the kernel, but the root is on NFS",
            f"add `--add-drivers nfsv3` to {_key(kernel)}/dracut_args"
            if dracut
            else "build CONFIG_NFS_V3 into the kernel, or add nfsv3 to the modules that genkernel"
            " puts into the initramfs (MODULES_FS in its modules_load)",
        )


def _dracut_network(kernel: SourceKernel) -> Iterator[Obstacle]:
    modules = kernel.initramfs.modules
    if "livenet" not in modules:
        yield _lacks(kernel, "livenet", "which gets the live root from a server")
    elif _NETWORK_MODULES.isdisjoint(modules):
        yield _lacks(kernel, "network-manager", "which brings the network up")


def _lacks(kernel: SourceKernel, module: str, what_for: str) -> Obstacle:
    initramfs = kernel.initramfs
    return Obstacle(
        kernel.iso.initramfs,
        f"dracut {initramfs.version} made it without {module}, {what_for}",
        f"add `-a {module}` to {_key(kernel)}/dracut_args of the livecd-stage2 spec",
    )


def _key(kernel: SourceKernel) -> str:
    return f"boot/kernel/{kernel.iso.name}"

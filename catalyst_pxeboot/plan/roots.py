"""The root modes: one row for each way that the live root gets to the running system. Pure.

A row holds all that differs from mode to mode: kernel arguments, obstacles, memory,
title, whether a server must be known. Everything else asks the row.

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
from catalyst_pxeboot.formats.verity import BLOCK
from catalyst_pxeboot.loader.common import RootVariables
from catalyst_pxeboot.model.menu import ROOT_MEMBER, LiveEntry, Menu
from catalyst_pxeboot.model.settings import NfsRoot, RootMode
from catalyst_pxeboot.source.image import SourceKernel
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.stream.tools import NoTools, Tools
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.text import size

_MIB = 1 << 20

#: The path in the tree of the initrd that compares a root from the network with its digest, and
#: its bytes: always the same, so that a plan knows them before the digest is known.
ROOT_CHECK = "boot/root-check.cpio"
ROOT_CHECK_BYTES = 16 << 10

#: An estimate of the bytes of the initrd that streams a root: all wired drivers of a distribution's
#: kernel, and nbdkit with its libraries.
STREAM_BYTES = 20 << 20

#: dracut's modules that bring the network up.
_NETWORK_MODULES = frozenset(
    {"network-legacy", "network-manager", "systemd-networkd", "connman", "network-wicked"}
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a file of the live image makes a root impossible, and what to do about it."""

    file: str  # relative to the image's root
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}; {self.hint}"

    def as_error(self, root: Path) -> SourceError:
        """Return the error that ends a build from the live image at `root`."""
        return SourceError(f"{root / self.file}: {self.reason}", hint=self.hint)


class HostObstacle(Obstacle):
    """Why a program of the build host, `file`, makes a root impossible."""

    def as_error(self, root: Path) -> SourceError:
        return SourceError(f"pxeboot/root: {self.file}: {self.reason}", hint=self.hint)


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


def find_stream_obstacle(
    kernel: SourceKernel, squashfs: Squashfs, tools: Tools | NoTools
) -> Obstacle | None:
    """Return why an add-on cannot get this kernel's initramfs a root from a web server."""
    initramfs = kernel.initramfs
    genkernel = initramfs.generator is Generator.GENKERNEL
    if genkernel and not (initramfs.splash and initramfs.loop_wo_mount):
        return Obstacle(
            kernel.iso.initramfs,
            f"genkernel {initramfs.version} made it with a splash, whose place an add-on would"
            " take, or is older than 4.1",
            f"build livecd-stage2 with {_key(kernel)}/distkernel: yes",
        )
    if not genkernel and "dmsquash-live" not in initramfs.modules:
        return _lacks(kernel, "dmsquash-live", "which mounts the live root")
    if not genkernel and initramfs.hooks is None:
        return Obstacle(
            kernel.iso.initramfs,
            "it has no folder of dracut's hooks that is known here",
            "build livecd-stage2 with dracut 050 or later",
        )
    if kernel.modules is None:
        return Obstacle(
            squashfs.path.name,
            f"it has no modules of Linux {kernel.kernel.version or 'of unknown version'}, so no"
            " network drivers",
            "build livecd-stage2 again",
        )
    if squashfs.bytes % BLOCK:
        return Obstacle(
            squashfs.path.name,
            f"its size is not a multiple of {BLOCK} bytes, by which dm-verity checks it",
            "leave -nopad out of livecd/fsops",
        )
    if isinstance(tools, NoTools):
        return HostObstacle(tools.what, tools.reason, tools.hint)
    if tools.machine != kernel.kernel.machine:
        return HostObstacle("nbdkit", f"not looked for, for {kernel.kernel.machine}", "")
    return None


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


@dataclass(frozen=True, slots=True)
class RootLocation:
    """Where a live root on a server is, each value as the reader of the arguments writes it."""

    squashfs: str  # its path in the tree
    hash_tree: str  # that of its hash tree; empty: the squashfs's own, with the usual ending
    url: str  # the tree on its web server, with a slash at the end
    nfs_server: str
    nfs_path: str
    nfs_options: str  # with commas between, or empty
    address: str  # the client's own address, as dracut reads it; empty: not needed
    genkernel_address: str
    mac: str  # of the network card that booted; empty if not known


#: The kernel arguments that say where on a web server a root is, to dracut and to an add-on.
_DRACUT_URL, _STREAM_URL = "root=live:", "pxeboot.url="


def _dracut_http(at: RootLocation) -> tuple[str, ...]:
    return (f"{_DRACUT_URL}{at.url}{at.squashfs}", at.address)


def _streamed(at: RootLocation) -> tuple[str, ...]:
    hashes = f"pxeboot.hashes={at.hash_tree}" if at.hash_tree else ""
    return (f"{_STREAM_URL}{at.url}{at.squashfs}", hashes, at.address)


def _dracut_nfs(at: RootLocation) -> tuple[str, ...]:
    # dracut takes options only in its own form, which is not a URL.
    server = f"{at.nfs_options}:{at.nfs_server}:" if at.nfs_options else f"//{at.nfs_server}"
    return (f"root=live:nfs:{server}{at.nfs_path}/{at.squashfs}", at.address)


def _genkernel_nfs(at: RootLocation) -> tuple[str, ...]:
    options = f",{at.nfs_options}" if at.nfs_options else ""
    return (
        f"loop=/{at.squashfs}",
        f"nfsroot={at.nfs_server}:{at.nfs_path}{options}",
        f"gk.net.iface={at.mac}" if at.mac else "",
        at.genkernel_address,
    )


def _knows_base_url(spec: Spec) -> bool:
    return spec.base_url is not None


def _knows_nfs_server(spec: Spec) -> bool:
    return spec.nfs is not None and spec.nfs.server is not None


def _mounted(dracut: str, genkernel: str) -> Mapping[Generator, tuple[str, ...]]:
    """Return how each initramfs mounts a live root that it has at that path."""
    return {
        Generator.DRACUT: (f"root=live:{dracut}", "rd.live.overlay.overlayfs=1", "cdroot"),
        # Without root=/dev/ram0 the kernel unpacks into a tmpfs that ends at half the memory.
        Generator.GENKERNEL: (
            "root=/dev/ram0",
            "init=/linuxrc",
            "looptype=squashfs",
            f"loop={genkernel}",
            "cdroot",
        ),
    }


#: The device that an add-on makes; genkernel looks for it in the folder / only, so by a link.
_STREAMED = _mounted("/dev/mapper/live-root", "/live-root")


@dataclass(frozen=True, slots=True)
class Way:
    """How an initramfs reaches a root: by itself or by an add-on, or why it cannot."""

    obstacle: Obstacle | None = None
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """One root mode.

    `arguments` are the same for every loader; `location` makes the words that say where on a
    server the root is. `network_memory` (bytes) is what the network costs beside the root itself.
    """

    mode: RootMode
    title: str  # what a menu adds to an entry's title; empty for the usual way
    arguments: Mapping[Generator, tuple[str, ...]]
    obstacles: Callable[[SourceKernel, Squashfs], Iterator[Obstacle]] | None
    location: Mapping[Generator, Callable[[RootLocation], tuple[str, ...]]]
    addon_arguments: tuple[str, ...] = ()  # more of them where an add-on gets it
    server_key: str = ""  # the spec key that names its server; empty: it needs none
    knows_server: Callable[[Spec], bool] = lambda _spec: True
    in_initrd: bool = False  # the loader loads it
    in_memory: bool = True  # the running system holds it
    check_by_default: bool = False  # compared with its digest unless the spec says otherwise
    network_memory: int = 0

    def arguments_for(self, generator: Generator, *, streamed: bool) -> tuple[str, ...]:
        """Return the kernel arguments by which an initramfs of `generator` gets to the root."""
        if streamed:
            return (*_STREAMED[generator], *self.addon_arguments)
        return self.arguments[generator]

    @property
    def needs_server(self) -> bool:
        """Whether the root comes from a server."""
        return bool(self.server_key)

    @property
    def by_url(self) -> bool:
        """Whether the root's address on a web server is a kernel argument."""
        return self.server_key == "base_url"

    @property
    def by_http(self) -> bool:
        """Whether a web server is all that a client needs."""
        return self.server_key in {"", "base_url"}

    def find_way(self, kernel: SourceKernel, squashfs: Squashfs, tools: Tools | NoTools) -> Way:
        """Return how this kernel's initramfs reaches the root: by itself, if it can."""
        obstacle = None
        if self.obstacles:
            obstacle = next(self.obstacles(kernel, squashfs), None)
            if obstacle is None:
                return Way()
        if self.mode.by_addon:
            other = find_stream_obstacle(kernel, squashfs, tools)
            if other is None:
                return Way(streamed=True)
            obstacle = obstacle or other
        return Way(obstacle)


#: Every root mode, the default order of a menu first.
ROOTS: Mapping[RootMode, Root] = {
    root.mode: root
    for root in (
        Root(
            RootMode.EMBEDDED,
            title="",
            arguments=_mounted(f"/{ROOT_MEMBER}", f"/{ROOT_MEMBER}"),
            obstacles=_embedded,
            location={},
            in_initrd=True,
        ),
        Root(
            RootMode.STREAM,
            title="root streamed over HTTP",
            arguments={},
            obstacles=None,
            location={},
            server_key="base_url",
            knows_server=_knows_base_url,
            in_memory=False,
            network_memory=32 * _MIB,  # drivers, nbdkit, what was read of the root lately
        ),
        Root(
            RootMode.HTTP,
            title="root over HTTP",
            arguments={Generator.DRACUT: ("rd.live.overlay.overlayfs=1", "cdroot", "rd.neednet=1")},
            obstacles=_http,
            location={Generator.DRACUT: _dracut_http},
            addon_arguments=("pxeboot.copy",),
            server_key="base_url",
            knows_server=_knows_base_url,
            check_by_default=True,
            # curl, and room to read the fetched file through its loop device: with 20 MiB less it
            # is read so slowly that the live root takes minutes, with 60 less it is not fetched to
            # its end.
            network_memory=40 * _MIB,
        ),
        Root(
            RootMode.NFS,
            title="root over NFS",
            arguments={
                Generator.DRACUT: ("rd.live.overlay.overlayfs=1", "cdroot", "rd.neednet=1"),
                Generator.GENKERNEL: (
                    "root=/dev/ram0",
                    "init=/linuxrc",
                    "real_root=/dev/nfs",
                    "looptype=squashfs",
                    "cdroot",
                ),
            },
            obstacles=_nfs,
            location={Generator.DRACUT: _dracut_nfs, Generator.GENKERNEL: _genkernel_nfs},
            server_key="nfs_root",
            knows_server=_knows_nfs_server,
            in_memory=False,
            network_memory=24 * _MIB,  # modules, a DHCP client, buffers
        ),
    )
}


def url_argument(entry: LiveEntry) -> str | None:
    """Return the start of the kernel argument that names the root of `entry` on a web server."""
    if entry.streamed:
        return _STREAM_URL
    return _DRACUT_URL if entry.root is RootMode.HTTP else None


def root_location(entry: LiveEntry, menu: Menu, variables: RootVariables | None) -> tuple[str, ...]:
    """Return the kernel arguments that say where on a server the root of `entry` is.

    Empty where it needs none. `variables` are those of whoever passes the arguments on; None
    is one that knows nothing beyond what the menu says.
    """
    make = _streamed if entry.streamed else ROOTS[entry.root].location.get(entry.generator)
    if make is None:
        return ()
    known = variables or RootVariables()
    nfs = menu.nfs or NfsRoot(None, "")
    words = make(
        RootLocation(
            squashfs=entry.squashfs,
            hash_tree=entry.hash_tree or "",
            url=known.url or (f"{menu.base_url}/" if menu.base_url else ""),
            nfs_server=nfs.server or known.nfs_server,
            nfs_path=nfs.path,
            nfs_options=nfs.options,
            address=known.address,
            genkernel_address=known.genkernel_address,
            mac=known.mac,
        )
    )
    return tuple(word for word in words if word)

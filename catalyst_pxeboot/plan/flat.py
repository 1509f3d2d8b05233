"""Plan the flat release files: the tree's parts again, under names that mirrors move and link.

Gentoo's mirror mover takes flat files only, each with a time stamp in its name, and gives every
name up to the stamp ("variant") a latest and a current link. So each part is a variant of its own,
and digests have another stem, as a file that extends a part's name would take its place there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.files import HASH_TREE_ENDING, hash_tree_path
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.menu import LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.plan.roots import ROOTS
from catalyst_pxeboot.plan.tree import Plan

#: The start of the digest files' names, and their endings.
SUMS_STEM = "pxeboot"
DIGESTS = "DIGESTS"
SHA256 = "sha256"


@dataclass(frozen=True, slots=True)
class FlatSet:
    """What a release's flat set is made of. Names are file names, without a folder."""

    release: str
    stamp: str  # as in the names; also the dated folder's name on a mirror
    links: Mapping[str, str]  # each part's name, and the tree's file that it is
    configs: Mapping[Loader, str]
    menu: Menu  # with the flat names

    @property
    def folder(self) -> str:
        """The way from a folder with one of the files to the folder with all of them.

        A mirror shows each part in its dated folder and in a current-… folder beside it.
        """
        return f"../{self.stamp}/"

    def sums_name(self, ending: str) -> str:
        """Return the name of a digest file."""
        return f"{SUMS_STEM}-{self.release}.{ending}"

    @property
    def origins(self) -> Mapping[str, str | None]:
        """Every name that the set can have, with the tree's file that it is."""
        return {**dict.fromkeys(self.names), **self.links}

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the set can have."""
        endings = (DIGESTS, SHA256, f"{DIGESTS}.asc", f"{SHA256}.asc")
        return (*self.links, *self.configs.values(), *map(self.sums_name, endings))


def plan_flat(plan: Plan) -> FlatSet | None:
    """Plan the flat set that the spec asks for; None where it asks for none."""
    release = plan.spec.release
    if release is None:
        return None
    names = _Names(release.name, several=len(plan.source.kernels) > 1)
    # A mirror serves by HTTP, from an address that is not known yet.
    live = tuple(
        _flat_live(entry, names)
        for entry in plan.menu.live
        if ROOTS[entry.root].by_http and _flat_offered(entry)
    )
    memtests = tuple(_flat_memtest(entry, names) for entry in plan.menu.memtests)
    return FlatSet(
        release=release.name,
        stamp=release.stamp,
        links=names.links,
        configs={
            kind: f"netboot-{kind}-{release.name}.{loader.flat_ending}"
            for kind, loader in LOADERS.items()
            if any(kind in entry.offered for entry in live)
        },
        menu=replace(
            plan.menu, live=live, memtests=memtests, base_url=None, nfs=None, ipxe_signed=False
        ),
    )


def _flat_offered(entry: LiveEntry) -> tuple[Loader, ...]:
    server = ROOTS[entry.root].needs_server
    return tuple(
        kind
        for kind in entry.offered
        if LOADERS[kind].flat_ending and (LOADERS[kind].root_variables or not server)
    )


class _Names:
    """Gives each file of the tree its flat name."""

    def __init__(self, release: str, *, several: bool) -> None:
        self.links: dict[str, str] = {}
        self._release = release
        self._several = several

    def take(self, path: str, part: str, ending: str = "", *, kernel: str = "") -> str:
        of = f"-{kernel}" if kernel and self._several else ""
        name = f"netboot-{part}{of}-{self._release}{ending}"
        self.links[name] = path
        return name


def _flat_live(entry: LiveEntry, names: _Names) -> LiveEntry:
    kernel = entry.kernel.rpartition("/")[2]

    def take(path: str | None, part: str, ending: str = "", *, own: bool = True) -> str | None:
        return names.take(path, part, ending, kernel=kernel if own else "") if path else None

    return replace(
        entry,
        kernel=take(entry.kernel, "kernel") or "",
        unpacked=take(entry.unpacked, "image"),
        initramfs=take(entry.initramfs, "initramfs", ".igz") or "",
        padding=take(entry.padding, "padding", ".pad"),
        root_header=take(entry.root_header, "header", ".cpio", own=False),
        addon=take(entry.addon, "net" if entry.streamed else "check", ".cpio", own=entry.streamed),
        squashfs=take(entry.squashfs, "root", ".squashfs", own=False) or "",
        hash_tree=take(
            hash_tree_path(entry.squashfs) if entry.streamed else None,
            "hashes",
            HASH_TREE_ENDING,
            own=False,
        ),
        offered=_flat_offered(entry),
        joined=None,
        device_trees=None,
    )


def _flat_memtest(entry: MemtestEntry, names: _Names) -> MemtestEntry:
    part = f"memtest{entry.bits}-{entry.firmware}"
    return replace(entry, path=names.take(entry.path, part))

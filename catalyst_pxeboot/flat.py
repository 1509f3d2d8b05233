"""The flat release files: the tree's parts once more, under names that mirrors move and link.

Gentoo's mirror mover takes flat files only, each with a time stamp in its name, and gives every
name up to the stamp ("variant") a latest and a current link. So each part is a variant of its own,
and digests have another stem, as a file that extends a part's name would take its place there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalyst_pxeboot.model.files import MadeFile
from catalyst_pxeboot.model.loader import KNOW_SERVER, Loader
from catalyst_pxeboot.model.menu import LiveEntry, MemtestEntry, Menu
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan import Plan
from catalyst_pxeboot.publish import own_flat_names
from catalyst_pxeboot.signatures import Signers, clearsign_sums
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import PublishError
from catalyst_pxeboot.util.files import remove_tree, write_file
from catalyst_pxeboot.util.sums import ALWAYS, algorithms, render_sums

#: The loaders that get a configuration, and what ends its name.
CONFIG_ENDINGS = {Loader.IPXE: "ipxe", Loader.PXELINUX: "cfg", Loader.GRUB: "cfg"}

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
        sums = (self.sums_name(ending) for ending in (DIGESTS, SHA256, f"{DIGESTS}.asc"))
        return (*self.links, *self.configs.values(), *sums)


def plan_flat(plan: Plan) -> FlatSet | None:
    """Plan the flat set that the spec asks for; None where it asks for none."""
    release = plan.spec.release
    if release is None:
        return None
    names = _Names(release.name, several=len(plan.source.kernels) > 1)
    # A mirror serves by HTTP, from an address that nobody knows yet.
    live = tuple(
        _flat_live(entry, names)
        for entry in plan.menu.live
        if entry.root is not RootMode.NFS and _flat_offered(entry)
    )
    memtests = tuple(_flat_memtest(entry, names) for entry in plan.menu.memtests)
    return FlatSet(
        release=release.name,
        stamp=release.stamp,
        links=names.links,
        configs={
            loader: f"netboot-{loader}-{release.name}.{ending}"
            for loader, ending in CONFIG_ENDINGS.items()
            if any(loader in entry.offered for entry in live)
        },
        menu=replace(
            plan.menu, live=live, memtests=memtests, base_url=None, nfs=None, ipxe_signed=False
        ),
    )


def _flat_offered(entry: LiveEntry) -> tuple[Loader, ...]:
    able = CONFIG_ENDINGS if entry.root is RootMode.EMBEDDED else KNOW_SERVER
    return tuple(loader for loader in entry.offered if loader in able)


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

    parts = entry.parts
    return replace(
        entry,
        kernel=take(entry.kernel, "kernel") or "",
        unpacked=take(entry.unpacked, "image"),
        initramfs=take(entry.initramfs, "initramfs", ".igz") or "",
        padding=take(entry.padding, "padding", ".pad"),
        root_header=(take(entry.root_header, "header", ".cpio", own=False) or "")
        if entry.root_header in parts
        else "none",
        root_check=take(entry.root_check, "check", ".cpio", own=False),
        squashfs=take(entry.squashfs, "root", ".squashfs", own=False) or "",
        offered=_flat_offered(entry),
        joined=None,
        device_trees=None,
    )


def _flat_memtest(entry: MemtestEntry, names: _Names) -> MemtestEntry:
    part = f"memtest{entry.bits}-{entry.firmware}"
    return replace(entry, path=names.take(entry.path, part))


class FlatPublication:
    """A release's flat files, staged beside `target` and put in place by renames, digests last.

    Use as a context manager around the tree's publication, whose lock it relies on. Raises
    `PublishError` if a file of such a name is there that an earlier run did not make.
    """

    def __init__(self, flat: FlatSet, target: Path) -> None:
        self._flat = flat
        self._target = target
        self.staging = staging_path(target)

    def __enter__(self) -> Path:
        self._check_free()
        remove_tree(self.staging)
        self.staging.mkdir(mode=0o755)
        return self.staging

    def __exit__(self, *_error: object) -> None:
        remove_tree(self.staging)

    def commit(self) -> None:
        """Put every staged file in its place; readers that go by the digests see a whole set."""
        sums = self._flat.sums_name("")
        names = sorted(
            (path.name for path in self.staging.iterdir()),
            key=lambda name: (name.startswith(sums), name),
        )
        for name in names:
            (self.staging / name).replace(self._target.parent / name)

    def _check_free(self) -> None:
        # The tree is published first, so its manifest names all that an earlier run put here.
        known = own_flat_names(self._target)
        for name in self._flat.names:
            path = self._target.parent / name
            if (path.exists() or path.is_symlink()) and name not in known:
                raise PublishError(
                    f"{path}: is in the way, and no earlier run for pxeboot/release made it",
                    hint="move it away or give another pxeboot/release",
                )


def staging_path(target: Path) -> Path:
    """Return the folder beside `target` in which its flat set is staged."""
    return target.parent / f".{target.name}.flat.staging"


def stage_flat(
    flat: FlatSet,
    configs: Sequence[MadeFile],
    *,
    tree: Path,
    staging: Path,
    by_path: Mapping[str, Mapping[str, str]],
    digests: Sequence[str],
    digest_format: str,
    signers: Signers,
    time: int,
) -> None:
    """Fill `staging` with links to the parts in `tree`, the configurations and the digests.

    `by_path` has the digests of the tree's files; nothing is read again.
    """
    found = {}
    for name, path in flat.links.items():
        os.link(tree / path, staging / name)
        found[name] = by_path[path]
    for config in configs:
        write_file(staging / config.path, config.content, time=time)
        found[config.path] = digest_bytes(config.content, algorithms(digests))
    sums: dict[str, Sequence[str]] = {flat.sums_name(SHA256): (ALWAYS,)}
    if digests:
        sums[flat.sums_name(DIGESTS)] = digests
    texts = render_sums(found, sums, digest_format)
    texts |= clearsign_sums(signers, texts, [flat.sums_name(DIGESTS)], time=time)
    for name, content in texts.items():
        write_file(staging / name, content, time=time)

"""A finished tree for other systems, read from its manifest and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.manifest import MANIFEST, EntryInfo, Manifest
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.plan.roots import ROOTS
from catalyst_pxeboot.tree.manifest import REBUILD, read_manifest
from catalyst_pxeboot.util.errors import PxebootError, VerifyError
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST
from catalyst_pxeboot.util.text import mebibytes

_MAX_STAMP = 80  # characters of a file's name


@dataclass(frozen=True, slots=True)
class File:
    """A file of the tree. `member` is its name inside the initramfs, where it needs one."""

    path: str
    bytes: int
    sha256: str
    member: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A menu entry as one loader boots it.

    `arguments` are the manifest's; `with_root_arguments` adds where a root over HTTP is, by
    `url_argument`, which is empty for other roots. `memory` is the least that a client needs, in
    MiB; 0 where it is not known.
    """

    name: str
    title: str
    root: RootMode
    kernel: File
    initrds: tuple[File, ...]
    arguments: tuple[str, ...]
    url_argument: str
    memory: int

    @property
    def fetches(self) -> bool:
        """Whether the initramfs fetches its root by itself, without an add-on."""
        return self.url_argument.startswith("root=")

    @property
    def full_title(self) -> str:
        """The title with what the entry needs."""
        needs = [ROOTS[self.root].title] if ROOTS[self.root].title else []
        if self.memory:
            needs.append(f"{self.memory} MiB of memory")
        return ", ".join([self.title, *needs])


@dataclass(frozen=True, slots=True)
class Tree:
    """What exports need of a tree. Every path and name was checked; titles and arguments were not.

    `entries` boot the live image, by loader, the menu's default first; `left_out` are those that
    cannot be exported, each with the reason. `machine` is what the default entry's
    kernel is for, as the kernel calls it; `time` is UTC, as 2026-11-22T17:00:00Z.
    """

    arch: str
    subarch: str
    version_stamp: str
    title: str
    time: str
    machine: str
    squashfs: File
    files: Mapping[str, File]
    entries: Mapping[Loader, tuple[Entry, ...]]
    left_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """The tree's name among others: the one its folder has after a build by catalyst."""
        return f"pxeboot-{self.subarch}-{self.version_stamp}"

    def entries_for(self, loader: Loader) -> tuple[Entry, ...]:
        """Return the loader's entries, or raise `PxebootError` if there are none."""
        if found := self.entries.get(loader):
            return found
        name = LOADERS[loader].name
        if any(self.left_out):
            raise PxebootError(
                f"{self.name}: none of its entries for {name} can be exported:"
                f" {'; '.join(self.left_out)}",
                hint="build the tree with `embedded` or `http` in pxeboot/root, too",
            )
        raise PxebootError(
            f"{self.name}: it has no entry for {name}",
            hint=f"build the tree with {loader} in pxeboot/loaders",
        )


def read_export_tree(folder: Path) -> Tree:
    """Read the netboot tree `folder`, or raise `VerifyError`."""
    _, manifest = read_manifest(folder)
    try:
        return _find_tree(manifest)
    except PxebootError as error:
        raise VerifyError(f"{folder / MANIFEST}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise VerifyError(
            f"{folder / MANIFEST}: not a valid manifest ({error})", hint=REBUILD
        ) from error


def with_root_arguments(entry: Entry, tree: Tree, base_url: str) -> tuple[str, ...]:
    """Return the kernel arguments of an entry, with where its root is."""
    if entry.url_argument:
        where = (f"{entry.url_argument}{base_url}/{tree.squashfs.path}", "ip=dhcp")
        return (*entry.arguments, *where)
    return entry.arguments


def _find_tree(manifest: Manifest) -> Tree:
    release, squashfs = manifest.release, manifest.squashfs
    files = {
        file.path: File(
            IPXE.quote_path(file.path),
            file.bytes,
            file.digests[MANIFEST_DIGEST],
            IPXE.quote_path(squashfs.member) if file.role is Role.SQUASHFS else "",
        )
        for file in manifest.files
    }
    live = manifest.menu.live
    machines = {kernel.path: kernel.machine for kernel in manifest.kernels}
    return Tree(
        arch=_word(release.arch),
        subarch=_word(release.subarch),
        version_stamp=_word(_stamp(release.version_stamp) or _stamp(release.time)),
        title=release.title,
        time=release.time,
        machine=_word(machines.get(live[0].kernel, "")) if live else "",
        squashfs=files[squashfs.path],
        files=files,
        entries={kind: tuple(_entries(live, kind, files)) for kind in Loader},
        left_out=tuple(
            f"{entry.name}: the manifest does not have the address of the NFS server"
            for entry in live
            if entry.root is RootMode.NFS
        ),
    )


def _entries(live: Iterable[EntryInfo], kind: Loader, files: Mapping[str, File]) -> Iterator[Entry]:
    for entry in live:
        initrds = entry.initrds.get(kind)
        if kind not in entry.kernels or entry.root is None or entry.root is RootMode.NFS:
            continue
        if not initrds:
            raise ValueError(f"menu.entries: {entry.name} has no initrd")
        limits = (entry.limits or {}).get(kind)
        memory = limits.memory_bytes.values() if limits else ()
        yield Entry(
            name=LOADERS[kind].quote_label(entry.name),
            title=entry.title,
            root=entry.root,
            kernel=files[entry.kernels[kind]],
            initrds=tuple(files[path] for path in initrds),
            arguments=tuple(entry.arguments.split()),
            url_argument=_url_argument(entry),
            memory=mebibytes(min(memory, default=0)),
        )


def _url_argument(entry: EntryInfo) -> str:
    """Return it also for a tree that was built before the manifest had it."""
    return entry.url_argument or ("root=live:" if entry.root is RootMode.HTTP else "")


def _stamp(value: str) -> str:
    """Return a version stamp, which a spec may leave out and write with any character, as a word.

    The time of the release, which replaces a missing stamp, gets the usual form.
    """
    if re.fullmatch(r"[\d-]{10}T[\d:]{8}Z", value, re.ASCII):
        return re.sub("[-:]", "", value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-._+")[:_MAX_STAMP]


def _word(value: str) -> str:
    """Return a value that can be part of a file's name anywhere."""
    word = IPXE.quote_path(value)
    if "/" in word or not word[0].isalnum():
        raise ValueError(f"release: {word!r} is not a plain name")
    return word

"""A finished tree as other systems are told of it: read from its manifest and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import ROOT_TITLES, RootMode
from catalyst_pxeboot.tree.manifest import MANIFEST, parse_count, parse_text, read_manifest
from catalyst_pxeboot.util.errors import PxebootError, VerifyError
from catalyst_pxeboot.util.text import mebibytes


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

    `arguments` are the manifest's; where a root over HTTP lies, `located` adds. `memory` is the
    least that a client needs, in MiB; 0 where it is not known.
    """

    name: str
    title: str
    root: RootMode
    kernel: File
    initrds: tuple[File, ...]
    arguments: tuple[str, ...]
    memory: int

    @property
    def full_title(self) -> str:
        """The title with what the entry needs."""
        needs = [ROOT_TITLES[self.root]] if self.root in ROOT_TITLES else []
        if self.memory:
            needs.append(f"{self.memory} MiB of memory")
        return ", ".join([self.title, *needs])


@dataclass(frozen=True, slots=True)
class Tree:
    """What exports need of a tree. Every path and name was checked; titles and arguments were not.

    `entries` boot the live image, by loader, the menu's default first; `left_out` are those that
    cannot be told to another system, each with the reason. `machine` is what the default entry's
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


def read_tree(folder: Path) -> Tree:
    """Read the netboot tree `folder`, or raise `VerifyError`."""
    _, manifest = read_manifest(folder)
    try:
        return _parse(manifest)
    except PxebootError as error:
        raise VerifyError(f"{folder / MANIFEST}: {error.message}", hint=error.hint) from error
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise VerifyError(
            f"{folder / MANIFEST}: not a manifest of this program ({error!r})",
            hint="build the tree again",
        ) from error


def located(entry: Entry, tree: Tree, base_url: str) -> tuple[str, ...]:
    """Return the kernel arguments of an entry, with where its root is."""
    if entry.root is RootMode.HTTP:
        where = (f"root=live:{base_url}/{tree.squashfs.path}", "ip=dhcp")
        return (*entry.arguments, *where)
    return entry.arguments


def _parse(manifest: Mapping[str, Any]) -> Tree:
    release = manifest["release"]
    member = _path(manifest["squashfs"]["member"])
    files = {}
    for file in manifest["files"]:
        path = _path(file["path"])
        digest = parse_text(file["digests"]["sha256"])
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError(f"{digest!r} is no sha256")
        inside = member if file["role"] == Role.SQUASHFS else ""
        files[path] = File(path, parse_count(file["bytes"]), digest, inside)
    live = [entry for entry in manifest["menu"]["entries"] if "firmware" not in entry]
    names = [parse_text(entry["name"]) for entry in live]
    if len(set(names)) < len(names):
        raise ValueError("two entries have the same name")
    machines = {kernel["path"]: kernel["machine"] for kernel in manifest["kernels"]}
    return Tree(
        arch=_word(release["arch"]),
        subarch=_word(release["subarch"]),
        version_stamp=_word(release["version_stamp"]),
        title=parse_text(release["title"]),
        time=parse_text(release["time"]),
        machine=_word(machines[live[0]["kernel"]]) if live else "",
        squashfs=files[manifest["squashfs"]["path"]],
        files=files,
        entries={loader: tuple(_entries(live, loader, files)) for loader in Loader},
        left_out=tuple(
            f"{entry['name']}: a manifest does not tell the NFS server"
            for entry in live
            if entry["root"] == RootMode.NFS
        ),
    )


def _entries(
    live: Iterable[Mapping[str, Any]], loader: Loader, files: Mapping[str, File]
) -> Iterable[Entry]:
    for entry in live:
        root = RootMode(entry["root"])
        if loader not in entry["kernels"] or root is RootMode.NFS:
            continue
        if not entry["initrds"][loader]:
            raise ValueError(f"{entry['name']!r} has no initrd")
        memory = entry["limits"].get(loader, {}).get("memory_bytes", {}).values()
        yield Entry(
            name=LOADERS[loader].quote_label(entry["name"]),
            title=parse_text(entry["title"]),
            root=root,
            kernel=files[entry["kernels"][loader]],
            initrds=tuple(files[path] for path in entry["initrds"][loader]),
            arguments=tuple(entry["arguments"].split()),
            memory=mebibytes(min(memory, default=0)),
        )


def _path(value: object) -> str:
    return IPXE.quote_path(parse_text(value))


def _word(value: object) -> str:
    """Return a value that can be part of a file's name anywhere."""
    word = _path(value)
    if "/" in word or not word[0].isalnum():
        raise ValueError(f"{word!r} is no plain name")
    return word

"""Find the netboot trees below a folder and read of each manifest what a menu needs.

This runs over every tree of a mirror each time, so it looks at as little as it can: one lstat of
each manifest says whether it is the one that was read before. What only reading takes is imported
by what reads. Names are joined as text: for so many, Path takes longer than the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.manifest import MANIFEST, Manifest
from catalyst_pxeboot.tree.manifest import MAX_MANIFEST, parse_manifest
from catalyst_pxeboot.util.errors import PxebootError, VerifyError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.text import one_line

#: Roles in the manifest of the files without which no entry boots. What else is missing or changed
#: is for `verify` to tell.
_NEEDED = frozenset(
    {
        Role.KERNEL, Role.INITRAMFS, Role.PADDING, Role.SQUASHFS,
        Role.ROOT_HEADER, Role.ROOT_CHECK, Role.STREAM, Role.HASH_TREE,
        Role.PERSONAL,
    }
)  # fmt: skip
_COPY_AGAIN = "copy or build the tree again, or remove it"


@dataclass(frozen=True, slots=True)
class ManifestStamp:
    """What shows that a manifest is the one that was read.

    Not the modification time: a tree that is built again has that of its squashfs. The change time
    is the file system's own, and any writing, renaming over or linking gives another one.
    """

    inode: int
    bytes: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """A tree's configuration for one loader.

    `config` is its path, relative to the folder of all trees. `entry` is what the loader boots by
    default, and `memory_bytes` what that needs of a client by firmware; empty if not known.
    """

    config: str
    bytes: int
    entry: str
    memory_bytes: Mapping[Firmware, int]


@dataclass(frozen=True, slots=True)
class FoundTree:
    """A netboot tree, as its manifest describes it; releases.json has the same form.

    `path` is relative to the folder of all trees; `machine` is the architecture in the header of
    the default entry's kernel, as the kernel calls it. Every text was checked for the loaders in
    `loaders`: a menu can show it.
    """

    path: str
    arch: str
    subarch: str
    rel_type: str
    version_stamp: str
    title: str
    time: str  # UTC, as 2026-11-22T17:00:00Z, so that it sorts
    machine: str
    loaders: Mapping[Loader, TreeConfig]
    manifest: ManifestStamp

    @property
    def age(self) -> tuple[str, str]:
        """What sorts trees from the oldest to the newest."""
        return self.time, self.version_stamp


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a folder: trees by path, those whose manifest was read, what is wrong."""

    releases: tuple[FoundTree, ...]
    read: tuple[str, ...]
    warnings: tuple[str, ...]


def find_releases(root: Path, known: Mapping[str, FoundTree]) -> Found:
    """Find the trees below the folder `root`; read the manifests that `known`, by path, lacks.

    A folder is a tree if its manifest.json is of this program; there is none inside another.
    Hidden folders (a build's staging folder is one) and links are passed over: what a link inside
    `root` leads to is found in its own place. A broken tree is left out with a warning.
    """
    releases: list[FoundTree] = []
    read: list[str] = []
    warnings: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            names = _list_folders(root, folder)
        except OSError as error:
            where = one_line(str(root / folder))
            warnings.append(f"{where}: cannot be read: {error.strerror}; left out: chmod 755")
            continue
        for name in names:
            try:
                stamp = _find_stamp(f"{root}/{name}/{MANIFEST}")
                release = known.get(name) if stamp else None
                if release is not None and release.manifest == stamp:
                    _check_files(root, name, _config_sizes(release))
                elif stamp is not None:
                    read.append(name)
                    release = _read_release(root, name, stamp)
            except PxebootError as error:
                warnings.append(f"{error.message}; left out: {error.hint}")
                release = None
            if release is None:
                folders.append(name)
            else:
                releases.append(release)
    return Found(
        tuple(sorted(releases, key=lambda release: release.path)),
        tuple(sorted(read)),
        tuple(sorted(warnings)),
    )


def _list_folders(root: Path, folder: str) -> list[str]:
    """Return the folders in `folder` as paths relative to `root`."""
    prefix = f"{folder}/" if folder else ""
    try:
        with os.scandir(root / folder) as entries:
            return [
                prefix + entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []  # removed since it was listed


def _find_stamp(path: str) -> ManifestStamp | None:
    """Return the stamp of the file at `path`, or None if no regular file is there."""
    try:
        info = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VerifyError(
            f"{path}: cannot be read: {error.strerror}", hint="chmod 755 its folder"
        ) from error
    if not stat.S_ISREG(info.st_mode):
        return None
    return ManifestStamp(info.st_ino, info.st_size, info.st_ctime_ns)


def _read_release(root: Path, path: str, stamp: ManifestStamp) -> FoundTree | None:
    """Read and check the tree at `path`; None if its manifest.json is another program's.

    The stamp is older than what is read here, so a manifest that is replaced meanwhile is read
    again the next time.
    """
    file = root / path / MANIFEST
    try:
        manifest = parse_manifest(read_regular(file, limit=MAX_MANIFEST), file)
    except OSError as error:
        raise VerifyError(
            f"{file}: cannot be read: {error.strerror}", hint="chmod 644 manifest.json"
        ) from error
    if manifest is None:
        return None
    needed = [(file.path, file.bytes) for file in manifest.files if file.role in _NEEDED]
    tree = _find_tree(path, manifest, stamp)
    _check_files(root, path, needed)
    _check_texts(root, tree)
    _check_files(root, path, _config_sizes(tree))
    return tree


def _find_tree(path: str, manifest: Manifest, stamp: ManifestStamp) -> FoundTree:
    from catalyst_pxeboot.loader import LOADERS

    files, live = manifest.by_path, manifest.menu.live
    loaders = {}
    for kind in sorted(manifest.loaders):
        entry = next((entry for entry in live if kind in entry.kernels), None)
        # One that has none is not led to from a menu.
        config = next((files[path] for path in LOADERS[kind].configs[:1] if path in files), None)
        if entry and config:
            limits = (entry.limits or {}).get(kind)
            memory = limits.memory_bytes if limits else {}
            loaders[kind] = TreeConfig(
                config=f"{path}/{config.path}",
                bytes=config.bytes,
                entry=entry.name,
                memory_bytes={firmware: memory[firmware] for firmware in sorted(memory)},
            )
    release = manifest.release
    machines = {kernel.path: kernel.machine for kernel in manifest.kernels}
    return FoundTree(
        path=path,
        arch=release.arch,
        subarch=release.subarch,
        rel_type=release.rel_type,
        version_stamp=release.version_stamp,
        title=release.title,
        time=release.time,
        machine=machines.get(live[0].kernel, "") if live else "",
        loaders=loaders,
        manifest=stamp,
    )


def _check_texts(root: Path, release: FoundTree) -> None:
    """Raise `VerifyError` for a path or a text that one of the tree's loaders cannot take."""
    from catalyst_pxeboot.loader import LOADERS
    from catalyst_pxeboot.model.arch import all_machines

    where = root / release.path
    if release.machine not in {machine.name for machine in all_machines()}:
        raise VerifyError(
            f"{where}: its kernel is for {release.machine}, which no loader's menu knows",
            hint="use the version of this program that made the tree",
        )
    try:
        for loader in release.loaders:
            LOADERS[loader].quote_path(release.path)
            # All that a menu may show of it.
            for text in filter(None, (release.title, release.subarch, release.rel_type)):
                LOADERS[loader].quote_title(text)
    except PxebootError as error:
        raise VerifyError(f"{where}: {error.message}", hint=error.hint) from error
    # At a line's start it would be an option to iPXE.
    if release.path.startswith("-"):
        raise VerifyError(f"{where}: begins with a hyphen", hint="rename the folder")


Sizes = Sequence[tuple[str, int]]


def _config_sizes(release: FoundTree) -> Sizes:
    """Return the tree's configurations, relative to it, with their sizes."""
    start = len(release.path) + 1
    return [(found.config[start:], found.bytes) for found in release.loaders.values()]


def _check_files(root: Path, path: str, sizes: Sizes) -> None:
    """Raise `VerifyError` unless each file is in the tree with its size. None is opened."""
    tree = f"{root}/{path}"
    for name, count in sizes:
        try:
            info = os.lstat(f"{tree}/{name}")
        except OSError as error:
            raise VerifyError(f"{tree}: {name}: {error.strerror}", hint=_COPY_AGAIN) from error
        if not stat.S_ISREG(info.st_mode):
            raise VerifyError(f"{tree}: {name} is not a regular file", hint=_COPY_AGAIN)
        if info.st_size != count:
            raise VerifyError(
                f"{tree}: {name} has {info.st_size} bytes, but {count} in the manifest",
                hint=_COPY_AGAIN,
            )

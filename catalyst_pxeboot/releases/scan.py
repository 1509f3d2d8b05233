"""Find the netboot trees below a folder and read of each manifest what a menu needs.

This room runs over every tree of a mirror each time, so it looks at as little as it can: one lstat
of each manifest says whether it is the one that was read before. What only reading takes is
imported by what reads. Names are joined as text: for so many, Path takes longer than the disk.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalyst_pxeboot.tree.manifest import GENERATOR, MANIFEST, parse_count, parse_text, parse_word
from catalyst_pxeboot.util.errors import PxebootError, VerifyError, one_line

_MAX_MANIFEST = 16 * 1024 * 1024  # bytes

#: Roles in the manifest of the files without which no entry boots. What else is missing or changed
#: is for `verify` to tell.
_NEEDED = frozenset({"kernel", "initramfs", "squashfs", "root-header", "root-check", "padding"})
_COPY_AGAIN = "copy or build the tree again, or remove it"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that a manifest is the one that was read.

    Not the modification time: a tree that is built again has that of its squashfs. The change time
    is the file system's own, and any writing, renaming over or linking gives another one.
    """

    inode: int
    bytes: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """A tree's configuration for one loader.

    `path` is relative to the folder of all trees. `entry` is what the loader boots by default, and
    `memory` what that asks of a client by firmware, in bytes; empty if the manifest does not say.
    """

    path: str
    bytes: int
    entry: str
    memory: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Release:
    """A netboot tree, as its manifest describes it.

    `path` is relative to the folder of all trees; `machine` is the architecture in the header of
    the default entry's kernel, as the kernel calls it; `configs` are by loader. Every text was
    checked for the loaders in `configs`: a menu can show it.
    """

    path: str
    arch: str
    subarch: str
    rel_type: str
    version_stamp: str
    title: str
    time: str  # UTC, as 2026-11-22T17:00:00Z, so that it sorts
    machine: str
    configs: Mapping[str, TreeConfig]
    stamp: Stamp

    @property
    def age(self) -> tuple[str, str]:
        """What sorts releases from the oldest to the newest."""
        return self.time, self.version_stamp


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a folder: trees by path, those whose manifest was read, what is wrong."""

    releases: tuple[Release, ...]
    read: tuple[str, ...]
    warnings: tuple[str, ...]


def find_releases(root: Path, known: Mapping[str, Release]) -> Found:
    """Find the trees below the folder `root`; read the manifests that `known`, by path, lacks.

    A folder is a tree if its manifest.json is of this program; there is none inside another.
    Hidden folders (a build's staging folder is one) and links are passed over: what a link inside
    `root` leads to is found in its own place. A broken tree is left out with a warning.
    """
    releases: list[Release] = []
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
                if release is not None and release.stamp == stamp:
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


def _find_stamp(path: str) -> Stamp | None:
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
    return Stamp(info.st_ino, info.st_size, info.st_ctime_ns)


def _read_release(root: Path, path: str, stamp: Stamp) -> Release | None:
    """Read and check the tree at `path`; None if its manifest.json is another program's.

    The stamp is older than what is read here, so a manifest that is replaced meanwhile is read
    again the next time.
    """
    from catalyst_pxeboot.tree.manifest import FORMAT

    file = root / path / MANIFEST
    try:
        if stamp.bytes > _MAX_MANIFEST:
            raise ValueError(f"{stamp.bytes} bytes")
        manifest = json.loads(file.read_bytes())
        if not isinstance(manifest, dict) or not _is_ours(manifest):
            return None
        if manifest["format"] != FORMAT:
            raise VerifyError(
                f"{file}: its format is {manifest['format']}, not {FORMAT}",
                hint="use the version of this program that made the tree",
            )
        release = _parse_release(path, manifest, stamp)
        _check_files(root, path, _needed_sizes(manifest))
    except OSError as error:
        raise VerifyError(
            f"{file}: cannot be read: {error.strerror}", hint="chmod 644 manifest.json"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerifyError(
            f"{file}: not a manifest of this program ({error!r})", hint=_COPY_AGAIN
        ) from error
    _check_texts(root, release)
    _check_files(root, path, _config_sizes(release))
    return release


def _is_ours(manifest: Mapping[str, Any]) -> bool:
    generator = manifest.get("generator")
    return isinstance(generator, dict) and generator.get("name") == GENERATOR


def _parse_release(path: str, manifest: Mapping[str, Any], stamp: Stamp) -> Release:
    from catalyst_pxeboot.loader import LOADERS
    from catalyst_pxeboot.model.loader import Loader

    sizes = {file["path"]: parse_count(file["bytes"]) for file in manifest["files"]}
    # memtest, which boots no live image, is the entry for one firmware only.
    live = [entry for entry in manifest["menu"]["entries"] if "firmware" not in entry]
    configs = {}
    for name in sorted(manifest["loaders"]):
        offered = [entry for entry in live if name in entry["kernels"]]
        if offered:
            config = LOADERS[Loader(name)].configs[0]
            configs[name] = TreeConfig(
                path=f"{path}/{config}",
                bytes=sizes[config],
                entry=parse_text(offered[0]["name"]),
                memory=_memory(offered[0].get("limits", {}).get(name, {})),
            )
    machines = {kernel["path"]: kernel["machine"] for kernel in manifest["kernels"]}
    release = manifest["release"]
    return Release(
        path=path,
        arch=parse_text(release["arch"]),
        subarch=parse_text(release["subarch"]),
        rel_type=parse_word(release["rel_type"]),
        version_stamp=parse_word(release["version_stamp"]),
        title=parse_text(release["title"]),
        time=parse_text(release["time"]),
        machine=parse_text(machines[live[0]["kernel"]] if live else None),
        configs=configs,
        stamp=stamp,
    )


def _memory(limits: Mapping[str, Any]) -> Mapping[str, int]:
    found = limits.get("memory_bytes", {})
    return {parse_text(firmware): parse_count(found[firmware]) for firmware in sorted(found)}


def _check_texts(root: Path, release: Release) -> None:
    """Raise `VerifyError` for a path or a text that one of the tree's loaders cannot take."""
    from catalyst_pxeboot.loader import LOADERS
    from catalyst_pxeboot.model.loader import Loader
    from catalyst_pxeboot.releases.machines import all_machines

    where = root / release.path
    if release.machine not in {machine.name for machine in all_machines()}:
        raise VerifyError(
            f"{where}: its kernel is for {release.machine}, which no loader's menu knows",
            hint="use the version of this program that made the tree",
        )
    try:
        for name in release.configs:
            loader = Loader(name)
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


def _config_sizes(release: Release) -> Sizes:
    """Return the tree's configurations, relative to it, with their sizes."""
    start = len(release.path) + 1
    return [(config.path[start:], config.bytes) for config in release.configs.values()]


def _needed_sizes(manifest: Mapping[str, Any]) -> Sizes:
    return [(file["path"], file["bytes"]) for file in manifest["files"] if file["role"] in _NEEDED]


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

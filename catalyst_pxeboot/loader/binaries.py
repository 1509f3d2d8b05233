"""Find the build host's boot loaders, and make GRUB's network images.

Loader binaries belong to the build host's packages; they are copied into the tree, never linked.
GRUB's images are made here instead: with every module that the menu needs and with the early
configuration inside, one image works by TFTP and by HTTP from any folder of a server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalyst_pxeboot.formats.pe import is_signed
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.loader.grub_image import GrubImage, grub_mkimage
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.files import open_regular
from catalyst_pxeboot.util.process import run
from catalyst_pxeboot.util.resources import read_table

#: Bytes of a loader binary that are searched for its version.
VERSION_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundLoader:
    """A loader's file for the tree: a file of the build host, or an image still to be made."""

    path: str
    loader: Loader
    origin: Path | GrubImage
    version: str | None


@dataclass(frozen=True, slots=True)
class MissingLoader:
    """A loader's file that the build host lacks."""

    path: str
    loader: Loader
    gentoo: str
    debian: str


@dataclass(frozen=True, slots=True)
class FoundStub:
    """The program of the build host that unified kernel images are made of."""

    origin: Path
    version: str | None


@dataclass(frozen=True, slots=True)
class Loaders:
    """What the build host has for the tree, and what it lacks; both sorted by path."""

    found: tuple[FoundLoader, ...]
    missing: tuple[MissingLoader, ...]
    stub: FoundStub | None = None


def find_loaders(
    arch_grub_platforms: Mapping[str, str],
    *,
    loaders: Sequence[Loader],
    search: Sequence[Path],
    uefi: str | None = None,
) -> Loaders:
    """Look for the files of `loaders` that clients of an architecture need.

    `arch_grub_platforms` maps GRUB platforms, which also say what firmware the clients have, to
    the file names of their images; `uefi` is the firmware's name for its machine. The folders of
    `search` come before the system's. Nothing is made yet: a GRUB image that can be made is found.
    """
    table = read_table("loader/binaries.toml")
    found: list[FoundLoader] = []
    missing: list[MissingLoader] = []
    for loader in loaders:
        if "files" in table.get(loader, {}):
            _find_files(loader, table[loader], set(arch_grub_platforms), search, found, missing)
    if Loader.GRUB in loaders:
        _find_grub(table["grub"], arch_grub_platforms, search, found, missing)
        found.extend(_find_signed(table["shim"], set(arch_grub_platforms), search))
    stub = None
    if Loader.UKI in loaders and uefi:
        stub = _find_stub(table["uki"], uefi, search, missing)
    return Loaders(
        found=tuple(sorted(found, key=lambda file: file.path)),
        missing=tuple(sorted(missing, key=lambda file: file.path)),
        stub=stub,
    )


def read_version(loader: Loader, file: Path) -> str | None:
    """Read a loader's version out of its binary, or return None where it is not to be seen."""
    with open_regular(file) as stream:
        return LOADERS[loader].read_version(stream.read(VERSION_BYTES))


def _find_files(
    loader: Loader,
    table: Mapping[str, Any],
    platforms: set[str],
    search: Sequence[Path],
    found: list[FoundLoader],
    missing: list[MissingLoader],
) -> None:
    folders = (*search, *(Path(folder) for folder in table["folders"]))
    for entry in table["files"]:
        if platforms.isdisjoint(entry["platforms"]):
            continue
        file = _first_file(folders, entry["names"])
        if file is not None:
            version = read_version(loader, file)
            found.append(FoundLoader(entry["path"], loader, file, version))
        elif not entry.get("optional", False):
            missing.append(MissingLoader(entry["path"], loader, table["gentoo"], table["debian"]))


def _find_grub(
    table: Mapping[str, Any],
    platforms: Mapping[str, str],
    search: Sequence[Path],
    found: list[FoundLoader],
    missing: list[MissingLoader],
) -> None:
    folders = (*search, *(Path(folder) for folder in table["folders"]))
    program = grub_mkimage()
    version = _grub_version(program) if program else None
    for platform, name in platforms.items():
        path = f"boot/grub/{platform}/{name}"
        modules = _first_file(folders, [f"{platform}/moddep.lst"])
        if modules is not None and program is not None:
            image = GrubImage(platform, modules.parent)
            found.append(FoundLoader(path, Loader.GRUB, image, version))
        else:
            package = table["debian_packages"].get(platform, "grub-common")
            missing.append(MissingLoader(path, Loader.GRUB, table["gentoo"], package))


def _find_stub(
    table: Mapping[str, Any], uefi: str, search: Sequence[Path], missing: list[MissingLoader]
) -> FoundStub | None:
    folders = (*search, *(Path(folder) for folder in table["folders"]))
    name = f"linux{uefi.lower()}.efi.stub"
    file = _first_file(folders, [name])
    if file is None:
        missing.append(MissingLoader(name, Loader.UKI, table["gentoo"], table["debian"]))
        return None
    return FoundStub(file, read_version(Loader.UKI, file))


def _find_signed(
    table: Mapping[str, Any], platforms: set[str], search: Sequence[Path]
) -> Iterator[FoundLoader]:
    """Find shim and GRUB for Secure Boot, both of one vendor; neither is of use alone.

    Where they are absent, nothing is reported: only Secure Boot needs them.
    """
    for client in table["clients"]:
        if client["platform"] not in platforms:
            continue
        for vendor in (*table["folders"], []):
            folders = (*search, *(Path(folder) for folder in vendor))
            files = {
                file["path"]: origin
                for file in client["files"]
                if (origin := _first_file(folders, file["names"], is_signed)) is not None
            }
            if all(file["path"] in files or file.get("optional") for file in client["files"]):
                for path, origin in files.items():
                    version = read_version(Loader.GRUB, origin)
                    yield FoundLoader(path, Loader.GRUB, origin, version)
                break


def _first_file(
    folders: Iterable[Path],
    names: Sequence[str],
    fits: Callable[[Path], bool] = lambda _file: True,
) -> Path | None:
    for folder in folders:
        for name in names:
            file = folder / name
            # What may not be read, as a mounted EFI system partition, is not there.
            if os.access(file, os.R_OK) and file.is_file() and fits(file):
                return file
    return None


def _grub_version(program: Path) -> str | None:
    words = run([program, "--version"]).decode(errors="replace").split()
    return words[-1] if words else None

"""Reads a published tree back and says everything in it that is not as its manifest says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.formats.cpio import parse_member_header
from catalyst_pxeboot.loader import loader_of
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.manifest import MANIFEST, FileInfo, Manifest
from catalyst_pxeboot.tree.manifest import (
    MAX_CONFIG,
    MAX_MANIFEST,
    REBUILD,
    read_config,
    read_manifest,
)
from catalyst_pxeboot.tree.verify_signatures import find_signature_faults
from catalyst_pxeboot.tree.verify_stream import find_stream_faults
from catalyst_pxeboot.tree.verify_uki import find_secureboot_faults, find_uki_faults
from catalyst_pxeboot.util.checksum import digest_bytes, digest_file
from catalyst_pxeboot.util.errors import FormatError, PxebootError, VerifyError
from catalyst_pxeboot.util.files import list_files, open_regular, read_regular
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, render_sums


@dataclass(frozen=True, slots=True)
class Verified:
    """How many files were looked at, and what is wrong; no faults means the tree is whole.

    `read` is the state of each file while its digests were made, by path.
    """

    files: int
    faults: tuple[VerifyError, ...]
    read: Mapping[str, os.stat_result]


def verify_tree(
    tree: Path,
    *,
    keyring: Path | None = None,
    certificates: Path | None = None,
    secureboot: Path | None = None,
) -> Verified:
    """Check every file of `tree` against the manifest, and the configurations against the tree.

    With `keyring`, a file of OpenPGP public keys, and `certificates`, those that iPXE trusts, the
    signatures must be good ones; with `secureboot`, a certificate, those of EFI programs. Raises
    `VerifyError` if there is no valid manifest.
    """
    raw, manifest = read_manifest(tree)
    read: dict[str, os.stat_result] = {}
    faults = (
        *_faults(tree, raw, manifest, read),
        *find_signature_faults(tree, manifest, keyring=keyring, certificates=certificates),
        *(find_secureboot_faults(tree, manifest, secureboot) if secureboot else ()),
    )
    return Verified(len(manifest.files), faults, read)


def _faults(
    tree: Path, raw: bytes, manifest: Manifest, read: dict[str, os.stat_result]
) -> Iterator[VerifyError]:
    files = manifest.by_path
    there = set(list_files(tree))
    for name in sorted(there - manifest.own_files - {MANIFEST}):
        yield VerifyError(f"{name}: not in the manifest", hint="remove it, or " + REBUILD)
    yield from _folder_faults(tree)
    for name in sorted(there - files.keys() & manifest.own_files | {MANIFEST}):
        yield from _mode_faults(tree / name, name)
    algorithms: set[str] = set()
    for name in sorted(files):
        algorithms |= files[name].digests.keys()
        if name not in there:
            yield VerifyError(f"{name}: missing", hint=REBUILD)
        elif faults := tuple(_mode_faults(tree / name, name, files[name].bytes)):
            yield from faults
        else:
            yield from _digest_faults(tree / name, files[name], read)
    yield from _sum_faults(tree, raw, manifest, sorted(algorithms))
    yield from _header_faults(tree, manifest)
    yield from _check_faults(tree, manifest)
    if any(file.role is Role.STREAM for file in manifest.files):
        yield from find_stream_faults(tree, manifest)
    if any(file.role is Role.UKI for file in manifest.files):
        yield from find_uki_faults(tree, manifest)
    # What the build host lacked was reported then; the user may add it beside the tree.
    absent = {name for loader in manifest.loaders.values() for name in loader.missing}
    for name in sorted(files.keys() & there):
        if files[name].role is Role.CONFIG:
            yield from find_config_faults(tree, name, there | absent)


def _folder_faults(tree: Path) -> Iterator[VerifyError]:
    unread: list[OSError] = []
    folders = [Path(root) for root, _, _ in os.walk(tree, onerror=unread.append)]
    for folder in sorted({*folders, *(Path(error.filename) for error in unread)}):
        name, mode = folder.relative_to(tree), folder.lstat().st_mode
        if mode & 0o555 != 0o555:
            yield VerifyError(f"{name}: a server may not enter this folder", hint="chmod 755")
        if mode & stat.S_IWOTH:
            yield VerifyError(f"{name}: any user may write in this folder", hint="chmod 755")


def _mode_faults(path: Path, name: str, size: int | None = None) -> Iterator[VerifyError]:
    """Yield what is wrong with a file before it is read; `size` is what the manifest says."""
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        yield VerifyError(f"{name}: not a regular file", hint=REBUILD)
        return
    if info.st_mode & 0o444 != 0o444:
        yield VerifyError(f"{name}: a server may not read it", hint="chmod 644")
    if info.st_mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID):
        yield VerifyError(f"{name}: any user may write or become its owner", hint="chmod 644")
    if size is not None and info.st_size != size:
        yield VerifyError(f"{name}: {info.st_size} bytes, but {size} in the manifest", hint=REBUILD)


def _digest_faults(
    path: Path, entry: FileInfo, read: dict[str, os.stat_result]
) -> Iterator[VerifyError]:
    name = entry.path
    try:
        with open_regular(path) as file:
            read[name] = os.fstat(file.fileno())
            digests = digest_file(file.fileno(), sorted(entry.digests), where=str(path))
    except OSError as error:
        yield VerifyError(f"{name}: cannot be read: {error.strerror}", hint="check its permissions")
        return
    except PxebootError as error:
        yield VerifyError(error.message, hint=error.hint)
        return
    for algorithm, digest in sorted(entry.digests.items()):
        if digests[algorithm] != digest:
            yield VerifyError(f"{name}: its {algorithm} is not the manifest's", hint=REBUILD)


def _sum_faults(
    tree: Path,
    raw: bytes,
    manifest: Manifest,
    algorithms: list[str],
) -> Iterator[VerifyError]:
    by_path = {file.path: file.digests for file in manifest.files}
    by_path[MANIFEST] = digest_bytes(raw, algorithms)
    forms = [render_sums(by_path, manifest.sums, form) for form in ("linux", "bsd")]
    for name in manifest.sums:
        try:
            found = read_regular(tree / name, limit=MAX_MANIFEST)
        except OSError as error:
            yield VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD)
            continue
        if all(found != form[name] for form in forms):
            yield VerifyError(f"{name}: does not agree with the manifest", hint=REBUILD)


def _header_faults(tree: Path, manifest: Manifest) -> Iterator[VerifyError]:
    squashfs = manifest.squashfs
    expected = manifest.by_path[squashfs.path].bytes
    for name in (file.path for file in manifest.files if file.role is Role.ROOT_HEADER):
        try:
            with open_regular(tree / name) as stream:
                member, count = parse_member_header(stream.read(4096))
        except OSError:
            continue  # reported already
        except FormatError as error:
            yield VerifyError(f"{name}: {error.message}", hint=REBUILD)
            continue
        if member != squashfs.member or count != expected:
            yield VerifyError(
                f"{name}: it names {member} of {count} bytes, not {squashfs.member} of {expected}",
                hint=REBUILD,
            )


def _check_faults(tree: Path, manifest: Manifest) -> Iterator[VerifyError]:
    digest = manifest.by_path[manifest.squashfs.path].digests[MANIFEST_DIGEST]
    for name in (file.path for file in manifest.files if file.role is Role.ROOT_CHECK):
        try:
            with open_regular(tree / name) as stream:
                content = stream.read(MAX_CONFIG)
        except OSError:
            continue  # reported already
        if digest.encode() not in content:
            yield VerifyError(
                f"{name}: it does not hold the sha256 of {manifest.squashfs.path}", hint=REBUILD
            )


def find_config_faults(tree: Path, name: str, there: Set[str]) -> Iterator[VerifyError]:
    """Yield what is wrong with a loader's configuration of a tree that has the files `there`."""
    loader = loader_of(name)
    if loader is None:
        return
    try:
        text = read_config(tree, name)
    except VerifyError as error:
        yield error
        return
    config = loader.check(text)
    for problem in config.problems:
        yield VerifyError(f"{name}: {problem}", hint="correct the template")
    for file in config.files:
        if file not in there:
            yield VerifyError(f"{name}: loads {file}, which is not in the tree", hint=REBUILD)

"""Reads a published tree back and says everything in it that is not as its manifest says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.formats.cpio import parse_member_header
from catalyst_pxeboot.loader import LOADER_OF
from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.manifest import MANIFEST, FileInfo, Manifest
from catalyst_pxeboot.tree.manifest import MAX_MANIFEST, REBUILD, read_manifest
from catalyst_pxeboot.tree.verify_signatures import find_signature_faults
from catalyst_pxeboot.util.checksum import digest_bytes, digest_file
from catalyst_pxeboot.util.errors import FormatError, PxebootError, VerifyError
from catalyst_pxeboot.util.files import list_files, open_regular, read_regular
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, render_sums

#: Which loader reads which configuration.


_MAX_CONFIG = 512 * 1024  # bytes; real ones have some KiB


@dataclass(frozen=True, slots=True)
class Verified:
    """How many files were looked at, and what is wrong; no faults means the tree is whole."""

    files: int
    faults: tuple[VerifyError, ...]


def verify_tree(
    tree: Path, *, keyring: Path | None = None, certificates: Path | None = None
) -> Verified:
    """Check every file of `tree` against the manifest, and the configurations against the tree.

    With `keyring`, a file of OpenPGP public keys, and `certificates`, those that iPXE trusts, the
    signatures must be good ones. Raises `VerifyError` if there is no valid manifest.
    """
    raw, manifest = read_manifest(tree)
    faults = (
        *_faults(tree, raw, manifest),
        *find_signature_faults(tree, manifest, keyring=keyring, certificates=certificates),
    )
    return Verified(len(manifest.files), faults)


def _faults(tree: Path, raw: bytes, manifest: Manifest) -> Iterator[VerifyError]:
    files = manifest.by_path
    there = set(list_files(tree))
    for name in sorted(there - manifest.own_files - {MANIFEST}):
        yield VerifyError(f"{name}: not in the manifest", hint="remove it, or " + REBUILD)
    yield from _folder_faults(tree)
    algorithms: set[str] = set()
    for name in sorted(files):
        algorithms |= files[name].digests.keys()
        if name not in there:
            yield VerifyError(f"{name}: missing", hint=REBUILD)
        else:
            yield from _file_faults(tree / name, files[name])
    yield from _sum_faults(tree, raw, manifest, sorted(algorithms))
    yield from _header_faults(tree, manifest)
    yield from _check_faults(tree, manifest)
    # What the build host lacked was reported then; the user may add it beside the tree.
    absent = {name for loader in manifest.loaders.values() for name in loader.missing}
    for name in sorted(files.keys() & there):
        if files[name].role is Role.CONFIG and name in LOADER_OF:
            yield from _config_faults(tree, name, there | absent)


def _folder_faults(tree: Path) -> Iterator[VerifyError]:
    for root, _, _ in os.walk(tree):
        if stat.S_IMODE(Path(root).stat().st_mode) & 0o555 != 0o555:
            name = Path(root).relative_to(tree)
            yield VerifyError(f"{name}: a server may not enter this folder", hint="chmod 755")


def _file_faults(path: Path, entry: FileInfo) -> Iterator[VerifyError]:
    name = entry.path
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        yield VerifyError(f"{name}: not a regular file", hint=REBUILD)
        return
    if info.st_mode & 0o444 != 0o444:
        yield VerifyError(f"{name}: a server may not read it", hint="chmod 644")
    if info.st_size != entry.bytes:
        yield VerifyError(
            f"{name}: {info.st_size} bytes, but {entry.bytes} in the manifest", hint=REBUILD
        )
        return
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            digests = digest_file(fd, sorted(entry.digests), where=str(path))
        finally:
            os.close(fd)
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
    squashfs, files = manifest.squashfs, manifest.by_path
    if squashfs.path not in files:
        yield VerifyError(f"{squashfs.path}: the live root is not among the files", hint=REBUILD)
        return
    expected = files[squashfs.path].bytes
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
    root = manifest.by_path.get(manifest.squashfs.path)
    digest = root.digests.get(MANIFEST_DIGEST, "") if root else ""
    for name in (file.path for file in manifest.files if file.role is Role.ROOT_CHECK):
        try:
            with open_regular(tree / name) as stream:
                content = stream.read(_MAX_CONFIG)
        except OSError:
            continue  # reported already
        if not digest or digest.encode() not in content:
            yield VerifyError(
                f"{name}: it does not hold the sha256 of {manifest.squashfs.path}", hint=REBUILD
            )


def _config_faults(tree: Path, name: str, there: set[str]) -> Iterator[VerifyError]:
    path = tree / name
    try:
        text = read_regular(path, limit=_MAX_CONFIG).decode()
    except OSError as error:
        yield VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD)
        return
    except UnicodeDecodeError as error:
        yield VerifyError(f"{name}: cannot be read as text: {error}", hint=REBUILD)
        return
    config = LOADER_OF[name].check(text)
    for problem in config.problems:
        yield VerifyError(f"{name}: {problem}", hint="correct the template")
    for file in config.files:
        if file not in there:
            yield VerifyError(f"{name}: loads {file}, which is not in the tree", hint=REBUILD)

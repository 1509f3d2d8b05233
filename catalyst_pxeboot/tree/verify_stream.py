"""Says whether the initrds that stream a root are made of the tree's own live root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from catalyst_pxeboot.formats.cpio import read_members
from catalyst_pxeboot.formats.verity import HashTree, read_hash_tree
from catalyst_pxeboot.model.files import DRIVERS, ROOT_HASH, Role, hash_tree_path
from catalyst_pxeboot.model.manifest import Manifest
from catalyst_pxeboot.stream.drivers import find_foreign_drivers
from catalyst_pxeboot.tree.manifest import REBUILD
from catalyst_pxeboot.util.errors import FormatError, SourceError, VerifyError
from catalyst_pxeboot.util.files import open_regular

_WANTED: Final = frozenset({ROOT_HASH, DRIVERS})
_MAX_MEMBER: Final = 64 << 20  # bytes; all wired drivers of a distribution have 10 MiB


def find_stream_faults(tree: Path, manifest: Manifest) -> Iterator[VerifyError]:
    """Yield what is not of the live root: a hash of its blocks, a driver in an initrd."""
    squashfs = manifest.squashfs
    try:
        made = read_hash_tree(tree / squashfs.path, length=squashfs.bytes)
    except (OSError, ValueError):
        return  # reported already
    hashes = hash_tree_path(squashfs.path)
    try:
        with open_regular(tree / hashes) as stream:
            same = stream.read(len(made.content) + 1) == made.content
    except OSError:
        same = False
    if not same:
        yield VerifyError(f"{hashes}: it is not the hash tree of {squashfs.path}", hint=REBUILD)
    for name in (file.path for file in manifest.files if file.role is Role.STREAM):
        try:
            yield from _faults(tree, name, squashfs.path, made)
        except OSError:
            continue  # reported already
        except (FormatError, SourceError) as error:
            yield VerifyError(error.message, hint=REBUILD)


def _faults(tree: Path, name: str, squashfs: str, made: HashTree) -> Iterator[VerifyError]:
    with open_regular(tree / name) as stream:
        found = {
            member.name: member.content
            for member in read_members(
                stream, where=name, wanted=_WANTED.__contains__, limit=_MAX_MEMBER
            )
        }
    if found.get(ROOT_HASH) != made.line:
        yield VerifyError(f"{name}: it does not hold the root hash of {squashfs}", hint=REBUILD)
    foreign = find_foreign_drivers(found.get(DRIVERS) or b"", where=name, root=tree / squashfs)
    for driver in foreign[:3]:
        yield VerifyError(f"{name}: its {driver} is not that of {squashfs}", hint=REBUILD)

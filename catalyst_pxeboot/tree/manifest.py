"""manifest.json: written and read here only; manifest.schema.json describes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from catalyst_pxeboot.model.manifest import FORMAT, GENERATOR, MANIFEST, Manifest
from catalyst_pxeboot.model.settings import MAC, UUID
from catalyst_pxeboot.util.checksum import ALGORITHMS
from catalyst_pxeboot.util.errors import VerifyError
from catalyst_pxeboot.util.files import is_inside, list_files, read_regular
from catalyst_pxeboot.util.records import decode, encode
from catalyst_pxeboot.util.sums import DIGESTS, MANIFEST_DIGEST, SHA256SUMS

MAX_MANIFEST = 16 * 1024 * 1024  # bytes
MAX_CONFIG = 4 << 20  # bytes; some KiB, and a quarter for each single machine
REBUILD = "build the tree again"

_SHA256: Final = re.compile("[0-9a-f]{64}")


def render_manifest(manifest: Manifest) -> bytes:
    """Return the content of manifest.json."""
    return (json.dumps(encode(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def parse_manifest(raw: bytes, path: Path) -> Manifest | None:
    """Parse the content of the manifest.json at `path`; None if it is another program's.

    Raises `VerifyError` if it is damaged or of a format that this version does not know.
    """
    try:
        data = json.loads(raw)
        generator = data.get("generator") if isinstance(data, dict) else None
        if not isinstance(generator, dict) or generator.get("name") != GENERATOR:
            return None
        if data.get("format") != FORMAT:
            raise VerifyError(
                f"{path}: its format is {data.get('format')}, not {FORMAT}",
                hint="use the version of this program that made the tree",
            )
        manifest: Manifest = decode(Manifest, data)
        _check(manifest)
    except (ValueError, RecursionError) as error:
        raise VerifyError(f"{path}: not a valid manifest ({error})", hint=REBUILD) from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise `ValueError` for what has the right form but cannot be a manifest of this program."""
    if not manifest.menu.live:
        raise ValueError("menu.entries: none of them boots the live image")
    if not {SHA256SUMS} <= manifest.sums.keys() <= {SHA256SUMS, DIGESTS}:
        raise ValueError(f"sums: has {', '.join(manifest.sums)!r:.40}")
    if manifest.sums[SHA256SUMS] != (MANIFEST_DIGEST,):
        raise ValueError(f"sums.{SHA256SUMS}: is not of {MANIFEST_DIGEST} alone")
    for name in manifest.hosts or ():
        if not (MAC.fullmatch(name) or UUID.fullmatch(name)):
            raise ValueError(f"hosts: {name!r:.40} is neither a MAC address nor a UUID")
    files = manifest.by_path
    if len(files) < len(manifest.files):
        raise ValueError("files: a path is there twice")
    for place, path in _named_files(manifest):
        if path not in files:
            raise ValueError(f"{place}: {path!r:.80} is not among the files")
    names = {entry.name for entry in manifest.menu.entries}
    if len(names) < len(manifest.menu.entries):
        raise ValueError("menu.entries: two have the same name")
    wanted = {MANIFEST_DIGEST, *(name for names in manifest.sums.values() for name in names)}
    for file in manifest.files:
        if not is_inside(file.path):
            raise ValueError(f"files: {file.path!r:.80} is not a path inside the tree")
        if missing := sorted(wanted - file.digests.keys()):
            raise ValueError(f"files: {file.path!r} has no {missing[0]!r:.40}")
        if not _SHA256.fullmatch(file.digests[MANIFEST_DIGEST]):
            raise ValueError(f"files: {file.path!r} has a {MANIFEST_DIGEST} that is not one")
        if unknown := sorted(file.digests.keys() - ALGORITHMS):
            raise ValueError(f"files: {file.path!r} has {unknown[0]!r:.40}, which is not a digest")


def _named_files(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each file of the tree that the manifest names elsewhere, with the place."""
    yield "squashfs", manifest.squashfs.path
    for kernel in manifest.kernels:
        yield from (("kernels", path) for path in (kernel.path, kernel.initramfs.path))
    for entry in manifest.menu.entries:
        program = (entry.uki,) if entry.uki else ()
        for part in ((entry.kernel,), entry.kernels.values(), *entry.initrds.values(), program):
            yield from (("menu.entries", path) for path in part)


def read_manifest(tree: Path) -> tuple[bytes, Manifest]:
    """Return a tree's manifest, as it is and parsed, or raise `VerifyError`."""
    path = tree / MANIFEST
    try:
        raw = read_regular(path, limit=MAX_MANIFEST)
    except OSError as error:
        raise VerifyError(
            f"{path}: cannot be read: {error.strerror}", hint="give the folder of a netboot tree"
        ) from error
    manifest = parse_manifest(raw, path)
    if manifest is None:
        raise VerifyError(
            f"{path}: not a manifest of this program", hint="give the folder of a netboot tree"
        )
    return raw, manifest


def list_tree(tree: Path) -> list[str]:
    """Return the names of all files of `tree`, sorted.

    Raises `VerifyError` for a symbolic link: a client could be served any file that it leads to.
    """
    names = list_files(tree)
    for name in names:
        if (tree / name).is_symlink():
            raise VerifyError(
                f"{tree / name}: a symbolic link, which leads anywhere",
                hint="remove it, or build the tree again",
            )
    return names


def read_config(tree: Path, name: str) -> str:
    """Return the text of a configuration of `tree`; raises `VerifyError` that names it."""
    try:
        return read_regular(tree / name, limit=MAX_CONFIG).decode()
    except OSError as error:
        raise VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD) from error
    except UnicodeDecodeError as error:
        raise VerifyError(f"{name}: cannot be read as text: {error}", hint=REBUILD) from error

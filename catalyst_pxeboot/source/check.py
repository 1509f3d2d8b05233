"""What lies beside an ISO to check it by: digests and OpenPGP signatures.

catalyst writes `ISO.DIGESTS` and `ISO.sha256`; Gentoo's mirrors have both clear-signed, and
`ISO.asc`, a detached signature of the ISO itself. Older releases have `ISO.DIGESTS.asc`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.formats.iso import AGAIN
from catalyst_pxeboot.source.iso import open_iso
from catalyst_pxeboot.source.live import reading
from catalyst_pxeboot.util.checksum import Meter, Progress, digest_file
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.files import FileStamp, read_regular
from catalyst_pxeboot.util.sums import Sum, parse_sums
from catalyst_pxeboot.util.text import one_line, size

if TYPE_CHECKING:
    from catalyst_pxeboot.formats.signing.openpgp import Keyring

KEY = "pxeboot/keyring"
_LISTS = (".DIGESTS", ".DIGESTS.asc", ".sha256")
_SIGNATURE = ".asc"
_MAX_LIST = 1024 * 1024  # bytes; a real one has some 2 KiB
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_STRONG = 32  # bytes; a signature of a shorter digest says little
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _List:
    """A digest file beside the ISO: what it says of it, and whether that is signed."""

    path: Path
    sums: tuple[Sum, ...]
    signed: bool  # by a key of the keyring


def check_iso(
    path: Path, *, keyring: Path | None, report: Report, progress: Progress | None = None
) -> FileStamp:
    """Check the ISO at `path` by all that lies beside it; return which file that was.

    `keyring` is a file of OpenPGP public keys, of which one must have signed the ISO or its
    digests. `report` is called with what was found. Raises `SourceError` or `VerifyError` where the
    ISO is not what a digest or signature says.
    """
    with open_iso(path) as stream:
        stamp = FileStamp.of(os.fstat(stream.fileno()))
        lists = [_read_list(side, path, keyring, report) for side in _beside(path, _LISTS)]
        signed = [
            _check_signature(side, path, keyring, report) for side in _beside(path, (_SIGNATURE,))
        ]
        covered = any(signed) or any(found.signed and _is_strong(found.sums) for found in lists)
        if keyring and not covered:
            raise SourceError(
                f"{path}: not signed: neither {path.name}{_SIGNATURE} nor a signed"
                f" {path.name}{_LISTS[0]} that lists it lies beside it",
                hint=f"put it there, or leave {KEY} (--keyring) out",
            )
        if not any(found.sums for found in lists):
            if not any(signed):
                report(f"Not checked: no digests of {path.name} lie beside it")
            return stamp
        algorithms = sorted({entry.algorithm for found in lists for entry in found.sums})
        names = " and ".join(found.path.name for found in lists if found.sums)
        report(f"Checking {path.name}, {size(stamp.bytes)}, by {names}")
        meter = Meter(progress, f"Checking {path.name}", stamp.bytes)
        with reading(path):
            digests = digest_file(stream.fileno(), algorithms, where=str(path), meter=meter)
    for found in lists:
        for entry in found.sums:
            if digests[entry.algorithm] != entry.digest:
                raise SourceError(
                    f"{path}: {found.path.name} says {entry.algorithm} {entry.digest}, but it is"
                    f" {digests[entry.algorithm]}",
                    hint=AGAIN,
                )
    report(f"Digests of {path.name}: good ({', '.join(algorithms)})")
    return stamp


def _beside(path: Path, endings: Sequence[str]) -> Iterator[Path]:
    """Yield the files beside the ISO, or beside what it is a symlink to."""
    for ending in endings:
        for place in dict.fromkeys((path, path.resolve())):
            side = place.with_name(f"{place.name}{ending}")
            if side.exists() or side.is_symlink():
                yield side
                break


def _read_list(side: Path, path: Path, keyring: Path | None, report: Report) -> _List:
    content = _read(side, "the digests")
    signed = False
    if _CLEARSIGNED in content:
        if keyring:
            from catalyst_pxeboot.formats.signing.openpgp import open_keyring

            with open_keyring(keyring) as keys:
                content, fingerprint = keys.clearsigned(content, where=str(side))
                report(_good(side.name, fingerprint, keys))
            signed = True
        else:
            report(f"Signature in {side.name}: not checked, give --keyring")
    known = hashlib.algorithms_available
    mine = [
        entry
        for entry in parse_sums(content.decode(errors="replace"))
        if entry.name in (path.name, path.resolve().name)
    ]
    sums = tuple(entry for entry in mine if entry.algorithm in known and _bytes(entry))
    if not mine:
        report(f"{side.name} lists nothing of {path.name}: ignored")
    elif not sums:
        report(f"{side.name} has no digest that this Python knows: ignored")
    return _List(side, sums, signed)


def _read(side: Path, what: str) -> bytes:
    try:
        return read_regular(side, limit=_MAX_LIST)
    except OSError as error:
        raise SourceError(
            f"{side}: {what} cannot be read: {error.strerror}", hint="correct or remove it"
        ) from error


def _bytes(entry: Sum) -> int:
    return hashlib.new(entry.algorithm, usedforsecurity=False).digest_size


def _is_strong(sums: Sequence[Sum]) -> bool:
    return any(_bytes(entry) >= _STRONG for entry in sums)


def _check_signature(side: Path, path: Path, keyring: Path | None, report: Report) -> bool:
    """Check a detached signature of the ISO; return whether that was possible."""
    if keyring is None:
        report(f"Signature {side.name}: not checked, give --keyring")
        return False
    from catalyst_pxeboot.formats.signing.openpgp import open_keyring

    signature = _read(side, "the signature")
    with open_keyring(keyring) as keys:
        fingerprint = keys.detached(path, signature, where=str(side))
        report(_good(path.name, fingerprint, keys))
    return True


def _good(name: str, fingerprint: str, keys: Keyring) -> str:
    user_id = keys.user_id(fingerprint)
    return one_line(f"Signature of {name}: good, by {fingerprint} {user_id}".rstrip())

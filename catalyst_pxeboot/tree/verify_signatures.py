"""Checks the signatures of a published tree by the policies of `tree/signatures.py`."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path

from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.manifest import MANIFEST, Manifest
from catalyst_pxeboot.tree.manifest import MAX_MANIFEST, REBUILD
from catalyst_pxeboot.tree.signatures import CMS, OPENPGP, Policy, opened_files
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import PxebootError, VerifyError, needs_extra
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, STRONG

#: Checks one signature file of the tree, by its name and the name of what it signs.
_Check = Callable[[str, str], None]


def find_signature_faults(
    tree: Path,
    manifest: Manifest,
    *,
    keyring: Path | None,
    certificates: Path | None,
) -> Iterator[VerifyError]:
    """Yield what is wrong with the signatures of `tree`.

    Without `keyring` (OpenPGP public keys) or `certificates` (those that iPXE trusts, PEM or DER)
    only that they belong to files of the tree. With them, what their policy names must be signed.
    """
    files = manifest.by_path
    for file in manifest.files:
        signed, _, _ending = file.path.rpartition(".")
        if file.role is Role.SIGNATURE and signed not in files:
            yield VerifyError(f"{file.path}: signs {signed}, which is not there", hint=REBUILD)
    for name, sums in _proofs(OPENPGP, tree).items():
        try:
            # Whole lines without a dash at the start, so that they are in it as they are.
            if _read(tree, sums) not in _read(tree, name):
                yield VerifyError(f"{name}: is not of {sums}", hint=REBUILD)
        except VerifyError as error:
            yield error
    if keyring:
        from catalyst_pxeboot.formats.signing.openpgp import open_keyring

        with open_keyring(keyring) as keys:
            signers: set[str] = set()

            def check_openpgp(name: str, signed: str) -> None:
                if name in OPENPGP.proofs:
                    content, signer = keys.clearsigned(_read(tree, name), where=name)
                    if content != _read(tree, signed):
                        raise VerifyError(f"{name}: signs another text than {signed}", hint=REBUILD)
                else:
                    signer = keys.detached(tree / signed, _read(tree, name), where=name)
                signers.add(signer)
                if len(signers) > 1:
                    raise VerifyError(f"{name}: is of another key than the rest", hint=REBUILD)

            yield from _faults(OPENPGP, tree, manifest, check_openpgp)
    if certificates:
        with needs_extra("sign", CMS.option):
            from catalyst_pxeboot.formats.signing.cms import load_certificates, verify_digest
        roots = load_certificates(certificates, where=CMS.option)
        now = int(clock.time())

        def check_cms(name: str, signed: str) -> None:
            if signed in files:
                digest = files[signed].digests[MANIFEST_DIGEST]
            else:
                digest = digest_bytes(_read(tree, signed), [MANIFEST_DIGEST])[MANIFEST_DIGEST]
            try:
                verify_digest(_read(tree, name), bytes.fromhex(digest), trusted=roots, time=now)
            except PxebootError as error:
                raise VerifyError(f"{name}: {error.message}", hint=error.hint) from error

        yield from _faults(CMS, tree, manifest, check_cms)


def _faults(policy: Policy, tree: Path, manifest: Manifest, check: _Check) -> Iterator[VerifyError]:
    """Yield each signature that `policy` asks for and that is missing or not good."""
    proofs = _proofs(policy, tree)
    if not proofs:
        yield VerifyError(
            f"{' or '.join(policy.proofs)}: not found, so the tree is not signed",
            hint=f"build it with {policy.key}, or leave {policy.option} out",
        )
        return
    for name, sums in proofs.items():
        if not STRONG.intersection(manifest.sums.get(sums, ())):
            yield VerifyError(
                f"{name}: holds no sha256 or better of {MANIFEST}",
                hint="add sha512 to catalyst's digests, then build the tree again",
            )
    try:
        opened = opened_files(policy.loader, tree) & manifest.by_path.keys()
    except VerifyError:
        opened = frozenset()  # reported with the configurations
    needed = {f"{path}{policy.ending}": path for path in sorted(opened)}
    for name, signed in (proofs | needed).items():
        try:
            if signed == needed.get(name) and name not in manifest.by_path:
                raise VerifyError(
                    f"{name}: not found, and {policy.loader.name} loads {signed}",
                    hint=f"build the tree with {policy.key}",
                )
            check(name, signed)
        except VerifyError as error:
            yield error


def _proofs(policy: Policy, tree: Path) -> dict[str, str]:
    return {name: sums for name, sums in policy.proofs.items() if os.path.lexists(tree / name)}


def _read(tree: Path, name: str) -> bytes:
    """Read a small file of the tree; raises `VerifyError`."""
    try:
        return read_regular(tree / name, limit=MAX_MANIFEST)
    except OSError as error:
        raise VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD) from error

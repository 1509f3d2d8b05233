"""Checks the signatures of a published tree: what they are of, and whether they are good."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator, Mapping
from pathlib import Path

from catalyst_pxeboot.model.files import Role
from catalyst_pxeboot.model.manifest import FileInfo, Manifest
from catalyst_pxeboot.plan.signers import CLEARSIGNED, GRUB_ENDING, IPXE_ENDING
from catalyst_pxeboot.tree.manifest import MAX_MANIFEST, REBUILD
from catalyst_pxeboot.util.errors import PxebootError, VerifyError, needs_extra
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST


def find_signature_faults(
    tree: Path,
    manifest: Manifest,
    *,
    keyring: Path | None,
    certificates: Path | None,
) -> Iterator[VerifyError]:
    """Yield what is wrong with the signatures of `tree`.

    Without `keyring` (OpenPGP public keys) or `certificates` (those that iPXE trusts, PEM or DER)
    only that they belong to files of the tree. With them each must be good, and a tree without
    any is at fault.
    """
    signed = {
        file.path: file.path.removesuffix(ending)
        for file in manifest.files
        if file.role is Role.SIGNATURE
        for ending in (GRUB_ENDING, IPXE_ENDING)
        if file.path.endswith(ending)
    }
    files = manifest.by_path
    for signature, path in signed.items():
        if path not in files:
            yield VerifyError(f"{signature}: signs {path}, which is not there", hint=REBUILD)
    yield from _clearsigned_faults(tree, manifest, keyring)
    if keyring:
        for signature, path in signed.items():
            if signature.endswith(GRUB_ENDING) and path in files:
                yield from _openpgp_faults(tree, path, signature, keyring)
    if certificates:
        yield from _cms_faults(tree, signed, files, certificates)


def _clearsigned_faults(
    tree: Path, manifest: Manifest, keyring: Path | None
) -> Iterator[VerifyError]:
    from catalyst_pxeboot.formats.signing.openpgp import verify_clearsigned

    names = manifest.clearsigned or ()
    if keyring and not names:
        yield VerifyError(
            "the tree is not signed", hint="build it with pxeboot/gpg_key, or leave --keyring out"
        )
    for name in names:
        try:
            text = read_regular(tree / name, limit=MAX_MANIFEST)
            plain = read_regular(tree / name.removesuffix(CLEARSIGNED), limit=MAX_MANIFEST)
        except OSError as error:
            yield VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD)
            continue
        # Whole lines without a dash at the start, so that they stand there as they are.
        if plain not in text:
            yield VerifyError(
                f"{name}: it is not of {name.removesuffix(CLEARSIGNED)}", hint=REBUILD
            )
        if keyring is None:
            continue
        try:
            content, _ = verify_clearsigned(text, keyring, where=name)
            if content != plain:
                yield VerifyError(
                    f"{name}: another text than {name.removesuffix(CLEARSIGNED)} is signed in it",
                    hint=REBUILD,
                )
        except VerifyError as error:
            yield error


def _openpgp_faults(tree: Path, path: str, signature: str, keyring: Path) -> Iterator[VerifyError]:
    from catalyst_pxeboot.formats.signing.openpgp import verify_detached

    try:
        verify_detached(tree / path, tree / signature, keyring)
    except VerifyError as error:
        reason = error.message.removeprefix(f"{tree / signature}: ")
        yield VerifyError(f"{signature}: {reason}", hint=error.hint)


def _cms_faults(
    tree: Path,
    signed: Mapping[str, str],
    files: Mapping[str, FileInfo],
    certificates: Path,
) -> Iterator[VerifyError]:
    with needs_extra("sign", "--certificates"):
        from catalyst_pxeboot.formats.signing.cms import load_certificates, verify_digest

    mine = {name: path for name, path in signed.items() if name.endswith(IPXE_ENDING)}
    if not mine:
        yield VerifyError(
            "the tree has no signatures for iPXE",
            hint="build it with pxeboot/sign_cert, or leave --certificates out",
        )
        return
    roots = load_certificates(certificates, where="--certificates")
    for name, path in mine.items():
        try:
            if path not in files:
                continue
            digest = bytes.fromhex(files[path].digests[MANIFEST_DIGEST])
            content = read_regular(tree / name, limit=MAX_MANIFEST)
            verify_digest(content, digest, trusted=roots, time=int(clock.time()))
        except OSError as error:
            yield VerifyError(f"{name}: cannot be read: {error.strerror}", hint=REBUILD)
        except PxebootError as error:
            yield VerifyError(f"{name}: {error.message}", hint=error.hint)

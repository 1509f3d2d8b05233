"""What is signed in a tree: one table, which the build and `verify` both follow.

A signed tree is checked by its loaders: GRUB's own network images hold the key and open nothing
without a signature of it; iPXE's script compares each file with its signature before it boots.
Neither binds a file to its name, so a signature of the sums file does, which holds the digests of
the manifest and of each file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalyst_pxeboot.loader.common import BootLoader
from catalyst_pxeboot.loader.grub import GRUB
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.files import MadeFile, Role
from catalyst_pxeboot.model.manifest import (
    CLEARSIGNED,
    CMS_PROOFS,
    GRUB_ENDING,
    IPXE_ENDING,
    OPENPGP_PROOFS,
)
from catalyst_pxeboot.plan.signers import Signers
from catalyst_pxeboot.tree.manifest import read_config
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, SHA256SUMS, signed_sums


@dataclass(frozen=True, slots=True)
class Policy:
    """What must be signed by one kind of key. Nothing that a tree holds can change it.

    At least one of `proofs`, which are signature files and the sums file that each signs, must be
    there; and each file that `loader` opens needs a signature file of its name and `ending`.
    """

    option: str  # of `verify`
    key: str  # of the spec
    proofs: Mapping[str, str]
    loader: BootLoader
    ending: str


OPENPGP: Final = Policy(
    option="--keyring",
    key="pxeboot/gpg_key",
    proofs=OPENPGP_PROOFS,
    loader=GRUB,
    ending=GRUB_ENDING,
)
CMS: Final = Policy(
    option="--certificates",
    key="pxeboot/sign_cert",
    proofs=CMS_PROOFS,
    loader=IPXE,
    ending=IPXE_ENDING,
)


def opened_files(loader: BootLoader, tree: Path) -> frozenset[str]:
    """Name every file that `loader` opens, by its configurations as they are in `tree`.

    Raises `VerifyError` for a configuration that cannot be read.
    """
    configs = [name for name in loader.configs if (tree / name).is_file()]
    opened = set(configs)
    for name in configs:
        opened.update(loader.check(read_config(tree, name)).opened)
    return frozenset(name for name in opened if not name.endswith((GRUB_ENDING, IPXE_ENDING)))


def make_signatures(
    signers: Signers, *, tree: Path, digests: Mapping[str, str], time: int
) -> Iterator[MadeFile]:
    """Sign what the loaders open of the staged `tree`.

    `digests` are the sha256 of its files by path. iPXE's signatures are made of them; GRUB's read
    the file once more, as OpenPGP hashes its own words behind the content.
    """
    if signers.cms:
        for path in sorted(opened_files(CMS.loader, tree) & digests.keys()):
            signature = signers.cms.sign_digest(bytes.fromhex(digests[path]))
            yield MadeFile(f"{path}{CMS.ending}", signature, Role.SIGNATURE, path)
    if signers.openpgp:
        for path in sorted(opened_files(OPENPGP.loader, tree) & digests.keys()):
            signature = signers.openpgp.detach(tree / path, time=time)
            yield MadeFile(f"{path}{OPENPGP.ending}", signature, Role.SIGNATURE, path)


def sign_sums(
    signers: Signers, sums: Mapping[str, bytes], digests: Sequence[str], *, time: int
) -> dict[str, bytes]:
    """Return the signature files of the tree's `sums` files, by name.

    `digests` are the algorithms that the spec asks for.
    """
    signed = clearsign_sums(signers, sums, signed_sums(digests), time=time)
    if signers.cms:
        digest = digest_bytes(sums[SHA256SUMS], [MANIFEST_DIGEST])[MANIFEST_DIGEST]
        signed[f"{SHA256SUMS}{IPXE_ENDING}"] = signers.cms.sign_digest(bytes.fromhex(digest))
    return signed


def clearsign_sums(
    signers: Signers, sums: Mapping[str, bytes], name: str, *, time: int
) -> dict[str, bytes]:
    """Return the clear-signed copy of the sums file `name` by its name, if there is a key."""
    if signers.openpgp is None:
        return {}
    return {f"{name}{CLEARSIGNED}": signers.openpgp.clearsign(sums[name], time=time)}

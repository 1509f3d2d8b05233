"""Which files of a tree are signed, for whom, and the files that hold the signatures.

A signed tree is checked by its loaders: GRUB's own network images hold the key and open nothing
without a signature of it; iPXE's script compares each file with its signature before it boots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from catalyst_pxeboot.loader.common import BootLoader
from catalyst_pxeboot.loader.grub import GRUB
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.model.files import MadeFile, Role
from catalyst_pxeboot.model.menu import Menu
from catalyst_pxeboot.plan.signers import CLEARSIGNED, GRUB_ENDING, IPXE_ENDING, Signers


def make_signatures(
    signers: Signers,
    menu: Menu,
    *,
    tree: Path,
    digests: Mapping[str, str],
    time: int,
) -> Iterator[MadeFile]:
    """Sign what the loaders of `menu` load from the staged `tree`.

    `digests` are the sha256 of its files by path. iPXE's signatures are made of them; GRUB's read
    the file once more, as OpenPGP hashes its own words behind the content.
    """
    if signers.cms:
        for path in _loaded(menu, IPXE, digests):
            signature = signers.cms.sign_digest(bytes.fromhex(digests[path]))
            yield MadeFile(f"{path}{IPXE_ENDING}", signature, Role.SIGNATURE, path)
    if signers.openpgp:
        for path in _loaded(menu, GRUB, digests):
            signature = signers.openpgp.detach(tree / path, time=time)
            yield MadeFile(f"{path}{GRUB_ENDING}", signature, Role.SIGNATURE, path)


def clearsign_sums(
    signers: Signers, sums: Mapping[str, bytes], names: Sequence[str], *, time: int
) -> dict[str, bytes]:
    """Return clear-signed copies of the digest files `names` among `sums`, by their names."""
    if signers.openpgp is None:
        return {}
    return {
        f"{name}{CLEARSIGNED}": signers.openpgp.clearsign(sums[name], time=time)
        for name in names
        if name in sums
    }


def _loaded(menu: Menu, loader: BootLoader, there: Mapping[str, str]) -> list[str]:
    """Name every file that `loader` opens for `menu`, sorted."""
    files = set(loader.configs) & there.keys()
    if not files:
        return []
    for entry in menu.live_for(loader.kind):
        files |= loader.fetched(entry)
    files |= {entry.path for entry in menu.memtests}
    return sorted(files)

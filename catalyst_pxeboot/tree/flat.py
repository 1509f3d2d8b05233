"""Stage and publish the flat release files that `plan/flat.py` plans."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from catalyst_pxeboot.model.files import MadeFile
from catalyst_pxeboot.plan.flat import DIGESTS, SHA256, FlatSet
from catalyst_pxeboot.plan.signers import Signers
from catalyst_pxeboot.tree.publish import own_flat_names
from catalyst_pxeboot.tree.signatures import clearsign_sums
from catalyst_pxeboot.util.checksum import digest_bytes
from catalyst_pxeboot.util.errors import PublishError
from catalyst_pxeboot.util.files import remove_tree, write_file
from catalyst_pxeboot.util.sums import MANIFEST_DIGEST, STRONG, algorithms, render_sums


class FlatPublication:
    """A release's flat files, staged beside `target` and put in place by renames, digests last.

    Use as a context manager around the tree's publication, whose lock it relies on. Raises
    `PublishError` if a file of such a name is there that an earlier run did not make.
    """

    def __init__(self, flat: FlatSet, target: Path) -> None:
        self._flat = flat
        self._target = target
        self.staging = staging_path(target)

    def __enter__(self) -> Path:
        self._check_free()
        remove_tree(self.staging)
        self.staging.mkdir(mode=0o755)
        return self.staging

    def __exit__(self, *_error: object) -> None:
        remove_tree(self.staging)

    def commit(self) -> None:
        """Put every staged file in its place; readers that go by the digests see a whole set."""
        sums = self._flat.sums_name("")
        names = sorted(
            (path.name for path in self.staging.iterdir()),
            key=lambda name: (name.startswith(sums), name),
        )
        for name in names:
            (self.staging / name).replace(self._target.parent / name)

    def _check_free(self) -> None:
        # The tree is published first, so its manifest names all that an earlier run put here.
        known = own_flat_names(self._target)
        for name in self._flat.names:
            path = self._target.parent / name
            if (path.exists() or path.is_symlink()) and name not in known:
                raise PublishError(
                    f"{path}: is in the way, and no earlier run for pxeboot/release made it",
                    hint="move it away or give another pxeboot/release",
                )


def staging_path(target: Path) -> Path:
    """Return the folder beside `target` in which its flat set is staged."""
    return target.parent / f".{target.name}.flat.staging"


def stage_flat(
    flat: FlatSet,
    configs: Sequence[MadeFile],
    *,
    tree: Path,
    staging: Path,
    by_path: Mapping[str, Mapping[str, str]],
    digests: Sequence[str],
    digest_format: str,
    signers: Signers,
    time: int,
) -> None:
    """Fill `staging` with links to the parts in `tree`, the configurations and the digests.

    `by_path` has the digests of the tree's files; nothing is read again.
    """
    found = {}
    for name, path in flat.links.items():
        os.link(tree / path, staging / name)
        found[name] = by_path[path]
    for config in configs:
        write_file(staging / config.path, config.content, time=time)
        found[config.path] = digest_bytes(config.content, algorithms(digests))
    sums: dict[str, Sequence[str]] = {flat.sums_name(SHA256): (MANIFEST_DIGEST,)}
    if digests:
        sums[flat.sums_name(DIGESTS)] = digests
    texts = render_sums(found, sums, digest_format)
    signed = DIGESTS if STRONG.intersection(digests) else SHA256
    texts |= clearsign_sums(signers, texts, flat.sums_name(signed), time=time)
    for name, content in texts.items():
        write_file(staging / name, content, time=time)

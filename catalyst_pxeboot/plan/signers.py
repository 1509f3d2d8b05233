"""The keys that a tree is signed with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalyst_pxeboot.model.loader import Loader

if TYPE_CHECKING:
    from catalyst_pxeboot.formats.signing.cms import CmsSigner
    from catalyst_pxeboot.formats.signing.openpgp import Signer


@dataclass(frozen=True, slots=True)
class Signers:
    """Keys that were seen to sign; None where the spec names none."""

    openpgp: Signer | None = None
    cms: CmsSigner | None = None

    def grub_key(self, loaders: Iterable[Loader]) -> bytes | None:
        """Return the public key that GRUB's images hold, if they check signatures."""
        return self.openpgp.export_public() if self.openpgp and Loader.GRUB in loaders else None

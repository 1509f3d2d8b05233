"""Find the keys that a spec names."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import Signing
from catalyst_pxeboot.util.errors import needs_extra

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


def find_signers(signing: Signing, loaders: Iterable[Loader]) -> Signers:
    """Find the keys that the spec names and see that they can do what will be asked of them.

    Raises `PxebootError`. Nothing is imported that a tree without signatures does not need.
    """
    openpgp, cms = None, None
    if signing.gpg_key:
        from catalyst_pxeboot.formats.signing.openpgp import find_signer

        openpgp = find_signer(signing.gpg_key)
        if Loader.GRUB in loaders:
            openpgp.require_grub()
    if signing.certificate and signing.key:
        with needs_extra("sign", "pxeboot/sign_cert"):
            from catalyst_pxeboot.formats.signing.cms import load_cms_signer

        cms = load_cms_signer(
            signing.certificate,
            signing.key,
            passphrase_file=signing.passphrase_file,
            time=int(clock.time()),  # a client's clock decides later, not the tree's time
        )
    return Signers(openpgp, cms)

"""Find the keys that a spec names."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable
from typing import TYPE_CHECKING

from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import SecureBoot, Signing
from catalyst_pxeboot.plan.signers import Signers
from catalyst_pxeboot.util.errors import needs_extra

if TYPE_CHECKING:
    from catalyst_pxeboot.formats.signing.secureboot import SecureBootSigner


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


def find_secureboot_signer(keys: SecureBoot | None) -> SecureBootSigner | None:
    """Read the keys that a spec names. Raises `PxebootError`."""
    if keys is None:
        return None
    with needs_extra("sign", "pxeboot/secureboot_cert"):
        from catalyst_pxeboot.formats.signing.secureboot import load_secureboot_signer
    return load_secureboot_signer(keys.certificate, keys.key, keys.passphrase_file)

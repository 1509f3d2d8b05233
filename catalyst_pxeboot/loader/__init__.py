"""Check the loaders' configurations: a parser of the subset that each template may use.

Not the loaders' own parsers, but strict where a slip would be seen only at a boot: unknown
commands, jumps to nowhere, blocks left open, and which files of the tree are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from catalyst_pxeboot.loader.common import Config
from catalyst_pxeboot.loader.grub import check_grub
from catalyst_pxeboot.loader.ipxe import check_ipxe
from catalyst_pxeboot.loader.pxelinux import check_pxelinux
from catalyst_pxeboot.loader.uboot import check_uboot
from catalyst_pxeboot.model.loader import Loader


def check_config(loader: Loader, text: str) -> Config:
    """Check a configuration of `loader`."""
    return CHECKS[loader](text)


CHECKS: Mapping[Loader, Callable[[str], Config]] = {
    Loader.IPXE: check_ipxe,
    Loader.PXELINUX: check_pxelinux,
    Loader.GRUB: check_grub,
    Loader.UBOOT: check_uboot,
}

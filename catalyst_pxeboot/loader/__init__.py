"""The boot loaders: one module each, and the registry that everything else asks."""

from __future__ import annotations

from collections.abc import Mapping

from catalyst_pxeboot.loader.common import BootLoader, Config
from catalyst_pxeboot.loader.grub import GRUB
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.loader.pxelinux import PXELINUX
from catalyst_pxeboot.loader.uboot import UBOOT
from catalyst_pxeboot.loader.uki import UKI
from catalyst_pxeboot.model.loader import Loader

LOADERS: Mapping[Loader, BootLoader] = {
    loader.kind: loader for loader in (IPXE, PXELINUX, GRUB, UBOOT, UKI)
}

__all__ = ["LOADERS", "BootLoader", "Config", "loader_of"]


def loader_of(path: str) -> BootLoader | None:
    """Return the loader that reads a file of a tree as its configuration."""
    return next((loader for loader in LOADERS.values() if loader.reads(path)), None)

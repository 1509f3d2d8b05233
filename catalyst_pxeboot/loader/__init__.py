"""The boot loaders: one module each, and the registry that everything else asks."""

from __future__ import annotations

from collections.abc import Mapping

from catalyst_pxeboot.loader.common import BootLoader, Config
from catalyst_pxeboot.loader.grub import GRUB
from catalyst_pxeboot.loader.ipxe import IPXE
from catalyst_pxeboot.loader.pxelinux import PXELINUX
from catalyst_pxeboot.loader.uboot import UBOOT
from catalyst_pxeboot.model.loader import Loader

LOADERS: Mapping[Loader, BootLoader] = {
    loader.kind: loader for loader in (IPXE, PXELINUX, GRUB, UBOOT)
}

#: The loader of each configuration file of a tree.
LOADER_OF: Mapping[str, BootLoader] = {
    path: loader for loader in LOADERS.values() for path in loader.configs
}

__all__ = ["LOADERS", "LOADER_OF", "BootLoader", "Config", "check_config"]


def check_config(loader: Loader, text: str) -> Config:
    """Check a configuration of `loader`."""
    return LOADERS[loader].check(text)

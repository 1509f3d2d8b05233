"""Unified kernel images: one EFI program for each kernel, started by the firmware or a loader.

Source: systemd-stub(7). It has no menu and no configuration; what it boots is inside, and what is
given to it is heard only without Secure Boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from catalyst_pxeboot.formats.kernel import KernelImage
from catalyst_pxeboot.loader.common import BootLoader, Config
from catalyst_pxeboot.model.loader import Loader

_MIB = 1 << 20


class Uki(BootLoader):
    """systemd's stub with kernel, initrds and command line in one file."""

    kind = Loader.UKI
    name = "UKI"
    configs = ()
    cannot_start: ClassVar[Mapping[KernelImage, str]] = {
        KernelImage.GZIP: "UEFI starts PE programs only"
    }
    on_bios = False
    self_contained = True
    root_inside = "efi"
    finds_tree = True
    needs_efi_stub = True

    def _memory_efi(self, kernel: int, resident: int, loaded: int, before: int) -> int:
        # The file as it was fetched, and the program that the firmware makes of it; then that
        # program, the kernel it starts, and a copy of the initrds.
        whole = kernel + loaded
        return 2 * whole + kernel + resident + 108 * _MIB

    def read_version(self, data: bytes) -> str | None:
        found = re.search(rb"#### LoaderInfo: systemd-stub ([!-~]+)", data)
        return found[1].decode("ascii") if found else None

    def _quote_title(self, text: str) -> str:
        return text

    def _quote_argument(self, word: str) -> str:
        return word

    def check(self, text: str) -> Config:
        return Config((), (), ())


UKI = Uki()

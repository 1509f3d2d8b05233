"""Clients that boot over QEMU's user network, as tests, the demo and the benchmarks boot them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.lab.boot import boot_client, first_unreadable
from catalyst_pxeboot.lab.machine import BIOS, UEFI_X64, Accel, Machine
from catalyst_pxeboot.model.loader import Firmware, Loader

_ENTRIES = {
    (Loader.IPXE, Firmware.BIOS): "boot.ipxe",
    (Loader.IPXE, Firmware.EFI): "boot.ipxe",
    (Loader.PXELINUX, Firmware.BIOS): "pxelinux.0",
    (Loader.GRUB, Firmware.BIOS): "boot/grub/i386-pc/core.0",
    (Loader.GRUB, Firmware.EFI): "boot/grub/x86_64-efi/core.efi",
}


@dataclass(frozen=True, slots=True)
class Client:
    """An x86-64 machine; `boot_file` is what the network names, by default the loader's own."""

    name: str
    loader: Loader
    firmware: Firmware
    memory_mib: int = 1024
    boot_file: str = ""

    @property
    def entry(self) -> str:
        """The path in the tree that the network names."""
        return self.boot_file or _ENTRIES[self.loader, self.firmware]

    @property
    def machine(self) -> Machine:
        """The kind of machine that this client is."""
        return BIOS if self.firmware is Firmware.BIOS else UEFI_X64


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a boot over QEMU's user network ended.

    `seconds` counts from QEMU's start. `fetched` holds bytes by URL path, of the web server
    only: TFTP is QEMU's own and reports nothing.
    """

    passed: bool
    seconds: float
    reason: str
    console_tail: tuple[str, ...]
    fetched: Mapping[str, int]


def boot_tree(
    tree: Path,
    client: Client,
    *,
    token: str,
    timeout: float,
    log: Path | None = None,
    accel: Accel = Accel.AUTO,
) -> BootResult:
    """Boot `client` from the netboot tree `tree` and wait until its console shows `token`.

    Only a line that begins with `token` counts, as kernels and loaders print their command
    lines. The boot fails when `timeout` (seconds) is over, when QEMU ends, or when the console
    shows that nothing more will come; the result says which. `log` receives the whole console.
    Raises `CommandError` where QEMU or firmware is missing.
    """
    tree = tree.resolve()
    unreadable = first_unreadable(tree)
    if unreadable:
        return BootResult(False, 0.0, f"{unreadable} is not readable by a server", (), {})
    until = re.compile("^" + re.escape(token))
    verdict, fetched = boot_client(
        tree, client.machine, client.loader, client.entry,
        until=until, timeout=timeout, memory_mib=client.memory_mib, log=log, accel=accel,
    )  # fmt: skip
    return BootResult(
        verdict.passed, verdict.seconds, verdict.reason, verdict.console_tail, fetched
    )

"""What can boot a kernel, by the architecture in the kernel's header: read from arch.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from catalyst_pxeboot.util.resources import read_table


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that kernels are for.

    `buildarch` is the ${buildarch} of the iPXE that is native to it; `platforms` are the GRUB
    platforms, as $grub_cpu-$grub_platform, that start its kernels.
    """

    name: str
    buildarch: str
    platforms: tuple[str, ...]


@cache
def all_machines() -> tuple[Machine, ...]:
    """Return every machine, in the order of arch.toml.

    An architecture's first kernel and first iPXE are its own; those after them are what else runs
    on it.
    """
    return tuple(
        Machine(table["kernels"][0], table["ipxe"][0], tuple(sorted(table["grub"])))
        for table in read_table("model/arch.toml").values()
    )


@cache
def arch_order() -> tuple[str, ...]:
    """Return the architectures in the order of arch.toml, in which menus show them."""
    return tuple(read_table("model/arch.toml"))

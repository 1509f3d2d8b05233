"""Print the least memory of clients in QEMU beside what the tree says of it.

    python tests/bench/memory.py [--sizes 32,128,320] [--modes embedded,http,nfs] [--efi]

For each row the least `-m` at which the live root still prints its token is found by bisection
below the estimate; the rule is that the estimate is enough, and at most 15 % or 48 MiB above the
least, whichever is more. Exit code 1 if a row breaks it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from catalyst_pxeboot.build.pipeline import build, make_plan
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.model.settings import RootMode
from catalyst_pxeboot.spec.parse import Spec, parse_folders
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import live_image as liveimage  # the two paths above come first
from tests.support.boot import Client, boot_tree
from tests.support.nfs_server import EXPORT, serve_nfs
from tests.support.paths import CACHE

STEP = 8  # MiB: how closely the least is found
TIMEOUT = 150.0  # seconds for a boot under emulation
HOST = "10.0.2.2"  # this machine, as a client on QEMU's user network sees it

#: Which generator shows each way to the root.
GENERATORS = {
    RootMode.EMBEDDED: ("dracut", "genkernel-like"),
    RootMode.HTTP: ("dracut-net",),
    RootMode.NFS: ("genkernel-like",),
}
BIOS = Client("ipxe-bios", Loader.IPXE, Firmware.BIOS)
#: One row of each for a squashfs of 128 MiB in the initramfs.
OTHERS = (
    Client("pxelinux-bios", Loader.PXELINUX, Firmware.BIOS),
    Client("grub-bios", Loader.GRUB, Firmware.BIOS),
    Client("grub-efi", Loader.GRUB, Firmware.EFI),
    Client("ipxe-efi", Loader.IPXE, Firmware.EFI),
)


@dataclass(frozen=True)
class Row:
    """One client, one tree."""

    generator: str
    mode: RootMode
    mib: int
    client: Client


def rows(sizes: Sequence[int], modes: Sequence[RootMode], *, efi: bool) -> Iterator[Row]:
    for mode in modes:
        for generator in GENERATORS[mode]:
            for mib in sizes:
                yield Row(generator, mode, mib, BIOS)
    if RootMode.EMBEDDED in modes and 128 in sizes:
        for client in OTHERS:
            yield Row("dracut", RootMode.EMBEDDED, 128, client)
    if efi:
        for mib in (size for size in sizes if size != 128):
            for client in OTHERS[2:]:
                yield Row("dracut", RootMode.EMBEDDED, mib, client)


def measure(spec: Spec, row: Row) -> tuple[int, int]:
    """Return estimate and least, in MiB; 0 for the least where the estimate is not enough."""
    tree = build(spec, report=lambda _line: None).output
    entry = make_plan(spec).menu.live_for(row.client.loader)[0]
    estimate = entry.limits[row.client.loader].memory[row.client.firmware] >> 20

    def reaches(mib: int) -> bool:
        client = replace(row.client, memory_mib=mib)
        return boot_tree(tree, client, token=liveimage.TOKEN, timeout=TIMEOUT).passed

    if not reaches(estimate):
        return estimate, 0
    fails, passes = estimate - max(48, estimate * 15 // 100) - STEP, estimate
    if reaches(fails):
        fails, passes = fails // 2, fails
    while passes - fails > STEP:
        middle = (passes + fails) // 2
        if reaches(middle):
            passes = middle
        else:
            fails = middle
    return estimate, passes


def main(argv: Sequence[str]) -> int:
    """Measure the rows that `argv` asks for and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the least memory of clients.")
    parser.add_argument("--sizes", default="32,128,320", metavar="MIB,…")
    parser.add_argument("--modes", default="embedded,http,nfs", metavar="MODE,…")
    parser.add_argument("--efi", action="store_true", help="UEFI at every size, not at 128 only")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR")
    given = parser.parse_args(argv)
    sizes = [int(word) for word in given.sizes.split(",")]
    modes = [RootMode(word) for word in given.modes.split(",")]
    print("Least memory of a client, in MiB; the rule: 0 to 15 % or 48 MiB above the least")
    broken = 0
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-memory-")))
        nfs = stack.enter_context(serve_nfs(scratch)) if RootMode.NFS in modes else None
        for number, row in enumerate(rows(sizes, modes, efi=given.efi)):
            begun = time.monotonic()
            folder = scratch / f"{row.generator}-{row.mib}"
            stage2 = folder / "stage2"
            if not stage2.exists():
                folder.mkdir()
                liveimage.build_live_image(
                    stage2, cache=given.cache, generator=row.generator, squashfs_mib=row.mib
                )
            name = f"{folder.name}/tree-{number}"
            settings = {
                "subarch": "amd64",
                "pxeboot/serial": "ttyS0,115200",
                "pxeboot/timeout": "1",
                "pxeboot/root": [str(row.mode)],
                "pxeboot/loaders": str(row.client.loader),
                "pxeboot/verify_root": "no",
            }
            if nfs:
                settings["pxeboot/nfs_root"] = f"{HOST}:{EXPORT}/{name},{nfs.options}"
            spec = parse_folders(stage2, scratch / name, settings)
            estimate, least = measure(spec, row)
            over = estimate - least
            good = least > 0 and over <= max(48, least * 15 / 100)
            broken += not good
            shown = (
                f"{least:5} {over:+5} {over * 100 / least:+4.0f} %"
                if least
                else "  the estimate fails"
            )
            print(
                f"  {row.mode:<9} {row.generator:<15} {row.mib:4} MiB  {row.client.name:<14}"
                f" estimate {estimate:5}  least {shown}{'' if good else '  BREAKS THE RULE'}"
                f"  ({time.monotonic() - begun:.0f} s)",
                flush=True,
            )
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PxebootError as error:
        sys.exit(str(error))

"""Run the table of boot paths, or some of its rows: what `make test-boot` does.

    python -m tests.boot.table [ROW ...] [--run N] [--broken] [--user-network] [--junit FILE]

A row is the number or the name of a path; without any all are run. `--run N` takes the third of
the table that is due in run number N, so that three runs in a row cover everything. `--broken` runs
the negative case of each row instead: the tree lacks a file that the path needs, or has a wrong
one, and the client must say so. `--user-network` boots by QEMU's own network, as without root. The
trees are built here, as a user would build them; the one setting added is the documented
pxeboot/serial. PXEBOOT_CACHE names the folder for downloads. PXEBOOT_NEW_IPXE names one with iPXE
binaries newer than the distribution's: the paths that begin with one of them are run with it too.
PXEBOOT_LOADERS names more folders of loaders, separated by colons (a signed shim and GRUB).

Exit code: 0 when no path failed (skipped ones are listed), 1 otherwise, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.machine import UEFI_X64_SECURE
from catalyst_pxeboot.lab.network import Subnet, why_no_network
from catalyst_pxeboot.lab.paths import PATHS, BootPath
from catalyst_pxeboot.lab.report import table_lines, write_junit
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import PxebootError
from tests.support import foreign_image as foreignimage
from tests.support import live_image as liveimage
from tests.support.boot_paths import find_paths, rotate_paths
from tests.support.paths import CACHE

NEW_IPXE = os.environ.get("PXEBOOT_NEW_IPXE", "")
LOADERS = [folder for folder in os.environ.get("PXEBOOT_LOADERS", "").split(":") if folder]
UNTIL = re.compile("^" + re.escape(liveimage.TOKEN))
STAMP = "20261122T170000Z"
TIMEOUT = 300.0  # seconds a boot; under emulation most take 15 to 90
MEMORY_MIB = 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a tree, and what the console must show then."""

    file: str
    complaint: re.Pattern[str]
    removed: bool = True  # otherwise one byte of it is another
    at: int = -100  # which one


_FAULTS = {
    Loader.IPXE: Fault("image.squashfs", re.compile("^This did not work: ")),
    # What PXELINUX prints comes twice, mixed: from itself, and as SeaBIOS's copy of the screen.
    Loader.PXELINUX: Fault("boot/gentoo.igz", re.compile(r"^Loading boot/gentoo\.igz.*failed:")),
    Loader.GRUB: Fault("boot/gentoo", re.compile("This did not work; the reason is above")),
    Loader.UBOOT: Fault("boot/gentoo.initrd", re.compile("TFTP error: .*gentoo.initrd.*not found")),
    Loader.UKI: Fault("boot/gentoo.efi", re.compile("BdsDxe: failed to load"), False, 0),
}
_SECURE_FAULT = Fault("boot/gentoo", re.compile("bad shim signature"), removed=False)

_MORE_SETTINGS: dict[str, dict[str, object]] = {
    "amd64": {"pxeboot/loaders": ["ipxe", "pxelinux", "grub", "uki"]},
    "arm64": {"pxeboot/loaders": ["ipxe", "grub", "uboot", "uki"]},
}
_SERIAL = {"amd64": "ttyS0,115200", "x86": "ttyS0,115200"}  # the others' consoles are ttyAMA0


def choose_rows(words: Sequence[str], run: int | None) -> tuple[BootPath, ...]:
    """Return the table's rows that are asked for, those of new iPXE after the others."""
    paths = find_paths(words) if words else PATHS
    rows = (*paths, *(with_new_ipxe(path) for path in paths if has_new_ipxe(path)))
    return rows if run is None else rotate_paths(rows, run)


def has_new_ipxe(path: BootPath) -> bool:
    """Say whether the path begins with an iPXE that PXEBOOT_NEW_IPXE brings."""
    return (
        bool(NEW_IPXE) and path.loader is Loader.IPXE and Path(NEW_IPXE, path.boot_file).is_file()
    )


def with_new_ipxe(path: BootPath) -> BootPath:
    """Return the same path with an iPXE newer than the distribution's."""
    return replace(path, name=f"{path.name}-new")


class Trees:
    """The netboot trees of the rows, each built when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Path] = {}

    def of(self, path: BootPath) -> Path:
        """Return the tree of a row. Raises `PxebootError` or `RuntimeError`."""
        arch = path.arches[0]
        new = path.name.endswith("-new")
        key = f"{arch}-new-ipxe" if new else f"{arch}-server" if path.closed else arch
        if key not in self._built:
            more = {"pxeboot/server": f"{Subnet().server}/24"} if path.closed else {}
            self._built[key] = self._build(arch, self._folder / key, more, new=new)
        return self._built[key]

    def _build(self, arch: str, folder: Path, more: Mapping[str, object], *, new: bool) -> Path:
        stage2 = folder / "stage2"
        make: Callable[..., Path] = (
            liveimage.build_live_image if arch == "amd64" else foreignimage.build_live_image
        )
        words = {"generator": "genkernel-like"} if arch == "amd64" else {"arch": arch}
        make(stage2, cache=CACHE, **words)
        settings: dict[str, object] = {
            "subarch": arch,
            "version_stamp": STAMP,
            "digests": ["blake2b"],
            "pxeboot/serial": _SERIAL.get(arch, "ttyAMA0,115200"),
            "pxeboot/timeout": "1",
        }
        settings |= _MORE_SETTINGS.get(arch, {})
        settings |= more
        search = [NEW_IPXE] if new else []
        search += LOADERS
        grub = foreignimage.loaders(arch, CACHE) if arch != "amd64" else None
        if grub:
            search.append(str(grub))
        if arch == "arm64":
            search.append(str(foreignimage.stub(arch, CACHE)))
        if search:
            settings["pxeboot/loader_path"] = search
        spec = parse_folders(stage2, folder / "tree", settings)
        return build(spec, report=lambda _line: None).output


def fault_of(path: BootPath) -> Fault:
    """Return the negative case of a row."""
    return _SECURE_FAULT if path.machine is UEFI_X64_SECURE else _FAULTS[path.loader]


def break_tree(tree: Path, fault: Fault, target: Path) -> Path:
    """Copy `tree` to `target`, which is replaced, with the fault in it."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(tree, target, copy_function=os.link)
    file = target / fault.file
    content = bytearray(file.read_bytes())
    file.unlink()  # it is a link: the good tree keeps it
    if not fault.removed:
        content[fault.at] ^= 0xFF
        file.write_bytes(content)
    return target


def run_rows(
    rows: Sequence[BootPath],
    folder: Path,
    *,
    timeout: float,
    logs: Path | None,
    broken: bool = False,
    user_network: bool = False,
) -> tuple[PathResult, ...]:
    """Run `rows` one after the other, telling of each in a line."""
    trees = Trees(folder)
    obstacle = "--user-network" if user_network else why_no_network()
    results = []
    for number, path in enumerate(rows, 1):
        complaint = None
        try:
            tree = trees.of(path)
            if broken:
                fault = fault_of(path)
                complaint = fault.complaint
                tree = break_tree(tree, fault, folder / "broken")
        except (PxebootError, OSError, RuntimeError) as error:
            result = PathResult(path, Outcome.SKIPPED, 0.0, f"no tree: {error}", {}, ())
        else:
            result = run_path(
                tree, path,
                memory_mib=MEMORY_MIB, timeout=timeout, until=UNTIL, obstacle=obstacle,
                complaint=complaint,
                log=logs / f"{path.name}.log" if logs else None,
            )  # fmt: skip
        results.append(result)
        print(
            f"[{number}/{len(rows)}] {path.number} {path.name}: {result.outcome}, "
            f"{result.seconds:.1f} s",
            flush=True,
        )
    return tuple(results)


def main(argv: Sequence[str]) -> int:
    """Run the rows that `argv` names and return the exit code."""
    parser = argparse.ArgumentParser(description="Run the table of boot paths.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="number or name of a path")
    parser.add_argument("--run", type=int, metavar="N", help="the third that is due in run N")
    parser.add_argument("--broken", action="store_true", help="the negative case of each row")
    parser.add_argument(
        "--user-network", action="store_true", help="as without root, what can be booted so"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the consoles there")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="per boot")
    given = parser.parse_args(argv)
    try:
        rows = choose_rows(given.rows, given.run)
    except PxebootError as error:
        parser.error(str(error))
    if given.run is not None:
        print(f"run {given.run}: " + ", ".join(f"{row.number} {row.name}" for row in rows))
    if given.logs:
        given.logs.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pxeboot-table-") as scratch:
        results = run_rows(
            rows, Path(scratch), timeout=given.timeout, logs=given.logs, broken=given.broken,
            user_network=given.user_network,
        )  # fmt: skip
    print()
    for line in table_lines(results):
        print(line)
    print(f"{time.monotonic() - begun:.0f} s in all")
    for result in results:
        if result.outcome is Outcome.FAILED:
            print(f"\n--- console of {result.path.name}, its last lines")
            print("\n".join(result.console_tail))
    if given.junit:
        write_junit(results, given.junit)
    return 1 if any(result.outcome is Outcome.FAILED for result in results) else 0


def _terminate(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that servers, client and network are removed on the way out.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))

"""`catalyst-pxeboot menu` over many trees: the first run, and one with nothing new.

Whole processes, as a user starts them, with a warm page cache; figures are medians, beside them
what the processor was busy with it, which other programs do not make longer. A benchmark, not a
test: its exit code is 0 whatever the figures are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.support.paths import ROOT
from tests.support.release_trees import KINDS, make_manifest, write_tree

ROUNDS = 5

#: Seconds.
FIRST, AGAIN = 2.0, 0.3

#: Loader binaries that a tree has besides, so that its manifest is as long as a real one.
BINARIES = 24


@dataclass(frozen=True, slots=True)
class Run:
    """What a process took, in seconds: by the clock, and of the processor."""

    clock: float
    busy: float


#: As on Gentoo's mirrors: a folder for each architecture and time.
VARIANTS = ("23.0-default", "23.0-hardened", "23.0-musl")


def main() -> int:
    """Make the trees, run the command, print its seconds; always 0."""
    parser = argparse.ArgumentParser(description="Time the menu over many netboot trees.")
    parser.add_argument("--trees", type=int, default=400, help="how many; 400")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache", help="for scratch files")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-menu-", dir=arguments.folder.resolve()) as name:
        mirror = Path(name)
        make_trees(mirror, arguments.trees)
        first: list[Run] = []
        again: list[Run] = []
        one_more: list[Run] = []
        for count in range(ROUNDS):
            forget(mirror)
            first.append(run(mirror))
            again.append(run(mirror))
            write_tree(
                mirror / f"new/{count}", make_manifest("amd64", f"203001{count + 10}T000000Z")
            )
            one_more.append(run(mirror))
        print(f"\nThe menu over {arguments.trees} trees")
        line("first run", first, f"< {FIRST} s")
        line("again, nothing new", again, f"< {AGAIN} s")
        line("again, one tree more", one_more)
    return 0


def make_trees(mirror: Path, count: int) -> None:
    """Make `count` trees of every kind and variant, back in time by weeks."""
    kinds = [(subarch, variant) for subarch in KINDS for variant in VARIANTS]
    for number in range(count):
        subarch, variant = kinds[number % len(kinds)]
        week = number // len(kinds)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(1_795_366_800 - week * 7 * 86400))
        folder = mirror / KINDS[subarch][0] / "autobuilds" / variant / subarch / stamp
        write_tree(folder, manifest_of(subarch, stamp, variant))


def manifest_of(subarch: str, stamp: str, variant: str = VARIANTS[0]) -> dict[str, Any]:
    """Return the manifest of a tree with as many files as a real one has."""
    manifest = make_manifest(subarch, stamp, rel_type=variant)
    like = manifest["files"][0]
    manifest["files"] += [
        {**like, "path": f"loader-{number}", "role": "loader", "origin": "a package, its version"}
        for number in range(BINARIES)
    ]
    return manifest


def forget(mirror: Path) -> None:
    """Remove what a run has written."""
    for name in ("menu.ipxe", "grub.cfg", "pxelinux.cfg/default", "releases.json"):
        (mirror / name).unlink(missing_ok=True)


def run(mirror: Path) -> Run:
    """Run the command."""
    argv = [sys.executable, "-m", "catalyst_pxeboot", "menu", "--quiet", str(mirror)]
    busy, begun = children_busy(), time.perf_counter()
    subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=mirror, check=True)
    return Run(time.perf_counter() - begun, children_busy() - busy)


def children_busy() -> float:
    """Return the seconds of processor that this process's children have taken."""
    spent = os.times()
    return spent.children_user + spent.children_system


def line(what: str, runs: list[Run], target: str = "") -> None:
    """Print a line of the table."""
    clock = median(run.clock for run in runs)
    busy = median(run.busy for run in runs)
    print(f"  {what:<52} {clock:10.3f} s  {target:<12} busy {busy:.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`, first part: builds of images as they are, beside the least time they can take.

The initramfs is made by the release specs' arguments and packed by xz, zstd and gzip; the squashfs
has 300 MiB and 1 GiB. The bound is the longest of each digest of the squashfs, by openssl, and
unpacking the initramfs by its own tool; or their sum shared by the cores. What is above the target
is marked. Figures are medians of five turns; a ratio is the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support import live_image
from tests.support.iso import plain_iso
from tests.support.paths import ROOT
from tests.tools.bench.bench import (
    CORES,
    DIGESTS,
    MIB,
    ROUNDS,
    Bench,
    build,
    heading,
    in_turns,
    initramfs,
    line,
    make_bench,
    middle,
    openssl,
    others,
    ratio,
)

TARGET, TARGET_ISO, TARGET_STREAM = 1.10, 1.15, 1.25

#: The bound counts no hash tree.
EMBEDDED = ("--set", "pxeboot/root=embedded")

#: How each initramfs is packed, and unpacked by its own tool.
PACKERS = {
    "xz": (["xz", "-6", "-T2", "-c", "--check=crc32"], ["xz", "-dc"]),
    "zstd": (["zstd", "-q", "-19", "-T2", "-c"], ["zstd", "-qdc"]),
    "gzip": (["gzip", "-9", "-c"], ["gzip", "-dc"]),
}


def main() -> int:
    """Measure the builds and print them; always 0."""
    parser = argparse.ArgumentParser(description="Time builds of images of real size.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--size-mib", type=int, nargs="+", default=[300, 1024])
    arguments = parser.parse_args()
    cache = ROOT / ".cache"
    lacking = [name for name in ("openssl", "xz", "zstd", "gzip", "dracut") if not _has(name)]
    if lacking:
        print(f"Images of real size were not measured: install {' '.join(lacking)}")
        return 0
    packed = {kind: pack(cache, kind) for kind in PACKERS}
    above = []
    for size in arguments.size_mib:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=cache) as name:
            bench = make_bench(Path(name), size * MIB)
            for kind, file in packed.items():
                place = initramfs(bench.stage2)
                shutil.copyfile(file, place)
                found = print_real(bench, kind, size, arguments.rounds)
                if found > TARGET:
                    above.append(f"{kind}, {size} MiB: {found:.2f}")
            if size == max(arguments.size_mib):
                found = print_stream(cache, bench, arguments.rounds)
                if found > TARGET_STREAM:
                    above.append(f"with a streamed root: {found:.2f}")
                found = print_iso(bench, arguments.rounds)
                if found > TARGET_ISO:
                    above.append(f"from an ISO: {found:.2f}")
    print(f"\n{'ABOVE THE TARGET: ' + '; '.join(above) if above else 'All within their targets.'}")
    return 0


def _has(name: str) -> bool:
    return shutil.which(name) is not None


def pack(cache: Path, kind: str) -> Path:
    """Return the release specs' initramfs, packed in one way; it is kept in `cache`."""
    made = live_image.make_initramfs(cache, "dracut-release")
    target = made.with_name(f"{made.name}.{kind}")
    if not target.exists():
        unpacked = subprocess.run(["xz", "-dc", made], check=True, capture_output=True).stdout
        done = subprocess.run(PACKERS[kind][0], input=unpacked, check=True, capture_output=True)
        target.write_bytes(done.stdout)
    return target


def print_real(bench: Bench, kind: str, size: int, rounds: int) -> float:
    """Print one image's build beside its bound; return the ratio."""
    return _print(
        f"{kind} initramfs, {size} MiB of squashfs", bench, kind,
        {"build": partial(build, bench, None, *EMBEDDED)}, TARGET, rounds,
    )  # fmt: skip


def print_iso(bench: Bench, rounds: int) -> float:
    """Print the build from an ISO beside the longer of `cp` and the bound; return the ratio."""
    folder = bench.folder
    iso = plain_iso(bench.stage2, folder / "install-amd64-minimal-20261122T170000Z.iso")

    def copy() -> None:
        subprocess.run(["cp", "--reflink=never", iso, folder / "copy"], check=True)
        (folder / "copy").unlink()

    actions: dict[str, Callable[[], object]] = {
        "cp": copy,
        "build": partial(build, bench, iso, *EMBEDDED),
    }
    return _print(f"ISO of {iso.stat().st_size // MIB} MiB", bench, "xz", actions, TARGET_ISO,
                  rounds)  # fmt: skip


def print_stream(cache: Path, bench: Bench, rounds: int) -> float:
    """Print the build with a streamed root beside the one without; return the ratio.

    The squashfs has the modules of the kernel, which is real here; the initramfs is packed as the
    release specs say.
    """
    shutil.copyfile(pack(cache, "xz"), initramfs(bench.stage2))
    kernel = live_image._kernel(cache)
    shutil.copyfile(kernel.boot("vmlinuz"), bench.stage2 / "boot/gentoo")
    shutil.copyfile(kernel.boot("config"), bench.stage2 / "boot/gentoo-config")
    root = bench.folder / "root"
    shutil.copytree(kernel.modules, root / "lib/modules" / kernel.release, symlinks=True)
    bench.squashfs.rename(root / "padding")
    argv: list[str | Path] = ["mksquashfs", root, bench.squashfs, "-quiet", "-no-progress"]
    subprocess.run(argv, check=True, capture_output=True)
    shutil.rmtree(root)
    roots = {"without": "embedded", "with": "embedded stream"}
    addon = bench.output / "boot/gentoo.net.cpio"
    sizes = []

    def act(words: str) -> None:
        build(bench, None, "--set", f"pxeboot/root={words}")
        if addon.exists():
            sizes.append(addon.stat().st_size)

    with others() as load:
        turns = [
            dict(turn)
            for turn in in_turns({name: partial(act, roots[name]) for name in roots}, rounds)
        ]
    found = ratio(turns, "with", "without")
    heading(f"a streamed root, {bench.squashfs.stat().st_size // MIB} MiB of squashfs")
    for name in roots:
        line(f"the build {name} it", f"{middle(turns, name):.3f} s")
    line("more time with it", f"{found - 1:.0%}", f"<= {TARGET_STREAM - 1:.0%}", found)
    line("the add-on", f"{max(sizes, default=0) / MIB:.1f} MiB", "<= 16")
    if load[0] > 0.1:
        line("cores that other programs kept busy meanwhile", f"{load[0]:.2f}", "near 0")
    return found


def _print(
    what: str,
    bench: Bench,
    kind: str,
    build_actions: dict[str, Callable[[], object]],
    target: float,
    rounds: int,
) -> float:
    squashfs, stage2 = bench.squashfs, bench.stage2
    unpack = [*PACKERS[kind][1], str(initramfs(stage2))]
    actions: dict[str, Callable[[], object]] = {
        **{name: partial(openssl, squashfs, name) for name in DIGESTS},
        "unpack": lambda: subprocess.run(unpack, check=True, stdout=subprocess.DEVNULL),
        **build_actions,
    }
    with others() as load:
        turns = [dict(turn) for turn in in_turns(actions, rounds)]
    for turn in turns:
        work = [turn[name] for name in (*DIGESTS, "unpack")]
        turn["bound"] = max(*work, sum(work) / CORES, turn.get("cp", 0.0))
    found = ratio(turns, "build", "bound")
    heading(what)
    for name in (*DIGESTS, "unpack", *(["cp"] if "cp" in actions else []), "bound"):
        line(name, f"{middle(turns, name):.3f} s")
    line("the build", f"{middle(turns, 'build'):.3f} s", f"<= {target:.2f}", found)
    if load[0] > 0.1:
        line("cores that other programs kept busy meanwhile", f"{load[0]:.2f}", "near 0")
    return found


if __name__ == "__main__":
    sys.exit(main())

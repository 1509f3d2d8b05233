"""`make bench`: how fast a build is and what it takes, beside lower bounds and other ways.

Everything is timed in one run, on the same freshly made data, with a warm page cache, in turns,
so that what else the machine does falls on all alike. Figures are medians; ratios are medians
of ratios within a turn. A benchmark, not a test: its exit code is 0 whatever the figures are.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import FrameType

from snakeoil.chksum import get_chksums

from catalyst_pxeboot.util.checksum import digest_file
from tests.support import builders
from tests.support.paths import ROOT
from tests.support.stage2 import STAMP, write_stage2

MIB = 1024 * 1024
ROUNDS = 5
STARTS = 7
CORES = len(os.sched_getaffinity(0))

#: catalyst's digests, by the names that openssl has for them.
DIGESTS = {"blake2b": "blake2b512", "sha512": "sha512", "sha256": "sha256"}

#: No GRUB: making its images takes seconds of both cores, whatever the squashfs.
LOADERS = "pxeboot/loaders=ipxe pxelinux"

Seconds = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """What a build's process took: seconds, bytes it wrote, MiB of memory at its peak."""

    seconds: float
    written: int
    peak: float


@dataclass(frozen=True, slots=True)
class Bench:
    """The scratch folder and what lies in it."""

    folder: Path
    conf: Path
    stage2: Path

    @property
    def squashfs(self) -> Path:
        return self.stage2 / "image.squashfs"

    @property
    def output(self) -> Path:
        return self.folder / "tree"


def main() -> int:
    """Measure everything and print it; always 0."""
    parser = argparse.ArgumentParser(
        description="Time a build beside its lower bound and beside other ways to do it."
    )
    parser.add_argument("--size-mib", type=int, default=1024, help="of the squashfs; 1024")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache", help="for scratch files")
    arguments = parser.parse_args()
    lacking = [name for name in ("openssl", "cp", "cpio") if shutil.which(name) is None]
    if lacking:
        print(f"Nothing measured: install {' '.join(lacking)}")
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder.resolve()) as name:
        print(f"squashfs of {arguments.size_mib} MiB, {CORES} cores, digests {' '.join(DIGESTS)}")
        bench = make_bench(Path(name), arguments.size_mib * MIB)
        print_startup()
        print_memory(bench)
        print_build(bench)
        print_written(bench)
        print_digests(bench)
        print_others(bench)
    return 0


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as an exception, so that the scratch folder goes


# ---- the data


def make_bench(folder: Path, size: int) -> Bench:
    """Make a stage2 tree with a squashfs of `size` bytes and a catalyst.conf for it."""
    conf = folder / "catalyst.conf"
    conf.write_text(f"digests = {json.dumps(list(DIGESTS))}\n")
    bench = Bench(folder, conf, make_stage2(folder, "source"))
    write_squashfs(bench.squashfs, size, random=True)
    return bench


def make_stage2(folder: Path, name: str) -> Path:
    """Make a stage2 tree, its squashfs still to be written; all of it may be linked."""
    stage2 = write_stage2(folder / name / f"livecd-stage2-amd64-{STAMP}", squashfs=b"")
    initramfs(stage2).chmod(0o644)
    return stage2


def initramfs(stage2: Path) -> Path:
    """Return the initramfs of a stage2 tree."""
    return stage2 / "boot/gentoo.igz"


def write_squashfs(path: Path, size: int, *, random: bool) -> None:
    """Write a squashfs superblock and random data, or a hole, up to `size` bytes."""
    head = builders.squashfs_image(4096, used=size)
    with path.open("wb") as stream:
        stream.write(head)
        while random and stream.tell() < size:
            stream.write(os.urandom(min(4 * MIB, size - stream.tell())))
        stream.truncate(size)
        os.fsync(stream.fileno())


# ---- measuring


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def in_turns(actions: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> list[Seconds]:
    """Time `actions` one after another, `rounds` times; every other round goes backwards."""
    names = list(actions)
    found: list[Seconds] = []
    for _ in range(rounds):
        found.append({name: timed(actions[name]) for name in names})
        names.reverse()
    return found


def middle(rounds: Sequence[Seconds], name: str) -> float:
    """Return the median of one action's seconds."""
    return median(seconds[name] for seconds in rounds)


def ratio(rounds: Sequence[Seconds], name: str, base: str) -> float:
    """Return the median of one action's seconds over another's, round by round."""
    return median(seconds[name] / seconds[base] for seconds in rounds)


@contextlib.contextmanager
def others() -> Iterator[list[float]]:
    """Yield a list that holds, at the end, the cores that other programs kept busy meanwhile."""
    busy, used, begun = _busy(), _used(), time.monotonic()
    found: list[float] = []
    yield found
    seconds = time.monotonic() - begun
    found.append(max(0.0, (_busy() - busy - (_used() - used)) / seconds))


def _busy() -> float:
    # proc(5), /proc/stat: user nice system idle iowait irq softirq steal, in ticks.
    ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _used() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# ---- what is run


def our_argv(*words: str | Path) -> list[str]:
    """Return the command line of this project's command."""
    return [sys.executable, "-m", "catalyst_pxeboot", *map(str, words)]


def our_environment() -> dict[str, str]:
    """Return the environment in which this checkout's package is the one that is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def build(bench: Bench, stage2: Path | None = None, *more: str, watch: bool = False) -> Run:
    """Build the tree in a process of its own, with `more` arguments.

    With `watch`, look at its memory as it runs.
    """
    if bench.output.exists():
        shutil.rmtree(bench.output)
    argv = our_argv(
        *("build", "--quiet", "--config", bench.conf, "--source", stage2 or bench.stage2),
        *("--output", bench.output, "--subarch", "amd64", "--set", LOADERS),
        *more,
    )
    begun = time.perf_counter()
    # Absent loaders are warned of, and not of interest here.
    with subprocess.Popen(
        argv, env=our_environment(), stderr=subprocess.PIPE, text=True, cwd=bench.folder
    ) as process:
        peak = _watch_memory(process.pid) if watch else 0.0
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        complaints = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"the build failed: {complaints}")
    return Run(seconds, usage.ru_oublock * 512, peak)


def _watch_memory(pid: int) -> float:
    """Return the peak of a process's memory in MiB, looked at until it ends.

    Not ru_maxrss: that counts this program's own memory, too, which a child has until it execs.
    """
    peak = 0
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        if not found and peak:
            return peak / 1024
        peak = max([peak, *found])
        time.sleep(0.002)


def openssl(file: Path, *names: str) -> None:
    """Take digests of `file`, each by an openssl of its own, all at once."""
    with contextlib.ExitStack() as running:
        for name in names:
            argv = ["openssl", "dgst", f"-{DIGESTS[name]}", str(file)]
            running.enter_context(subprocess.Popen(argv, stdout=subprocess.DEVNULL))


def digest(file: Path) -> list[str]:
    """Take all digests as a build does."""
    with file.open("rb") as stream:
        digests = digest_file(stream.fileno(), list(DIGESTS), where=str(file))
    return [digests[name] for name in DIGESTS]


def digest_by_snakeoil(file: Path, *, parallel: bool) -> list[str]:
    """Take all digests by snakeoil, which maps the whole file."""
    sums = get_chksums(str(file), *DIGESTS, parallelize=parallel)
    lengths = [hashlib.new(name).digest_size * 2 for name in DIGESTS]
    return [f"{value:0{length}x}" for value, length in zip(sums, lengths, strict=True)]


def digest_as_catalyst(file: Path) -> list[str]:
    """Take one digest after another in reads of 8 KiB, as catalyst's GenBase does for an ISO."""
    found = []
    for name in DIGESTS:
        state = hashlib.new(name)
        with file.open("rb") as stream:
            while data := stream.read(8192):
                state.update(data)
        found.append(state.hexdigest())
    return found


def build_by_hand(bench: Bench) -> None:
    """Copy kernel and squashfs, join initramfs and an archive of the squashfs, take digests."""
    folder = bench.folder / "by-hand"
    folder.mkdir()
    subprocess.run(["cp", bench.stage2 / "boot/gentoo", bench.squashfs, folder], check=True)
    joined = folder / "gentoo.igz"
    shutil.copyfile(initramfs(bench.stage2), joined)
    with joined.open("ab") as stream:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            input=f"{bench.squashfs.name}\n".encode(), stdout=stream, cwd=folder, check=True,
        )  # fmt: skip
    for name in DIGESTS:
        openssl(folder / bench.squashfs.name, name)
    shutil.rmtree(folder)


# ---- what is printed


def heading(text: str) -> None:
    """Begin a part of the table."""
    print(f"\n{text}", flush=True)


def line(what: str, figure: str, target: str = "", found: float | None = None) -> None:
    """Print a line of the table: what was measured, the figure, its target, a ratio."""
    print(f"  {what:<52} {figure:>12}", end="")
    print(f"  {target:<12}", "" if found is None else f"ratio {found:.2f}", flush=True)


def print_startup() -> None:
    """Print how soon the command answers."""
    argvs = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "--help": our_argv("--help"),
        "usage error": our_argv("build", "--no-such-option"),
    }
    environment = our_environment()

    def start(argv: list[str]) -> None:
        subprocess.run(argv, env=environment, capture_output=True, check=False)

    actions = {name: partial(start, argv) for name, argv in argvs.items()}
    rounds = in_turns(actions, STARTS)
    heading("Start-up")
    for name in argvs:
        target = "< 0.3 s" if name != "python -c pass" else ""
        line(name, f"{middle(rounds, name):.3f} s", target, ratio(rounds, name, "python -c pass"))


def print_memory(bench: Bench) -> None:
    """Print the peak memory of builds with squashfs images of several sizes, made of holes."""
    heading("Peak memory of the build, by size of the squashfs; ratio to the first")
    stage2 = make_stage2(bench.folder, "sparse")
    first = 0.0
    for size in (64, 1024, 2048):
        write_squashfs(stage2 / "image.squashfs", size * MIB, random=False)
        peak = median(build(bench, stage2, watch=True).peak for _ in range(3))
        first = first or peak
        line(f"{size} MiB", f"{peak:.1f} MiB", "< 100 MiB", peak / first)
    shutil.rmtree(stage2)


def print_build(bench: Bench) -> None:
    """Print the build's time beside its lower bound."""
    file = bench.squashfs
    actions: dict[str, Callable[[], object]] = {
        **{name: partial(openssl, file, name) for name in DIGESTS},
        "build": partial(build, bench),
        "at once": partial(openssl, file, *DIGESTS),
    }
    with others() as load:
        rounds = [{**seconds, "bound": lower_bound(seconds)} for seconds in in_turns(actions)]
    heading("Time of the build, payload linked")
    for name in DIGESTS:
        line(f"openssl dgst -{DIGESTS[name]}", f"{middle(rounds, name):.3f} s")
    bound = middle(rounds, "bound")
    line(f"lower bound: the slowest, or the sum / {CORES}", f"{bound:.3f} s")
    found = ratio(rounds, "build", "bound")
    line("the build, to the lower bound", f"{middle(rounds, 'build'):.3f} s", "<= 1.10", found)
    found = ratio(rounds, "at once", "bound")
    line("the three openssl at once, to the lower bound", f"{middle(rounds, 'at once'):.3f} s", "",
         found)  # fmt: skip
    line("the build, to the three openssl at once", "", "", ratio(rounds, "build", "at once"))
    line("cores that other programs kept busy meanwhile", f"{load[0]:.2f}", "near 0")


def lower_bound(seconds: Seconds) -> float:
    """Return the least time for all digests: the slowest alone, or all shared by the cores."""
    times = [seconds[name] for name in DIGESTS]
    return max(*times, sum(times) / CORES)


def print_written(bench: Bench) -> None:
    """Print how much a build writes."""
    run = build(bench)
    heading("Bytes of the tree, source and target on one file system")
    files = json.loads((bench.output / "manifest.json").read_bytes())["files"]
    payload = [bench.output / file["path"] for file in files if file["role"] in PAYLOAD]
    loaders = [bench.output / file["path"] for file in files if file["role"] == "loader"]
    everything = [path for path in bench.output.rglob("*") if path.is_file()]
    copied = _size([path for path in payload if path.stat().st_nlink == 1])
    own = _size(everything) - _size(payload) - _size(loaders)
    line("payload", f"{_size(payload):,}")
    line("payload that was written, not linked", f"{copied:,}", "0")
    line("loader binaries", f"{_size(loaders):,}")
    line("all else", f"{own:,}", "< 1,048,576")
    line("what the kernel counted as written to disk", f"{run.written:,}")
    initramfs(bench.stage2).chmod(0o600)
    build(bench)
    initramfs(bench.stage2).chmod(0o644)
    copied = _size([path for path in payload if path.stat().st_nlink == 1])
    line("payload written if the initramfs has mode 0600", f"{copied:,}")


#: Roles in the manifest of files that are the stage2 tree's own.
PAYLOAD = frozenset({"kernel", "initramfs", "squashfs", "memtest"})


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def print_digests(bench: Bench) -> None:
    """Print ways to take the three digests of the squashfs in one process."""
    file = bench.squashfs
    ways: dict[str, Callable[[], list[str]]] = {
        "catalyst_pxeboot.util.checksum": partial(digest, file),
        "snakeoil.chksum, parallel": partial(digest_by_snakeoil, file, parallel=True),
        "snakeoil.chksum, not parallel": partial(digest_by_snakeoil, file, parallel=False),
        "8 KiB reads, once per digest, as catalyst": partial(digest_as_catalyst, file),
    }
    results: dict[str, list[str]] = {}

    def keep(name: str) -> None:
        results[name] = ways[name]()

    with others() as load:
        rounds = in_turns({name: partial(keep, name) for name in ways}, 3)
    if len({tuple(found) for found in results.values()}) != 1:
        raise SystemExit(f"the ways to take digests disagree: {results}")
    heading("The three digests in one process; ratio to ours")
    first = next(iter(ways))
    for name in ways:
        line(name, f"{middle(rounds, name):.3f} s", "", ratio(rounds, name, first))
    line("cores that other programs kept busy meanwhile", f"{load[0]:.2f}", "near 0")


def print_others(bench: Bench) -> None:
    """Print the same job done by hand."""
    os.sync()
    actions: dict[str, Callable[[], object]] = {
        "build": partial(build, bench),
        "by hand": partial(build_by_hand, bench),
    }
    rounds = in_turns(actions, 3)
    heading("The same job; ratio to ours")
    line("the build", f"{middle(rounds, 'build'):.3f} s", "", 1.0)
    found = ratio(rounds, "by hand", "build")
    line("cp, cpio and the digests one after another", f"{middle(rounds, 'by hand'):.3f} s", "",
         found)  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)

"""Breaks builds in every way that a machine can, and prints what became of the trees.

`python tests/faults.py`. After each fault the target must be the old tree whole or the new one
whole, by every digest of its manifest; the source must be as it was; an error must be one line of
this project's own; and the next run must succeed and leave nothing beside the tree. The exit code
is 1 if anything was otherwise. `--kills`, `--points` and `--sizes` say how many to try.
"""

from __future__ import annotations

import argparse
import copy
import errno
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from unittest.mock import patch

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.loader import binaries as loaders
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.tree.publish import clean_leftovers
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util import resources
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.process import find_program
from tests.robustness.syscalls import (
    GO_ON,
    KILL,
    READING,
    WRITING,
    Call,
    End,
    Outcome,
    Unavailable,
    call_apart,
    run_apart,
    run_both,
)
from tests.support import builders
from tests.support.stage2 import write_stage2

OLD, NEW, ABSENT = "old", "new", "absent"
RELEASE: Final = "faults-20261122T170000Z"
#: Large enough that the digests are taken by several threads.
LARGE: Final = 5 << 20
PAGE: Final = 4096

T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """What came of one kind of fault."""

    name: str
    points: int = 0
    old: int = 0
    new: int = 0
    absent: int = 0
    refused: int = 0  # ended by one line of this project's own
    left: int = 0  # something lay beside the tree until the next run
    cleaned: int = 0  # the next run succeeded, and nothing lay beside the tree
    messages: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    skipped: str = ""  # why it was not tried


@dataclass(frozen=True, slots=True)
class World:
    """A live image, the folder its tree is published in, and a folder for temporary files."""

    folder: Path
    source: Path
    link: str = "auto"
    grub: bool = False
    release: bool = False

    @property
    def output(self) -> Path:
        return self.folder / "site/tree"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def build(self, title: str, *, link: str = "") -> None:
        """Build the tree; its title tells one version from another."""
        names = ["ipxe", "pxelinux", *(["grub"] if self.grub else [])]
        settings = {
            "subarch": "amd64",
            "digests": ["blake2b", "sha512"],
            "pxeboot/title": title,
            "pxeboot/link": link or self.link,
            "pxeboot/loaders": names,
            "pxeboot/loader_path": str(self.folder / "loaders"),
            "pxeboot/release": RELEASE if self.release else None,
        }
        spec = parse_folders(self.source, self.output, settings)
        # Where it looks for a place for temporary files, this process has looked already.
        with patch.object(tempfile, "tempdir", str(self.scratch)):
            build(spec, report=lambda _line: None)

    def state(self) -> str:
        """Tell which version the target is, or what is wrong with it."""
        if not os.path.lexists(self.output):
            return ABSENT
        try:
            faults = verify_tree(self.output).faults
            if faults:
                return f"broken: {faults[0]}"
            title: str = read_manifest(self.output)[1].release.title
        except PxebootError as error:
            return f"broken: {error}"
        return title

    def leftovers(self) -> list[str]:
        """Return what lies beside the tree and its flat files or in the temporary folder."""
        beside = {path.name for path in self.output.parent.iterdir()}
        beside -= {self.output.name, *(name for name in beside if RELEASE in name)}
        return sorted(beside | {path.name for path in self.scratch.iterdir()})

    def flat_faults(self) -> list[str]:
        """Return which flat files are not as their digests say."""
        found = []
        for sums in self.output.parent.glob(f"*{RELEASE}.sha256"):
            lines = [line.split() for line in sums.read_text().splitlines() if line[0] != "#"]
            for digest, name in lines:
                path = sums.with_name(name)
                if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                    found.append(name)
            if not lines:
                found.append(sums.name)
        return found

    def digest(self) -> dict[str, str]:
        """Return every file of the source with its mode, time and digest."""
        return digest_folder(self.source)


def digest_folder(folder: Path) -> dict[str, str]:
    """Return every name below `folder` with its kind and mode; files' time and digest as well."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = f"{info.st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        found[str(path.relative_to(folder))] = f"{info.st_mode:o} {content}"
    return found


def make_world(folder: Path, *, link: str, size: int, grub: bool, release: bool) -> World:
    """Make a live image with a squashfs of `size` bytes, and two loaders to copy."""
    source = write_stage2(folder / "source", squashfs=builders.squashfs_image(size=size))
    for name in ("site", "scratch", "loaders"):
        (folder / name).mkdir()
    for name in ("undionly.kpxe", "pxelinux.0"):
        (folder / "loaders" / name).write_bytes(b"a loader\n" * 2000)
    return World(folder, source, link, grub, release)


@contextmanager
def hidden_loaders() -> Iterator[None]:
    """Hide this machine's own loaders but GRUB, so that the calls are the same everywhere."""
    table = copy.deepcopy(resources.read_table("loader/binaries.toml"))
    for name, loader in table.items():
        if name != "grub":
            loader["folders"] = []
    with patch.object(loaders, "read_table", lambda _name: table):
        yield


class Trial:
    """Judges one fault after the other on a world that has an old tree, or none."""

    def __init__(self, row: Row, world: World, *, old: bool, strict: bool = False) -> None:
        self.row = row
        self._world = world
        self._old = old
        self._strict = strict  # whatever went wrong, a build that could clean up has
        self._source = world.digest()
        self._restore()

    def _restore(self) -> None:
        if not self._old:
            shutil.rmtree(self._world.output, ignore_errors=True)
        elif self._world.state() != OLD:
            self._world.build(OLD)

    def count_calls(
        self,
        counts: Callable[[Call], bool] = lambda call: call.writes,
        calls: frozenset[str] = WRITING,
    ) -> int:
        """Return how many calls that count a build without faults makes."""
        at = At(0, GO_ON, counts=counts)
        outcome = run_apart(partial(self._world.build, NEW), decide=at, calls=calls)
        if outcome.end is not End.DONE:
            raise RuntimeError(f"a build without faults failed: {outcome.text}")
        self._restore()
        return at.seen

    def judge(self, outcome: Outcome, where: str) -> None:
        """Look at what a fault left, run the next build and look again."""
        row, world = self.row, self._world
        row.points += 1
        state = world.state()
        match state:
            case "old":
                row.old += 1
            case "new":
                row.new += 1
            case "absent" if not self._old:
                row.absent += 1
            case _:
                self._object(where, f"the target is {state}")
        if outcome.end is End.DONE and state != NEW:
            self._object(where, f"a build succeeded, but the target is {state}")
        if outcome.end in (End.BUG, End.HUNG):
            self._object(where, f"{outcome.end}: {outcome.text}")
        if outcome.end is End.REFUSED:
            row.refused += 1
            row.messages[_shorten(outcome.text, world.folder)] += 1
            if "\n" in outcome.text or not outcome.text:
                self._object(where, f"not one line: {outcome.text!r}")
        if left := world.leftovers():
            row.left += 1
            if self._strict:
                self._object(where, f"left behind: {left}")
        self._check_source(where)
        again = run_apart(partial(world.build, OLD))
        if (again.end, world.state()) != (End.DONE, OLD):
            self._object(where, f"the next run: {again}, and the target is {world.state()}")
        elif left := world.leftovers() + world.flat_faults():
            self._object(where, f"left behind after the next run: {left}")
        else:
            row.cleaned += 1
        self._check_source(where)
        self._restore()

    def _check_source(self, where: str) -> None:
        if self._world.digest() != self._source:
            self._object(where, "the source has changed")

    def _object(self, where: str, what: str) -> None:
        self.row.violations.append(f"{self.row.name}, {where}: {what}")


def _shorten(text: str, folder: Path) -> str:
    """Return a message without what differs between two runs or two files."""
    text = text.replace(str(folder), "…")
    text = re.sub(r"…/site/\.tree\.staging/[^ );]+", "…/site/.tree.staging/FILE", text)
    return re.sub(r"\b\d+ (bytes|read)\b", r"N \1", text)


class At:
    """Says what becomes of the calls that count: all go on but the one at `point`."""

    def __init__(
        self,
        point: int,
        verdict: int,
        *,
        counts: Callable[[Call], bool] = lambda call: call.writes,
        meanwhile: Callable[[], object] = lambda: None,
        for_good: bool = False,
    ) -> None:
        self.seen = 0
        self.call: Call | None = None
        self._point = point
        self._verdict = verdict
        self._counts = counts
        self._meanwhile = meanwhile
        self._for_good = for_good

    def __call__(self, call: Call) -> int:
        if not self._counts(call):
            return GO_ON
        self.seen += 1
        if self.seen == self._point:
            self.call = call
            self._meanwhile()
            return self._verdict
        return self._verdict if self._for_good and self.seen > self._point else GO_ON

    def __str__(self) -> str:
        return f"call {self._point} ({self.call.name} {self.call.path})" if self.call else "none"


def spread(count: int, among: int) -> list[int]:
    """Return up to `count` numbers from 1 to `among`, evenly spread, both ends included."""
    if count >= among:
        return list(range(1, among + 1))
    if count == 1:
        return [among]
    return sorted({1 + round(n * (among - 1) / (count - 1)) for n in range(count)})


# --- the faults ---------------------------------------------------------------------------------


def kills_at_calls(world: World, row: Row, *, count: int, old: bool) -> None:
    """Kill -9 before writing calls, from the first to one beyond the last."""
    trial = Trial(row, world, old=old)
    total = trial.count_calls()
    for point in spread(count, total + 1):
        at = At(point, KILL)
        outcome = run_apart(partial(world.build, NEW), decide=at)
        trial.judge(outcome, str(at))


def kills_at_times(world: World, row: Row, *, count: int, choose: random.Random) -> None:
    """Kill -9 at random times of a build."""
    trial = Trial(row, world, old=True)
    begun = time.monotonic()
    run_apart(partial(world.build, NEW))
    seconds = time.monotonic() - begun
    world.build(OLD)
    for _ in range(count):
        after = choose.uniform(0, seconds)
        outcome = run_apart(partial(world.build, NEW), kill_after=after)
        trial.judge(outcome, f"after {after * 1000:.1f} ms")


def errors_at_writing(
    world: World, row: Row, *, count: int, code: int, old: bool, for_good: bool
) -> None:
    """Fail writing calls, one at a time or from one on for good."""
    trial = Trial(row, world, old=old)
    for point in spread(count, trial.count_calls()):
        at = At(point, code, for_good=for_good)
        outcome = run_apart(partial(world.build, NEW), decide=at)
        trial.judge(outcome, str(at))


def errors_at_reading(world: World, row: Row, *, count: int) -> None:
    """Fail calls that read the source, as a dying disk does."""
    trial = Trial(row, world, old=True, strict=True)
    counts = partial(_reads, world.source)
    for point in spread(count, trial.count_calls(counts, READING)):
        at = At(point, errno.EIO, counts=counts)
        outcome = run_apart(partial(world.build, NEW), decide=at, calls=READING)
        trial.judge(outcome, str(at))


def _reads(source: Path, call: Call) -> bool:
    return not call.writes and Path(call.path).is_relative_to(source)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(bytes(PAGE))


def _rewrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        stream.write(b"another build")


def _replace(path: Path) -> None:
    other = path.with_name(".other")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    other.write_bytes(content)
    other.rename(path)


def _remove(path: Path) -> None:
    path.unlink()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES: Final = {
    "truncated": _truncate,
    "grown": _grow,
    "rewritten": _rewrite,
    "replaced": _replace,
    "removed": _remove,
    "made a pipe": _pipe,
}
CHANGED: Final = ("image.squashfs", "boot/gentoo", "boot/gentoo.igz")


def source_changes(world: World, row: Row, *, count: int, choose: random.Random) -> None:
    """Change a file of the source at calls that read the source, from its first to the last."""
    kept = world.folder / "kept"
    shutil.copytree(world.source, kept)

    def restore() -> None:
        # Another file each time, as what was linked into a tree must not change with it.
        shutil.rmtree(world.source)
        shutil.copytree(kept, world.source)

    counts = partial(_reads, world.source)
    total = Trial(row, world, old=True).count_calls(counts, READING)
    every = [(kind, name, k) for kind in CHANGES for name in CHANGED for k in range(1, total + 1)]
    for kind, name, point in sorted(choose.sample(every, min(count, len(every)))):
        world.build(OLD, link="copy")
        at = At(
            point,
            GO_ON,
            counts=counts,
            meanwhile=partial(CHANGES[kind], world.source / name),
        )
        outcome = run_apart(partial(world.build, NEW), decide=at, calls=READING, timeout=5)
        where = f"{name} {kind} at {at}"
        if outcome.end is End.REFUSED:
            row.messages[_shorten(outcome.text, world.folder)] += 1
        restore_and_judge(row, world, outcome, where, restore)


def restore_and_judge(
    row: Row, world: World, outcome: Outcome, where: str, restore: Callable[[], None]
) -> None:
    """Judge a tree whose source was changed, restore that and run the next build."""
    row.points += 1
    state = world.state()
    row.old += state == OLD
    row.new += state == NEW
    row.refused += outcome.end is End.REFUSED
    wanted = {End.DONE: NEW, End.REFUSED: OLD}.get(outcome.end)
    if state != wanted:
        row.violations.append(f"{row.name}, {where}: {outcome}, and the target is {state}")
    if left := world.leftovers():
        row.left += 1
        row.violations.append(f"{row.name}, {where}: left behind: {left}")
    restore()
    world.build(OLD, link="copy")
    row.cleaned += world.state() == OLD and not world.leftovers()


LOCKED: Final = (
    "{output}: another process is building this tree; wait for it to end, or give another"
    " version_stamp"
)


def second_at_calls(world: World, row: Row, *, count: int) -> None:
    """Begin a second build at a writing call of the first, and clean up beside it as well."""
    trial = Trial(row, world, old=True, strict=True)
    for point in spread(count, trial.count_calls()):
        second: list[Outcome] = []

        def meanwhile(second: list[Outcome] = second) -> None:
            run_apart(partial(clean_leftovers, world.output))
            second.append(run_apart(partial(world.build, NEW)))

        at = At(point, GO_ON, meanwhile=meanwhile)
        first = run_apart(partial(world.build, NEW), decide=at)
        refused = [outcome for outcome in (first, *second) if outcome.end is not End.DONE]
        for outcome in refused:
            row.messages[_shorten(outcome.text, world.folder)] += 1
            if outcome.text != LOCKED.format(output=world.output):
                row.violations.append(f"{row.name}, {at}: {outcome}")
        row.refused += bool(refused)
        if len(refused) > 1:
            row.violations.append(f"{row.name}, {at}: neither build succeeded")
        trial.judge(Outcome(End.DONE), str(at))


def both_at_once(world: World, row: Row, *, count: int) -> None:
    """Let two processes build the same tree at the same time."""
    trial = Trial(row, world, old=True, strict=True)
    for number in range(count):
        outcomes = run_both(partial(world.build, NEW), partial(world.build, NEW))
        lost = [outcome for outcome in outcomes if outcome.end is not End.DONE]
        for outcome in lost:
            row.messages[_shorten(outcome.text, world.folder)] += 1
            if outcome.text != LOCKED.format(output=world.output):
                row.violations.append(f"{row.name}, round {number}: {outcome}")
        row.refused += bool(lost)
        if len(lost) > 1:
            row.violations.append(f"{row.name}, round {number}: neither build succeeded")
        trial.judge(Outcome(End.DONE), f"round {number}")


def disk_full(world: World, row: Row, *, count: int, old: bool, of: str) -> None:
    """Build on file systems from too small by nearly all to large enough.

    `of` is what there is too little of, by tmpfs's names: `size` (bytes) or `nr_inodes`.
    """
    site = world.output.parent
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(site))
    try:
        trial = Trial(row, world, old=old, strict=True)
        world.build(NEW)
        files = [path for path in world.output.rglob("*") if path.is_file()]
        pages = sum(-(-path.stat().st_size // PAGE) for path in files)
        need = pages * PAGE if of == "size" else len(list(world.output.rglob("*"))) + 1
        trial = Trial(row, world, old=old, strict=True)
        for number in range(count):
            used = os.statvfs(site)
            taken = (
                (used.f_blocks - used.f_bfree) * used.f_frsize
                if of == "size"
                else used.f_files - used.f_ffree
            )
            # The last two have room enough, beside the lock file's inode.
            room = need * number // (count - 2) + (2 if number > count - 3 else 1)
            limit = taken + (-(-room // PAGE) * PAGE if of == "size" else room)
            _mount("-o", f"remount,{of}={limit}", str(site))
            outcome = run_apart(partial(world.build, NEW))
            _mount("-o", "remount,size=64m,nr_inodes=10000", str(site))
            if outcome.end is End.REFUSED and "No space left on device" not in outcome.text:
                row.violations.append(f"{row.name}, {limit} {of}: {outcome.text}")
            if (number > count - 3) != (outcome.end is End.DONE):
                row.violations.append(f"{row.name}, {limit} {of}: {outcome}, against expectation")
            trial.judge(outcome, f"{limit} {of}")
    finally:
        subprocess.run(["umount", str(site)], check=True)


def read_only(world: World, row: Row) -> None:
    """Build where nothing can be written, and from where nothing can be written."""
    site = world.output.parent
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(site))
    try:
        for old in (True, False):
            trial = Trial(row, world, old=old, strict=True)
            _mount("-o", "remount,ro", str(site))
            outcome = run_apart(partial(world.build, NEW))
            _mount("-o", "remount,rw", str(site))
            if outcome.end is not End.REFUSED:
                row.violations.append(f"{row.name}: {outcome}")
            trial.judge(outcome, "a read-only target")
        trial = Trial(row, world, old=True, strict=True)
        _mount("--bind", str(world.source), str(world.source))
        _mount("-o", "remount,bind,ro", str(world.source))
        outcome = run_apart(partial(world.build, NEW))
        if outcome.end is not End.DONE:
            row.violations.append(f"{row.name}: a read-only source: {outcome}")
        trial.judge(outcome, "a read-only source")
        subprocess.run(["umount", str(world.source)], check=True)
    finally:
        subprocess.run(["umount", str(site)], check=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def _file(path: Path) -> None:
    path.write_bytes(b"mine")


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_bytes(b"mine")


def _link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "precious")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _socket(path: Path) -> None:
    os.mknod(path, 0o140644)


TAKEN: Final = {
    "a file": _file,
    "a folder": _folder,
    "a symlink": _link,
    "a dangling symlink": _dangling,
    "a pipe": os.mkfifo,
    "a socket": _socket,
}
_NO_TREE: Final = "move it away or give another folder"
_IN_THE_WAY: Final = f"{{output}}: is in the way and not a folder; {_NO_TREE}"
#: What a build says where a name that it needs is taken; what is not here is replaced.
COLLISIONS: Final = {
    **{("tree", kind): _IN_THE_WAY for kind in TAKEN},
    ("tree", "a folder"): (
        f"{{output}}: is not a tree that catalyst-pxeboot made, so it is not replaced; {_NO_TREE}"
    ),
    (".tree.lock", "a folder"): "{output}: not published: Is a directory ({path}); try again",
    (".tree.lock", "a symlink"): (
        "{output}: not published: Too many levels of symbolic links ({path}); try again"
    ),
    (".tree.lock", "a dangling symlink"): (
        "{output}: not published: Too many levels of symbolic links ({path}); try again"
    ),
    (".tree.lock", "a socket"): (
        "{output}: not published: No such device or address ({path}); try again"
    ),
}


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def collisions(world: World, row: Row) -> None:
    """Have each name that a build needs taken by something else of each kind."""
    precious = world.folder / "precious"
    _folder(precious)
    for name in ("tree", ".tree.staging", ".tree.lock"):
        for kind, take in TAKEN.items():
            path = world.output.with_name(name)
            take(path)
            before = digest_folder(world.folder)
            outcome = run_apart(partial(world.build, NEW), timeout=5)
            expected = COLLISIONS.get((name, kind))
            row.points += 1
            where = f"{row.name}, {name} is {kind}"
            if expected is not None:
                expected = expected.format(output=world.output, path=path)
                row.refused += 1
                row.absent += 1
                row.messages[_shorten(outcome.text, world.folder)] += 1
                if outcome != Outcome(End.REFUSED, expected):
                    row.violations.append(f"{where}: {outcome}")
                if digest_folder(world.folder) != before:
                    row.violations.append(f"{where}: something was changed")
                _clear(path)
            elif (outcome.end, world.state(), world.leftovers()) != (End.DONE, NEW, []):
                row.violations.append(f"{where}: {outcome}, {world.state()}, {world.leftovers()}")
                _clear(path)
            else:
                row.new += 1
            if digest_folder(precious).keys() != {"thesis.txt"}:
                row.violations.append(f"{where}: what a symlink led to was changed")
            shutil.rmtree(world.output, ignore_errors=True)
            world.build(OLD)
            row.cleaned += world.state() == OLD and not world.leftovers()
            shutil.rmtree(world.output)


class _Syncs:
    """Keeps book of what of a staged tree is not on the disk yet, until it gets its name."""

    def __init__(self, world: World) -> None:
        self._parent = str(world.output.parent)
        self._staging = str(world.output.with_name(".tree.staging"))
        self.unsynced: set[str] = set()
        self.before: tuple[str, ...] | None = None  # what was not, at the rename

    def __call__(self, call: Call) -> int:
        if call.name == "rename":
            self.before = tuple(sorted(self.unsynced))
            self.unsynced = {self._parent}
        elif call.name in ("fsync", "fdatasync"):
            self.unsynced.discard(call.path)
        elif self.before is None and call.writes and call.path.startswith(self._staging + "/"):
            # A new name is in its folder, too. What was linked has its content from before.
            if call.name in ("open", "mkdir", "link", "unlink"):
                self.unsynced.add(str(Path(call.path).parent))
            if call.name not in ("link", "unlink"):
                self.unsynced.add(call.path)
        return GO_ON


def durable_order(world: World, row: Row) -> None:
    """Watch that all of the tree is on the disk before it gets its name, and then the name.

    What a power cut leaves is not to be had here; but a file system keeps what was synced.
    """
    for old in (True, False):
        if old:
            world.build(OLD)
        else:
            shutil.rmtree(world.output)
        syncs = _Syncs(world)
        outcome = run_apart(partial(world.build, NEW), decide=syncs)
        row.points += 1
        row.new += world.state() == NEW
        row.cleaned += not world.leftovers()
        if outcome.end is not End.DONE or syncs.before != () or syncs.unsynced:
            left = syncs.before, sorted(syncs.unsynced)
            row.violations.append(f"{row.name}: {outcome}, not synced before and after: {left}")


# --- the suite ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Amount:
    """How many faults to try: `points` at most of each error, `sizes` of too small disks."""

    kills: int = 200
    points: int = 1000
    changes: int = 120
    sizes: int = 20
    seed: int = 1
    grub: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault, and the world that it falls upon."""

    name: str
    inflict: Callable[[World, Row], object]
    link: str = "auto"
    size: int = 64 << 10
    grub: bool = False
    release: bool = False
    mounts: bool = False  # it needs file systems of its own


def all_faults(amount: Amount) -> Iterator[Fault]:
    """Yield every kind of fault."""
    share = max(1, amount.kills // 5)
    few = max(1, amount.kills // 20)
    kill = partial(kills_at_calls, count=share)
    at = "killed at a writing call"
    yield Fault(f"{at}, over a tree", partial(kill, old=True))
    yield Fault(f"{at}, no tree yet", partial(kill, old=False))
    yield Fault(f"{at}, files copied", partial(kill, old=True), link="copy", size=LARGE)
    yield Fault(f"{at}, flat files", partial(kill, old=True, count=few), release=True)
    rest = amount.kills - 3 * share - few
    if amount.grub and find_program("grub-mkimage"):
        yield Fault(f"{at}, GRUB made", partial(kill, old=True, count=few), grub=True)
        rest -= few
    choose = random.Random(amount.seed)
    yield Fault("killed at a random time", partial(kills_at_times, count=rest, choose=choose))
    for code in (errno.EIO, errno.ENOSPC):
        for old in (True, False):
            for for_good in (False, True):
                name = f"{errno.errorcode[code]} {'from' if for_good else 'at'} a writing call"
                yield Fault(
                    f"{name}, {'over a tree' if old else 'no tree yet'}",
                    partial(errors_at_writing, count=amount.points, code=code, old=old,
                            for_good=for_good),
                )  # fmt: skip
    yield Fault("EIO at a reading call", partial(errors_at_reading, count=amount.points))
    for link in ("auto", "copy"):
        change = partial(source_changes, count=amount.changes // 2, choose=choose)
        yield Fault(f"source changed while read ({link})", change, link=link)
    yield Fault("a second build at a writing call", partial(second_at_calls, count=amount.points))
    yield Fault("two builds at the same time", partial(both_at_once, count=amount.sizes))
    for old in (True, False):
        for of in ("size", "nr_inodes"):
            yield Fault(
                f"disk too small ({of}), {'over a tree' if old else 'no tree yet'}",
                partial(disk_full, count=amount.sizes, old=old, of=of), link="copy", mounts=True,
            )  # fmt: skip
    yield Fault("read-only", read_only, mounts=True)
    yield Fault("a name that is taken", collisions)
    yield Fault("on the disk before in place", durable_order)


def run_suite(folder: Path, amount: Amount) -> list[Row]:
    """Run all of it in the empty folder `folder`."""
    rows = []
    for fault in all_faults(amount):
        try:
            rows.append(in_private_mounts(partial(run_fault, folder, fault)) if fault.mounts
                        else run_fault(folder, fault))  # fmt: skip
        except Unavailable as error:
            rows.append(Row(fault.name, skipped=str(error)))
    return rows


def run_fault(folder: Path, fault: Fault) -> Row:
    """Inflict one kind of fault on a world of its own."""
    row = Row(fault.name)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        world = make_world(
            Path(place), link=fault.link, size=fault.size, grub=fault.grub, release=fault.release
        )
        fault.inflict(world, row)
    return row


def in_private_mounts(work: Callable[[], T]) -> T:
    """Run `work` where its mounts are seen by nobody else, and end with it.

    Raises `Unavailable` without the permission for that.
    """

    def work_there() -> T:
        from snakeoil.process.namespaces import simple_unshare

        try:
            simple_unshare(mount=True, uts=False, ipc=False)
            with tempfile.TemporaryDirectory() as place:
                _mount("-t", "tmpfs", "tmpfs", place)
                subprocess.run(["umount", place], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"no permission to mount a tmpfs: {error}") from error
        return work()

    return call_apart(work_there)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the figures as a table, and under it every message and violation."""
    heads = ("points", "old", "new", "none", "one line", "left", "cleaned", "violations")
    width = max(len(row.name) for row in rows)
    lines = [" ".join([f"{'fault':{width}}", *(f"{head:>10}" for head in heads)])]
    for row in rows:
        if row.skipped:
            lines.append(f"{row.name:{width}} not tried: {row.skipped}")
            continue
        figures = (row.points, row.old, row.new, row.absent, row.refused, row.left, row.cleaned,
                   len(row.violations))  # fmt: skip
        lines.append(" ".join([f"{row.name:{width}}", *(f"{figure:>10}" for figure in figures)]))
    messages: Counter[str] = Counter()
    for row in rows:
        messages += row.messages
    lines += ["", "messages"]
    lines += [f"{count:>6}  {message}" for message, count in messages.most_common()]
    for row in rows:
        lines += [f"VIOLATION {violation}" for violation in row.violations]
    return lines


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Give a folder in memory if there is one, as every point syncs two dozen files."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pxeboot-faults-", dir=place) as name:
        yield Path(name)


def main(argv: Sequence[str]) -> int:
    """Run the suite and print its figures; the exit code is 1 if a rule was broken."""
    parser = argparse.ArgumentParser(description="Break builds and look at what becomes of trees.")
    usual = Amount()
    parser.add_argument("--kills", type=int, default=usual.kills, help="points of kill -9 (200)")
    parser.add_argument("--points", type=int, default=usual.points, help="of each error, at most")
    parser.add_argument("--changes", type=int, default=usual.changes, help="of the source (120)")
    parser.add_argument("--sizes", type=int, default=usual.sizes, help="of too small disks (20)")
    parser.add_argument("--seed", type=int, default=usual.seed, help="of what is left to chance")
    parser.add_argument("--no-grub", dest="grub", action="store_false", help="make no GRUB image")
    parser.add_argument("--folder", type=Path, help="an empty one to work in, on a disk to try")
    arguments = vars(parser.parse_args(argv))
    folder = arguments.pop("folder")
    begun = time.monotonic()
    with hidden_loaders(), fast_folder() as scratch:
        rows = run_suite(folder or scratch, Amount(**arguments))
    for line in table_lines(rows):
        print(line)
    points = sum(row.points for row in rows)
    print(f"\n{points} faults in {time.monotonic() - begun:.0f} s, seed {arguments['seed']}")
    return 1 if any(row.violations for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

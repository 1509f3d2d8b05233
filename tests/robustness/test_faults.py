"""A short run of the fault suite, and proof that it sees what it is there to see.

`python tests/faults.py` is the long one.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from catalyst_pxeboot.build import tree as build_tree
from catalyst_pxeboot.source import folder as folder_image
from catalyst_pxeboot.source import live
from catalyst_pxeboot.tree import publish
from catalyst_pxeboot.tree import stage as tree
from catalyst_pxeboot.util import files as util_files
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.files import remove_tree
from tests.robustness import faults
from tests.robustness.faults import (
    CHANGES,
    NEW,
    Amount,
    At,
    Fault,
    Row,
    Trial,
    World,
    all_faults,
    durable_order,
    errors_at_reading,
    errors_at_writing,
    fast_folder,
    hidden_loaders,
    kills_at_calls,
    run_fault,
    run_suite,
    second_at_calls,
    source_changes,
    spread,
    table_lines,
)
from tests.robustness.syscalls import (
    GO_ON,
    KILL,
    READING,
    Call,
    End,
    Outcome,
    Unavailable,
    call_apart,
    run_apart,
    run_both,
)

FEW = Amount(kills=30, points=5, changes=8, sizes=4, grub=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a scratch folder, in memory if there is one."""
    with fast_folder() as place:
        yield place


def stops(folder: Path) -> str:
    """Return why no system call can be stopped here, or nothing if it can."""
    try:
        run_apart((folder / "x").touch, decide=lambda _call: GO_ON)
    except Unavailable as error:
        return str(error)
    return ""


def run_one(folder: Path, fault: Fault) -> Row:
    """Inflict one kind of fault on a world of its own."""
    with hidden_loaders():
        return run_fault(folder, fault)


# --- the suite ----------------------------------------------------------------------------------


def test_whatever_breaks_the_old_tree_or_the_new_one_is_whole(folder: Path) -> None:
    with hidden_loaders():
        rows = run_suite(folder, FEW)
    print(*table_lines(rows), sep="\n")
    assert [violation for row in rows for violation in row.violations] == []
    for row in rows:
        if row.skipped:
            continue
        assert row.points > 0, row.name
        assert row.old + row.new + row.absent == row.points, row.name
        assert row.cleaned == row.points, row.name
    killed = [row for row in rows if row.name.startswith("killed")]
    if not any(row.skipped for row in killed):
        assert sum(row.points for row in killed) == FEW.kills
        # Both ends are met, and something was there to clean.
        assert all(sum(getattr(row, state) for row in killed) for state in ("old", "new", "left"))
    if why := [row.skipped for row in rows if row.skipped]:
        pytest.skip(why[0])


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for fault in all_faults(Amount())]
    assert len(names) == len(set(names)) >= 24


def test_points_are_spread_from_the_first_to_the_last() -> None:
    assert spread(5, 101) == [1, 26, 51, 76, 101]
    assert spread(9, 3) == [1, 2, 3]
    assert spread(1, 7) == [7]


# --- what it would see: each time the program is broken in one way ------------------------------


@pytest.fixture
def stopping(folder: Path) -> Path:
    if why := stops(folder):
        pytest.skip(f"no system call can be stopped here: {why}")
    return folder


def test_a_tree_that_is_moved_away_first_is_seen(
    stopping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange(one: Path, other: Path) -> None:
        other.rename(other.with_name("away"))
        one.rename(other)
        remove_tree(other.with_name("away"))

    monkeypatch.setattr(publish, "_exchange", exchange)
    at = At(2, KILL, counts=lambda call: call.name == "rename")

    def kill(world: World, row: Row) -> None:
        trial = Trial(row, world, old=True)
        trial.judge(run_apart(partial(world.build, NEW), decide=at), str(at))

    row = run_one(stopping, Fault("x", kill))
    assert row.violations[0].endswith("/site/tree): the target is absent")
    assert row.violations[1].endswith("left behind after the next run: ['away']")


def test_a_tree_that_is_filled_in_place_is_seen(
    stopping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay(self: publish.Publication) -> Path:
        self.staging = self.target
        remove_tree(self.target)
        self.target.mkdir()
        return self.target

    monkeypatch.setattr(publish.Publication, "__enter__", stay)
    monkeypatch.setattr(publish.Publication, "__exit__", lambda *_error: None)
    monkeypatch.setattr(publish.Publication, "commit", lambda _self: None)
    row = run_one(stopping, Fault("x", partial(kills_at_calls, count=8, old=True)))
    assert any("the target is broken" in violation for violation in row.violations)


def test_leftovers_are_seen(stopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_staging_path", lambda path: path.with_name(f".{time.time_ns()}"))
    row = run_one(stopping, Fault("x", partial(kills_at_calls, count=4, old=True)))
    assert any("left behind after the next run" in violation for violation in row.violations)
    assert row.cleaned < row.points


def test_a_build_without_a_lock_is_seen(stopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "take_lock", lambda path: os.open(path, os.O_RDWR | os.O_CREAT))
    row = run_one(stopping, Fault("x", partial(second_at_calls, count=4)))
    assert row.violations


def test_a_source_that_is_written_is_seen(stopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seal(staging: Path, *, time: int) -> None:
        (staging / "image.squashfs").chmod(0o600)  # a link to the source's own

    monkeypatch.setattr(build_tree, "seal_folders", seal)
    row = run_one(stopping, Fault("x", partial(kills_at_calls, count=2, old=True)))
    assert any("the source has changed" in violation for violation in row.violations)


def test_an_error_that_is_none_of_ours_is_seen(
    stopping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish.Publication, "_os_error", lambda _self, error: error)
    work = partial(errors_at_writing, count=2, code=errno.EIO, old=True, for_good=False)
    row = run_one(stopping, Fault("x", work))
    assert any("bug: OSError(5" in violation for violation in row.violations)
    monkeypatch.setattr(folder_image, "_regular", lambda root, name, _what: root / name)
    monkeypatch.setattr(live, "SourceError", RuntimeError)
    row = run_one(stopping, Fault("x", partial(errors_at_reading, count=3)))
    assert any("bug: " in violation for violation in row.violations)


def test_a_change_that_is_not_noticed_is_seen(
    stopping: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "CHANGES", {"rewritten": CHANGES["rewritten"]})
    monkeypatch.setattr(faults, "CHANGED", ["boot/gentoo"])
    monkeypatch.setattr(build_tree, "check_links", lambda _files, _staging: None)
    work = partial(source_changes, count=1000, choose=random.Random(1))
    row = run_one(stopping, Fault("x", work))
    assert any("the target is broken" in violation for violation in row.violations)


def test_a_tree_that_is_not_synced_is_seen(stopping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tree, util_files):
        monkeypatch.setattr(module, "finish_file", lambda _fd, _time: None)
    row = run_one(stopping, Fault("x", durable_order))
    assert "boot.ipxe" in row.violations[0]
    monkeypatch.setattr(publish, "sync_folder", lambda _folder: None)
    row = run_one(stopping, Fault("x", durable_order))
    assert "/site']" in row.violations[0]


# --- the means: processes that are stopped at their system calls --------------------------------


def test_every_way_to_end(folder: Path) -> None:
    def refuse() -> None:
        raise PxebootError("no", hint="give up")

    def fail() -> None:
        raise ValueError("bug")

    assert run_apart(lambda: None) == Outcome(End.DONE)
    assert run_apart(refuse) == Outcome(End.REFUSED, "no; give up")
    bug = run_apart(fail)
    assert bug.end is End.BUG
    assert bug.text.startswith("ValueError('bug') in ")
    assert run_apart(partial(time.sleep, 30), timeout=0.1) == Outcome(End.HUNG)
    assert run_apart(partial(time.sleep, 30), kill_after=0.1) == Outcome(End.KILLED)
    assert run_both(lambda: None, refuse) == (
        Outcome(End.DONE),
        Outcome(End.REFUSED, "no; give up"),
    )
    assert call_apart(lambda: folder) == folder
    with pytest.raises(ValueError, match="bug"):
        call_apart(fail)


def test_calls_are_told_and_failed(stopping: Path) -> None:
    calls: list[Call] = []

    def work() -> None:
        os.chdir(stopping)
        Path("a").mkdir()
        with Path("a/b").open("wb") as stream:  # C code writes
            stream.write(b"x")
        here = os.open("a", os.O_RDONLY)
        os.rename("b", "c", src_dir_fd=here, dst_dir_fd=here)
        os.unlink("c", dir_fd=here)

    def note(call: Call) -> int:
        calls.append(call)
        return GO_ON

    assert run_apart(work, decide=note) == Outcome(End.DONE)
    told = [(call.name, call.path.removeprefix(f"{stopping}/")) for call in calls if call.writes]
    assert told == [
        ("mkdir", "a"),
        ("open", "a/b"),
        ("write", "a/b"),
        ("rename", "a/c"),
        ("unlink", "a/c"),
    ]
    (stopping / "a").rmdir()

    def refuse(call: Call) -> int:
        return errno.EIO if call.name == "write" else GO_ON

    failed = run_apart(work, decide=refuse)
    assert failed.text.startswith("OSError(5, 'Input/output error')")
    assert (stopping / "a/b").read_bytes() == b""

    (stopping / "a/b").write_bytes(b"x")

    def kill(call: Call) -> int:
        return KILL if call.path.endswith("/b") else GO_ON

    reading = partial((stopping / "a/b").read_bytes)
    assert run_apart(reading, decide=kill, calls=READING) == Outcome(End.KILLED)

"""A run that fails or is killed leaves the old menus or the new ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalyst_pxeboot.releases import write
from catalyst_pxeboot.releases.index import read_index
from catalyst_pxeboot.releases.render import render_menus
from catalyst_pxeboot.releases.scan import find_releases
from catalyst_pxeboot.releases.write import write_menu
from catalyst_pxeboot.util import files
from catalyst_pxeboot.util.errors import PublishError
from tests.support.mirror import ALL, MIDDLE, PACKAGE, contents, nothing_changes, run, tree


def test_servers_can_read_what_is_written(mirror: Path) -> None:
    umask = os.umask(0o077)
    try:
        run(mirror)
    finally:
        os.umask(umask)
    assert {(mirror / name).stat().st_mode & 0o777 for name in ALL} == {0o644}
    assert (mirror / "pxelinux.cfg").stat().st_mode & 0o777 == 0o755


def test_two_at_once(mirror: Path) -> None:
    with write._locked(mirror):
        nothing_changes(
            mirror, f"{mirror}: another process is writing these menus; wait for it to end"
        )
    assert run(mirror).written == ALL


def test_a_full_disk_changes_nothing(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(mirror)
    before = contents(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    written: list[Path] = []
    real = files.write_file

    def fail_late(path: Path, content: bytes, *, time: int) -> None:
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        real(path, content, time=time)

    monkeypatch.setattr(write, "write_file", fail_late)
    nothing_changes(
        mirror,
        f"{mirror}: menus not written: No space left on device"
        f" ({mirror}/.releases.json.new/releases.json); free space there",
    )
    assert contents(mirror) == before
    monkeypatch.undo()
    # and a folder that was made for it goes as well
    for name in ALL:
        (mirror / name).unlink()
    (mirror / "pxelinux.cfg").rmdir()
    written.clear()
    monkeypatch.setattr(write, "write_file", fail_late)
    with pytest.raises(PublishError, match="No space left"):
        run(mirror)
    assert not (mirror / "pxelinux.cfg").exists()


# Ends the process, as a kill does, right before the Nth time that a file is put in place.
KILL = """
import os, sys
from pathlib import Path
from catalyst_pxeboot.releases.write import write_menu
left = int(sys.argv[2])
replace = Path.replace
def die(self, target):
    global left
    left -= 1
    if not left:
        os._exit(9)
    return replace(self, target)
Path.replace = die
write_menu(Path(sys.argv[1]), templates=None, report=print)
"""


def kill(root: Path, moment: int) -> int:
    """Write the menus, killed at a moment; return the exit code."""
    return subprocess.run(
        [sys.executable, "-c", KILL, str(root), str(moment)],
        cwd=PACKAGE.parent, capture_output=True, check=False,
    ).returncode  # fmt: skip


# The commit, three menus, the page, the list.
MOMENTS = range(1, 7)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment(moment: int, mirror: Path, tmp_path: Path) -> None:
    """Each file is the old one or the new one, the list is last, and the next run goes on."""
    run(mirror)
    old = contents(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, moment) == 9
    killed = contents(mirror)
    lines: list[str] = []
    assert write_menu(mirror, templates=None, report=lines.append).trees == 4
    new = contents(mirror)
    assert new.keys() == set(ALL)
    for place, name in enumerate(ALL, 2):
        assert killed[name] == (new if place < moment else old)[name], name
    assert run(mirror).written == ()


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_the_first_time(moment: int, mirror: Path) -> None:
    assert kill(mirror, moment) == 9
    run(mirror)
    assert contents(mirror).keys() == set(ALL)


def test_killed_twice_in_different_states(mirror: Path) -> None:
    """What the first kill left is known to the third run, though the second died as well."""
    run(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 4) == 9
    tree(mirror, "more", "amd64", MIDDLE)
    assert kill(mirror, 2) == 9
    assert run(mirror).trees == 5
    assert contents(mirror).keys() == set(ALL)


def test_what_a_kill_left_goes_even_if_nothing_is_new(mirror: Path) -> None:
    run(mirror)
    before = contents(mirror)
    added = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 1) == 9
    assert contents(mirror).keys() > before.keys()
    shutil.rmtree(added)
    assert run(mirror).written == ()
    assert contents(mirror) == before
    added = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 2) == 9
    shutil.rmtree(added)
    assert run(mirror).written == ALL  # they were committed, and stood in between
    assert contents(mirror) == before


def test_what_a_kill_left_goes_even_if_it_is_not_written_again(mirror: Path) -> None:
    run(mirror)
    added = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 1) == 9
    assert (mirror / ".releases.json.new/pxelinux.cfg/default").exists()
    shutil.rmtree(added)
    tree(mirror, f"arm64/{MIDDLE}", "arm64", MIDDLE)  # PXELINUX's menu is as it was
    assert run(mirror).written == ("grub.cfg", "index.html", "menu.ipxe", "releases.json")
    assert contents(mirror).keys() == set(ALL)


def test_a_commit_makes_nobody_elses_file_ours(mirror: Path) -> None:
    run(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    before = read_index(mirror / "releases.json")
    assert kill(mirror, 3) == 9
    (mirror / "menu.ipxe").write_text("mine")
    with pytest.raises(PublishError, match=r"menu\.ipxe: is not as catalyst-pxeboot wrote it"):
        run(mirror)
    assert (mirror / "menu.ipxe").read_text() == "mine"
    assert read_index(mirror / "releases.json") == before
    with pytest.raises(PublishError, match=r"menu\.ipxe: is not as catalyst-pxeboot wrote it"):
        write_menu(mirror, templates=None, report=print, dry_run=True)
    (mirror / "menu.ipxe").unlink()
    run(mirror)
    assert contents(mirror).keys() == set(ALL)


def test_a_page_of_a_users_own_that_came_after_a_kill_stays(mirror: Path) -> None:
    run(mirror)
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    assert kill(mirror, 3) == 9
    (mirror / "index.html").write_text("mine")
    assert run(mirror).trees == 4
    assert (mirror / "index.html").read_text() == "mine"
    assert run(mirror).written == ()


def test_what_is_no_commit_stays(mirror: Path, tmp_path: Path) -> None:
    run(mirror)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/releases.json").write_text("mine")
    (mirror / ".releases.json.commit").symlink_to(tmp_path / "other")
    nothing_changes(
        mirror,
        f"{mirror}/.releases.json.commit: is in the way and not a folder; move it away, or give"
        " another folder",
    )


def test_the_list_is_what_the_next_run_knows(mirror: Path) -> None:
    run(mirror)
    index = read_index(mirror / "releases.json")
    assert index is not None
    assert index.releases == find_releases(mirror, {}).releases
    assert render_menus(index.releases, templates=None).keys() == index.menus.keys()

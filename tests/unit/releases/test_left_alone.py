"""What is not ours is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from catalyst_pxeboot.releases.index import PAGE
from catalyst_pxeboot.util.errors import PublishError
from tests.support.mirror import (
    ALL,
    BROKEN,
    MIDDLE,
    NEW,
    contents,
    lose,
    nothing_changes,
    run,
    tree,
)


@pytest.mark.parametrize("name", ["grub.cfg", "menu.ipxe", "pxelinux.cfg/default"])
def test_a_file_of_somebody_else_is_not_replaced(name: str, mirror: Path) -> None:
    (mirror / name).parent.mkdir(exist_ok=True)
    (mirror / name).write_text("mine")
    nothing_changes(
        mirror,
        f"{mirror}/{name}: is not as catalyst-pxeboot wrote it, so it is not replaced;"
        " move it away; for a menu of your own, give a folder of templates",
    )


@pytest.mark.parametrize("how", ["file", "folder", "link", "changed"])
def test_a_page_of_somebody_else_is_left_with_a_warning(
    how: str, mirror: Path, tmp_path: Path
) -> None:
    """A mirror may have its own one, and no client boots by it."""
    page, why = mirror / "index.html", "is not as catalyst-pxeboot wrote it"
    if how == "file":
        page.write_text("mine")
    elif how == "folder":
        page.mkdir()
        why = "is in the way and not a file"
    elif how == "link":
        page.symlink_to(tmp_path / "elsewhere")
        why = "is in the way and not a file"
    else:
        run(mirror)
        page.write_text("mine")
    written = run(mirror)
    assert written.warnings == (f"{page}: {why}; left as it is",)
    assert written.written == tuple(
        name for name in ALL if name == "releases.json" or (how != "changed" and name != PAGE)
    )
    assert PAGE not in json.loads((mirror / "releases.json").read_text())["menus"]
    assert not page.is_file() or page.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()
    # Once it is out of the way, the next change brings the page.
    page.rmdir() if how == "folder" else page.unlink()
    tree(mirror, "more", "amd64", MIDDLE)
    assert PAGE in run(mirror).written


@pytest.mark.parametrize("text", ["{}", "", "[]", '{"generator": {"name": "x"}, "format": 1}'])
def test_a_list_of_somebody_else_is_not_replaced(text: str, mirror: Path) -> None:
    (mirror / "releases.json").write_text(text)
    nothing_changes(
        mirror,
        f"{mirror}/releases.json: is not a list that this catalyst-pxeboot wrote, so nothing is"
        " replaced; move it away, or give another folder",
    )


def test_a_menu_that_somebody_changed_is_not_replaced(mirror: Path) -> None:
    run(mirror)
    with (mirror / "menu.ipxe").open("a") as stream:
        stream.write("# mine\n")
    tree(mirror, "more", "amd64", MIDDLE)
    nothing_changes(
        mirror,
        f"{mirror}/menu.ipxe: is not as catalyst-pxeboot wrote it, so it is not replaced;"
        " move it away; for a menu of your own, give a folder of templates",
    )


def test_a_list_that_names_other_files_is_not_ours(mirror: Path) -> None:
    """What it names may be removed."""
    run(mirror)
    index = json.loads((mirror / "releases.json").read_text())
    index["menus"]["../precious"] = "0" * 64
    (mirror / "releases.json").write_text(json.dumps(index))
    with pytest.raises(PublishError, match="is not a list"):
        run(mirror)


def test_things_in_the_way(mirror: Path) -> None:
    (mirror / "grub.cfg").mkdir()
    nothing_changes(
        mirror,
        f"{mirror}/grub.cfg: is in the way and not a file; move it away, or give another folder",
    )
    (mirror / "grub.cfg").rmdir()
    (mirror / "pxelinux.cfg").write_text("mine")
    nothing_changes(
        mirror,
        f"{mirror}/pxelinux.cfg: is in the way and not a folder;"
        " move it away, or give another folder",
    )


def test_links_are_not_written_through(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (mirror / "pxelinux.cfg").symlink_to(tmp_path / "outside")
    nothing_changes(
        mirror,
        f"{mirror}/pxelinux.cfg: is a link, not a folder; move it away, or give another folder",
    )
    (mirror / "pxelinux.cfg").unlink()
    (mirror / "grub.cfg").symlink_to(tmp_path / "outside/grub.cfg")
    nothing_changes(
        mirror,
        f"{mirror}/grub.cfg: is in the way and not a file; move it away, or give another folder",
    )
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_as_it_would_be_written_is_taken_over(mirror: Path) -> None:
    """releases.json was lost: whole menus need not be moved away."""
    run(mirror)
    before = contents(mirror)
    (mirror / "releases.json").unlink()
    assert run(mirror).written == ("releases.json",)
    assert contents(mirror) == before


def test_where_there_are_no_trees(tmp_path: Path) -> None:
    hint = "give the folder that the netboot trees lie below"
    nothing_changes(tmp_path, f"{tmp_path}: no netboot tree found below it; {hint}")
    nothing_changes(tmp_path / "none", f"{tmp_path}/none: is not a folder; {hint}")
    broken = tree(tmp_path, "tree", "amd64", NEW)
    nothing_changes(broken, f"{broken}: is a netboot tree itself (manifest.json); {hint}")
    lose("boot.ipxe")(broken)
    nothing_changes(
        tmp_path,
        f"{tmp_path}: no netboot tree found below it that is whole"
        f" ({BROKEN['no script'][1].format(broken)}); {hint}",
    )


def test_trees_that_all_vanished_keep_their_menu(mirror: Path) -> None:
    """As when a disk is not mounted."""
    run(mirror)
    shutil.move(mirror / "amd64", mirror.parent)
    shutil.move(mirror / "arm64", mirror.parent)
    nothing_changes(
        mirror,
        f"{mirror}: no netboot tree found below it;"
        " give the folder that the netboot trees lie below",
    )

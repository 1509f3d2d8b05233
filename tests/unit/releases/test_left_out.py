"""Trees that are broken, half or of others are left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.mirror import BROKEN, MIDDLE, NEW, OLD, run, tree
from tests.support.release_trees import make_manifest, write_tree


def test_hidden_folders_and_links_are_passed_over(mirror: Path, tmp_path: Path) -> None:
    tree(mirror, f".{MIDDLE}.staging", "amd64", MIDDLE)
    tree(mirror, f"amd64/.rsync/{MIDDLE}", "amd64", MIDDLE)
    tree(tmp_path, "elsewhere/tree", "amd64", MIDDLE)
    (mirror / "amd64/current").symlink_to(NEW)
    (mirror / "outside").symlink_to(tmp_path / "elsewhere")
    (mirror / "around").symlink_to(".")
    written = run(mirror)
    assert (written.trees, written.read, written.warnings) == (3, 3, ())


def test_a_tree_is_not_looked_into(mirror: Path) -> None:
    tree(mirror / f"amd64/{NEW}", "boot/inner", "amd64", OLD)
    assert run(mirror).trees == 3


def test_another_programs_manifest_is_no_matter(mirror: Path) -> None:
    (mirror / "manifest.json").write_text('{"name": "a web page"}')
    (mirror / "amd64/manifest.json").write_text('["a", "list"]')
    (mirror / "arm64/manifest.json").mkdir()
    written = run(mirror)
    assert (written.trees, written.warnings) == (3, ())


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tree_is_left_out_with_a_warning(case: str, mirror: Path) -> None:
    broken = tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    break_it, text = BROKEN[case]
    break_it(broken)
    for _ in range(2):  # the second time, nothing is new, and the warning is still due
        written = run(mirror)
        (warning,) = written.warnings
        assert warning.startswith(text.format(broken))
        assert written.trees == 3
        assert MIDDLE not in (mirror / "menu.ipxe").read_text()
    assert written.written == ()


@pytest.mark.parametrize("case", ["no script", "half a script", "a link"])
def test_a_tree_that_breaks_later_goes(case: str, mirror: Path, opened: list[str]) -> None:
    """Its manifest is unchanged, and not read; only the files that menus lead to are looked at."""
    run(mirror)
    broken = mirror / f"amd64/{OLD}"
    break_it, text = BROKEN[case]
    break_it(broken)
    opened.clear()
    written = run(mirror)
    assert written.warnings == (text.format(broken),)
    assert written.trees == 2
    assert [name for name in opened if name.endswith("manifest.json")] == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("with space", 'GRUB: the file name "{0}" holds more than letters'),
        ("-amd64", "begins with a hyphen; left out: rename the folder"),
        ("a$b", 'GRUB: the file name "{0}" holds more than letters'),
    ],
)
def test_a_path_that_is_not_safe(name: str, why: str, mirror: Path) -> None:
    tree(mirror, name, "amd64", MIDDLE)
    (warning,) = run(mirror).warnings
    assert warning.startswith(f"{mirror}/{name}: {why.format(name)}")
    assert run(mirror).trees == 3


def test_a_path_that_is_no_text(mirror: Path) -> None:
    folder = os.fsencode(mirror) + b"/a\xff"
    write_tree(Path(os.fsdecode(folder)), make_manifest("amd64", MIDDLE))
    (warning,) = run(mirror).warnings
    assert warning.isprintable()
    assert "a\\udcff" in warning

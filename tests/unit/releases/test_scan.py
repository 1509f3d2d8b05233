"""Which trees are read again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from catalyst_pxeboot.releases.write import MenuWritten, write_menu
from tests.support.mirror import (
    ALL,
    MIDDLE,
    NEW,
    OLD,
    PACKAGE,
    change,
    contents,
    read,
    run,
    times,
    tree,
)


def test_nothing_new_reads_no_manifest_and_touches_no_file(mirror: Path, opened: list[str]) -> None:
    assert run(mirror).read == 3
    before = times(mirror)
    opened.clear()
    assert run(mirror) == MenuWritten(trees=3, read=0, warnings=(), written=())
    assert [name for name in opened if name.endswith("manifest.json")] == []
    assert str(mirror / "releases.json") in opened  # so this does see what is opened
    assert times(mirror) == before


def test_nothing_new_takes_no_template_language(mirror: Path) -> None:
    run(mirror)
    code = (
        "import sys; from pathlib import Path; from catalyst_pxeboot.releases.write import *;"
        f"written = write_menu(Path({str(mirror)!r}), templates=None, report=print);"
        "print(written.written, [name for name in sys.modules if name in"
        " ('jinja2', 'catalyst_pxeboot.model.menu', 'zstandard')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"{mirror}: 3 netboot trees, 0 manifests read", "nothing new", "() []"
    ]  # fmt: skip


def test_only_a_changed_tree_is_read(mirror: Path, opened: list[str]) -> None:
    run(mirror)
    change(
        mirror / f"arm64/{NEW}", lambda manifest: manifest["release"].update(title="Another title")
    )
    opened.clear()
    written = run(mirror)
    assert [name for name in opened if name.endswith("manifest.json")] == [
        str(mirror / f"arm64/{NEW}/manifest.json")
    ]
    # PXELINUX is not for arm64, so that its menu is the same.
    assert (written.read, written.written) == (
        1,
        ("grub.cfg", "index.html", "menu.ipxe", "releases.json"),
    )
    assert "Another title" in (mirror / "menu.ipxe").read_text()


def test_a_tree_built_again_is_read_though_its_manifest_looks_the_same(mirror: Path) -> None:
    """Same size, same time: a build takes both from the squashfs. And perhaps the same inode."""
    run(mirror)
    manifest = mirror / f"arm64/{NEW}/manifest.json"
    info = manifest.stat()
    manifest.write_text(manifest.read_text().replace("Gentoo Linux arm64", "Gentoo Penux arm64"))
    os.utime(manifest, ns=(info.st_atime_ns, info.st_mtime_ns))
    after = manifest.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        info.st_ino, info.st_size, info.st_mtime_ns
    )  # fmt: skip
    assert run(mirror).read == 1
    assert "Gentoo Penux arm64" in (mirror / "grub.cfg").read_text()


def test_new_trees_come_and_removed_ones_go(mirror: Path) -> None:
    run(mirror)
    shutil.rmtree(mirror / f"amd64/{OLD}")
    tree(mirror, f"amd64/{MIDDLE}", "amd64", MIDDLE)
    written = run(mirror)
    assert (written.trees, written.read, written.written) == (3, 1, ALL)
    assert list(read(mirror)) == [f"amd64/{MIDDLE}", f"amd64/{NEW}", f"arm64/{NEW}"]
    assert OLD not in (mirror / "menu.ipxe").read_text()


def test_a_lost_menu_is_written_again(mirror: Path) -> None:
    run(mirror)
    before = contents(mirror)
    (mirror / "grub.cfg").unlink()
    written = run(mirror)
    assert (written.read, written.written) == (0, ("grub.cfg", "releases.json"))
    assert contents(mirror) == before


def test_a_menu_that_no_tree_needs_any_more_goes(mirror: Path) -> None:
    run(mirror)
    shutil.rmtree(mirror / "amd64")
    lines: list[str] = []
    written = write_menu(mirror, templates=None, report=lines.append)
    assert written.written == ("grub.cfg", "index.html", "menu.ipxe", "releases.json")
    assert lines[-1] == f"removed: {mirror}/pxelinux.cfg/default: no tree has it"
    assert contents(mirror).keys() == {"grub.cfg", "index.html", "menu.ipxe", "releases.json"}
    assert run(mirror).written == ()


def test_a_dry_run_writes_nothing(mirror: Path) -> None:
    lines: list[str] = []
    written = write_menu(mirror, templates=None, report=lines.append, dry_run=True)
    assert written == MenuWritten(trees=3, read=3, warnings=(), written=ALL)
    assert lines == [f"{mirror}: 3 netboot trees, 3 manifests read"] + [
        f"would write: {mirror}/{name}" for name in ALL
    ]
    assert contents(mirror) == {}
    run(mirror)
    assert run(mirror, dry_run=True).written == ()

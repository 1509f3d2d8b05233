"""Folders of netboot trees, and what a menu makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import catalyst_pxeboot
from catalyst_pxeboot.releases.write import MenuWritten, write_menu
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.files import list_files
from tests.support.release_trees import make_manifest, write_tree

PACKAGE = Path(catalyst_pxeboot.__file__).parent
ALL = ("grub.cfg", "index.html", "menu.ipxe", "pxelinux.cfg/default", "releases.json")

OLD, MIDDLE, NEW = "20261108T170000Z", "20261115T170000Z", "20261122T170000Z"


def run(root: Path, templates: Path | None = None, *, dry_run: bool = False) -> MenuWritten:
    """Write the menus without a word."""
    return write_menu(root, templates=templates, report=lambda _line: None, dry_run=dry_run)


def tree(root: Path, path: str, *arguments: str, **more: Any) -> Path:
    """Write a tree at `path`."""
    return write_tree(root / path, make_manifest(*arguments, **more))


def change(tree: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a tree's manifest."""
    manifest = json.loads((tree / "manifest.json").read_text())
    edit(manifest)
    (tree / "manifest.json").write_text(json.dumps(manifest))


def contents(root: Path) -> dict[str, bytes]:
    """Return what lies in the root that is no tree's."""
    trees = {path.parent for path in root.rglob("manifest.json")}
    return {
        name: b"" if (root / name).is_symlink() else (root / name).read_bytes()
        for name in list_files(root)
        if not trees & {root / parent for parent in Path(name).parents}
    }


def times(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the files that the menu consists of."""
    found = {name: (root / name).stat() for name in ALL if (root / name).exists()}
    return {name: (info.st_ino, info.st_mtime_ns) for name, info in found.items()}


def read(root: Path) -> dict[str, Any]:
    """Return the releases that releases.json lists, by path."""
    data = json.loads((root / "releases.json").read_text())
    return {release["path"]: release for release in data["releases"]}


def cut(tree: Path) -> None:
    manifest = tree / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:1000])


def resize(name: str) -> Callable[[Path], None]:
    def do(tree: Path) -> None:
        (tree / name).write_bytes(b"half")

    return do


def lose(name: str) -> Callable[[Path], None]:
    return lambda tree: (tree / name).unlink()


def link(name: str) -> Callable[[Path], None]:
    def do(tree: Path) -> None:
        (tree / name).unlink()
        (tree / name).symlink_to("manifest.json")

    return do


def edit(change_release: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda tree: change(tree, change_release)


COPY = "left out: copy or build the tree again, or remove it"
NOT_VALID = "{0}/manifest.json: not a valid manifest"
REBUILD = "left out: build the tree again"
BROKEN: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "cut manifest": (cut, f"{NOT_VALID} (Expecting "),
    "no script": (lose("boot.ipxe"), f"{{0}}: boot.ipxe: No such file or directory; {COPY}"),
    "half a script": (
        resize("boot/grub/grub.cfg"),
        f"{{0}}: boot/grub/grub.cfg has 4 bytes, but 118 in the manifest; {COPY}",
    ),
    "no squashfs": (
        lose("image.squashfs"), f"{{0}}: image.squashfs: No such file or directory; {COPY}"
    ),
    "half a kernel": (
        resize("boot/gentoo"), f"{{0}}: boot/gentoo has 4 bytes, but 16384 in the manifest; {COPY}"
    ),
    "a link": (link("boot.ipxe"), f"{{0}}: boot.ipxe is not a regular file; {COPY}"),
    "a later format": (
        edit(lambda manifest: manifest.update(format=2)),
        "{0}/manifest.json: its format is 2, not 1;"
        " left out: use the version of this program that made the tree",
    ),
    "no entries": (
        edit(lambda manifest: manifest["menu"].update(entries=[])),
        f"{NOT_VALID} (menu.entries: none of them boots the live image); {REBUILD}",
    ),
    "no title": (
        edit(lambda manifest: manifest["release"].update(title=None)),
        f"{NOT_VALID} (release.title: None is not a str); {REBUILD}",
    ),
    "no size": (
        edit(lambda manifest: manifest["files"][0].update(bytes=-1)),
        f"{NOT_VALID} (files[0].bytes: -1 is not a number of 0 or more); {REBUILD}",
    ),
    "an unknown loader": (
        edit(lambda manifest: (
            manifest["loaders"].update(lilo={"missing": []}),
            manifest["menu"]["entries"][0]["kernels"].update(lilo="boot/gentoo"),
        )),  # type: ignore[arg-type]
        f"{NOT_VALID} (menu.entries[0].kernels: 'lilo' is not one of ipxe, pxelinux, grub, uboot,"
        f" uki); {REBUILD}",
    ),
    "an unknown machine": (
        edit(lambda manifest: manifest["kernels"][0].update(machine="ppc64")),
        "{0}: its kernel is for ppc64, which no loader's menu knows;"
        " left out: use the version of this program that made the tree",
    ),
    "a title that iPXE would expand": (
        edit(lambda manifest: manifest["release"].update(title="Gentoo ${shell}")),
        "{0}: iPXE: the title \"Gentoo ${{shell}}\" holds '${{', which iPXE expands and has no"
        " quoting for; left out: write it without, or leave ipxe out of pxeboot/loaders",
    ),
    "a variant with a line break": (
        edit(lambda manifest: manifest["release"].update(rel_type="a\nshell")),
        '{0}: GRUB: the title "a\\nshell" holds a line break or control character;'
        " left out: write it without",
    ),
}  # fmt: skip


def nothing_changes(root: Path, message: str, **arguments: Any) -> None:
    """Run in vain: the message is this one, and nothing in the folder is another."""
    before = contents(root)
    with pytest.raises(PxebootError) as raised:
        run(root, **arguments)
    assert str(raised.value) == message
    assert contents(root) == before
